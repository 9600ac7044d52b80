"""What a student's folders, files and settings can be like, up to the labels, in tiny images."""

import io
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import LABELS, ROOT, run_cells, tags
from PIL import Image

WORDS = ["thus", "www", "tied", "ids", "jam", "null", "nan", "big", "lot", "above"]
TEXT = "".join(f"a{i} {WORDS[i % 10]}\n" for i in range(120_000)).encode()
FEW = {"QUICK": "", "TRAIN": 8, "VALIDATION": 4, "TEST": 2}
W = "data/words_captcha"  # where the images are expected
INDICES = [*range(8), *range(100_000, 100_004), *range(120_000, 120_002)]
NOTHING, IS_FOLDER = "nothing", "folder"  # what can lie at a path besides a file with bytes


def png(mode="RGB", kind="PNG", size=(60, 32), **options):
    """The bytes of a small image file of noise."""
    pixels = np.random.default_rng(0).integers(256, size=(*size[::-1], 4), dtype=np.uint8)
    image, file = Image.fromarray(pixels, "RGBA").convert(mode), io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PNG = png()
IMAGES = {f"a{index}.png": PNG for index in INDICES}
FILES = IMAGES | {LABELS: TEXT[:1000]}
HALF = dict(list(FILES.items())[:5])
REST = {name: FILES[name] for name in FILES if name not in HALF}
LABELS_ALONE, DUST = {LABELS: FILES[LABELS]}, {".DS_Store": b"\0"}
SCRIPT = f"""
import pathlib, sys
starts, folder = (0, 100_000, 120_000), pathlib.Path("data/stand_in")
folder.mkdir(exist_ok=True)
for start, count in zip(starts, map(int, sys.argv[1:])):
    for index in range(start, start + count):
        (folder / f"a{{index}}.png").write_bytes({PNG!r})
print("drawing: 50%", "drawing: 100%", sep="\\r", file=sys.stderr)
""".encode()  # draws in place of the real one


def at(folder, files=FILES):
    """These files in a folder."""
    return {f"{folder}/{name}": content for name, content in files.items()}


def packed(files=FILES, top="words_captcha/"):
    """The bytes of an archive of these files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
    return content.getvalue()


def lay(tree):
    """Makes the files and folders of a tree, by path; data/stand_in.py is there unless told."""
    for path, content in ({"data/stand_in.py": SCRIPT} | tree).items():
        if content == NOTHING:
            continue
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if content == IS_FOLDER:
            Path(path).mkdir()
        elif isinstance(content, Path):
            Path(path).symlink_to(content.absolute(), target_is_directory=True)
        else:
            Path(path).write_bytes(content)


def run(last, **settings):
    """The names after the cells up to `last`, with settings set after the parameters' cell."""
    names = {}
    run_cells(names, "imports", "parameters")
    names |= FEW | settings
    run_cells(names, *tags("derived", last))
    return names


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Each test runs in its own folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def zipped(content=None, name="words_captcha.zip"):
    """An archive in data/, as a tree."""
    return {f"data/{name}": ZIP if content is None else content}


ZIP = packed()
MAC = {f"__MACOSX/words_captcha/._{name}": b"\0" for name in FILES}
AT = ZIP.index(PNG) + 500
FLIPPED = ZIP[:AT] + b"12345" + ZIP[AT + 5 :]
LOCKED = ZIP.replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1")
PARTS = [zipped(packed(part), f"{i}-00{i}.zip") for i, part in enumerate([HALF, REST])]
NO_SCRIPT, NO_FOLDER = {"data/stand_in.py": NOTHING}, {W: IS_FOLDER}
BROKEN = ValueError, r"^data/words_captcha\.zip: .+\. Copy it again, or unpack it yourself\.$"
BAD = r"^{} missing or damaged\. .*copy again: {}"


def refused(where=f"{W}[^/]*"):
    """The error when there is nothing to unpack or to draw; it holds the absolute folder."""
    text = rf"^No a0\.png, a1\.png, … in /.*/here/{where}\. Put words_captcha\.zip there\.$"
    return FileNotFoundError, text


