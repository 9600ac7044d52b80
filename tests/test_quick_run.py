"""The notebook as a whole, run by a real kernel as a student runs it, with QUICK=1."""

import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from conftest import CELLS, WEIGHTS, answers_of, make_folder, noise_of, printed, results_of
from nbclient import NotebookClient

NAME = "Lab12-2_studentID.ipynb"
IMAGES = [960, 160, 160]  # those of `drawn`
TRAINED_AGAIN = "print(len(read_log()), int(captioner.optimizer.iterations) == ROUNDS * ROUND)"


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    """A folder with images as the course's, and the notebook after its run there.

    After its last cell, the training's is run again, in the same kernel.
    """
    folder = make_folder(tmp_path_factory.mktemp("whole") / "Übung 12 – 文字", drawn)
    shutil.copy(WEIGHTS, folder / "data")
    (folder / "Lab12-2_studentID.txt").write_text("answers of a whole run")
    book = nbformat.read(folder / NAME, as_version=4)
    (parameters,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f"\nTRAIN, VALIDATION, TEST = {IMAGES}"
    count = len(book.cells)
    book.cells += map(nbformat.v4.new_code_cell, [CELLS["train"], TRAINED_AGAIN])
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(book, timeout=300, kernel_name="python3", resources=resources)
    environment = os.environ | {"QUICK": "1", "KERAS_BACKEND": "jax"}  # the notebook corrects that
    environment.pop("MPLBACKEND", None)
    client.execute(env=environment)
    again = nbformat.v4.new_notebook(cells=book.cells[count:])
    del book.cells[count:]
    return SimpleNamespace(folder=folder, book=book, again=again)


def test_runs_to_the_end(run):
    assert noise_of(run.book) == [] and "Warning" not in printed(run.book)
    results = results_of(run.book)
    assert results["data"] == "course" and results["trained_in_this_run"] is True
    assert results["images"] == IMAGES
    assert 0 < results["training_minutes"] < results["notebook_minutes"] < 5


def test_reads_with_the_recorded_weights(run):
    """They are the notebook's network's, and what is read with them is right."""
    assert "From here on: the weights of" in printed(run.book)
    results = results_of(run.book)
    assert 0.95 <= results["validation_word_accuracy_greedy"] <= 1
    assert 0.98 <= results["validation_word_accuracy"] <= 1


def test_writes_into_data_alone(run):
    """And no file but the answers and the training's; a whole run's answers are not replaced."""
    assert (run.folder / "Lab12-2_studentID.txt").read_text() == "answers of a whole run"
    assert len(answers_of(run.folder / "data" / "Lab12-2_studentID.txt", 120_000, 160)) == 160
    names = {path.name for path in run.folder.iterdir()}
    assert names == {NAME, "Lab12-2_studentID.txt", "checkpoints", "data"}
    names = {path.name for path in (run.folder / "data").iterdir()}
    assert names == {"Lab12-2_studentID.txt", WEIGHTS.name, "words_captcha"}
    assert len(list((run.folder / "data" / "words_captcha").iterdir())) == 1281


def test_training_again_trains_nothing(run):
    assert noise_of(run.again) == []
    assert re.search(r"^2 True$", printed(run.again), re.MULTILINE)


def test_becomes_a_script(run):
    """As JupyterLab's menu makes it: a file of its own, not one with the answers' name."""
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "script", NAME]
    subprocess.run(command, cwd=run.folder, check=True, capture_output=True)
    script = (run.folder / NAME).with_suffix(".py")
    compile(script.read_text(encoding="utf-8"), NAME, "exec")
    assert (run.folder / "Lab12-2_studentID.txt").read_text() == "answers of a whole run"
    script.unlink()
