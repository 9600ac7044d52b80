"""What the tests share: the notebook's own definitions, and the figures of its recorded run."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "Lab12-2_studentID.ipynb"
ANSWERS = NOTEBOOK.with_suffix(".txt")
LABELS = ROOT / "spec_train_val.txt"
WEIGHTS = ROOT / "tests" / "recorded.weights.h5"
STAND_IN_SEED = 2  # of the recorded run's images


def import_file(name, path):
    """Runs a Python file as the module `name`."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def cells_of(path, kind="code", tag=None):
    """The cells of a notebook that are of a kind and, if one is given, have a tag."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if tag is None or tag in cell["metadata"].get("tags", [])]
    return [cell for cell in tagged if cell["cell_type"] == kind]


def source(cell):
    """The text of a cell."""
    return "".join(cell["source"])


def cell_with(text):
    """The source of the notebook's one code cell that holds a text."""
    (cell,) = [cell for cell in map(source, cells_of(NOTEBOOK)) if text in cell]
    return cell


def outputs_of(path):
    """All outputs of a notebook's code cells."""
    return [output for cell in cells_of(path) for output in cell["outputs"]]


def execution_counts(path):
    """In which order a notebook's code cells were run; 1, 2, 3, … after one whole run."""
    return [cell["execution_count"] for cell in cells_of(path)]


def noise_of(path):
    """The outputs of a notebook that are errors or come from the error stream."""
    return [
        output
        for output in outputs_of(path)
        if output["output_type"] == "error" or output.get("name") == "stderr"
    ]


def results_of(path):
    """What the `results` cell of a notebook has printed; None if it has not been run."""
    (cell,) = cells_of(path, tag="results")
    text = "".join("".join(output.get("text", "")) for output in cell["outputs"])
    return json.loads(text) if text else None


def answers_of(path, first, count):
    """The words of an answer file, after a check of every line."""
    content = path.read_bytes()
    assert content.endswith(b"\n") and b"\r" not in content
    pairs = [line.split(" ") for line in content.decode("ascii").splitlines()]
    assert [pair[0] for pair in pairs] == [f"a{index}" for index in range(first, first + count)]
    words = [word for _, word in pairs]
    assert all(word.isalpha() and word.islower() for word in words)
    return words


def figures(results, test_word_accuracy):
    """Each figure of a run as README and abstract write it, by its name in the results."""
    shares = ["validation_word_accuracy", "validation_word_accuracy_greedy"]
    shares += ["validation_character_error_rate"]
    counts = ["parameters", "training_images_per_second", "prediction_images_per_second"]
    return (
        {
            name: str(value)
            for name, value in results.items()
            if isinstance(value, str | float | int)
        }
        | {name: f"{results[name]:.2%}".replace("%", " %") for name in shares}
        | {name: f"{results[name]:,}" for name in counts}
        | results["versions"]
        | {"test_word_accuracy": f"{test_word_accuracy:.2%}".replace("%", " %")}
    )


