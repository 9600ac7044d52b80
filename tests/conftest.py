"""What the tests share: the notebook's cells and definitions, and folders to run it in."""

import ast
import functools
import json
import linecache
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "tests" / "recorded.weights.h5"
LABELS = "spec_train_val.txt"
sys.path.insert(0, str(ROOT / "data"))  # worker processes import the module as well

import stand_in  # noqa: E402


def find_notebook():
    """The path of the notebook: $NOTEBOOK, or the one that lies at the top level."""
    if path := os.environ.get("NOTEBOOK"):
        return Path(path)
    (path,) = ROOT.glob("Lab12-2_*.ipynb")
    return path


def load_notebook():
    """The notebook's content, each source as one string."""
    content = json.loads(find_notebook().read_text(encoding="utf-8"))
    for cell in content["cells"]:
        cell["source"] = "".join(cell["source"])
    return content


def cells_of(content, kind="code"):
    """The cells of one kind."""
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def outputs_of(content):
    """All outputs of the code cells."""
    return [output for cell in cells_of(content) for output in cell["outputs"]]


def printed(content):
    """All that the code cells have printed."""
    return "\n".join("".join(output.get("text", "")) for output in outputs_of(content))


def noise_of(content):
    """The outputs that are errors or come from the error stream."""
    noise = {"error", "stderr"}
    return [o for o in outputs_of(content) if noise & {o["output_type"], o.get("name")}]


def results_of(content):
    """What the last code cell has printed, as a dictionary."""
    text = "".join("".join(output.get("text", "")) for output in cells_of(content)[-1]["outputs"])
    assert text, "The notebook holds no recorded run."
    return json.loads(text)


def answers_of(path, first, count):
    """The words of an answer file, after a check of every line."""
    content = path.read_bytes()
    assert content.endswith(b"\n") and b"\r" not in content
    pairs = [line.split(" ") for line in content.decode("ascii").splitlines()]
    assert [pair[0] for pair in pairs] == [f"a{index}" for index in range(first, first + count)]
    words = [word for _, word in pairs]
    assert all(word.isalpha() and word.islower() for word in words)
    return words


SOURCES = [cell["source"] for cell in cells_of(load_notebook())]


def cell_with(text):
    """The number of the one code cell that holds a text."""
    (number,) = [number for number, code in enumerate(SOURCES) if text in code]
    return number


def run_code(module, name, code, kinds=ast.stmt):
    """Runs a cell's statements of some kinds; tracebacks and TensorFlow find its lines."""
    linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name
    tree = ast.parse(code)
    tree.body = [node for node in tree.body if isinstance(node, kinds)]
    exec(compile(tree, name, "exec"), vars(module))


def run_cells(module, first, last=None):
    """Runs the cells from the one that holds the text `first` up to that with `last`, or it alone.

    Figures are closed.
    """
    for number in range(cell_with(first), cell_with(last or first) + 1):
        run_code(module, f"<cell {number}>", SOURCES[number])
    module.plt.close("all")


@functools.cache
def definitions():
    """A module of the notebook's imports, settings, functions and classes, for one CPU device.

    It computes in float32 and shows no progress. The cells that do more than define are not run.
    """
    module = sys.modules["notebook"] = ModuleType("notebook")
    for number, code in enumerate(SOURCES):
        kinds = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
        if number <= cell_with("STUDENT_ID = ") or number == cell_with("import tensorflow"):
            kinds = ast.stmt
        run_code(module, f"<definitions of cell {number}>", code, kinds)
    handle = SimpleNamespace(update=lambda *args, **options: None)
    module.display = lambda *args, **options: handle
    module.STRATEGY = module.tf.distribute.get_strategy()
    module.keras.config.set_dtype_policy("float32")
    return module


def set_up(module, words, **settings):
    """Sets what the cells between the definitions set for these words."""
    vars(module).update({"words": list(words), **settings})
    run_cells(module, "LONGEST = max(")
    module.tokens = module.tokenize(module.words)
    return module


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """The notebook's definitions in an empty folder; what a test sets there is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    defined = definitions()
    before = dict(vars(defined))
    defined.keras.utils.set_random_seed(1)
    yield set_up(defined, stand_in.words())
    vars(defined).clear()
    vars(defined).update(before)


def small_encoder(notebook):
    """An encoder of one layer, for images of a few pixels."""
    image = notebook.layers.Input((None, None, 3))
    x = notebook.layers.Rescaling(1 / 255)(image)
    return notebook.keras.Model(image, notebook.StandardizedConv(16, strides=2)(x), name="encoder")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder of as many images as QUICK=1 needs, drawn once, with their labels."""
    images = tmp_path_factory.mktemp("drawn") / "words_captcha"
    assert len(list(stand_in.make(images, (2_000, 600, 600)))) == 3_200
    return images


def make_folder(folder, images=None):
    """A folder that holds the notebook and, if any are given, images with labels.

    They do not say that they are drawn, so they count as the course's.
    """
    (folder / "data").mkdir(parents=True)
    shutil.copy(find_notebook(), folder / "Lab12-2_studentID.ipynb")
    if images:
        target, marker = folder / "data" / images.name, shutil.ignore_patterns("stand_in.json")
        shutil.copytree(images, target, ignore=marker, copy_function=os.link)
    return folder


@pytest.fixture(scope="session")
def results():
    """The results that the notebook shows."""
    return results_of(load_notebook())
