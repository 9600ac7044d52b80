"""What a student's folders and files can be like, and what `prepare` makes of them."""

import errno
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import prepare as script
import pytest
from conftest import LABELS, ROOT
from PIL import Image
from prepare import prepare

W, S = "data/words_captcha", "data/stand_in"  # where images are expected
THEIRS = b"a0 thus\r\na1 www\r\na2 tied\r\na3 ids\r\n"
OURS = b"".join(b"a%d sue\r\n" % index for index in range(2000))


def png(mode="RGB", kind="PNG", channels=3, **options):
    """The bytes of a small image file of noise."""
    pixels = np.random.default_rng(0).integers(256, size=(32, 60, channels), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


PNG, OTHER = png(), png("L")
NAMES = [f"a{i}.png" for i in (*range(8), *range(100_000, 100_004), *range(120_000, 120_002))]
IMAGES = dict.fromkeys(NAMES, PNG) | {"a1.png": png("RGBA"), "a2.png": png("LA")}  # opaque
FILES = IMAGES | {LABELS: THEIRS}
ONE, REST = {"a0.png": PNG}, {name: FILES[name] for name in [*NAMES[1:], LABELS]}
OLD = {name: OTHER for name in NAMES[:5]}


def at(folder, files=FILES):
    """These files in a folder, as a tree."""
    return {f"{folder}/{name}": content for name, content in files.items()}


def zipped(tree):
    """The bytes of an archive of a tree."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in tree.items():
            archive.writestr(name, data)
    return content.getvalue()


def lay(tree):
    """Makes the files and links of a tree, by path."""
    for path, content in tree.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            Path(path).symlink_to(content.absolute(), target_is_directory=True)
        else:
            Path(path).write_bytes(content)


FAKES = {  # of the stand-in's script, which thus draws in no time
    "word_of": lambda index: "sue",
    "labels_text": lambda: OURS.decode().replace("\r\n", "\n"),
    "draw": lambda index: [Image.open(io.BytesIO(OTHER))],
    "make": lambda folder, counts: lay(at(folder, IMAGES | {LABELS: OURS})),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Each test runs in a folder of its own, with an empty data/."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    monkeypatch.setattr(script, "HERE", Path("data").absolute())
    for name, fake in FAKES.items():
        monkeypatch.setattr(script.stand_in, name, fake)


ZIP = zipped(at("words_captcha"))
BACKUP = zipped(at("project/data/stand_in") | {f"project/{LABELS}": OURS})

FOUND = {  # what is there, and the folder that is used; FOLDER
    "any name": (at("data/Übung 12 – 文字/words_captcha"), "data/Übung 12 – 文字/words_captcha"),
    "beside the notebook": (at("words_captcha (1)/x"), "words_captcha (1)/x"),
    "a link to a folder": (at("disk") | {W: Path("disk")}, W),
    "a link in circles": (at("data/x") | {"data/x/up": Path("data")}, "data/x"),
    "a folder of another name": (at("words Captcha"), "words Captcha"),
    "another FOLDER": (at("disk/a"), "disk/a", Path("disk")),
    "and the stand-in": (at(S) | at("data/x"), "data/x"),
    "and old tries": (at("data/a", OLD) | at("data/b") | at("data/c", OLD), "data/b"),
    "zip": ({"data/words_captcha (1).ZIP": ZIP}, W),
    "zip beside the notebook": ({"Lab 12.zip": ZIP, "a0.png": OTHER}, W),
    "zip in FOLDER": ({"disk/x/x.zip": ZIP}, "disk/words_captcha", "disk"),
    "zip without a folder": ({"data/x.zip": zipped(FILES)}, W),
    "zip with backslashes": ({"data/x.zip": ZIP.replace(b"captcha/", b"captcha\\")}, W),
    "zip in two parts": ({"data/1.zip": zipped(ONE), "data/2.zip": zipped(at("x", REST))}, W),
    "zip of a Mac on a stick": ({"data/x.zip": ZIP, "data/._x.zip": b"\0\5\x16\7"}, W),
    "zip half unpacked": ({"data/x.zip": ZIP} | at("data/x", ONE), "data/x"),
    "zip of three tries": ({"data/x.zip": zipped(at("a", OLD) | at("b") | at("c", OLD))}, W),
    "zip after that of an old try": ({"data/a.zip": zipped(OLD), "data/b.zip": ZIP}, W),
    "zip after one that is broken": ({"data/a.zip": b"", "data/b.zip": ZIP}, W),
    "zip after a backup": ({"data/a.zip": BACKUP, "data/b.zip": ZIP}, W),
    "zip beside a broken one": ({"data/1.zip": ZIP[:-9], "data/2.zip": ZIP}, W),
    "zip beside old labels": ({"data/x.zip": ZIP, f"data/old/{LABELS}": b"a0 old"}, W),
    "all and a broken zip": ({"data/x.zip": ZIP[:-9]} | at(W), W),
    "another zip": ({"data/x.zip": zipped({"x.txt": b""}), "data/._x.zip": b"\0\5\x16\7"}, S),
    "a link that leads nowhere": ({"data/x.zip": Path("gone.zip")}, S),
    "a backup": ({"data/x.zip": BACKUP}, S),
    "a backup of half a drawing": ({"data/x.zip": zipped({"stand_in/.a8.png.1.part": PNG})}, S),
    "a backup, unpacked": (at("data/x/data/stand_in"), S),
    "nothing": ({}, S),
    "the stand-in, by a link": (at(S) | {"data/x": Path(S)}, S),
    "the stand-in, by another way": (at(S), "data/../data/stand_in", "data/../data/"),
}


@pytest.mark.parametrize("name", FOUND)
def test_found(name, capsys):
    tree, folder, setting = (*FOUND[name], "data")[:3]
    lay(tree)
    origin, labels = ("stand-in", OURS) if folder.endswith(S) else ("course", THEIRS)
    assert prepare(setting, 8, 4, 2) == (Path(folder), Path(folder, LABELS), origin)
    assert {path.name: path.read_bytes() for path in Path(folder).glob("a*.png")} == IMAGES
    assert Path(folder, LABELS).read_bytes() == labels
    shown = f"All 14 images in {folder} are whole. They are the {origin}'s.\n"
    assert capsys.readouterr().out.endswith(shown)


def refused(reason="", folder="data"):
    return rf"^No a0.png .* in /.*/{folder} or in zip archives there\.{reason} Put words_captcha"


def bad(reasons, count=1, folder=W):
    return rf"^Bad images in {folder}: {count} of 14, {reasons}\. Delete what is damaged, put"


ZEROS = PNG[:1000] + bytes(50) + PNG[1050:]
DAMAGED, MISSING = bad(r"a0\.png \(damaged\)"), r"a0\.png \(missing\)"
TRANSPARENT = bad(r"a0\.png \(transparent\)")
TEN_OF_13 = bad(r"a1\.png \(missing\), ([^,]*, ){8}a100002\.png \(missing\)", 13)
WRONG = ZIP.replace(PNG, PNG[:500] + b"12345" + PNG[505:], 1)
LOCKED = ZIP.replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1")
COPY = dict.fromkeys(NAMES, OTHER) | {LABELS: OURS}
BROKEN = r"^data/(x|lab)\.\S+: .+\. Copy it again, or unpack it yourself\.$"
NO_ZIP = refused(r" (data/)?x\.[^:]+: File is not a zip file\. Copy it again, or .+\.")
NO_LABELS = rf"^There is no {LABELS} of the course: copy it to {W}\.$"

REFUSED = {  # what is there, and the message; FOLDER
    "two folders with all": (at(W) | at("data/x"), f"^All images are in {W} and in data/x. Keep "),
    "two halves": (at("data/1", ONE) | at("data/2", REST), bad(MISSING, folder="data/2")),
    "zip that ends too early": ({"data/x.zip": ZIP[:-9]}, BROKEN),
    "zip with a wrong checksum": ({"data/x.zip": WRONG}, BROKEN),
    "zip with a password": ({"data/x.zip": LOCKED}, BROKEN),
    "zip in a zip": ({"data/x.zip": zipped({"x.zip": ZIP})}, BROKEN),
    "7z in a zip": ({"data/x.zip": zipped({"x.7z": b"7z"})}, refused(" data/x.zip: It holds x.+")),
    "zip that is another's, broken": ({"data/x.zip": b"PK"}, NO_ZIP),
    "a backup, broken": ({"data/x.zip": BACKUP[:-9]}, NO_ZIP),
    "7z beside the notebook": ({"x.7z": b"7z"}, NO_ZIP),
    "tar": ({"data/x.tar": b"words_captcha/a0.png\0"}, BROKEN),
    "one image, no zip": (at(W, ONE), TEN_OF_13),
    "an empty folder": ({f"{W}/.DS_Store": b""}, refused(f" {W}: it holds none.")),
    "an empty folder beside": ({"words_captcha/x": b""}, refused(" words_captcha: it holds none.")),
    "FOLDER misspelled": (at("data/x"), "^There is no folder disk. Set FOLDER to ", "disk"),
    "FOLDER without images": ({"disk/x": b""}, refused(folder="disk"), "disk"),
    "FOLDER empty": ({}, refused(folder="[^.]+"), ""),
    "labels without images": (
        {LABELS: THEIRS, "data/A0.PNG": PNG},
        refused(f" {LABELS}: its .+"),
    ),
    "half a download": ({"data/x.zip.crdownload": ZIP[:-9]}, BROKEN),
    "a zip in pieces": ({"data/lab.zip.001": ZIP[:-9]}, BROKEN),
    "a copy of the stand-in": (
        at("data/x", COPY) | {"data/x.zip": ZIP},
        "^data/x holds a copy of ",
    ),
    "an image missing": (at(W, REST), bad(MISSING)),
    "names in upper case": (at(W, REST | {"A0.PNG": PNG}), bad(MISSING)),
    "an image without its last byte": (at(W, FILES | {"a0.png": PNG[:-1]}), DAMAGED),
    "an image with zeros inside": (at(W, FILES | {"a0.png": ZEROS}), DAMAGED),
    "a JPEG": (at(W, FILES | {"a0.png": png(kind="JPEG")}), DAMAGED),
    "a transparent pixel": (at(W, FILES | {"a0.png": png("RGBA", channels=4)}), TRANSPARENT),
    "a transparent grey": (at(W, FILES | {"a0.png": png("L", transparency=128)}), TRANSPARENT),
    "no labels, a broken zip": (at(W, IMAGES) | {"data/x.zip": b""}, NO_LABELS),
    "our labels beside the notebook": (at(W, IMAGES) | {LABELS: OURS}, NO_LABELS),
    "our labels beside the images": (at(W, IMAGES | {LABELS: OURS}), NO_LABELS),
    "our labels in a backup": (at(W, IMAGES) | {"data/x.zip": BACKUP}, NO_LABELS),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, capsys):
    tree, message, setting = (*REFUSED[name], "data")[:3]
    lay(tree)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare(setting, 8, 4, 2)
    assert not Path(S, "a0.png").exists()
    assert ("zip is passed over: File is " in capsys.readouterr().out) == ("broken" in name)


def test_without_the_stand_ins_script(monkeypatch):
    monkeypatch.setattr(script, "stand_in", None)
    lay(at(W, IMAGES) | {LABELS: OURS})
    with pytest.raises(FileNotFoundError, match=NO_LABELS):
        prepare("data", 8, 4, 2)
    shutil.rmtree(W)
    with pytest.raises(FileNotFoundError, match=refused(" /.*/stand_in.py: it is missing.")):
        prepare("data", 8, 4, 2)
    lay(at(W))
    assert prepare("data", 8, 4, 2) == (Path(W), Path(W, LABELS), "course")


IMAGES_AT_W = at(W, IMAGES)
LABELS_AT = [  # what is there, and the labels that are taken
    (IMAGES_AT_W | {f"data/{LABELS}": THEIRS, f"data/x/{LABELS}": OURS}, f"data/{LABELS}"),
    (IMAGES_AT_W | {f"{W}/{LABELS}": OURS, LABELS: THEIRS}, LABELS),
    (IMAGES_AT_W | {f"data/{LABELS}": THEIRS, f"{W}/{LABELS}": b""}, f"{W}/{LABELS}"),  # nearest
    (IMAGES_AT_W | {"data/x.zip": ZIP, LABELS: OURS}, f"{W}/{LABELS}"),
    ({"data/1.zip": ZIP[:-9], "data/2.zip": zipped(IMAGES), LABELS: THEIRS}, LABELS),
    (at(W, ONE) | {"data/x.zip": ZIP, f"data/old/{LABELS}": b"a0 old"}, f"{W}/{LABELS}"),
]


@pytest.mark.parametrize(("tree", "labels"), LABELS_AT)
def test_labels(tree, labels):
    lay(tree)
    for setting in ("data", W):
        assert prepare(setting, 8, 4, 2) == (Path(W), Path(labels), "course")


def test_unpacking_goes_on(monkeypatch):
    """When the disk is full, no file is half there. What is there is not unpacked again."""

    def write(path, content):
        full = len([*path.parent.glob("a*.png")]) == 5
        path.open("wb").write(content[:50] if full else content)
        if full:
            raise OSError(errno.ENOSPC, "No space left")

    lay({"data/x.zip": ZIP})
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="^data/x.zip.* Make room"):
        patch.setattr(Path, "write_bytes", write)
        prepare("data", 8, 4, 2)
    assert {path.name for path in Path(W).glob("a*.png")} == {*NAMES[:5]}
    lay({f"{W}/a0.png": OTHER})
    assert prepare("data", 8, 4, 2)[0] == Path(W)
    assert Path(W, "a0.png").read_bytes() == OTHER and not [*Path(W).glob(".*.part")]


def test_an_archive_over_4_gib_without_zip64():
    """Its directory counts bytes modulo 2 ** 32. The file is sparse and takes no room."""
    start = ZIP.index(b"PK\1\2")
    with open("data/x.zip", "wb") as file:
        file.write(ZIP[:start])
        file.seek(2**32, os.SEEK_CUR)
        file.write(ZIP[start:])
    with pytest.raises(ValueError, match=r'Bad magic number.*: bsdtar -xf - < "data/x\.zip"\.$'):
        prepare("data", 8, 4, 2)


def test_errors_that_are_not_the_files(monkeypatch):
    lay(at(W))
    locked = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(Image, "open", locked)
    with pytest.raises(ValueError, match=r"a0\.png \(Permission denied\), "):
        prepare("data", 8, 4, 2)
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(TypeError, match="not callable"):
        prepare("data", 8, 4, 2)
    monkeypatch.delattr(Image.Image, "has_transparency_data")
    with pytest.raises(ImportError, match=r"^Pillow .* is older than 10\.1\. Run: "):
        prepare("data", 8, 4, 2)


def test_the_real_script_draws_where_text_is_big5():
    shutil.copytree(ROOT / "data", "real", ignore=shutil.ignore_patterns("stand_in", "*.h5"))
    code = "from prepare import prepare; print(*prepare('real', 1, 1, 1))"
    settings = os.environ | {"PYTHONPATH": "real", "PYTHONIOENCODING": "big5"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, env=settings)
    assert run.stdout.endswith(b"\nreal/stand_in real/stand_in/spec_train_val.txt stand-in\n"), run
