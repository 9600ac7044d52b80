"""What the tests share: the notebook's cells by their tags, and folders to run it in."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "data" / "recorded.weights.h5"
NAME, LABELS = "Lab12-2_studentID.ipynb", "spec_train_val.txt"
sys.path.insert(0, str(ROOT / "data"))  # for stand_in


def find_notebook():
    """The path of the notebook: $NOTEBOOK, or the one that lies at the top level."""
    if path := os.environ.get("NOTEBOOK"):
        return Path(path)
    (path,) = ROOT.glob("Lab12-2_*.ipynb")
    return path


def load_notebook():
    return nbformat.read(find_notebook(), as_version=4)


def environment(**more):
    return {k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | more


def cells_of(content, kind="code"):
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def outputs_of(content):
    return [output for cell in cells_of(content) for output in cell["outputs"]]


def printed(content):
    """All that the code cells have printed."""
    return "\n".join(output.get("text", "") for output in outputs_of(content))


def noise_of(content):
    """The outputs that are errors or come from the error stream."""
    noise = {"error", "stderr"}
    return [o for o in outputs_of(content) if noise & {o["output_type"], o.get("name")}]


def results_of(content):
    """What the last code cell has printed, as a dictionary."""
    text = "".join(output.get("text", "") for output in cells_of(content)[-1]["outputs"])
    assert text, "The notebook holds no recorded run."
    return json.loads(text)


def answers_of(path, count):
    """The words of an answer file, after a check of every line."""
    text = path.read_bytes().decode("ascii")
    words = re.findall(r"^a\d+ ([a-z]+)$", text, re.MULTILINE)
    assert text == "".join(f"a{120_000 + i} {word}\n" for i, word in enumerate(words))
    assert len(words) == count
    return words


CELLS = {cell["metadata"]["tags"][0]: cell["source"] for cell in cells_of(load_notebook())}


def tags(first, last):
    """The tags of the code cells from `first` to `last`, both included."""
    names = list(CELLS)
    return names[names.index(first) : names.index(last) + 1]


def run_cells(module, *names):
    """Runs whole cells, by their tags."""
    for tag in names:
        exec(compile(CELLS[tag], f"<cell {tag}>", "exec"), vars(module))
    if "plt" in vars(module):
        module.plt.close("all")


def run_beginning(last, **settings):
    """A module in which the cells up to `last` ran, with settings set as by a student."""
    module = ModuleType("notebook")
    run_cells(module, "imports", "parameters")
    vars(module).update(settings)
    run_cells(module, *tags("derived", last))
    return module


def define_all(images):
    """A module in which what stands before the training is defined, with few images, in float32."""
    few = {"TRAIN": 12, "VALIDATION": 8, "TEST": 8, "BATCH_SIZE": 8}
    module = run_beginning("precision", FOLDER=str(images), QUICK=True, **few)
    module.keras.config.set_dtype_policy("float32")
    run_cells(module, *tags("tokenizer", "log_round"))
    return module


def make_folder(folder, images):
    """A folder that holds the notebook, and images that count as the course's."""
    (folder / "data").mkdir(parents=True)
    shutil.copy(find_notebook(), folder / NAME)
    shutil.copytree(images, folder / "data" / "words_captcha", copy_function=os.link)
    return folder


def change(folder, last="results", **added):
    """Adds code to cells of a folder's notebook, by tag, and leaves out those after `last`."""
    book = load_notebook()
    for cell in cells_of(book):
        cell.outputs = []
        cell.source += added.get(cell.metadata.tags[0], "")
    (end,) = [i for i, cell in enumerate(book.cells) if cell.metadata.get("tags") == [last]]
    del book.cells[end + 1 :]
    nbformat.write(book, folder / NAME)
    return book


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder of 192 training, 100 validation and 16 test images, drawn by the script."""
    images = tmp_path_factory.mktemp("drawn") / "words_captcha"
    command = [sys.executable, ROOT / "data" / "stand_in.py", "192", "100", "16"]
    subprocess.run([*command, "--folder", images], check=True, capture_output=True)
    return images


@pytest.fixture(scope="session")
def module(drawn, tmp_path_factory):
    with contextlib.chdir(tmp_path_factory.mktemp("module")):
        return define_all(drawn)


@pytest.fixture
def notebook(module, tmp_path, monkeypatch):
    """The notebook's names in an empty folder, seeded; what a test sets there is undone."""
    monkeypatch.chdir(tmp_path)
    before = dict(vars(module))
    module.keras.config.set_dtype_policy("float32")
    module.keras.utils.set_random_seed(1)
    yield module
    vars(module).clear()
    vars(module).update(before)
