"""What a student's files can be like: what is accepted, and what is named before training."""

import io
import json
import linecache
import os
import re
import shutil
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import NOTEBOOK, cells_of, run_script, source, write_script
from PIL import Image

DATA = Path("data/quick")  # where QUICK=1 looks for the archive
WORDS = ["thus", "www", "tied", "ids", "jam", "zoo", "apple", "big", "lot", "above"]


def png(mode="RGB", size=(60, 32), seed=0):
    """The bytes of a small PNG file of noise."""
    pixels = np.random.default_rng(seed).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def header_of(width, height):
    """A PNG file that promises an image of a size, and holds none of it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.fixture
def paths(tmp_path):
    """Six good images."""
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"a{index}.png" for index in range(6)]
    for index, path in enumerate(paths):
        path.write_bytes(png(seed=index))
    return paths


def shrink(notebook, paths, needed=None):
    """Has the notebook shrink images; returns them."""
    notebook.shrink_all([str(path) for path in paths], notebook.CACHE, needed, chunk=2)
    return np.fromfile(notebook.CACHE, np.uint8).reshape(-1, notebook.HEIGHT, notebook.WIDTH, 3)


# --- Images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_accepts_any_kind_of_png(notebook, paths, mode):
    paths[2].write_bytes(png(mode))
    with Image.open(paths[2]) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("RGB"), float).mean()
    assert shrink(notebook, paths)[2].mean() == pytest.approx(expected, abs=1)


def test_accepts_another_size_if_all_have_it(notebook, paths):
    for path in paths:
        path.write_bytes(png(size=(300, 160)))
    assert shrink(notebook, paths).shape == (6, 80, 150, 3)


BAD = {
    "truncated": (png()[:-500], "damaged"),
    "without its end": (png()[:-12], "damaged"),
    "flipped bits": (png()[:1000] + b"\0" * 50 + png()[1050:], "damaged"),
    "empty": (b"", "an empty file"),
    "half a header": (png()[:20], "not a PNG file"),
    "text": (b"<html>404 Not Found</html>", "not a PNG file"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(100), "not a PNG file"),
    "another size": (png(size=(60, 33)), "60×33 pixels, most images have 60×32"),
    "absurd size": (header_of(2**31 - 1, 2**31 - 1), "2147483647×2147483647 pixels"),
    "no pixels": (header_of(0, 32), "0×32 pixels"),
    "only a header": (header_of(60, 32), "damaged"),
    "a folder": (None, "Is a directory|Permission denied"),
}


def spoil(path, content):
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)


@pytest.mark.parametrize("kind", BAD)
def test_names_the_bad_image(notebook, paths, kind):
    content, reason = BAD[kind]
    spoil(paths[4], content)
    with pytest.raises(
        ValueError, match=rf"^Bad images, 1 in all: .*a4\.png \((?:{reason}).*"
    ) as raised:
        shrink(notebook, paths)
    message = str(raised.value)
    assert message.count("\n") == 1 and "SKIP_BAD_IMAGES" in message
    assert not re.search(r"a[01235]\.png", message)
    assert not notebook.CACHE.exists()
    assert notebook.picture(paths[4]).size[0] > 0, "the look at the first images does not fail"


def test_images_that_are_all_of_an_absurd_size_are_not_decoded(notebook, paths):
    for path in paths:
        path.write_bytes(header_of(100_000, 100_000))
    with pytest.raises(
        ValueError, match="Bad images, 6 in all.*100000×100000 pixels, 4,000,000 at most"
    ):
        shrink(notebook, paths)


def test_names_an_image_that_may_not_be_read(notebook, paths, monkeypatch):
    def refusing_open(path, *options):
        if str(path).endswith("a4.png"):
            raise PermissionError(13, "Permission denied", path)
        return open(path, *options)

    monkeypatch.setattr(notebook, "open", refusing_open, raising=False)
    with pytest.raises(ValueError, match=r"Bad images, 1 in all: .*a4\.png \(Permission denied\)"):
        shrink(notebook, paths)


def test_lists_all_bad_images_in_one_pass(notebook, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"a{index}.png" for index in range(40)]
    for index, path in enumerate(paths):
        path.write_bytes(png(seed=index)[: None if index % 2 else -500 if index % 4 else 10])
    with pytest.raises(ValueError, match=r"^Bad images, 20 in all: ") as raised:
        shrink(notebook, paths)
    named = re.findall(r"a(\d+)\.png", str(raised.value))
    assert named == [str(index) for index in range(0, 20, 2)] and ", …" in str(raised.value)


def test_replaced_images_alone_are_shrunk_again(notebook, paths, monkeypatch):
    good = [path.read_bytes() for path in paths]
    whole = shrink(notebook, paths).copy()
    notebook.CACHE.unlink()
    for index in (1, 4):
        paths[index].write_bytes(good[index][:-500])
    with pytest.raises(ValueError, match="Bad images, 2 in all"):
        shrink(notebook, paths)
    asked, decoded = [], notebook.decoded

    def spy(paths, indices, chunk):
        asked.extend(indices.tolist())
        return decoded(paths, indices, chunk)

    monkeypatch.setattr(notebook, "decoded", spy)
    paths[1].write_bytes(good[1])
    with pytest.raises(ValueError, match="Bad images, 1 in all"):
        shrink(notebook, paths)
    paths[4].write_bytes(good[4])
    assert (shrink(notebook, paths) == whole).all()
    assert asked == [1, 4, 4]


def test_other_images_are_shrunk_anew(notebook, paths):
    """An unfinished cache of images that were then exchanged is not taken for the new ones'."""
    paths[5].write_bytes(b"")
    with pytest.raises(ValueError):
        shrink(notebook, paths)
    for index, path in enumerate(paths):
        path.write_bytes(png(mode="L", seed=9 + index))
    images = shrink(notebook, paths)
    notebook.CACHE.unlink()
    assert (images == shrink(notebook, paths)).all() and (images[..., 0] == images[..., 2]).all()


