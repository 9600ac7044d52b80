"""Draws a stand-in for the course's CAPTCHA data: 140,000 pictures of words, and their labels.

The course's archive is not ours to pass on, so this script draws pictures of the same kind: a
white ground, strokes and arcs of noise, single coloured pixels, and one word of 3 to 5 letters on
top. Run it from anywhere:

    python data/stand_in.py

An interrupted run goes on where it stopped when it is started again. Picture number `index`
depends on the seed and on `index` alone, whatever the number of processes and of pictures.
"""

import argparse
import glob
import hashlib
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import struct
import sys
import threading
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DATA = Path(__file__).resolve().parent
ROOT = DATA.parent

VERSION = 3  # to be raised whenever a change alters the pictures or the labels
MARKER = "stand_in.json"
IMAGE_NAME = re.compile(r"a\d+\.png")
PART_NAME = re.compile(r"\.a\d+\.png\.\d+\.part")

WIDTH, HEIGHT = 600, 320  # pixels
BYTES_AN_IMAGE = 29_500  # measured mean, see data/README.md; used for the check of free space
CHUNK = 25  # images a worker draws between two reports

# Ranges of what is drawn, both ends included; lengths in pixels. They are a little wider than
# what was measured on genuine pictures.
SEGMENTS = (6, 14)  # straight strokes in an image
SEGMENT_LENGTH = (18, 570)
SEGMENT_WIDTH = (4, 6)
ARCS = (6, 11)  # pieces of ellipses in an image
ARC_BOX_WIDTH = (15, 320)  # of the whole ellipse
ARC_BOX_HEIGHT = (9, 190)
ARC_ANGLE = (60, 330)  # degrees of the ellipse that are drawn
ARC_WIDTH = (4, 5)
DOTS = (0.008, 0.0115)  # share of the pixels
GAP = (0, 95)  # between the ink of two neighbouring letters
TALL_LETTER = (66, 112)  # height of the letters b d h k l
SMALL_LETTERS = (0.65, 1)  # share of the size at which brushes write the letters without ascender
LIGHTEST = 235  # strokes and letters are no lighter than this (luma, 255 is white)
CUT_OFF = 0.05  # share of the words that stick out of the image
MARGIN = 3  # least distance of the other words from the border

# The styles of genuine pictures, and for each font file the size, in pixels per em, at which the
# letters b d h k l are 100 px tall.
STYLES = {
    "upright brush": {
        "Merienda-Bold.ttf": 102,
        "Rancho-Regular.ttf": 149,
        "Redressed-Regular.ttf": 140,
    },
    "slanted script": {
        "Satisfy-Regular.ttf": 139,
        "Damion-Regular.ttf": 151,
        "Norican-Regular.ttf": 133,
        "HomemadeApple-Regular.ttf": 107,
        "Allura-Regular.ttf": 166,
    },
    "round handwriting": {
        "Kalam-Regular.ttf": 126,
        "PatrickHand-Regular.ttf": 139,
        "IndieFlower-Regular.ttf": 153,
        "Schoolbell-Regular.ttf": 124,
        "Mynerve-Regular.ttf": 142,
        "GloriaHallelujah-Regular.ttf": 129,
    },
    "humanist sans": {
        "Cabin-Regular.ttf": 132,
        "OpenSans-Regular.ttf": 131,
    },
}


class Refusal(Exception):
    """The run cannot go on; the message says why, in one or two lines."""


# --- The pictures ---------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def words():
    """The 2,500 words that are drawn, as a sorted list of strings of 3 to 5 letters a-z."""
    return (DATA / "words.txt").read_text(encoding="ascii").split()


def word_of(index, seed):
    """The word in image `index`: each of the 2,500 is equally likely."""
    return _choose_word(_generator(index, seed))


def draw(index, seed):
    """Draws image `index`.

    Returns the image (RGB, 600 x 320), its word, and for each letter the bounding box of its ink
    in pixels, (left, top, right, bottom) with right and bottom excluded. A box may stick out of
    the image.
    """
    image, word, _, boxes = _draw(index, seed)
    return image, word, boxes


def font_and_boxes(index, seed):
    """The name of the font in image `index`, and its letters' boxes as `draw` gives them."""
    _, _, font, boxes = _draw(index, seed)
    return font.removesuffix(".ttf"), boxes


