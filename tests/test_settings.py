"""What a reader may set, the labels, and the notebook alone, without the project's scripts."""

import shutil
from pathlib import Path

import prepare
import pytest
from conftest import LABELS, REFERENCE, ROOT, WORDS, lay_noise, run_beginning, run_cells, tags
from test_model import set_small_encoder

GENUINE = REFERENCE / LABELS


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("value", ["1", "Yes", "0", None])
def test_quick(monkeypatch, value):
    monkeypatch.delenv("QUICK", raising=False)
    if value:
        monkeypatch.setenv("QUICK", value)
    quick = value in ("1", "Yes")
    notebook = run_beginning("derived", VALIDATION=50, ROUNDS={48: 2, 72: 1, 96: 1})
    assert notebook.QUICK is quick
    assert (len(notebook.TRAINED), len(notebook.VALIDATED)) == (192 if quick else 100_000, 50)
    assert ([48, 96] if quick else [48, 48, 72, 96]) == notebook.HEIGHTS


def test_student_ids():
    for name in (112062, "0123"):
        assert name == run_beginning("derived", STUDENT_ID=name).STUDENT_ID
    for name in ("", "a b", "../a", "a\n"):
        with pytest.raises(ValueError, match="^STUDENT_ID: expected letters and digits alone"):
            run_beginning("derived", STUDENT_ID=name)


def test_old_keras(monkeypatch):
    monkeypatch.setattr("keras.__version__", "3.9.2")
    with pytest.raises(
        ImportError, match=r'Keras 3\.9\.2: pip install -U "keras>=3\.13", then restart'
    ):
        run_beginning("imports")


REFUSED = [
    ("QUICK", "yes", "", 2, None),
    ("TRAIN", 2, 0, 100_001, "1000", 1e3, None),
    ("VALIDATION", 0, 20_001, -1),
    ("TEST", 0, 20_001, 0.5),
    ("LETTERS", "", "aa", "ab>", "a b", 26),
    ("ROUNDS", {}, {80: 0}, {8: 1}, {400: 1}, {80.0: 4}, {80: 2.5}, {"80": 1}, [80], 9),
    ("SMALL_STEPS", 1, 0, 1e2),
    ("BATCH_SIZE", 0, 32.0, "32"),
    ("LEARNING_RATE", 0, 1, -0.1, "4e-3", None),
    ("PRECISION", "float16", "", None),
    ("SEED", -1, 2**31, 1.0, None),
]


@pytest.mark.parametrize(("name", "value"), [(row[0], v) for row in REFUSED for v in row[1:]])
def test_refused(name, value):
    settings = vars(run_beginning("parameters"))
    prepare.check_settings(settings)
    settings[name] = value
    with pytest.raises(ValueError, match=f"^{name}: expected .*, found .*"):
        prepare.check_settings(settings)


def test_the_notebook_refuses_settings(monkeypatch):
    shutil.copytree(ROOT / "data", "data", ignore=shutil.ignore_patterns("stand_in"))
    with pytest.raises(ValueError, match="^TEST: "):
        run_beginning("derived", TEST=0)


ODD = [
    ({"ROUNDS": {48: 1, 64: 1}, "BATCH_SIZE": 40, "TRAIN": 8, "VALIDATION": 3}, ["jam", "www"]),
    (
        {"ROUNDS": {33: 2, 16: 1}, "BATCH_SIZE": 1, "LETTERS": "abc0123é", "QUICK": True},
        ["é3", "a", "1a2"],
    ),
]


@pytest.mark.parametrize(("settings", "words"), ODD)
def test_works_to_the_end(settings, words):
    """Every cell, but those that would fetch InceptionV3's weights."""
    lay_noise(Path("data"), words)
    few = {"TRAIN": 3, "VALIDATION": 1, "TEST": 1, "SMALL_STEPS": 2}
    notebook = run_beginning("encoder", **few | settings)
    set_small_encoder(notebook)
    run_cells(notebook, *tags("toy", "small_world"))
    notebook.JUDGED = 2
    run_cells(notebook, *tags("watch", "vector_systems"))
    notebook.others = {"NIC": notebook.NIC}  # one is enough
    run_cells(notebook, *tags("compare", "read"), "results")
    assert len(notebook.log) == len(notebook.HEIGHTS) and len(notebook.watch.looks) == 3
    assert notebook.results["images"] == [notebook.TRAIN, notebook.VALIDATION, notebook.TEST]
    answers = notebook.answers_file.read_text(encoding="utf-8").splitlines()
    assert len(answers) == notebook.TEST and {line.split()[1] for line in answers} <= {*words}


