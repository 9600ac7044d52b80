"""What a student's files can be like: what is accepted, and what is named before training."""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import LABELS, SOURCES, cell_with, run_cells, run_code
from PIL import Image

IMAGES, ARCHIVE = Path("data/words_captcha"), Path("data/words_captcha.zip")
WORDS = ["thus", "www", "tied", "ids", "jam", "null", "nan", "big", "lot", "above"]
TEXT = "".join(f"a{index} {word}\n" for index, word in enumerate(WORDS))
COPY = "Copy (it|them|the course's file)"  # the remedy that most messages name


def png(kind="PNG", seed=0):
    """The bytes of a small image file of noise."""
    pixels = np.random.default_rng(seed).integers(256, size=(32, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


GOOD = {f"a{index}.png": png(seed=index) for index in range(12)} | {LABELS: TEXT.encode()}


@pytest.fixture
def data(notebook):
    """The notebook in a folder with six training, four validation and two test images."""
    IMAGES.mkdir(parents=True)
    for name, content in GOOD.items():
        (IMAGES / name).write_bytes(content)
    settings = {"QUICK": False, "TRAIN": 6, "VALIDATION": 4, "TEST": 2, "BATCH_SIZE": 2}
    vars(notebook).update(settings | {"HEIGHT": 16, "WIDTH": 30})
    return notebook


def get_data(notebook):
    """Runs the cells that find or unpack the images, and reads the labels."""
    run_cells(notebook, "ARCHIVE, MARKER = ", "TOTAL = TRAIN")
    run_cells(notebook, "words = read_labels(")
    return notebook.words


def check_images(notebook):
    """Runs the cells that look for bad images."""
    run_cells(notebook, "ARCHIVE, MARKER = ", "if bad := [")


def without(*names):
    """Deletes some of the files."""
    for name in names:
        (IMAGES / name).unlink()


ACCEPTED = {
    "as they come": TEXT.encode(),
    "with a byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "with Windows' line ends": TEXT.replace("\n", "\r\n").encode(),
    "without the last line end": TEXT.rstrip().encode(),
    "for more images": (TEXT + "a10 zoo\n").encode(),
}
BAD_LABELS = {  # a part of the labels, what stands in its place, and what the message says
    "empty": (TEXT, "", "line 1:"),
    "a blank line": (TEXT, "\n", "line 1:"),
    "missing": (TEXT, None, "line 1:.*the end of the file"),
    "a gap": ("a4 jam\n", "", "line 5:.*'a4 <word>'.*'a5 null'"),
    "a line twice": ("a4 jam\n", "a4 jam\n" * 2, "line 6:.*'a4 jam'"),
    "upper case": ("www", "WWW", "line 2:.*letters a-z.*'a1 WWW'"),
    "a digit": ("www", "w3w", "line 2:.*letters a-z.*'a1 w3w'"),
    "an accent": ("www", "über", "line 2:.*'a1 über'"),
    "no UTF-8": ("www", "\udcfcber", "line 2:.*'a1 �ber'"),
    "two blanks": ("a2 tied", "a2  tied", "line 3:.*'a2  tied'"),
    "a tab": ("a2 tied", "a2\ttied", "line 3:"),
    "a blank at the end": ("tied", "tied ", "line 3:.*'a2 tied '"),
    "a very long word": ("tied", "a" * 13, "line 3:"),
    "no word": ("a2 tied", "a2", "line 3:.*'a2'"),
    "another order": ("a3 ids\na4 jam\n", "a4 jam\na3 ids\n", "line 4:"),
    "numbers from 1 on": ("a0 thus\n", "", "line 1:.*'a1 www'"),
    "no last line": ("a9 above\n", "", "line 10:.*the end of the file"),
    "no prefix": ("a5", "5", "line 6:.*'5 null'"),
    "a header": ("a0", "index word\na0", "line 1:.*'index word'"),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_accepts_labels(data, kind):
    (IMAGES / LABELS).write_bytes(ACCEPTED[kind])
    assert get_data(data) == WORDS, "among them null and nan, as words"


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_names_the_wrong_line(data, kind):
    old, new, expected = BAD_LABELS[kind]
    (IMAGES / LABELS).unlink()
    if new is not None:
        text = TEXT.replace(old, new, 1)
        (IMAGES / LABELS).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=rf"words_captcha/{LABELS}, {expected}") as raised:
        get_data(data)
    assert re.search(rf"{COPY} there", str(raised.value)) and "\n" not in str(raised.value)


BAD_IMAGES = {
    "empty": b"",
    "cut off": GOOD["a7.png"][:-500],
    "without its last byte": GOOD["a7.png"][:-1],
    "text": b"<html>404 Not Found</html>",
    "a JPEG": png("JPEG"),
    "missing": None,
    "a folder": "folder",
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("index", [0, 7])
def test_names_the_bad_image(data, kind, index):
    """Before any is shown."""
    content, path = BAD_IMAGES[kind], IMAGES / f"a{index}.png"
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^1 missing or cut off\. Copy again: {path}$"):
        check_images(data)


def test_names_the_first_ten_of_many(data):
    without(*(f"a{index}.png" for index in range(1, 12)))
    with pytest.raises(ValueError, match=r"^11 missing or cut off") as raised:
        check_images(data)
    assert re.findall(r"a(\d+)\.png", str(raised.value)) == [*map(str, range(1, 11))]


@pytest.mark.parametrize("how", ["training_batches", "labelled_batches", "prediction"])
def test_names_the_damaged_image(data, how):
    """One whose ends are right is found when it is decoded, in training too."""
    get_data(data)
    data.tokens = data.tokenize(data.words)
    content = GOOD["a2.png"]
    (IMAGES / "a2.png").write_bytes(content[:1000] + bytes(50) + content[1050:])
    check_images(data)
    image = data.layers.Input((16, 30, 3))
    model = data.keras.Model(image, data.ops.mean(image, axis=(1, 2)))
    message = rf"^1 damaged\. Copy again, then run all cells again: {IMAGES}/a2\.png$"
    with pytest.raises(ValueError, match=message), data.damaged_images_named():
        if how == "prediction":
            model.predict(data.image_batches(np.arange(6)), verbose=0)
        else:
            list(getattr(data, how)(np.arange(6), 1, *[0] * (how == "training_batches")))


def pack(entries, top="words_captcha/", others=()):
    """Writes an archive with entries in the folder `top` and others, and deletes the images."""
    without(*GOOD)
    IMAGES.rmdir()
    with zipfile.ZipFile(ARCHIVE, "w") as file:
        for name in entries:
            file.writestr(top + name, entries[name])
        for name in others:
            file.writestr(name, b"others")


@pytest.mark.parametrize("top", ["words_captcha/", "", "Lab 12/words_captcha/"])
def test_unpacks_the_archive(data, top):
    pack(GOOD, top, [f"__MACOSX/{top}._a1.png", f"__MACOSX/{top}._{LABELS}"])
    assert get_data(data) == WORDS
    check_images(data)
    assert {path.name: path.read_bytes() for path in IMAGES.glob("*.*")} == GOOD
    assert {path.name for path in Path("data").iterdir()} == {IMAGES.name, ARCHIVE.name}


@pytest.mark.parametrize("name", ["../evil.txt", "words_captcha/../../evil.txt", "/tmp/evil.txt"])
def test_writes_nothing_outside(data, tmp_path, name):
    Path("/tmp/evil.txt").unlink(missing_ok=True)
    pack(GOOD, others=[name])
    assert get_data(data) == WORDS
    assert not list(tmp_path.rglob("evil.txt")) and not Path("/tmp/evil.txt").exists()


def flip(content):
    """The archive with other bytes in an image: its checksum is wrong."""
    at = content.index(GOOD["a3.png"]) + 500
    return content[:at] + bytes(byte ^ 255 for byte in content[at : at + 20]) + content[at + 20 :]


BROKEN = {
    "cut off": lambda content: content[: len(content) // 2],
    "with a wrong checksum": flip,
    "empty": lambda content: b"",
    "a web page": lambda content: b"<html>Sign in</html>",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_names_the_broken_archive(data, kind):
    pack(GOOD)
    good = ARCHIVE.read_bytes()
    ARCHIVE.write_bytes(BROKEN[kind](good))
    message = rf"^data/words_captcha\.zip: .+\. {COPY} again, or unpack it yourself\.$"
    with pytest.raises(ValueError, match=message):
        get_data(data)
    assert [path.name for path in Path("data").iterdir()] == [ARCHIVE.name], "nothing is left"
    ARCHIVE.write_bytes(good)
    assert get_data(data) == WORDS


def test_names_the_archive_without_images(data):
    pack({LABELS: GOOD[LABELS]})
    with pytest.raises(ValueError, match=rf"words_captcha\.zip: there is no a0\.png.*{COPY}"):
        get_data(data)


def test_labels_may_be_missing_from_the_archive(data):
    """They are copied beside the images by hand then."""
    pack({name: GOOD[name] for name in GOOD if name != LABELS})
    with pytest.raises(ValueError, match=rf"words_captcha/{LABELS}, line 1.*{COPY}"):
        get_data(data)
    (IMAGES / LABELS).write_bytes(GOOD[LABELS])
    assert get_data(data) == WORDS


def test_archive_and_stand_in_are_not_mixed(data):
    pack(GOOD)
    IMAGES.mkdir()
    (IMAGES / "stand_in.json").write_text("{}")
    message = r"words_captcha holds the stand-in\. Delete it, so that .*\.zip can be unpacked"
    with pytest.raises(ValueError, match=message):
        get_data(data)


def test_says_what_to_do_without_images_and_script(data):
    without(*GOOD)
    with pytest.raises(FileNotFoundError, match=r"Put words_captcha\.zip into data/"):
        get_data(data)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "a.b", "a-b", "a\n"])
def test_refuses_a_student_id_that_makes_no_file_name(data, name):
    code = SOURCES[cell_with("STUDENT_ID = ")].replace('"studentID"', repr(name))
    with pytest.raises(ValueError, match="STUDENT_ID: expected letters and digits alone, found"):
        run_code(data, "<parameters>", code)