def _draw(index, seed):
    """The image, its word, the file name of its font, and the letters' boxes."""
    rng = _generator(index, seed)
    word = _choose_word(rng)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    canvas = ImageDraw.Draw(image)
    _draw_strokes(rng, canvas)
    image = _with_dots(rng, image)
    font, boxes = _draw_word(rng, image, word)
    return image, word, font, boxes


def labels_text(n, seed):
    """The text of a labels file for the images 0 to n - 1: a line `a<index> <word>` for each."""
    return "".join(f"a{index} {word_of(index, seed)}\n" for index in range(n))


def _generator(index, seed):
    """The random numbers of one image."""
    return np.random.default_rng([seed, index])


def _choose_word(rng):
    """The word has to be the first thing taken from an image's random numbers."""
    return words()[int(rng.integers(len(words())))]


def _whole(rng, bounds):
    """A whole number, uniform between the bounds, both included."""
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _skewed(rng, bounds):
    """A number between the bounds; small ones are likelier, the median lies at 29 %."""
    return bounds[0] + (bounds[1] - bounds[0]) * rng.random() ** 1.8


def _colour(rng):
    """A uniformly random colour (red, green, blue), but none that is too near to white."""
    while True:
        red, green, blue = rng.integers(256, size=3).tolist()
        if 0.299 * red + 0.587 * green + 0.114 * blue <= LIGHTEST:
            return red, green, blue


def _draw_strokes(rng, canvas):
    """Draws the segments and arcs of an image, in random order."""
    strokes = [_draw_segment] * _whole(rng, SEGMENTS) + [_draw_arc] * _whole(rng, ARCS)
    for number in rng.permutation(len(strokes)):
        strokes[number](rng, canvas)


def _draw_segment(rng, canvas):
    """Draws one straight stroke; both its ends lie in the image or a few pixels outside."""
    length = _skewed(rng, SEGMENT_LENGTH)
    steepest = math.asin(min(1, HEIGHT / length))
    angle = rng.uniform(-steepest, steepest)
    across, down = length * math.cos(angle), length * math.sin(angle)
    left = rng.uniform(-8, WIDTH + 8 - across)
    top = rng.uniform(-8, HEIGHT + 8 - abs(down)) - min(0, down)
    ends = [round(left), round(top), round(left + across), round(top + down)]
    canvas.line(ends, fill=_colour(rng), width=_whole(rng, SEGMENT_WIDTH))


def _draw_arc(rng, canvas):
    """Draws one piece of an ellipse that lies in the image or a few pixels outside."""
    across, down = _skewed(rng, ARC_BOX_WIDTH), _skewed(rng, ARC_BOX_HEIGHT)
    left = rng.uniform(-8, WIDTH + 8 - across)
    top = rng.uniform(-8, HEIGHT + 8 - down)
    box = [round(left), round(top), round(left + across), round(top + down)]
    start = rng.uniform(0, 360)
    end = start + rng.uniform(*ARC_ANGLE)
    canvas.arc(box, start, end, fill=_colour(rng), width=_whole(rng, ARC_WIDTH))


