"""What the tests share: the notebook's cells by their tags, and folders to run it in."""

import json
import linecache
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "data" / "recorded.weights.h5"
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


CELLS = {cell["metadata"]["tags"][0]: cell["source"] for cell in cells_of(load_notebook())}


def tags(first, last):
    """The tags of the code cells from `first` to `last`, both included."""
    names = list(CELLS)
    return names[names.index(first) : names.index(last) + 1]


def run_cells(target, *names):
    """Runs whole cells, by their tags, in a module or a dictionary of names; closes figures.

    Tracebacks and TensorFlow's autograph find their lines.
    """
    names_there = target if isinstance(target, dict) else vars(target)
    for tag in names:
        code, file = CELLS[tag], f"<cell {tag}>"
        linecache.cache[file] = len(code), None, code.splitlines(keepends=True), file
        exec(compile(code, file, "exec"), names_there)
    if "plt" in names_there:
        names_there["plt"].close("all")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder of 12 training, 8 validation and 8 test images of full size, with labels."""
    images = tmp_path_factory.mktemp("tiny") / "words_captcha"
    images.mkdir()
    for index in (*range(12), *range(100_000, 100_008), *range(120_000, 120_008)):
        stand_in.draw(index)[0].save(images / f"a{index}.png", compress_level=1)
    (images / LABELS).write_text(stand_in.labels_text(), encoding="ascii")
    return images


@pytest.fixture(scope="session")
def module(tiny, tmp_path_factory):
    """A module in which all cells before the training ran on `tiny`, in float32."""
    made = sys.modules["notebook"] = ModuleType("notebook")
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("module"))
    try:
        run_cells(made, "imports", "parameters")
        made.FOLDER, made.QUICK = str(tiny.parent), True
        made.TRAIN, made.VALIDATION, made.TEST, made.BATCH_SIZE = 12, 8, 8, 8
        run_cells(made, *tags("derived", "precision"))
        made.keras.config.set_dtype_policy("float32")
        run_cells(made, *tags("residual_block", "log_round"))
    finally:
        os.chdir(before)
    return made


@pytest.fixture
def notebook(module, tmp_path, monkeypatch):
    """The notebook's names in an empty folder, seeded; what a test sets there is undone.

    Its images are those of `tiny`. Later cells are run by their tags.
    """
    monkeypatch.chdir(tmp_path)
    before = dict(vars(module))
    module.keras.config.set_dtype_policy("float32")
    module.keras.utils.set_random_seed(1)
    yield module
    vars(module).clear()
    vars(module).update(before)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder of 960 training, 160 validation and 160 test images, drawn by the script."""
    images = tmp_path_factory.mktemp("drawn") / "words_captcha"
    command = [sys.executable, ROOT / "data" / "stand_in.py", "960", "160", "160"]
    subprocess.run([*command, "--folder", images], check=True, capture_output=True)
    return images


def make_folder(folder, images=None):
    """A folder that holds the notebook and, if any are given, images that count as the course's."""
    (folder / "data").mkdir(parents=True)
    shutil.copy(find_notebook(), folder / "Lab12-2_studentID.ipynb")
    if images:
        shutil.copytree(images, folder / "data" / "words_captcha", copy_function=os.link)
    return folder


@pytest.fixture(scope="session")
def results():
    """The results that the notebook shows."""
    return results_of(load_notebook())