def test_skipped_images_are_white_and_not_trained_on(cached, paths, monkeypatch):
    """A bad training image is replaced by others; a bad test image has pixels for an answer."""
    for index in (1, 5):
        paths[index].write_bytes(paths[index].read_bytes()[:-500])
    for name, value in {"TRAIN": 4, "VALIDATION": 1, "TEST": 1, "TOTAL": 6}.items():
        monkeypatch.setattr(cached, name, value)
    monkeypatch.setattr(cached, "BATCH_SIZE", 4)
    images = shrink(cached, paths, needed=0)
    assert (images[[1, 5]] == 255).all() and (images[[0, 2, 3, 4]] < 255).any(axis=(1, 2, 3)).all()
    assert cached.bad_images() == {1: "damaged", 5: "damaged"}
    tokens = np.arange(6 * 7, dtype="int32").reshape(6, 7)
    for (_, given), _ in cached.training_batches(tokens).as_numpy_iterator():
        assert set(given[:, 0] // 7) == {0, 2, 3} and len(given) == 4
    ((batch, _),) = cached.plain_batches(5, 6).as_numpy_iterator()
    assert (batch == 255).all()


def test_a_bad_test_image_stops_nothing(notebook, paths):
    paths[5].write_bytes(b"")
    assert (shrink(notebook, paths, needed=5)[5] == 255).all()
    assert notebook.bad_images() == {5: "an empty file"}
    notebook.refuse(notebook.bad_images(), paths, needed=5)
    with pytest.raises(ValueError, match=r"a5\.png \(an empty file\)"):
        notebook.refuse(notebook.bad_images(), paths, needed=6)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own that holds 128 kB; `small_disk.resize("1m")` gives it another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size, *more):
        options = ",".join([f"size={size}", *more])
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
            capture_output=True,
            check=False,
        )

    if os.name != "posix" or not shutil.which("mount") or mount("128k").returncode:
        pytest.skip("no disk may be mounted here")
    yield SimpleNamespace(folder=folder, resize=lambda size: mount(size, "remount"))
    subprocess.run(["umount", folder], check=True)


def test_refuses_a_disk_that_is_too_small(notebook, paths, small_disk):
    """Six images of 36 kB don't fit; nothing is written, and with room enough it goes on."""
    notebook.CACHE = small_disk.folder / "cache" / "images.uint8"
    with pytest.raises(OSError, match=r"cache: 0\.0 GB are needed, 0\.0 GB are free"):
        shrink(notebook, paths)
    assert sum(path.stat().st_size for path in notebook.CACHE.parent.iterdir()) == 0
    small_disk.resize("1m")
    assert len(shrink(notebook, paths)) == 6