def random_images(count, height=8, width=16):
    """Coloured noise: uint8, (count, height, width, 3)."""
    return np.random.default_rng(5).integers(256, size=(count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def stand_in():
    """The module data/stand_in.py."""
    return import_file("stand_in", ROOT / "data" / "stand_in.py")


def definitions_text():
    """The source of the notebook's imports, its settings, and all its definitions."""
    cells = cells_of(NOTEBOOK)
    cells = cells[: cells.index(cells_of(NOTEBOOK, tag="parameters")[0]) + 1]  # imports, settings
    return "\n\n".join(map(source, [*cells, *cells_of(NOTEBOOK, tag="definition")]))


def import_definitions(folder):
    """A module of `definitions_text`, with the settings for QUICK=1."""
    path = folder / "notebook.py"
    path.write_text(definitions_text(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "QUICK", "1")
        return import_file("notebook", path)


def write_script(path, *parts):
    """Writes a program: the notebook's definitions, and then some more code."""
    path.write_text("\n\n".join([definitions_text(), *parts]), encoding="utf-8")
    return path


def run_script(script, *arguments):
    """Runs a program in its folder, to the end or until it is killed."""
    command = [sys.executable, script, *arguments]
    options = {"cwd": script.parent, "capture_output": True, "check": False}
    return subprocess.run(command, timeout=300, **options)


def copy_project(folder):
    """Copies the notebook and `data/` as they come, without anything that a run has made."""
    made_by_a_run = shutil.ignore_patterns("words_captcha*", "quick", "cache", "__pycache__")
    shutil.copytree(ROOT / "data", folder / "data", ignore=made_by_a_run)
    shutil.copy(NOTEBOOK, folder)
    return folder


def make_training_folder(folder):
    """A cache of 52 random images of 8×16 pixels, and labels for 48 of them."""
    folder.mkdir()
    (folder / "cache.uint8").write_bytes(random_images(52).tobytes())
    lines = LABELS.read_text(encoding="ascii").splitlines(keepends=True)
    (folder / "labels.txt").write_text("".join(lines[:48]), encoding="ascii")


@pytest.fixture(scope="session")
def definitions(tmp_path_factory):
    """The module of `import_definitions`."""
    return import_definitions(tmp_path_factory.mktemp("definitions"))


def globals_for(definitions, words):
    """The globals that the notebook's other cells set for images of these words, by name."""
    longest = max(map(len, words))
    tokenizer = definitions.make_tokenizer(longest)
    return {
        "STEPS": longest + 1,
        "VOCABULARY": tokenizer.vocabulary_size(),
        "START": tokenizer.get_vocabulary().index("<start>"),
        "STRATEGY": definitions.tf.distribute.get_strategy(),
        "tokenizer": tokenizer,
        # what a notebook shows is of no interest here
        "display": lambda *args, **options: SimpleNamespace(update=lambda *args, **options: None),
    }


def new_captioner(notebook):
    """An untrained captioner whose weights are built, for images of the notebook's size."""
    captioner = notebook.Captioner()
    blank = np.zeros((1, notebook.HEIGHT, notebook.WIDTH, 3), np.uint8)
    captioner((blank, np.zeros((1, notebook.STEPS), "int32")))
    return captioner


@pytest.fixture
def notebook(definitions, stand_in, tmp_path, monkeypatch):
    """The definitions, with the globals that the notebook's other cells set; computes in float32.

    Whatever a test changes in the module with `monkeypatch` is put back after it.
    """
    values = globals_for(definitions, stand_in.words()) | {
        "CACHE": tmp_path / "cache" / "images.uint8",
        "TOTAL": definitions.TRAIN + definitions.VALIDATION + definitions.TEST,
    }
    for name, value in values.items():
        monkeypatch.setattr(definitions, name, value, raising=False)
    policy = definitions.keras.config.dtype_policy()
    definitions.keras.config.set_dtype_policy("float32")
    definitions.keras.utils.set_random_seed(1)
    yield definitions
    definitions.keras.config.set_dtype_policy(policy)


@pytest.fixture
def tiny(notebook, monkeypatch):
    """The notebook with images of 8×16 pixels and an encoder that suits them."""

    def build_encoder():
        image = notebook.layers.Input((None, None, 3))
        x = notebook.layers.Rescaling(1 / 255)(image)
        return notebook.keras.Model(
            image, notebook.StandardizedConv(16, strides=2)(x), name="encoder"
        )

    for name, value in {"HEIGHT": 8, "WIDTH": 16, "build_encoder": build_encoder}.items():
        monkeypatch.setattr(notebook, name, value)
    return notebook


@pytest.fixture
def cached(tiny, stand_in, monkeypatch):
    """The tiny notebook with a cache of 36 random images, 24 of them to train on, in 3 epochs."""
    sizes = {"TRAIN": 24, "VALIDATION": 8, "TEST": 4, "TOTAL": 36, "BATCH_SIZE": 5, "EPOCHS": 3}
    sizes["COARSE_EPOCHS"] = 1
    for name, value in sizes.items():
        monkeypatch.setattr(tiny, name, value)
    tiny.CACHE.parent.mkdir()
    tiny.CACHE.write_bytes(random_images(36).tobytes())
    return tiny


@pytest.fixture(scope="session")
def results():
    """The results that the committed notebook shows."""
    found = results_of(NOTEBOOK)
    assert found, f"{NOTEBOOK.name} holds no recorded run."
    return found


@pytest.fixture
def recorded_captioner(notebook, results):
    """The network of the recorded run, in its precision if this machine has it."""
    if results["precision"] == notebook.best_precision():
        notebook.keras.config.set_dtype_policy(results["precision"])
    captioner = new_captioner(notebook)
    assert captioner.count_params() == results["parameters"]
    captioner.load_weights(WEIGHTS)
    return captioner


@pytest.fixture(scope="session")
def recorded_answers(results):
    """The words of the committed answer file."""
    images = results["images"]
    return answers_of(ANSWERS, images["train"] + images["validation"], images["test"])


@pytest.fixture(scope="session")
def answers_accuracy(results, recorded_answers, stand_in):
    """The share of the committed answers that are right; only the stand-in's words are known."""
    first = results["images"]["train"] + results["images"]["validation"]
    words = [stand_in.word_of(first + i, STAND_IN_SEED) for i in range(len(recorded_answers))]
    right = [answer == word for answer, word in zip(recorded_answers, words, strict=True)]
    return sum(right) / len(right)
