"""The notebook as a whole, run by a real kernel as a student runs it, with QUICK=1."""

import re
import shutil

import conftest
from conftest import CELLS, ROOT, cells_of, noise_of, printed
from nbclient import NotebookClient

IMAGES = [192, 100, 16]  # those of `drawn`
WEIGHTS = ROOT / "data" / "recorded.npz"
ANSWERS = "Lab12-2_studentID.txt"
SETTINGS = f"\nTRAIN, VALIDATION, TEST, SMALL_STEPS = {[*IMAGES, 2]}"


def test_runs_to_the_end_and_writes_into_data_alone(drawn, tmp_path):
    """With settings of the environment that would hide pictures or take another backend."""
    folder = conftest.make_stand_in(tmp_path / "Übung 12 – 文字", drawn)
    (folder / ANSWERS).write_text("answers of a whole run")
    if WEIGHTS.exists():
        shutil.copy(WEIGHTS, folder / "data")
    before = {*folder.rglob("*")}
    book = conftest.change(folder, parameters=SETTINGS)
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(book, timeout=300, kernel_name="python3", resources=place)
    client.execute(env=conftest.environment(QUICK="1", KERAS_BACKEND="jax", MPLBACKEND="Agg"))

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
    assert {path.relative_to(folder).parts[0] for path in {*folder.rglob("*")} - before} == {
        "checkpoints",
        "data",
    }
    assert (folder / ANSWERS).read_text() == "answers of a whole run"
    conftest.answers_of(folder / "data" / ANSWERS, 16)
    results = conftest.results_of(book)
    assert results["data"] == "stand-in" and results["images"] == IMAGES
    assert results["trained_in_this_run"] is not WEIGHTS.exists()
    if WEIGHTS.exists():
        assert 0.98 <= results["validation_word_accuracy_greedy"] <= 1
        assert 0.98 <= results["validation_word_accuracy"] <= 1