def _with_dots(rng, image):
    """The image with single pixels of any colour strewn over it."""
    pixels = np.array(image)
    count = round(rng.uniform(*DOTS) * WIDTH * HEIGHT)
    rows, columns = rng.integers(HEIGHT, size=count), rng.integers(WIDTH, size=count)
    pixels[rows, columns] = rng.integers(256, size=(count, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _draw_word(rng, image, word):
    """Draws the letters of `word`, all in one font and size; returns font and boxes."""
    style = list(STYLES)[int(rng.integers(len(STYLES)))]
    font = list(STYLES[style])[int(rng.integers(len(STYLES[style])))]
    size = round(STYLES[style][font] * rng.uniform(*TALL_LETTER) / 100)
    small = round(size * rng.uniform(*SMALL_LETTERS)) if style == "upright brush" else size
    glyphs = [_glyph(font, size if letter in "bdfhklt" else small, letter) for letter in word]
    tops = [top for _, top in glyphs]
    bottoms = [top + mask.height for mask, top in glyphs]
    lefts = _lefts(rng, [mask.width for mask, _ in glyphs])
    baseline = _place(rng, min(tops), max(bottoms), HEIGHT, sticks_out=rng.random() < CUT_OFF / 2)
    boxes = []
    for left, (mask, top) in zip(lefts, glyphs, strict=True):
        corner = (left, baseline + top)
        image.paste(_colour(rng), corner, mask)
        boxes.append((*corner, left + mask.width, baseline + top + mask.height))
    return font, boxes


def _lefts(rng, widths):
    """Where the ink of each letter begins, in pixels, given the letters' widths."""
    gaps = rng.uniform(*GAP, size=len(widths) - 1)
    room = WIDTH - 2 * MARGIN - sum(widths)
    if gaps.sum() > room:
        gaps *= max(0, room) / gaps.sum()
    starts = np.concatenate([[0], np.cumsum(np.array(widths[:-1]) + gaps.astype(int))])
    end = int(starts[-1]) + widths[-1]
    first = _place(rng, 0, end, WIDTH, sticks_out=rng.random() < CUT_OFF / 2)
    return [first + int(start) for start in starts]


def _place(rng, low, high, space, sticks_out):
    """A shift that brings the stretch from `low` to `high` into the stretch from 0 to `space`.

    If it has to stick out, it does so at either end by at most 25 pixels.
    """
    least, most = MARGIN - low, space - MARGIN - high
    if sticks_out:
        beyond = _whole(rng, (1, 25)) + MARGIN
        return least - beyond if rng.random() < 0.5 else most + beyond
    return _whole(rng, (least, max(least, most)))


@lru_cache(maxsize=10_000)
def _glyph(font, size, letter):
    """The ink of a letter as a grey-level mask, and the mask's top, counted from the baseline."""
    face = _face(font, size)
    left, top, right, bottom = face.getbbox(letter, anchor="ls")
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), letter, fill=255, font=face, anchor="ls")
    ink = image.getbbox()
    return image.crop(ink), top + ink[1]


@lru_cache(maxsize=400)
def _face(font, size):
    """A font file opened at a size in pixels per em."""
    path = DATA / "fonts" / font
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


# --- The files ------------------------------------------------------------------------------------


def make(images, labels, counts, seed, processes, report):
    """Draws all images that are missing from the folder `images`, and writes the file `labels`.

    `counts` holds the numbers of training, validation and test images; `report` is called with
    the number of images done so far, out of their sum. Raises Refusal, before it has changed
    anything, if the folder or the file is not the stand-in's or belongs to other settings.
    """
    text = labels_text(counts[0] + counts[1], seed).encode("ascii")
    marker = _marker(counts, seed, text)
    names = set(os.listdir(images)) if images.is_dir() else set()
    _check_folder(images, names, marker)
    _check_labels(labels, text)
    missing = [index for index in range(sum(counts)) if f"a{index}.png" not in names]
    _check_space(images, len(missing))

    images.mkdir(parents=True, exist_ok=True)
    for name in filter(PART_NAME.fullmatch, names):
        (images / name).unlink(missing_ok=True)
    _write_if_missing(images / MARKER, (json.dumps(marker, indent=2) + "\n").encode("ascii"))
    _write_if_missing(labels, text)

    done = sum(counts) - len(missing)
    report(done)
    for drawn in _draw_all(images, missing, seed, processes):
        done += drawn
        report(done)


def _marker(counts, seed, text):
    """What the marker file says: whose the folder is, and the settings it was made with."""
    train, validation, test = counts
    return {
        "made_by": "data/stand_in.py",
        "version": VERSION,
        "seed": seed,
        "train": train,
        "validation": validation,
        "test": test,
        "images": sum(counts),
        "labels_sha256": hashlib.sha256(text).hexdigest(),
    }