def test_settings_of_keras_do_not_matter():
    """Such as those in ~/.keras/keras.json."""
    config = run_beginning("imports").keras.config
    config.set_image_data_format("channels_first")
    config.set_floatx("float16")
    run_beginning("derived")
    assert (config.image_data_format(), config.floatx()) == ("channels_last", "float32")


ALONE = {  # folders with images, and with labels; what is wrong
    "labels beside": (["data/x"], ["data/x"], ""),
    "labels in the parent": (["data/x/y"], ["data/x"], ""),
    "and the stand-in": (["data/x", "data/stand_in"], ["data/x", "data/stand_in"], ""),
    "nothing": ([], [], "0 folders with a0.png, 0 with"),
    "the stand-in": (["data/stand_in"], ["data"], "0 folders with a0.png, 0 with"),
    "two folders": (["data/x", "data/y"], ["data/x"], "2 folders with a0.png, 1 with"),
    "no labels": (["data/x"], [], "1 folders with a0.png, 0 with"),
}


@pytest.mark.parametrize("name", ALONE)
def test_alone(name, capsys):
    folders, with_labels, found = ALONE[name]
    for folder in folders:
        lay_noise(Path(folder))
        Path(folder, LABELS).rename("labels")
    for folder in with_labels:
        shutil.copy("labels", Path(folder, LABELS))
    if found:
        with pytest.raises(FileNotFoundError, match=rf"^Unpack words_captcha.* there are {found}"):
            run_beginning("find")
    else:
        notebook = run_beginning("labels", TRAIN=8, VALIDATION=8)
        assert (str(notebook.IMAGES), notebook.ORIGIN) == (folders[0], "course")
        assert notebook.words[:8].tolist() == WORDS and len(notebook.words) == 120_000
        assert f"The files in {folders[0]} were not checked, as" in capsys.readouterr().out


GOOD = "a0 thus\na1 www\na2 tied\na3 null\na4 jam\na5 nan\n"
LINES = [  # a part of the labels, what stands in its place, and the message
    ("a4 jam\n", "", "5: .*'a4 <word>'.*'a5 nan'"),
    ("www", "WWW", "2: .*letters of LETTERS, found 'a1 WWW'"),
    ("www", "\udcfcber", "2: .*'a1 �ber'"),
    ("tied", "tied ", "3: .*'a2 tied '"),
    ("a2 tied", "a2", "3: .*'a2'"),
    ("tied", "a" * 13, "3: "),
    ("a5 nan\n", "", "6: .*the end of the file"),
    ("jam\n", "jam\n\n", "6: .*found ''"),
    ("a3", "# a3", "4: "),
    (GOOD, "", "1: .*the end of the file"),
    (GOOD, "\udc89PNG\r\n\x1a\n\0", "1: "),
    ("\n", "\r\n", None),
    ("a0", "\ufeffa0", None),
    ("a5 nan\n", "a5 nan", None),
    ("a5 nan\n", "a5 nan\na6 zoo", None),
]


@pytest.mark.parametrize(("old", "new", "message"), LINES)
def test_labels(notebook, old, new, message):
    """The message names the first wrong line; null and nan are words."""
    path = Path(LABELS)
    path.write_bytes(GOOD.replace(old, new).encode("utf-8", "surrogateescape"))
    if message:
        message = rf"^{LABELS}, line {message}.*\. Copy the file again\.$"
        with pytest.raises(ValueError, match=message):
            notebook.read_labels(path, 6)
    else:
        expected = ["thus", "www", "tied", "null", "jam", "nan"]
        assert notebook.read_labels(path, 6).tolist() == expected


@pytest.mark.skipif(not GENUINE.exists(), reason="the course's labels are not there")
def test_the_courses_labels(notebook):
    words = notebook.read_labels(GENUINE)
    assert len(words) == 120_000 and len({*words}) == 2_500 and "null" in words
