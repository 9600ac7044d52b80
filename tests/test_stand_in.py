"""Tests of data/stand_in.py: what it draws, and how it deals with the files on disk."""

import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import stand_in
from conftest import ROOT
from PIL import Image

LABELS = "spec_train_val.txt"


def start(folder, *counts):
    """Starts the script from another directory; its error stream is a pipe."""
    line = [sys.executable, ROOT / "data" / "stand_in.py", *counts, "--folder", folder.name]
    return subprocess.Popen(line, cwd=folder.parent, stderr=subprocess.PIPE, text=True)


def contents(folder):
    """The bytes of each file in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_words_and_styles():
    words = stand_in.words()
    assert words == sorted(set(words)) and set("".join(words)) == set("abcdefghijklmnopqrstuvwxyz")
    assert np.bincount([len(word) for word in words]).tolist() == [0, 0, 0, 675, 1100, 725]
    drawn, counts = np.unique(stand_in.labels_text().split()[1::2], return_counts=True)
    assert drawn.tolist() == words and counts.min() >= 20 and counts.max() <= 80  # 48 on average
    styles = [stand_in.font_of(index)[0] for index in range(2000)]
    assert np.unique(styles, return_counts=True)[1].min() > 430


def test_pixels_and_labels_are_those_of_the_recorded_run():
    indices = (0, 1, 8, 12_345, 99_999, 100_000, 110_011, 119_999, 120_000, 139_999)
    pixels = np.array([np.asarray(stand_in.draw(index)[0]) for index in indices])
    assert zlib.crc32(pixels.tobytes()) == 1543708674
    assert stand_in.labels_text() == (ROOT / LABELS).read_text(encoding="ascii")


def test_letter_heights():
    """In every font the median letters are about as high as the genuine ones, in pixels."""
    genuine = (101, 42, 5), (98, 45, 2), (104, 75, 2), (105, 72, 2)  # tall, small, how far off
    for fonts, (tall, small, off) in zip(stand_in.STYLES.values(), genuine, strict=True):
        for font, (size, _, smaller, thicken) in fonts.items():
            cases = ("bdhkl", size, tall, 2), ("acemnorsuvwxz", smaller, small, off)
            for letters, pixels, height, most in cases:
                masks = [stand_in._glyph(font, pixels, thicken, letter)[0] for letter in letters]
                assert abs(np.median([mask.height for mask in masks]) - height) <= most, font


def test_boxes():
    """Boxes follow one another, and few words stick out of the image."""
    inside = 0
    for _, word, boxes in map(stand_in.draw, range(200)):
        lefts, tops, rights, bottoms = np.transpose(boxes)
        assert len(boxes) == len(word) and (rights[:-1] <= lefts[1:]).all()
        inside += min(*lefts, *tops) >= 0 and max(rights) <= 600 and max(bottoms) <= 320
    assert 180 <= inside < 200


def test_draws_the_first_of_each_part_and_later_only_what_is_missing(tmp_path):
    images = tmp_path / "images"
    job = start(images, "3", "2", "1")
    assert job.communicate(timeout=60)[1].splitlines()[-1].startswith("drawing: 100%")
    drawn = contents(images)
    assert drawn.pop(LABELS) == stand_in.labels_text().encode()
    assert set(drawn) == {f"a{index}.png" for index in (0, 1, 2, 100_000, 100_001, 120_000)}
    for name in drawn:
        image = Image.open(images / name)
        assert np.array_equal(image, stand_in.draw(int(name[1:-4]))[0])
        assert image.info == {}  # no word is hidden in the file
    kept = (images / "a2.png").stat().st_mtime_ns
    (images / "a1.png").unlink()
    (images / LABELS).write_text(stand_in.labels_text(), newline="\r\n")  # as on Windows
    stand_in.make(images, (3, 2, 1))
    assert contents(images) == {**drawn, LABELS: stand_in.labels_text().encode()}
    assert (images / "a2.png").stat().st_mtime_ns == kept


def test_a_killed_run_leaves_no_half_images_and_no_workers(tmp_path):
    job = start(tmp_path, "5000")
    while job.poll() is None and not (tmp_path / "a20.png").exists():
        time.sleep(0.01)
    job.kill()
    job.communicate(timeout=10)  # waits for the workers too: they share the pipe
    images = list(tmp_path.glob("a*.png"))
    assert images and [Image.open(path).load() for path in images]


@pytest.mark.parametrize("name", ["a0.png", "a100000.png", "a120000.png", LABELS])
def test_refuses_files_of_others(name, tmp_path):
    stand_in.draw(1)[0].save(tmp_path / name, "PNG")
    for size in (None, 5_000):  # whole, and cut off
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:size])
        before = contents(tmp_path)
        with pytest.raises(ValueError, match="not the stand-in's, perhaps the course's"):
            stand_in.make(tmp_path, (3, 2, 1))
        assert contents(tmp_path) == before


def test_refuses_a_full_disk_and_too_many_images(tmp_path, monkeypatch):
    usage = stand_in.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(stand_in.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="GB are needed, but .*images has"):
        stand_in.make(tmp_path / "images", (100, 0, 0))
    job = start(tmp_path / "images", "5", "5", "20001")
    assert job.communicate()[1] == "There can be 0 to 20,000 of these images, not 20,001.\n"
    assert job.returncode == 1 and not list(tmp_path.iterdir())