def test_goes_on_after_the_disk_was_filled(notebook, paths, small_disk, monkeypatch):
    """Something else fills the disk while images are being shrunk; then it is taken away."""
    small_disk.resize("320k")
    notebook.CACHE = small_disk.folder / "images.uint8"
    asked, decoded, other = [], notebook.decoded, small_disk.folder / "other"

    def fill(paths, indices, chunk):
        asked.append(len(indices))
        for index, image in decoded(paths, indices, chunk):
            yield index, image
            if len(asked) == 1 and index == 2:
                with pytest.raises(OSError), other.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))

    monkeypatch.setattr(notebook, "decoded", fill)
    with pytest.raises(OSError, match="No space left on device"):
        shrink(notebook, paths)
    assert not notebook.CACHE.exists()
    other.unlink()
    images = shrink(notebook, paths)
    assert asked[0] == 6 and 0 < asked[1] < 6, "the first images were kept"
    notebook.CACHE = small_disk.folder.parent / "whole.uint8"
    assert (images == shrink(notebook, paths)).all()


def test_a_full_disk_leaves_the_old_answers(notebook, small_disk):
    path = small_disk.folder / "answers.txt"
    notebook.write_answers(path, 0, ["thus", "www"])
    with pytest.raises(OSError, match="No space left on device"):
        notebook.write_answers(path, 0, ["thus"] * 20_000)
    assert path.read_text() == "a0 thus\na1 www\n"


SAVE_TO_A_FULL_DISK = """
folder = Path(sys.argv[1])
model = keras.Sequential([keras.Input((8,)), layers.Dense(10_000)])
model.compile("sgd", "mse")
checkpoint = Checkpoint(folder)
checkpoint.set_model(model)
checkpoint.save("latest.weights.h5")
kept = (folder / "latest.weights.h5").read_bytes()
(folder / "other").write_bytes(bytes(1_500_000))
model.set_weights([weight + 1 for weight in model.get_weights()])
try:
    checkpoint.save("latest.weights.h5")
except OSError as error:
    print("stopped:", error, flush=True)
assert (folder / "latest.weights.h5").read_bytes() == kept
os._exit(0)  # HDF5 can't close a file that it couldn't write: it would crash the process now
"""


def test_a_full_disk_leaves_the_old_checkpoint(small_disk, tmp_path):
    """What can't be saved whole is not saved; the state of the epoch before is still there."""
    small_disk.resize("2m")
    script = write_script(tmp_path / "saving.py", SAVE_TO_A_FULL_DISK)
    saved = run_script(script, small_disk.folder)
    assert saved.returncode == 0, saved.stderr[-3000:]
    assert b"stopped: " in saved.stdout and b"No space left on device" in saved.stdout


def test_a_folder_that_may_not_be_written_to_is_named(notebook, paths, tmp_path):
    notebook.CACHE = tmp_path / "a file" / "images.uint8"
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(OSError, match="a file"):
        shrink(notebook, paths)


# --- The archive ----------------------------------------------------------------------------------


def archive_of(folder, entries, compression=zipfile.ZIP_DEFLATED):
    path = folder / "words_captcha.zip"
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


@pytest.fixture
def entries():
    """What the course's archive holds, but smaller."""
    labels = "".join(f"a{index} {word}\n" for index, word in enumerate(WORDS))
    entries = {f"words_captcha/a{index}.png": png(seed=index) for index in range(12)}
    return entries | {"words_captcha/spec_train_val.txt": labels.encode()}


HIDDEN = ["__MACOSX/words_captcha/._a1.png", "words_captcha/.DS_Store", "words_captcha/Thumbs.db"]


@pytest.mark.parametrize("top", ["words_captcha/", "", "Lab 12/words_captcha/"])
def test_unpacks_the_archive(notebook, tmp_path, entries, top):
    moved = {name.replace("words_captcha/", top): content for name, content in entries.items()}
    archive = archive_of(tmp_path, moved | dict.fromkeys(HIDDEN, b"hidden"))
    images = tmp_path / "data" / "words_captcha"
    notebook.unpack(archive, images)
    found = {path.name: path.read_bytes() for path in images.iterdir()}
    assert found == {name.rpartition("/")[2]: content for name, content in entries.items()}
    notebook.check_data(images, images / "spec_train_val.txt", 12)
    assert notebook.read_labels(images / "spec_train_val.txt", 10) == WORDS


