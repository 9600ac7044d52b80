"""The notebook as a whole, run by a real kernel as a student runs it, with QUICK=1."""

import ast
import re
import shutil
import subprocess
import sys

import conftest
import nbformat
import pytest
from conftest import ANSWERS, CELLS, DRAWN, GENUINE, NAME, WEIGHTS, cells_of, noise_of, printed


def run(drawn, path):
    """A folder with the answers of a whole run, and the notebook after a quick look there."""
    folder = conftest.make_stand_in(path / "Übung 12 – 文字", drawn)
    (folder / ANSWERS).write_text("answers of a whole run")
    if WEIGHTS.exists():
        shutil.copy(WEIGHTS, folder / "data")
    few = f"\nTRAIN, VALIDATION, TEST, SMALL_STEPS, BATCH_SIZE = {[*DRAWN, 2, 8]}"
    read = f"\nprint({{path: read(captioner, path)[0] for path in {[*map(str, GENUINE)]}}})"
    conftest.change(folder, parameters=few, small_world="\nJUDGED = 16", read=read)
    # Such settings of the environment would take another backend, or hide pictures.
    variables = conftest.environment(QUICK="1", KERAS_BACKEND="jax", MPLBACKEND="Agg")
    command = [sys.executable, "-m", "jupyter", "execute", "--output=data/quick_look", NAME]
    done = subprocess.run(command, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    return folder, nbformat.read(folder / "data" / "quick_look.ipynb", as_version=4)


@pytest.fixture(scope="module")
def quick(begun):
    return begun[__name__].result()


def test_runs_to_the_end_and_writes_into_data_alone(quick):
    folder, book = quick
    results = conftest.results_of(book)
    assert results["data"] == "stand-in" and results["images"] == DRAWN
    assert {path.name for path in folder.iterdir()} == {NAME, ANSWERS, "checkpoints", "data"}
    assert (folder / ANSWERS).read_text() == "answers of a whole run"
    conftest.answers_of(folder / "data" / ANSWERS, DRAWN[2])


def test_is_quiet_and_shows_all_pictures(quick):
    book = quick[1]
    cells_of(book)[0].outputs.clear()  # TensorFlow's greeting
    assert noise_of(book) == [] and "Warning" not in printed(book)
    draws = {tag for tag, code in CELLS.items() if re.search("^(plt|figure|show)", code, re.M)}
    pictures = {
        cell.metadata.tags[0]: output.data["text/plain"]
        for cell in cells_of(book)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    }
    assert draws - {*pictures} == set()
    assert not [tag for tag, size in pictures.items() if " 0 Axes" in size]


def test_reads_with_the_recorded_weights(quick):
    """The genuine images are no more than a hint: `pytest -rP` shows what is read."""
    results = conftest.results_of(quick[1])
    assert results["trained_in_this_run"] is not WEIGHTS.exists()
    if WEIGHTS.exists():
        assert 0.98 <= results["validation_word_accuracy_greedy"] <= 1
        assert 0.99 <= results["validation_word_accuracy"] <= 1
        (words,) = re.findall(r"^\{.*\}$", printed(quick[1]), re.MULTILINE)
        print(words)
        wrong = [path for path, word in ast.literal_eval(words).items() if f"-{word}." not in path]
        assert len(wrong) <= 2, wrong
