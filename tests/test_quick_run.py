"""The notebook in empty folders, run through a real kernel as a student runs it, with QUICK=1."""

import os
import shutil
import zipfile

import nbformat
import pytest
import stand_in
from conftest import LABELS, ROOT, answers_of, make_folder, noise_of, printed, results_of
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

LAST_OF_DATA = "detokenize(tokens[2:3])"  # in the cell that tries the tokenizer


def execute(folder, parameters="", last=None, first=""):
    """Runs the notebook of a folder; returns it as run, up to the first error if there is one.

    `parameters` are set in a cell of their own after the tagged one, as papermill does it; the
    cells after the one that holds the text `last` are left out; `first` is run before all others.
    """
    path = folder / "Lab12-2_studentID.ipynb"
    book = nbformat.read(path, as_version=4)
    (at,) = [i for i, c in enumerate(book.cells) if "parameters" in c.metadata.get("tags", [])]
    if last:
        (end,) = [i for i, cell in enumerate(book.cells) if last in cell.source]
        del book.cells[end + 1 :]
    book.cells.insert(at + 1, nbformat.v4.new_code_cell(parameters))
    book.cells.insert(0, nbformat.v4.new_code_cell(first))
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(book, timeout=600, kernel_name="python3", resources=resources)
    environment = os.environ | {"QUICK": "1", "KERAS_BACKEND": "jax"}  # the notebook corrects that
    environment.pop("MPLBACKEND", None)
    try:
        client.execute(env=environment)
    except CellExecutionError:
        assert noise_of(book)
    return book


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory):
    """A folder that holds the notebook, and images and labels that count as the course's."""
    return make_folder(tmp_path_factory.mktemp("whole") / "Übung 12 – 文字", drawn)


@pytest.fixture(scope="module")
def first(folder):
    """The notebook after its first run there."""
    return execute(folder)


def test_runs_to_the_end(folder, first):
    assert noise_of(first) == []
    text = printed(first)
    assert "The images in data/words_captcha are the course's." in text
    for name in ("attention", "Seq2Seq", "NIC", "mRNN"):
        assert f"\n{name} " in text, name
    results = results_of(first)
    assert results["data"] == "course" and results["trained_in_this_run"] is True
    assert results["images"] == {"train": 2000, "validation": 600, "test": 600}
    assert 0 <= results["validation_word_accuracy_greedy"] <= 1
    assert 0 <= results["validation_word_accuracy"] <= 1
    assert 0 < results["training_minutes"] < results["notebook_minutes"] < 12
    assert len(answers_of(folder / "data" / "Lab12-2_studentID.txt", 2600, 600)) == 600
    names = {"Lab12-2_studentID.ipynb", "checkpoints", "data"}
    assert {path.name for path in folder.iterdir()} == names
    assert len(list((folder / "data" / "words_captcha").iterdir())) == 3201


def test_second_run_loads_the_training(folder, first):
    """In the same folder, by another student."""
    second = execute(folder, 'STUDENT_ID = "x1"\nCOMPARE_SYSTEMS = False')
    assert noise_of(second) == []
    (line,) = [line for line in printed(second).splitlines() if "come from" in line]
    assert line.startswith("2 of 2 rounds come from checkpoints/course-")
    assert line.endswith("Delete it to train them again.")
    before, after = results_of(first), results_of(second)
    assert after["trained_in_this_run"] is False
    for name in ("validation_word_accuracy", "validation_word_accuracy_greedy", "epochs"):
        assert after[name] == before[name], name
    answers = [folder / "data" / f"Lab12-2_{name}.txt" for name in ("studentID", "x1")]
    assert answers[0].read_bytes() == answers[1].read_bytes()


def test_unpacks_the_course_archive(drawn, tmp_path):
    """In the archive's layout: all files in one folder."""
    folder = make_folder(tmp_path / "run")
    with zipfile.ZipFile(folder / "data" / "words_captcha.zip", "w") as file:
        for path in drawn.iterdir():
            if path.name != "stand_in.json":
                file.write(path, f"words_captcha/{path.name}")
    book = execute(folder, 'STUDENT_ID = "x1"', last=LAST_OF_DATA)
    assert noise_of(book) == []
    assert "The images in data/words_captcha are the course's." in printed(book)
    assert " ".join(stand_in.word_of(index, 2) for index in range(11)) in printed(book)
    unpacked = folder / "data" / "words_captcha"
    assert (unpacked / "a99.png").read_bytes() == (drawn / "a99.png").read_bytes()
    assert {path.suffix for path in (folder / "data").iterdir()} == {"", ".zip"}


def test_draws_the_stand_in_if_there_are_no_images(tmp_path):
    """With the script there, and as few images as a test needs."""
    folder = make_folder(tmp_path / "run")
    others = shutil.ignore_patterns("words_captcha*", "quick", "__pycache__")
    shutil.copytree(ROOT / "data", folder / "data", ignore=others, dirs_exist_ok=True)
    book = execute(folder, "TRAIN, VALIDATION, TEST = 8, 4, 4", last=LAST_OF_DATA)
    assert noise_of(book) == []
    assert "The images in data/quick are NOT the course's." in printed(book)
    images = folder / "data" / "quick"
    assert (images / LABELS).read_text() == stand_in.labels_text(12, 2)
    assert len(list(images.glob("a*.png"))) == 16


def test_says_where_to_put_the_archive(tmp_path):
    """One line, if there are neither images nor the script."""
    book = execute(make_folder(tmp_path / "run"), last=LAST_OF_DATA)
    (error,) = noise_of(book)
    assert error["evalue"] == "There are no images. Put words_captcha.zip into data/."


def test_names_the_keras_that_is_needed(tmp_path):
    """One line, in the first cell."""
    older = "import importlib.metadata\nimportlib.metadata.version = lambda name: '3.8.0'"
    book = execute(make_folder(tmp_path / "run"), last=LAST_OF_DATA, first=older)
    (error,) = noise_of(book)
    assert error["evalue"] == "Keras 3.8.0 is too old. Run: pip install -U 'keras>=3.13'"
