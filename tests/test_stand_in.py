"""What data/stand_in.py draws, and how it deals with the files on disk."""

import shutil
import time
import zlib

import numpy as np
import pytest
import stand_in
from conftest import LABELS, ROOT
from PIL import Image


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pixels_boxes_and_labels_are_those_of_the_recorded_run():
    """In every font."""
    indices = (*range(30), 99_999, 100_000, 119_999, 120_000, 139_999)
    assert len({stand_in.font_of(index) for index in indices}) == 12
    images, words, boxes = zip(*map(stand_in.draw, indices), strict=True)
    assert list(words) == [stand_in.word_of(index) for index in indices]
    assert zlib.crc32(np.array(images).tobytes()) == 3377884234
    assert zlib.crc32(repr(boxes).encode()) == 340225675
    assert stand_in.labels_text() == (ROOT / LABELS).read_text(encoding="ascii")


def test_all_labels_are_there_within_a_second():
    stand_in._choices.cache_clear()
    stand_in.labels_text.cache_clear()
    begin = time.perf_counter()
    assert len(stand_in.labels_text().splitlines()) == 120_000
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize("name, least, most", [("_draw_segment", 0.8, 1.2), ("_draw_arc", 0, 0)])
def test_one_percent_of_a_segment_are_points_none_of_an_arc(name, least, most, monkeypatch):
    """A point has another colour than its four neighbours, which are alike."""
    draw, colours, are_points = getattr(stand_in, name), [], []
    monkeypatch.setattr(stand_in, name, lambda *given: colours.append(given[2]) or draw(*given))
    image = np.array(stand_in.draw(0)[0])
    sides = image[:-2, 1:-1], image[2:, 1:-1], image[1:-1, :-2], image[1:-1, 2:]
    for colour in colours:
        is_within = np.all([side == colour for side in sides], axis=(0, -1))
        are_points += np.any(image[1:-1, 1:-1][is_within] != colour, axis=-1).tolist()
    assert len(are_points) > 1000 and least <= 100 * np.mean(are_points) <= most


def test_counts_the_letters_whose_box_holds_the_point():
    (left, top, right, bottom), *others = stand_in.draw(0)[2]
    for x, share in {right - 1: 1 / (1 + len(others)), right + 1: 0}.items():
        points = [(x / 320, (top + bottom) / 640)] + [(9, 9)] * len(others)
        assert stand_in.share_inside([0], [points]) == (share, 1 + len(others))


def test_draws_the_first_of_each_part_and_later_only_what_is_missing(drawn, tmp_path):
    indices = [*range(24), *range(100_000, 100_100), *range(120_000, 120_016)]
    assert {path.name for path in drawn.iterdir()} == {LABELS, *(f"a{i}.png" for i in indices)}
    assert 31e3 < np.mean([path.stat().st_size for path in drawn.glob("*.png")]) < 37e3
    image = Image.open(drawn / "a2.png")
    assert np.array_equal(image, stand_in.draw(2)[0])
    assert image.info == {}  # no word is hidden in the file
    shutil.copy2(drawn / "a2.png", tmp_path)
    kept = (tmp_path / "a2.png").stat().st_mtime_ns
    (tmp_path / LABELS).write_text(stand_in.labels_text(), newline="\r\n")  # as on Windows
    stand_in.make(tmp_path, (3, 2, 1))
    names = [LABELS, *(f"a{i}.png" for i in (0, 1, 2, 100_000, 100_001, 120_000))]
    assert contents(tmp_path) == {name: (drawn / name).read_bytes() for name in names}
    assert (tmp_path / "a2.png").stat().st_mtime_ns == kept


@pytest.mark.parametrize("name", ["a120000.png", "a99999.png", LABELS])
def test_refuses_files_of_others(name, tmp_path):
    stand_in.draw(1)[0].save(tmp_path / name, "PNG")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="not the stand-in's, perhaps the course's"):
        stand_in.make(tmp_path, (3, 2, 1))
    assert contents(tmp_path) == before


def test_a_damaged_image_is_not_anothers(drawn, tmp_path):
    """It is left to be named by who reads all images."""
    shutil.copy(drawn / LABELS, tmp_path)
    for content in (b"", (drawn / "a0.png").read_bytes()[:-1000]):
        (tmp_path / "a0.png").write_bytes(content)
        assert stand_in.is_ours(tmp_path)
    (tmp_path / LABELS).write_bytes(b"\xff")
    assert not stand_in.is_ours(tmp_path)
