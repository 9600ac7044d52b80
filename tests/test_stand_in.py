"""Tests of data/stand_in.py: what it draws, and how it deals with the files on disk."""

import hashlib
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[1] / "data" / "stand_in.py"
SEED = 11
MARKER = "stand_in.json"


def load():
    """The script as a module; there is no package to import it from."""
    spec = importlib.util.spec_from_file_location("stand_in", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stand_in = load()


def command(folder, counts=(20, 6, 6), processes=1, seed=SEED):
    """The command line that makes the data inside `folder`."""
    options = {
        "--images": folder / "images",
        "--labels": folder / "labels.txt",
        "--train": counts[0],
        "--validation": counts[1],
        "--test": counts[2],
        "--seed": seed,
        "--processes": processes,
    }
    pairs = [str(part) for pair in options.items() for part in pair]
    return [sys.executable, str(SCRIPT), "--progress", *pairs]


def run(folder, **settings):
    """Runs the script to its end and returns what it said."""
    line = command(folder, **settings)
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def contents(folder):
    """The bytes of every file below a folder, by name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_refused(folder, **settings):
    """Runs the script and makes sure that it declines, in plain words, and changes nothing."""
    before = contents(folder)
    result = run(folder, **settings)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert 1 <= len(result.stderr.strip().splitlines()) <= 2
    assert contents(folder) == before


def share_not_white(pixels):
    """The share of the pixels that are not white."""
    return (pixels != 255).any(axis=2).mean()


def share_lone(pixels):
    """The share of the pixels that are not white while their eight neighbours are."""
    height, width = pixels.shape[:2]
    white = np.pad((pixels == 255).all(axis=2), 1, constant_values=True)
    shifts = [(down, right) for down in range(3) for right in range(3) if (down, right) != (1, 1)]
    around = [white[down : down + height, right : right + width] for down, right in shifts]
    return (~white[1:-1, 1:-1] & np.all(around, axis=0)).mean()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder in which one process has drawn 32 images without interruption."""
    folder = tmp_path_factory.mktemp("data")
    result = run(folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def pictures():
    """Sixty drawn images."""
    return [stand_in.draw(index, SEED)[0] for index in range(60)]


def test_words():
    words = stand_in.words()
    lengths = np.bincount([len(word) for word in words])
    assert words == sorted(set(words)) and len(words) == 2500
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
    assert lengths.tolist() == [0, 0, 0, 675, 1100, 725]
    assert {"thus", "www", "ids", "zoo", "apple", "lot", "ooo", "kerry", "toe"} <= set(words)


def test_words_are_uniform():
    drawn = [stand_in.word_of(index, SEED) for index in range(10_000)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) >= 2400 and counts.max() <= 16  # expected: 2454 words, 4 times on average
    assert drawn[:1000] != [stand_in.word_of(index, SEED + 1) for index in range(1000)]


def test_kind_of_image(pictures):
    assert all(picture.size == (600, 320) and picture.mode == "RGB" for picture in pictures)
    assert all(20_000 <= len(stand_in.png(picture)) <= 40_000 for picture in pictures)


def test_shares_of_pixels(pictures):
    covered = [share_not_white(np.array(picture)) for picture in pictures]
    lone = [share_lone(np.array(picture)) for picture in pictures]
    assert 0.09 <= np.mean(covered) <= 0.14 and min(covered) >= 0.04 and max(covered) <= 0.22
    assert 0.0068 <= np.mean(lone) <= 0.0083 and min(lone) >= 0.005 and max(lone) <= 0.0105


def test_colours_can_be_seen():
    rng = np.random.default_rng(0)
    colours = np.array([stand_in._colour(rng) for _ in range(2000)])
    assert (colours @ [0.299, 0.587, 0.114]).max() <= stand_in.LIGHTEST
    assert colours.min() == 0 and colours.max() == 255


def test_font_and_boxes():
    """What is told of an image is what was drawn; all fonts occur."""
    fonts = set()
    for index in range(100):
        font, boxes = stand_in.font_and_boxes(index, 7)
        fonts.add(f"{font}.ttf")
        if index < 5:
            assert boxes == stand_in.draw(index, 7)[2]
    assert fonts == {font for style in stand_in.STYLES.values() for font in style}


def test_boxes_hold_the_letters():
    for index in range(40):
        rng = np.random.default_rng([3, index])
        image = Image.new("RGB", (stand_in.WIDTH, stand_in.HEIGHT), "white")
        _, boxes = stand_in._draw_word(rng, image, "fjord"[: 3 + index % 3])
        ink = (np.array(image) != 255).any(axis=2)
        outside = ink.copy()
        for left, top, right, bottom in boxes:
            inside = (slice(max(0, top), max(0, bottom)), slice(max(0, left), max(0, right)))
            assert ink[inside].sum() > 100
            outside[inside] = False
        assert not outside.any()


def test_boxes_are_tight():
    for style in stand_in.STYLES.values():
        for font, size in style.items():
            for letter in "abcdefghijklmnopqrstuvwxyz":
                mask, _ = stand_in._glyph(font, size, letter)
                assert mask.getbbox() == (0, 0, *mask.size), (font, letter)


def test_most_words_are_inside_and_letters_do_not_overlap():
    inside = 0
    for index in range(300):
        _, word, boxes = stand_in.draw(index, SEED)
        assert len(boxes) == len(word)
        assert all(a[2] <= b[0] for a, b in itertools.pairwise(boxes))
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        inside += min(lefts) >= 0 and max(rights) <= 600 and min(tops) >= 0 and max(bottoms) <= 320
        assert min(lefts) > -40 and max(rights) < 640
    assert 260 <= inside < 300


def test_files(data):
    labels = (data / "labels.txt").read_bytes()
    marker = json.loads((data / "images" / MARKER).read_text())
    assert labels.decode() == stand_in.labels_text(26, SEED)
    assert labels.decode().splitlines()[7] == f"a7 {stand_in.word_of(7, SEED)}"
    assert marker.pop("labels_sha256") == hashlib.sha256(labels).hexdigest()
    assert marker == {
        "made_by": "data/stand_in.py",
        "version": stand_in.VERSION,
        "seed": SEED,
        "train": 20,
        "validation": 6,
        "test": 6,
        "images": 32,
    }
    names = {f"a{index}.png" for index in range(32)} | {MARKER}
    assert {path.name for path in (data / "images").iterdir()} == names
    assert {path.name for path in data.iterdir()} == {"images", "labels.txt"}


def test_words_of_test_images_stand_in_no_file(data):
    assert len((data / "labels.txt").read_text().splitlines()) == 26
    png = [b"IHDR", b"IDAT", b"IEND"]
    for index in range(26, 32):
        path = data / "images" / f"a{index}.png"
        with Image.open(path) as image:
            image.load()
            assert image.info == {}
        assert all(path.read_bytes().count(kind) == 1 for kind in png)
    assert "words" not in (data / "images" / MARKER).read_text()


def test_file_holds_the_drawn_pixels(data):
    for index in (0, 31):
        with Image.open(data / "images" / f"a{index}.png") as image:
            drawn, _, _ = stand_in.draw(index, SEED)
            assert image.mode == "RGB" and image.tobytes() == drawn.tobytes()


def test_progress_lines(tmp_path):
    result = run(tmp_path, counts=(3, 0, 0))
    numbers = [int(line) for line in result.stdout.splitlines()]
    assert numbers == sorted(numbers) and numbers[-1] == 3
    assert result.stderr == ""


def test_two_processes_and_other_counts_draw_the_same(data, tmp_path):
    result = run(tmp_path, counts=(30, 25, 5), processes=2)
    assert result.returncode == 0, result.stderr
    for index in range(32):
        name = f"a{index}.png"
        assert (tmp_path / "images" / name).read_bytes() == (data / "images" / name).read_bytes()
    assert (tmp_path / "labels.txt").read_text().startswith((data / "labels.txt").read_text())


def test_resumes(data, tmp_path):
    assert run(tmp_path).returncode == 0
    images = tmp_path / "images"
    (images / "a5.png").unlink()
    (images / ".a5.png.123.part").write_bytes(b"half")
    (tmp_path / ".labels.txt.123.part").write_bytes(b"half")
    (tmp_path / "labels.txt").unlink()
    kept = (images / "a6.png").stat().st_mtime_ns
    assert run(tmp_path).returncode == 0
    assert contents(tmp_path) == contents(data)
    assert (images / "a6.png").stat().st_mtime_ns == kept


def test_killed_run_can_be_resumed(tmp_path):
    counts = (700, 10, 10)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    job = subprocess.Popen(
        command(killed, counts=counts, processes=2),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not (killed / "images" / "a40.png").exists():
        assert time.monotonic() < deadline and job.poll() is None
        time.sleep(0.005)
    os.kill(job.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    job.wait()
    time.sleep(1)
    left = contents(killed)
    time.sleep(0.5)
    assert contents(killed) == left, "a worker went on after its parent was killed"
    assert len(left) < 722
    for name, content in left.items():
        if name.endswith(".png"):
            assert content.endswith(b"IEND\xaeB`\x82")

    assert run(killed, counts=counts, processes=2).returncode == 0
    assert run(whole, counts=counts, processes=2).returncode == 0
    assert contents(killed) == contents(whole)
    for path in (killed / "images").glob("*.png"):
        with Image.open(path) as image:
            image.load()


def test_refuses_images_that_are_not_its_own(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a0.png").write_bytes(b"a picture of the course")
    assert_refused(tmp_path)


def test_refuses_another_seed_or_other_counts(tmp_path):
    assert run(tmp_path, counts=(3, 1, 1)).returncode == 0
    assert_refused(tmp_path, counts=(3, 1, 1), seed=SEED + 1)
    assert_refused(tmp_path, counts=(4, 1, 1))
    (tmp_path / "images" / MARKER).write_text("{")
    assert_refused(tmp_path, counts=(3, 1, 1))


def test_refuses_other_labels(tmp_path):
    (tmp_path / "labels.txt").write_text("a0 thus\na1 www\n")
    assert_refused(tmp_path)


def test_refuses_a_full_disk(tmp_path, monkeypatch):
    usage = stand_in.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(stand_in.shutil, "disk_usage", lambda path: usage)
    paths = (tmp_path / "images", tmp_path / "labels.txt")
    with pytest.raises(stand_in.Refusal, match="GB"):
        stand_in.make(*paths, (5, 1, 1), SEED, 1, print)
    assert not list(tmp_path.iterdir())