def _check_folder(images, names, marker):
    """Refuses a folder that holds other images than the ones to be drawn."""
    if MARKER not in names:
        if any(map(IMAGE_NAME.fullmatch, names)):
            raise Refusal(
                f"{images} holds images but no {MARKER}: these may be the course's images.\n"
                "Nothing was changed; give another folder with --images, or move them away."
            )
        return
    try:
        found = json.loads((images / MARKER).read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if found != marker:
        raise Refusal(
            f"{images} holds stand-in images made with another seed, other counts or an older "
            "version.\nNothing was changed; delete that folder, or give another with --images."
        )


def _check_labels(labels, text):
    """Refuses to replace a labels file with other content."""
    if labels.exists() and labels.read_bytes() != text:
        raise Refusal(
            f"{labels} exists and holds other labels than the stand-in's.\n"
            "Nothing was changed; move it away, or give another file with --labels."
        )


def _check_space(images, count):
    """Refuses to begin when the disk has no room for `count` more images."""
    folder = next(path for path in [images, *images.parents] if path.is_dir())
    free, needed = shutil.disk_usage(folder).free, count * BYTES_AN_IMAGE
    if free < 1.05 * needed:
        raise Refusal(
            f"{count:,} images need about {needed / 1e9:.1f} GB in {images},\n"
            f"but only {free / 1e9:.1f} GB are free there."
        )


def _write_if_missing(path, content):
    """Writes a file in one step, so that it is never there half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        leftover.unlink(missing_ok=True)
    if not path.exists():
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(content)
        os.replace(part, path)


def _draw_all(images, indices, seed, processes):
    """Draws the images `indices` into a folder; yields the number of those just finished."""
    chunks = [indices[at : at + CHUNK] for at in range(0, len(indices), CHUNK)]
    if processes == 1 or len(chunks) <= 1:
        for chunk in chunks:
            yield _draw_chunk(images, chunk, seed)
        return
    # Fresh processes: copies of one that runs threads, as notebooks and TensorFlow do, can hang.
    pool = ProcessPoolExecutor(
        min(processes, len(chunks)), multiprocessing.get_context("spawn"), _set_up_worker
    )
    try:
        for job in as_completed([pool.submit(_draw_chunk, images, c, seed) for c in chunks]):
            yield job.result()
    except BrokenProcessPool:
        raise Refusal("A worker process ended early.\nRun the script again to go on.") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _draw_chunk(images, indices, seed):
    """Draws some images into a folder and returns their number."""
    for index in indices:
        image, _, _ = draw(index, seed)
        part = images / f".a{index}.png.{os.getpid()}.part"
        part.write_bytes(png(image))
        os.replace(part, images / f"a{index}.png")
    return len(indices)


def png(image):
    """The bytes of a PNG file of an RGB image.

    Pillow tries out a filter for every row, which for these pictures costs twice the time and
    makes larger files than no filter at all, so the file is put together here.
    """
    rows = np.zeros((image.height, 1 + 3 * image.width), np.uint8)  # a leading 0: no filter
    rows[:, 1:] = np.asarray(image).reshape(image.height, -1)
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, level=1)), (b"IEND", b"")]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        parts += [struct.pack(">I", len(data)), kind, data]
        parts.append(struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def _set_up_worker():
    """Has a worker process end when its parent is gone, and leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- The command line -----------------------------------------------------------------------------


def _line_reporter():
    """Reports progress as lines with a bare number, at most about two a second."""
    last = -math.inf

    def report(done, final=False):
        nonlocal last
        if final or time.monotonic() - last >= 0.5:
            last = time.monotonic()
            print(done, flush=True)

    return report


def _run(arguments):
    """Makes the data and shows the progress in the way that was asked for."""
    counts = (arguments.train, arguments.validation, arguments.test)
    total = sum(counts)
    settings = (arguments.images, arguments.labels, counts, arguments.seed, arguments.processes)
    if arguments.progress:
        report = _line_reporter()
        make(*settings, report)
        report(total, final=True)
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=" images", smoothing=0.02) as bar:

        def report(done):
            bar.update(done - bar.n)

        make(*settings, report)


def _count(text):
    """A whole number from 0, for the command line."""
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _parse(argv):
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Draws the stand-in for the course's images.")
    parser.add_argument("--images", type=Path, default=ROOT / "data" / "words_captcha")
    parser.add_argument("--labels", type=Path, default=ROOT / "spec_train_val.txt")
    parser.add_argument("--train", type=_count, default=100_000, help="training images")
    parser.add_argument("--validation", type=_count, default=20_000, help="validation images")
    parser.add_argument("--test", type=_count, default=20_000, help="test images")
    parser.add_argument("--seed", type=_count, default=2)
    parser.add_argument("--processes", type=_count, default=os.cpu_count() or 1)
    parser.add_argument(
        "--progress", action="store_true", help="print the number of images done, on stdout"
    )
    arguments = parser.parse_args(argv)
    arguments.processes = max(1, arguments.processes)
    return arguments


def main(argv=None):
    """Runs the script; returns its exit status."""
    try:
        _run(_parse(argv))
    except (Refusal, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Run the script again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