def stopped(why):
    """The error when the script fails."""
    return RuntimeError, rf"^data/stand_in\.py stopped: {why}$"


BAD_IMAGES = {"missing": NOTHING, "a folder": IS_FOLDER, "empty": b"", "cut off": PNG[:-500]} | {
    "cut off in the last chunk": PNG[:-6],
    "without its last byte": PNG[:-1],
    "with zeros inside": PNG[:1000] + bytes(50) + PNG[1050:],
    "text": b"<html>404 Not Found</html>",
    "a JPEG": png(kind="JPEG"),
}
TWO_BAD = ValueError, BAD.format(2, f"{W}/a0.png, {W}/a100003.png$")

CASES = {  # what is there, and what comes of it: the folder used, or an error; then settings
    "in words_captcha": (at(W), W),
    "a folder twice": (at(f"{W}/words_captcha"), f"{W}/words_captcha"),
    "any name": (at("data/Übung 12 – 文字"), "data/Übung 12 – 文字"),
    "in data itself": (at("data"), "data"),
    "beside the notebook": (at("words_captcha"), "words_captcha"),
    "a copy beside the notebook": (at("words_captcha (1)/x"), "words_captcha (1)/x"),
    "a link to a folder": (at("disk") | {W: Path("disk")}, W),
    "data is a link": (at("disk/x") | {"data": Path("disk")} | NO_SCRIPT, "data/x"),
    "another FOLDER": (at("disk/a/b"), "disk/a/b", {"FOLDER": "disk"}),
    "FOLDER is a path": (at("disk/a"), "disk/a", {"FOLDER": Path("disk")}),
    "and the stand-in": (at("data/stand_in") | at("data/x"), "data/x"),
    "below the stand-in": (at("data/stand_in/words_captcha"), "data/stand_in/words_captcha"),
    "for more images": (at("data/x") | {"data/x/a8.png": PNG}, "data/x"),
    "zip": (zipped(), W),
    "zip.zip": (zipped(name="words_captcha.zip.zip"), W),
    "zip (1)": (zipped(name="words_captcha (1).zip"), W),
    "zip of Google Drive": (zipped(name="words_captcha-20261112-001.zip"), W),
    "zip of any name": (zipped(name="Lab 12.zip"), W),
    "zip in a folder": ({f"{W}/words_captcha.zip": ZIP}, W),
    "zip beside the notebook": ({"words_captcha.zip": ZIP}, W),
    "zip in FOLDER": ({"disk/x.zip": ZIP}, "disk/words_captcha", {"FOLDER": "disk"}),
    "zip without a top folder": (zipped(packed(top="")), "data"),
    "zip with two top folders": (zipped(packed(top="Lab 12/x/")), "data/Lab 12/x"),
    "zip in two parts": (PARTS[0] | PARTS[1], W),
    "zip of a Mac": (zipped(packed(MAC | at("words_captcha"), "")), W),
    "zip of a Mac on a stick": (zipped() | zipped(b"\0\5\x16\7", "._words_captcha.zip"), W),
    "zip and .DS_Store": (zipped() | at(W, DUST), W),
    "zip and labels": (zipped() | at(W, LABELS_ALONE), W),
    "zip half unpacked": (zipped() | at(W, HALF), W),
    "all and a broken zip": (zipped(ZIP[:-9]) | at(W), W),
    "all and another broken zip": ({"homework.zip": b""} | at(W), W),
    "all but the labels, a broken zip": (zipped(b"") | at(W, IMAGES), BROKEN),
    "zip cut off": (zipped(ZIP[: len(ZIP) // 2]), BROKEN),
    "zip with a wrong checksum": (zipped(FLIPPED), BROKEN),
    "zip with a password": (zipped(LOCKED), (BROKEN[0], "password required.*Copy it again")),
    "empty zip": (zipped(b""), BROKEN),
    "web page": (zipped(b"<html>Sign in</html>"), BROKEN),
    "zip without images": (zipped(packed(LABELS_ALONE)), refused()),
    "another zip without images": (zipped(packed(DUST), "x.zip"), "data/stand_in"),
    "zip in a zip": (zipped(packed({"x.zip": ZIP})), refused()),
    "half, no zip": (at(W, HALF), (ValueError, BAD.format(9, f"{W}/a5.png, "))),
    "half a zip": (zipped(packed(HALF)), (ValueError, BAD.format(9, f"{W}/a5.png, "))),
    "an empty folder": (NO_FOLDER, refused()),
    "an empty folder beside": ({"words_captcha": IS_FOLDER}, refused("words_captcha")),
    ".DS_Store alone": (at(W, DUST), refused()),
    "labels alone": (at(W, LABELS_ALONE), refused()),
    "half a download": (zipped(ZIP[:-9], "words_captcha.zip.crdownload"), refused()),
    "half a download by Firefox": (zipped(b"") | zipped(ZIP, "words_captcha.x.zip.part"), BROKEN),
    "another kind of archive": (zipped(b"Rar!", "words_captcha.rar"), refused()),
    "an empty folder and the stand-in": (at("data/stand_in") | NO_FOLDER, refused()),
    "FOLDER misspelled": (at("data/x"), refused("dota"), {"FOLDER": "dota"}),
    "FOLDER is a zip": (zipped(name="x.zip"), refused(r"data/x\.zip"), {"FOLDER": "data/x.zip"}),
    "kernel started elsewhere": (NO_SCRIPT, refused("data")),
    "no script": (NO_SCRIPT | {"data": IS_FOLDER}, refused("data")),
    "nothing": ({}, "data/stand_in"),
    "half a stand-in": (at("data/stand_in", HALF), "data/stand_in"),
    "the stand-in": (at("data/stand_in"), "data/stand_in"),
    "the stand-in, ./data": (at("data/stand_in"), "data/stand_in", {"FOLDER": "./data/"}),
    "the stand-in, absolute": (at("data/stand_in"), "data/stand_in", {"FOLDER": "absolute"}),
    "the script fails": ({"data/stand_in.py": b"exit('Disk full.')"}, stopped("Disk full.")),
    "the script fails in silence": ({"data/stand_in.py": b"exit(1)"}, stopped(".*")),
}
BAD_ONES = [f"{W}/a0.png", f"{W}/a100003.png"]
CASES |= {
    f"an image {kind}": (at(W) | dict.fromkeys(BAD_ONES, BAD_IMAGES[kind]), TWO_BAD)
    for kind in BAD_IMAGES
}


@pytest.mark.parametrize("name", CASES)
def test_folders(name, here, capsys):
    tree, outcome, settings = (*CASES[name], {})[:3]
    if settings.get("FOLDER") == "absolute":
        settings = {"FOLDER": str(here / "data")}
    lay(tree)
    if isinstance(outcome, tuple):
        with pytest.raises(outcome[0], match=outcome[1]):
            run("check_all", **settings)
        assert "stand-in" in name or not Path("data/stand_in").exists()
        return
    names = run("check_all", **settings)
    origin = "stand-in" if outcome == "data/stand_in" else "course"
    assert (names["ORIGIN"], names["IMAGES"]) == (origin, Path(outcome))
    assert [Path(path).read_bytes() for path in names["paths"]] == [PNG] * len(INDICES)
    last = f"\nAll 14 images in {outcome} are whole. They are the {origin}'s.\n"
    assert capsys.readouterr().out.endswith(last)


@pytest.mark.parametrize("name", ["../a3.png", "x/../../a3.png", "/a3.png", "../evil.txt"])
def test_the_archive_writes_nothing_outside(name, here):
    others = {key: FILES[key] for key in FILES if "evil" in name or key != "a3.png"}
    lay(zipped(packed(at("words_captcha", others) | {name: PNG}, "")))
    before = {*here.parent.rglob("*")}
    run("check_all")
    new = {*here.parent.rglob("*")} - before
    assert all(path.is_relative_to(here / "data") for path in new)
    assert {path.name for path in new} <= {*FILES, "words_captcha", "x"}


def test_a_mended_archive_is_unpacked():
    """After one with a wrong checksum. That has left an image, which is named."""
    lay(zipped(FLIPPED))
    with pytest.raises(ValueError, match=BROKEN[1]):
        run("check_all")
    lay(zipped())
    with pytest.raises(ValueError, match=BAD.format(1, f"{W}/a0.png$")):
        run("check_all")
    Path(W, "a0.png").unlink()
    run("check_all")


def test_says_that_the_stand_in_is_drawn(capsys):
    """With the last line of the progress bar too, before which all is cleared."""
    lay({})
    run("origin")
    shown = capsys.readouterr().out.split("\x1b[2K\r")[-1]
    assert re.search("no images of the course.*drawing: 100%", shown)


def test_draws_with_the_real_script_and_refuses_others_images():
    data = ROOT / "data"
    lay({f"data/{name}": (data / name).read_bytes() for name in ("stand_in.py", "words.txt")})
    shutil.copytree(data / "fonts", "data/fonts")
    few = {"TRAIN": 1, "VALIDATION": 1, "TEST": 1}
    names = run("labels", **few)
    assert names["ORIGIN"] == "stand-in" and names["PLAIN"] and len(names["words"]) == 120_000
    Path("data/stand_in", LABELS).unlink()
    Path("data/stand_in/a0.png").write_bytes(PNG)
    with pytest.raises(RuntimeError, match=stopped(".*/here/data/stand_in holds .* not .*")[1]):
        run("labels", **few)


def test_the_first_ten_of_many_bad_images_are_named():
    lay(at(W, {"a0.png": PNG, **LABELS_ALONE}))
    with pytest.raises(ValueError, match="^13 missing") as raised:
        run("check_all")
    assert re.findall(r"a(\d+)\.png", str(raised.value)) == [*map(str, INDICES[1:11])]


GOOD_IMAGES = {mode: png(mode) for mode in ("RGB", "RGBA", "LA", "L", "1", "I;16")} | {
    "P, transparent": png("P", transparency=0),
    "another size": png(size=(600, 321)),
    "bytes after the end": png(size=(600, 320)) + b"\r\n",
    "plain": png(size=(600, 320), compress_level=1),
}


@pytest.mark.parametrize("kind", GOOD_IMAGES)
def test_good_images(kind):
    """Plain ones are read by TensorFlow, others by Pillow, even if but one is not plain."""
    plain = GOOD_IMAGES["plain"]
    lay(at(W, dict.fromkeys(IMAGES, plain) | {"a100001.png": GOOD_IMAGES[kind]}))
    assert run("check_all")["PLAIN"] is (kind in ("plain", "bytes after the end"))


def labelled(place=W, text=TEXT):
    """Labels in a folder, as a tree."""
    return {f"{place}/{LABELS}": text}


OURS = (ROOT / LABELS).read_bytes()
WINDOWS, OURS_ON_WINDOWS = (text.replace(b"\n", b"\r\n") for text in (TEXT, OURS))
GOOD_LABELS = {
    "beside the images": labelled(),
    "in data": labelled("data"),
    "beside the notebook": labelled("."),
    "beside the images, and ours": labelled(".", OURS) | labelled(),
    "with a byte order mark and Windows' line ends": labelled(text=b"\xef\xbb\xbf" + WINDOWS),
    "without the last line end": labelled(text=TEXT.rstrip()),
    "for more images": labelled(text=TEXT + b"a120000 zoo\n"),
}
NO_LABELS = {
    "nowhere": {},
    "empty": labelled(text=b""),
    "ours beside the notebook": labelled(".", OURS),
    "ours beside the notebook, on Windows": labelled(".", OURS_ON_WINDOWS),
}
BAD_LABELS = {  # a part of the labels, what stands in its place, and what the message says
    "a blank line": ("a0", "\na0", "1:"),
    "a gap": ("a4 jam\n", "", "5:.*'a4 <word>'.*'a5 null'"),
    "a line twice": ("a4 jam\n", "a4 jam\n" * 2, "6:.*'a4 jam'"),
    "upper case": ("www", "WWW", "2:.*letters a-z.*'a1 WWW'"),
    "no UTF-8": ("www", "\udcfcber", "2:.*'a1 �ber'"),
    "a tab": ("a2 tied", "a2\ttied", "3:"),
    "a blank at the end": ("tied", "tied ", "3:.*'a2 tied '"),
    "a very long word": ("tied", "a" * 13, "3:"),
    "another order": ("a3 ids\na4 jam\n", "a4 jam\na3 ids\n", "4:"),
    "no last line": ("a119999 above\n", "", "120000:.*the end of the file"),
    "a header": ("a0", "index word\na0", "1:.*'index word'"),
    "a digit": ("www", "w3w", "2:.*letters a-z.*'a1 w3w'"),
    "an accent": ("www", "über", "2:.*'a1 über'"),
    "two blanks": ("a2 tied", "a2  tied", "3:.*'a2  tied'"),
    "no word": ("a2 tied", "a2", "3:.*'a2'"),
    "numbers from 1 on": ("a0 thus\n", "", "1:.*'a1 www'"),
    "no prefix": ("a5", "5", "6:.*'5 null'"),
}


@pytest.mark.parametrize("kind", GOOD_LABELS)
def test_good_labels(kind):
    """Among them null and nan, as words."""
    lay(at(W, IMAGES) | GOOD_LABELS[kind])
    words = run("labels")["words"]
    assert len(words) == 120_000 and words[:10].tolist() == WORDS and words[-1] == "above"


@pytest.mark.parametrize("kind", NO_LABELS)
def test_no_labels(kind):
    """Those that come with the project are the stand-in's: never for the course's images."""
    lay(at(W, IMAGES) | NO_LABELS[kind])
    message = rf"^Copy the course's {LABELS} to /.*/here/{W}: it is missing\.$"
    with pytest.raises(FileNotFoundError, match=message):
        run("labels")


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_bad_labels(kind):
    """The message names the first wrong line."""
    old, new, expected = BAD_LABELS[kind]
    text = TEXT.replace(old.encode(), new.encode("utf-8", "surrogateescape"), 1)
    lay(at(W, IMAGES) | labelled(text=text))
    message = rf"^{W}/{LABELS}, line {expected}.*\. Copy the course's file there\.\Z"
    with pytest.raises(ValueError, match=message):
        run("labels")


@pytest.mark.parametrize("value", ["1", "true", "True", " yes ", True, 1])
def test_quick(value):
    names = run("derived", QUICK=value, TRAIN=100_000, VALIDATION=50)
    assert names["QUICK"] is True and (names["ROUNDS"], names["HALF_SIZE_ROUNDS"]) == (2, 1)
    assert (len(names["TRAINED"]), len(names["VALIDATED"])) == (2_000, 50)


@pytest.mark.parametrize("value", ["0", "0 ", "False", "no", "", False, None, 0])
def test_not_quick(value):
    names = run("derived", QUICK=value, TRAIN=3_000)
    assert names["QUICK"] is False and names["ROUNDS"] > 2 and len(names["TRAINED"]) == 3_000
    assert [*names["VALIDATED"], *names["TESTED"]] == INDICES[8:]


def test_student_ids():
    for name in (112062, "112062", "0123"):
        assert run("derived", STUDENT_ID=name)["STUDENT_ID"] == str(name)
    for name in ("", "a b", "a/b", "../a", "a.b", "a-b", "a\n"):
        with pytest.raises(ValueError, match="^STUDENT_ID: expected letters and digits alone"):
            run("derived", STUDENT_ID=name)


@pytest.mark.parametrize("found", ["2.15.0", "3.9.2", "3.12.1", "3.13.0rc1", "3.13", "4.0.0"])
def test_old_keras(found, here, monkeypatch):
    """The message holds no single quotes, which Windows' command line does not know."""
    lay({f"keras-{found}.dist-info/METADATA": f"Name: keras\nVersion: {found}\n".encode()})
    monkeypatch.syspath_prepend(here)
    if found.startswith(("3.13", "4")):
        return run_cells({}, "imports")
    with pytest.raises(ImportError, match=r'pip install -U "keras>=3\.13"$') as raised:
        run_cells({}, "imports")
    assert found in str(raised.value) and "'" not in str(raised.value)
