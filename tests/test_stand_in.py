"""Tests of data/stand_in.py: what it draws, and how it deals with the files on disk."""

import itertools
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
sys.path.insert(0, str(SCRIPT.parent))  # worker processes import the module as well

import stand_in  # noqa: E402

SEED = 11
COUNTS = (20, 6, 6)


def make(folder, counts=COUNTS, seed=SEED, processes=1):
    """Makes the data in `folder`; returns the indices."""
    return list(stand_in.make(folder, counts, seed, processes))


def contents(folder):
    """The bytes of each file in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder in which one process has drawn 32 images without interruption."""
    folder = tmp_path_factory.mktemp("data") / "images"
    assert sorted(make(folder)) == list(range(32))
    return folder


def test_words():
    words = stand_in.words()
    assert words == sorted(set(words))
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
    assert np.bincount([len(word) for word in words]).tolist() == [0, 0, 0, 675, 1100, 725]
    known = "thus www tied ids jam zoo lot ooo cio gmt issn gmc cgi unix foto mpg null nan html"
    assert set(known.split()) <= set(words)


def test_words_and_fonts_are_uniform():
    drawn = [stand_in.word_of(index, SEED) for index in range(10_000)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) >= 2400 and counts.max() <= 16  # expected: 2454 words, 4 times on average
    styles = [stand_in.font_of(index, SEED)[0] for index in range(2000)]
    assert np.unique(styles, return_counts=True)[1].min() > 430


def test_pixels():
    pixels = np.array([np.asarray(stand_in.draw(index, SEED)[0]) for index in range(60)])
    assert pixels.shape == (60, 320, 600, 3)
    covered = (pixels != 255).any(axis=3).mean(axis=(1, 2))
    assert 0.10 <= covered.mean() <= 0.14 and covered.min() >= 0.04 and covered.max() <= 0.22


HEIGHTS = {  # of tall and small letters in genuine images; how far off a font's small ones may be
    "upright brush": (101, 42, 5),
    "slanted script": (98, 45, 2),
    "round handwriting": (104, 75, 2),
    "humanist sans": (105, 72, 2),
}


@pytest.mark.parametrize("style", HEIGHTS)
def test_letter_heights(style):
    """In every font the median letter is as high as in the genuine images."""
    tall, small, off = HEIGHTS[style]
    for font, (size, _, smaller, thicken) in stand_in.STYLES[style].items():
        cases = ("bdhkl", size, tall, 2), ("acemnorsuvwxz", smaller, small, off)
        for letters, pixels, height, most in cases:
            masks = [stand_in._glyph(font, pixels, thicken, letter)[0] for letter in letters]
            assert all(mask.getbbox() == (0, 0, *mask.size) for mask in masks), font
            assert abs(np.median([mask.height for mask in masks]) - height) <= most, font


def test_boxes():
    """Boxes follow one another, and few words stick out of the image."""
    inside = 0
    for index in range(300):
        _, word, boxes = stand_in.draw(index, SEED)
        assert len(boxes) == len(word)
        assert all(a[2] <= b[0] for a, b in itertools.pairwise(boxes))
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        inside += min(lefts) >= 0 and max(rights) <= 600 and min(tops) >= 0 and max(bottoms) <= 320
    assert 275 <= inside < 300


def test_files(data):
    assert set(contents(data)) == {"stand_in.json", "spec_train_val.txt"} | {
        f"a{index}.png" for index in range(32)
    }
    assert (data / "spec_train_val.txt").read_text() == stand_in.labels_text(26, SEED)
    for index in (0, 31):
        with Image.open(data / f"a{index}.png") as image:
            assert image.mode == "RGB" and image.info == {}  # no word hidden in the file
            assert image.tobytes() == stand_in.draw(index, SEED)[0].tobytes()


def test_two_processes_and_other_counts_draw_the_same(data, tmp_path):
    make(tmp_path, (30, 25, 5), processes=2)
    for index in range(32):
        assert (tmp_path / f"a{index}.png").read_bytes() == (data / f"a{index}.png").read_bytes()


def test_resumes_after_an_early_close(data, tmp_path):
    drawing = stand_in.make(tmp_path, COUNTS, SEED, 1)
    next(drawing)
    drawing.close()
    (tmp_path / "a5.png").unlink()
    (tmp_path / ".a5.png.part").write_bytes(b"half")
    kept = (tmp_path / "a6.png").stat().st_mtime_ns
    assert sorted(make(tmp_path)) == list(range(32))
    assert (tmp_path / "a6.png").stat().st_mtime_ns == kept
    assert contents(tmp_path) == contents(data)


def test_workers_end_with_their_parent(tmp_path):
    line = [sys.executable, SCRIPT, "--images", tmp_path, "--train", "5000", "--processes", "2"]
    job = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (tmp_path / "a40.png").exists():
        assert time.monotonic() < deadline and job.poll() is None
        time.sleep(0.01)
    os.kill(job.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    job.wait()
    time.sleep(1)
    left = set(contents(tmp_path))
    time.sleep(0.5)
    assert set(contents(tmp_path)) == left


def test_refuses_other_images(data, tmp_path):
    (tmp_path / "a0.png").write_bytes(b"an image of the course")
    with pytest.raises(ValueError, match="not the stand-in's"):
        make(tmp_path)
    assert set(contents(tmp_path)) == {"a0.png"}
    for settings in ({"seed": SEED + 1}, {"counts": (21, 6, 6)}):
        with pytest.raises(ValueError, match="another version, seed or number"):
            make(data, **settings)


def test_refuses_a_full_disk(tmp_path, monkeypatch):
    usage = stand_in.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(stand_in.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="GB"):
        make(tmp_path / "images")
    assert not list(tmp_path.iterdir())
