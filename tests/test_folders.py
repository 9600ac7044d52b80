"""What a student's folders, files and settings can be like, up to the labels, in tiny images."""

import io
import shutil
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import LABELS, ROOT, run_beginning
from PIL import Image

WORDS = ["thus", "www", "tied", "ids", "jam", "null", "nan", "big", "lot", "above"]
TEXT = "".join(f"a{i} {WORDS[i % 10]}\n" for i in range(120_000)).encode()
run = partial(run_beginning, QUICK="", TRAIN=8, VALIDATION=4, TEST=2)
W, S = "data/words_captcha", "data/stand_in"  # where images are expected
INDICES = [*range(8), *range(100_000, 100_004), *range(120_000, 120_002)]


def png(mode="RGB", kind="PNG", **options):
    """The bytes of a small image file of noise."""
    pixels = np.random.default_rng(0).integers(256, size=(32, 60, 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


PNG = png()
IMAGES = {f"a{index}.png": PNG for index in INDICES}
FILES = IMAGES | {LABELS: TEXT[:1000]}
SCRIPT = f"""
import pathlib, sys
folder = pathlib.Path("data/stand_in")
folder.mkdir(exist_ok=True)
for index in {INDICES}:
    (folder / f"a{{index}}.png").write_bytes({PNG!r})
print("drawing: 50%", "drawing: 100%", sep="\\r", file=sys.stderr)
""".encode()  # draws in place of the real one


def at(folder, files=FILES):
    """These files in a folder, as a tree."""
    return {f"{folder}/{name}": content for name, content in files.items()}


def packed(tree):
    """The bytes of an archive of a tree."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in tree.items():
            archive.writestr(name, data)
    return content.getvalue()


def lay(tree):
    """Makes the files and links of a tree, by path; data/stand_in.py is there unless told."""
    for path, content in ({"data/stand_in.py": SCRIPT} | tree).items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            Path(path).symlink_to(content.absolute(), target_is_directory=True)
        elif content is not None:
            Path(path).write_bytes(content)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Each test runs in its own folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


ZIP = packed(at("words_captcha"))
WRONG = ZIP.replace(PNG, PNG[:500] + b"12345" + PNG[505:], 1)
LOCKED = ZIP.replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1")
ONE = {"a0.png": PNG}
REST = {name: FILES[name] for name in FILES if name not in ONE}
PARTS = {"data/1.zip": packed(at("words_captcha", ONE)), "data/2.zip": packed(at("x", REST))}
ZEROS = PNG[:1000] + bytes(50) + PNG[1050:]
BROKEN = ValueError, r"^data/x\.zip: .+\. Copy it again, or unpack it yourself\.$"
BAD = r"^{} missing or damaged\. Delete them and copy again: {}$"
ONE_BAD = ValueError, BAD.format(1, f"{W}/a0.png")
TEN_OF_13 = ValueError, BAD.format(13, rf"{W}/a1\.png, ([^,]*, ){{8}}{W}/a100002\.png")
REFUSED = FileNotFoundError, r"^No a0\.png in /.*/here/data: put words_captcha\.zip there or set "
REFUSED_DISK = FileNotFoundError, REFUSED[1].replace("data", "disk")
FULL = RuntimeError, r"^data/stand_in\.py stopped: Disk full\.$"
SILENT = RuntimeError, r"^data/stand_in\.py stopped: it does not say why$"

CASES = {  # what is there, and what comes of it: the folder used, or an error; then settings
    "any name": (at("data/Übung 12 – 文字/words_captcha"), "data/Übung 12 – 文字/words_captcha"),
    "beside the notebook": (at("words_captcha (1)/x"), "words_captcha (1)/x"),
    "a link to a folder": (at("disk") | {W: Path("disk")}, W),
    "another FOLDER": (at("disk/a"), "disk/a", {"FOLDER": Path("disk")}),
    "and the stand-in": (at(S) | at("data/x"), "data/x"),
    "zip": ({"data/words_captcha (1).ZIP": ZIP}, W),
    "zip beside the notebook": ({"Lab 12.zip": ZIP}, W),
    "zip in FOLDER": ({"disk/x.zip": ZIP}, "disk/words_captcha", {"FOLDER": "disk"}),
    "zip without a folder": ({"data/x.zip": packed(FILES)}, "data"),
    "zip in two parts": (PARTS, W),
    "zip of a Mac on a stick": ({"data/x.zip": ZIP, "data/._x.zip": b"\0\5\x16\7"}, W),
    "zip half unpacked": ({"data/x.zip": ZIP} | at(W, ONE), W),
    "all and a broken zip": ({"data/x.zip": b""} | at(W), W),
    "all but the labels, a broken zip": ({"data/x.zip": b""} | at(W, IMAGES), BROKEN),
    "zip with a wrong checksum": ({"data/x.zip": WRONG}, BROKEN),
    "zip with a password": ({"data/x.zip": LOCKED}, BROKEN),
    "zip in a zip": ({"data/words_captcha.zip": packed({"x.zip": ZIP})}, REFUSED),
    "another zip": ({"data/x.zip": packed({"x.txt": b""})}, S),
    "one image, no zip": (at(W, ONE), TEN_OF_13),
    "an empty folder": ({f"{W}/.DS_Store": b""}, REFUSED),
    "an empty folder beside": ({"words_captcha/.DS_Store": b""}, REFUSED),
    "FOLDER misspelled": (at("data/x"), REFUSED_DISK, {"FOLDER": "disk"}),
    "an image missing": (at(W, REST), ONE_BAD),
    "an image without its last byte": (at(W, FILES | {"a0.png": PNG[:-1]}), ONE_BAD),
    "an image with zeros inside": (at(W, FILES | {"a0.png": ZEROS}), ONE_BAD),
    "a JPEG": (at(W, FILES | {"a0.png": png(kind="JPEG")}), ONE_BAD),
    "no script": ({"data/stand_in.py": None}, REFUSED),
    "nothing": ({}, S),
    "the stand-in, by another way": (at(S), S, {"FOLDER": "../here/data/"}),
    "the script fails": ({"data/stand_in.py": b"exit('Disk full.')"}, FULL),
    "the script fails in silence": ({"data/stand_in.py": b"exit(1)"}, SILENT),
}


@pytest.mark.parametrize("name", CASES)
def test_folders(name, capsys):
    tree, outcome, settings = (*CASES[name], {})[:3]
    lay(tree)
    if isinstance(outcome, tuple):
        with pytest.raises(outcome[0], match=outcome[1]):
            run("check_all", **settings)
        assert not Path(S).exists()
        return
    notebook = run("check_all", **settings)
    origin = "stand-in" if outcome == S else "course"
    assert (origin, Path(outcome)) == (notebook.ORIGIN, notebook.IMAGES)
    assert [Path(path).read_bytes() for path in notebook.paths] == [PNG] * len(INDICES)
    shown = capsys.readouterr().out
    assert shown.endswith(f"\nAll 14 images in {outcome} are whole. They are the {origin}'s.\n")
    assert ("no images of the course. Stand-in: drawing: 100%" in shown) == (origin == "stand-in")


def test_draws_with_the_real_script():
    shutil.copytree(ROOT / "data", "data", ignore=shutil.ignore_patterns("stand_in", "*.h5"))
    notebook = run("labels", TRAIN=1, VALIDATION=1, TEST=1)
    assert (notebook.ORIGIN, notebook.CHANNELS, len(notebook.words)) == ("stand-in", 3, 120_000)


def test_an_image_can_be_transparent():
    for mode, options, channels in [("L", {}, 3), ("RGBA", {}, 4), ("L", {"transparency": 0}, 4)]:
        lay(at(W, IMAGES | {"a100001.png": png(mode, **options)}))
        assert channels == run("check_all").CHANNELS


OURS = (ROOT / LABELS).read_bytes().replace(b"\n", b"\r\n")
WINDOWS = b"\xef\xbb\xbf" + TEXT.replace(b"\n", b"\r\n")[:-2]
NO_LABELS = FileNotFoundError, rf"^Copy the course's {LABELS} to /.*/here/{W}: it is missing\.$"
LABELS_CASES = {  # where labels lie, and the error, if there is one
    "from Windows, without the last line end": ({LABELS: WINDOWS}, None),
    "for more images, and ours": ({LABELS: OURS, f"{W}/{LABELS}": TEXT + b"a120000 zoo\n"}, None),
    "nowhere": ({}, NO_LABELS),
    "empty": ({f"{W}/{LABELS}": b""}, NO_LABELS),
    "ours for the course's images": ({LABELS: OURS}, NO_LABELS),
}
for name, old, new, found in [  # a part of the labels, what stands in its place, and the message
    ("a gap", "a4 jam\n", "", "5: .*'a4 <word>'.*'a5 null'"),
    ("upper case", "www", "WWW", "2: .*letters a-z.*'a1 WWW'"),
    ("no UTF-8", "www", "\udcfcber", "2: .*'a1 �ber'"),
    ("a blank at the end", "tied", "tied ", "3: .*'a2 tied '"),
    ("no word", "a2 tied", "a2", "3: .*'a2'"),
    ("a very long word", "tied", "a" * 13, "3: "),
    ("no last line", "a119999 above\n", "", "120000: .*the end of the file"),
]:
    text = TEXT.replace(old.encode(), new.encode("utf-8", "surrogateescape"), 1)
    error = ValueError, rf"^{W}/{LABELS}, line {found}.*\. Copy the file again\.$"
    LABELS_CASES[name] = {f"{W}/{LABELS}": text}, error


@pytest.mark.parametrize("name", LABELS_CASES)
def test_labels(name):
    """The message names the first wrong line; null and nan are words."""
    tree, error = LABELS_CASES[name]
    lay(at(W, IMAGES) | tree)
    if error:
        with pytest.raises(error[0], match=error[1]):
            run("labels")
    else:
        words = run("labels").words.tolist()
        assert len(words) == 120_000 and words[:10] == WORDS and words[-1] == "above"


@pytest.mark.parametrize("value", ["1", " Yes ", True, "0", "", False])
def test_quick(value):
    quick = value in ("1", " Yes ", True)
    notebook = run("derived", QUICK=value, TRAIN=3_000, VALIDATION=50, ROUNDS=9)
    assert notebook.QUICK is quick
    assert (len(notebook.TRAINED), len(notebook.VALIDATED)) == (2_000 if quick else 3_000, 50)
    assert (2 + 1 if quick else 9 + 3) == notebook.ROUNDS + notebook.HALF_SIZE_ROUNDS


def test_student_ids():
    for name in (112062, "0123"):
        assert name == run("derived", STUDENT_ID=name).STUDENT_ID
    for name in ("", "a b", "../a", "a\n"):
        with pytest.raises(ValueError, match="^STUDENT_ID: expected letters and digits alone"):
            run("derived", STUDENT_ID=name)


def test_old_keras(here, monkeypatch):
    lay({"keras-3.9.2.dist-info/METADATA": b"Name: keras\nVersion: 3.9.2\n"})
    monkeypatch.syspath_prepend(here)
    with pytest.raises(ImportError, match=r'3\.9\.2 .*pip install -U "keras>=3\.13"$'):
        run("derived")