def test_unpacking_goes_on_after_an_interruption(notebook, tmp_path, entries, monkeypatch):
    archive, images = archive_of(tmp_path, entries), tmp_path / "words_captcha"
    write_bytes = notebook.Path.write_bytes

    def interrupted(path, content):
        write_bytes(path, content[: 100 if path.name == "a3.png" else None])
        if path.name == "a3.png":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(notebook.Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            notebook.unpack(archive, images)
    assert (images / "unfinished").exists(), "what is half unpacked says so"
    kept = (images / "a0.png").stat().st_mtime_ns
    notebook.unpack(archive, images)
    assert (images / "a3.png").read_bytes() == entries["words_captcha/a3.png"]
    assert (images / "a0.png").stat().st_mtime_ns == kept
    assert {path.name for path in images.iterdir()} == {name.split("/")[1] for name in entries}


@pytest.mark.parametrize(
    "name", ["../evil.txt", "words_captcha/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt"]
)
def test_refuses_entries_that_would_land_outside(notebook, tmp_path, entries, name):
    archive = archive_of(tmp_path, entries | {name: b"evil"})
    with pytest.raises(ValueError, match=r"words_captcha\.zip: .*evil\.txt.* outside"):
        notebook.unpack(archive, tmp_path / "data" / "words_captcha")
    assert list(tmp_path.rglob("*")) == [archive]


def test_refuses_an_entry_of_absurd_size(notebook, tmp_path, entries):
    archive = archive_of(tmp_path, entries | {"words_captcha/a12.png": bytes(20_000_000)})
    with pytest.raises(ValueError, match=r"a12\.png.* larger than 10 MB"):
        notebook.unpack(archive, tmp_path / "data" / "words_captcha")
    assert list(tmp_path.rglob("*")) == [archive]


def truncate(content):
    return content[: len(content) // 2]


def flip(content):
    return content[:1500] + bytes(byte ^ 255 for byte in content[1500:1600]) + content[1600:]


@pytest.mark.parametrize("damage", [truncate, flip, lambda content: b"", lambda content: b"hello"])
def test_names_the_broken_archive(notebook, tmp_path, entries, damage):
    archive, images = archive_of(tmp_path, entries), tmp_path / "words_captcha"
    good = archive.read_bytes()
    archive.write_bytes(damage(good))
    with pytest.raises(ValueError, match=r"words_captcha\.zip is broken \(.*\)\. Copy it again"):
        notebook.unpack(archive, images)
    for path in images.glob("a*.png"):
        assert path.read_bytes() == entries[f"words_captcha/{path.name}"], "none is half there"
    archive.write_bytes(good)
    notebook.unpack(archive, images)
    assert len(list(images.glob("a*.png"))) == 12


def test_names_the_archive_without_images(notebook, tmp_path):
    archive = archive_of(tmp_path, {"notes.txt": b"hello"})
    with pytest.raises(ValueError, match=r"words_captcha\.zip holds no image a0\.png"):
        notebook.unpack(archive, tmp_path / "words_captcha")


def test_refuses_to_unpack_to_a_full_disk(notebook, tmp_path, entries, monkeypatch):
    usage = notebook.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(notebook.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="words_captcha: 0.0 GB are needed"):
        notebook.unpack(archive_of(tmp_path, entries), tmp_path / "words_captcha")


# --- Labels and other files -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "._a1.png", ".a1.png.77.part"])
def test_ignores_hidden_files(notebook, paths, tmp_path, name):
    (paths[0].parent / name).write_bytes(b"hidden")
    labels = tmp_path / "labels.txt"
    labels.write_text("a0 thus\n")
    notebook.check_data(paths[0].parent, labels, 6)


@pytest.mark.parametrize("text", ["", "\n", "a0 thus\n\n", "\ufeff\n"])
def test_names_empty_lines_and_empty_files(notebook, tmp_path, text):
    path = tmp_path / "labels.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"labels\.txt(: expected 2 lines, found 0|, line \d: )"):
        notebook.read_labels(path, 2)


def test_a_missing_last_newline_is_no_error(notebook, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(b"\xef\xbb\xbfa0 thus\r\na1 www")
    assert notebook.read_labels(path, 2) == ["thus", "www"]


def test_says_that_upper_case_is_wrong(notebook, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("a0 thus\na1 WWW\n")
    with pytest.raises(ValueError, match="line 2: .*lower-case letters.*'a1 WWW'"):
        notebook.read_labels(path, 2)


# --- All of it, as the notebook goes through it ---------------------------------------------------


@pytest.fixture
def run_cells(notebook, tmp_path, monkeypatch):
    """Runs the cells from the parameters up to the cache, in a folder of its own, for 12 images."""
    (tmp_path / "here" / "data" / "quick").mkdir(parents=True)
    (tmp_path / "here" / "data" / "stand_in.py").touch()
    monkeypatch.chdir(tmp_path / "here")
    texts = [source(cell) for cell in cells_of(NOTEBOOK)]
    (first,) = [i for i, text in enumerate(texts) if text.startswith("STUDENT_ID = ")]
    (last,) = [i for i, text in enumerate(texts) if "shrink_all(paths, CACHE" in text]

    def run(**settings):
        vars(notebook).update(before | {"TRAIN": 8, "VALIDATION": 2, "TEST": 2} | settings)
        for number in range(first + 1, last + 1):
            name, text = f"<cell {number}>", texts[number]
            linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
            exec(compile(text, name, "exec"), vars(notebook))
        notebook.plt.close("all")
        return dict(vars(notebook))

    before = dict(vars(notebook))
    yield run
    vars(notebook).clear()
    vars(notebook).update(before)


def test_course_archive_goes_all_the_way(run_cells, entries, capsys):
    archive_of(DATA, entries)
    names = run_cells()
    assert names["ORIGIN"] == "course" and names["words"] == WORDS
    assert names["CACHE"].stat().st_size == 12 * 80 * 150 * 3
    assert "images that can't be read: 0" in capsys.readouterr().out


def test_bad_images_on_the_way(run_cells, entries, capsys):
    """A bad training image stops the run until it is replaced or skipped, a bad test image never;
    without the setting the skipped one stops the next run again."""
    for index in (0, 10):
        entries[f"words_captcha/a{index}.png"] = b"no image"
    archive_of(DATA, entries)
    with pytest.raises(ValueError, match=r"^Bad images, 1 in all: .*a0\.png \(not a PNG file\)"):
        run_cells()
    run_cells(SKIP_BAD_IMAGES=True)
    assert "images that can't be read: 2" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"^Bad images, 1 in all: .*a0\.png"):
        run_cells()
    (DATA / "words_captcha" / "a0.png").write_bytes(png())
    run_cells()
    out = capsys.readouterr().out
    assert "a10.png is white, for it can't be read: not a PNG file" in out
    assert "images that can't be read: 1" in out


def test_a_cache_of_the_wrong_length_is_made_again(run_cells, entries):
    archive_of(DATA, entries)
    cache = run_cells()["CACHE"]
    content = cache.read_bytes()
    cache.write_bytes(content[:-1])
    assert run_cells()["CACHE"].read_bytes() == content


def test_other_sizes_and_other_images_get_another_cache(run_cells, entries):
    archive_of(DATA, entries)
    names = {run_cells()["CACHE"].name, run_cells(HEIGHT=40)["CACHE"].name}
    (DATA / "words_captcha" / "a2.png").write_bytes(png("L"))
    assert len(names | {run_cells()["CACHE"].name}) == 3


def test_half_unpacked_images_are_completed(run_cells, entries):
    images = DATA / "words_captcha"
    images.mkdir()
    (images / "unfinished").touch()
    (images / "a0.png").write_bytes(entries["words_captcha/a0.png"][:50])
    archive_of(DATA, entries)
    run_cells()
    assert (images / "a0.png").read_bytes() == entries["words_captcha/a0.png"]


def test_archive_and_stand_in_are_not_mixed(run_cells, entries):
    archive_of(DATA, entries)
    (DATA / "words_captcha").mkdir()
    (DATA / "words_captcha" / "stand_in.json").write_text("{}")
    with pytest.raises(ValueError, match="holds the stand-in. Delete it"):
        run_cells()


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "a.b", "a-b"])
def test_refuses_a_student_id_that_makes_no_file_name(run_cells, name):
    with pytest.raises(ValueError, match="STUDENT_ID: expected letters and digits alone"):
        run_cells(STUDENT_ID=name)


def test_names_the_folder_if_it_is_the_wrong_one(run_cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data/stand_in\.py is not in .*papermill"):
        run_cells()


# --- Security -------------------------------------------------------------------------------------


def test_nothing_unpickles(definitions):
    """Neither NumPy nor Keras is told to load code, and no module that does is imported."""
    code = definitions.Path(definitions.__file__).read_text(encoding="utf-8")
    assert not re.search(r"pickle|marshal|shelve|joblib|safe_mode|enable_unsafe|\beval\(", code)


def test_sidecar_of_the_cache_is_plain_json(notebook, paths):
    paths[5].write_bytes(b"")
    shrink(notebook, paths, needed=0)
    assert json.loads(notebook.CACHE.with_suffix(".json").read_text()) == {"5": "an empty file"}
