"""What the tests share: the notebook's cells by their tags, and folders to run it in."""

import ast
import contextlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("MPLBACKEND", "Agg")
ROOT = Path(__file__).resolve().parents[1]
NAME, LABELS = "Lab12-2_studentID.ipynb", "spec_train_val.txt"
ANSWERS, WEIGHTS = "Lab12-2_studentID.txt", ROOT / "data" / "recorded.npz"
REFERENCE = ROOT.parent / "shared" / "reference"  # genuine images and labels, if they are there
GENUINE = sorted(REFERENCE.glob("[as]*.png"))
DRAWN = [24, 100, 16]  # training, validation and test images that the stand-in draws
WORDS = ["thus", "www", "tied", "ids", "jam", "zoo", "apple", "big"]  # of the images of noise
sys.path.insert(0, str(ROOT / "data"))  # for prepare and stand_in


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
    """What the last code cell shows, as a dictionary."""
    return ast.literal_eval(cells_of(content)[-1]["outputs"][-1]["data"]["text/plain"])


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
    """Runs whole cells, by their tags, without the lines that only Jupyter understands."""
    for tag in names:
        source = re.sub("^%.*", "", CELLS[tag], flags=re.MULTILINE)
        exec(compile(source, f"<cell {tag}>", "exec"), vars(module))
    if "plt" in vars(module):
        module.plt.close("all")


def run_beginning(last, **settings):
    """A module in which the cells up to `last` ran, with settings set as by a student.

    TensorFlow runs without tracing, and takes the processor for three devices.
    """
    module = ModuleType("notebook")
    run_cells(module, "imports", "parameters")
    vars(module).update(settings)
    config = module.tf.config
    config.run_functions_eagerly(True)
    config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    three = [config.LogicalDeviceConfiguration()] * 3
    config.set_logical_device_configuration(config.list_physical_devices("CPU")[0], three)
    run_cells(module, *tags("derived", last))
    return module


def noise():
    """Eight images, 32×60 pixels, uint8; the levels of image i are 20 i to 20 i + 19."""
    levels = np.random.default_rng(5).integers(20, size=(8, 32, 60, 3))
    return (levels + 20 * np.arange(8)[:, None, None, None]).astype("uint8")


def write_labels(path, words):
    lines = [f"a{index} {words[index % len(words)]}\n" for index in range(120_000)]
    path.write_text("".join(lines), encoding="utf-8")


def lay_noise(folder, words=WORDS):
    """A folder of 24 images of noise, eight for each part of the data, and labels for them."""
    folder.mkdir(parents=True)
    for index, pixels in enumerate(noise()):
        for first in (0, 100_000, 120_000):
            Image.fromarray(pixels).save(folder / f"a{first + index}.png")
    write_labels(folder / LABELS, words)


def make_stand_in(folder, images):
    """A folder that holds the notebook, its scripts, and drawn images as the stand-in's."""
    data = folder / "data"
    shutil.copytree(ROOT / "data" / "fonts", data / "fonts")
    for path in [*ROOT.glob("data/*.py"), ROOT / "data" / "words.txt"]:
        shutil.copy(path, data)
    shutil.copy(find_notebook(), folder / NAME)
    shutil.copytree(images, data / "stand_in", copy_function=os.link)
    return folder


def change(folder, last="results", without=(), **added):
    """Adds code to cells of a folder's notebook, by tag, and leaves out those after `last`."""
    book = load_notebook()
    used = {*tags("imports", last)}.difference(without)
    book.cells = [cell for cell in cells_of(book) if cell.metadata.tags[0] in used]
    for cell in book.cells:
        cell.outputs = []
        cell.source += added.get(cell.metadata.tags[0], "")
    nbformat.write(book, folder / NAME)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder of DRAWN images, drawn by the script."""
    images = tmp_path_factory.mktemp("drawn") / "words_captcha"
    command = [sys.executable, ROOT / "data" / "stand_in.py", *map(str, DRAWN)]
    subprocess.run([*command, "--folder", images], check=True, capture_output=True)
    return images


def pytest_collection_modifyitems(items):
    """The tests of files with a function `run`, which take long to wait for, come last."""
    items.sort(key=lambda item: hasattr(item.module, "run"))


@pytest.fixture(scope="session", autouse=True)
def begun(request, tmp_path_factory):
    """By file: the future of what its `run` returns, which goes on while other tests run."""
    files = dict.fromkeys(i.module for i in request.session.items if hasattr(i.module, "run"))
    drawn = request.getfixturevalue("drawn") if files else None
    make = tmp_path_factory.mktemp
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield {f.__name__: pool.submit(f.run, drawn, make(f.__name__)) for f in files}


@pytest.fixture(scope="session")
def module(tmp_path_factory):
    """The notebook's names up to the training, with few images of noise."""
    folder = tmp_path_factory.mktemp("module") / "noise"
    lay_noise(folder)
    with contextlib.chdir(folder.parent):
        few = {"TRAIN": 8, "VALIDATION": 8, "TEST": 8, "BATCH_SIZE": 8}
        module = run_beginning("loss", FOLDER=str(folder), **few)
        run_cells(module, *tags("orthogonalize", "watch"), *tags("augment", "save_round"))
    return module


@pytest.fixture
def notebook(module, tmp_path, monkeypatch):
    """The notebook's names in an empty folder, seeded; what a test sets there is undone."""
    monkeypatch.chdir(tmp_path)
    before = dict(vars(module))
    module.tf.config.run_functions_eagerly(True)
    module.keras.config.set_dtype_policy("float32")
    module.keras.utils.set_random_seed(1)
    yield module
    vars(module).clear()
    vars(module).update(before)
