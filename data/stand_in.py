"""Draws a stand-in for the course's CAPTCHA data: 140,000 images of words, and their labels.

The course's archive is not ours to pass on, so this script draws images of the same kind: a white
ground, strokes and arcs of noise, single coloured pixels, and on top one word of 3 to 5 letters.

    python data/stand_in.py

An interrupted run goes on where it stopped when it is started again. Image number `index` depends
on the seed and on `index` alone, whatever the number of processes and of images.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DATA = Path(__file__).resolve().parent
IMAGES = DATA / "words_captcha"  # the default folder
LABELS = "spec_train_val.txt"  # name of the labels file, beside the images
MARKER = "stand_in.json"  # says that a folder is the stand-in's, and how it was made
VERSION = 7  # raised whenever a change alters the images or the labels

WIDTH, HEIGHT = 600, 320  # pixels
BYTES_PER_IMAGE = 34_000  # for the check of free space; the measured mean is in data/README.md
CHUNK = 25  # images that a worker draws at a time

# Ranges of what is drawn, both ends included; lengths in pixels. They are a little wider than
# what was measured on genuine images.
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
LIGHTEST = 235  # strokes and letters are no lighter than this (luma, 255 is white)
CUT_OFF = 0.04  # share of the words that stick out of the image
MARGIN = 3  # least distance of the other words from the border

# The four styles of the genuine fonts. For each font file: the sizes, in pixels per em, of the
# letters b d f h k l, of t and of all others, and by how many pixels their outline is thickened.
# They give the letters the heights of the genuine ones (see data/README.md).
STYLES = {
    "upright brush": {
        "Merienda-Bold.ttf": (101, 84, 71, 0),
        "Norican-Regular.ttf": (138, 111, 94, 0),
        "Macondo-Regular.woff": (128, 113, 96, 1),
        "PrincessSofia-Regular.woff": (102, 96, 89, 2),
    },
    "slanted script": {
        "DancingScript-Bold.woff": (130, 130, 115, 0),
        "MarckScript-Regular.woff": (130, 130, 116, 0),
        "Allura-Regular.ttf": (153, 153, 135, 1),
    },
    "round handwriting": {
        "Kalam-Light.woff": (136, 136, 155, 0),
        "ArchitectsDaughter-Regular.woff": (143, 134, 160, 0),
        "IndieFlower-Regular.ttf": (162, 162, 168, 0),
    },
    "humanist sans": {
        "OpenSans-Regular.ttf": (138, 138, 132, 0),
        "Lato-Regular.woff": (142, 142, 140, 0),
    },
}


# --- The images -----------------------------------------------------------------------------------


@cache
def words():
    """The 2,500 words that are drawn: a sorted list of strings of 3 to 5 letters a-z."""
    return (DATA / "words.txt").read_text(encoding="ascii").split()


def word_of(index, seed):
    """The word in image `index`: each of the 2,500 is equally likely."""
    return _start(index, seed)[1]


def font_of(index, seed):
    """Style and font file of image `index`, such as ("humanist sans", "Lato-Regular.woff")."""
    return _start(index, seed)[2:]


def labels_text(n, seed):
    """The text of a labels file for the images 0 to n - 1: one line `a<index> <word>` for each."""
    return "".join(f"a{index} {word_of(index, seed)}\n" for index in range(n))


def draw(index, seed):
    """Draws image `index`; returns the image (RGB, 600 x 320), its word, and the letters' boxes.

    A box bounds the ink of one letter: (left, top, right, bottom) in pixels, right and bottom
    excluded. It may stick out of the image.
    """
    rng, word, style, font = _start(index, seed)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    canvas = ImageDraw.Draw(image)
    strokes = [_draw_segment] * _whole(rng, SEGMENTS) + [_draw_arc] * _whole(rng, ARCS)
    for number in rng.permutation(len(strokes)):
        strokes[number](rng, canvas)
    pixels = np.array(image)
    count = round(rng.uniform(*DOTS) * WIDTH * HEIGHT)
    rows, columns = rng.integers(HEIGHT, size=count), rng.integers(WIDTH, size=count)
    pixels[rows, columns] = rng.integers(256, size=(count, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    return image, word, _draw_word(rng, image, word, *STYLES[style][font], font)


def _start(index, seed):
    """The random number generator of an image, its word, its style and its font."""
    rng = np.random.default_rng([seed, index])
    word = words()[rng.integers(len(words()))]
    style = list(STYLES)[rng.integers(len(STYLES))]
    font = list(STYLES[style])[rng.integers(len(STYLES[style]))]
    return rng, word, style, font


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


def _draw_word(rng, image, word, tall, of_t, small, thicken, font):
    """Draws the letters of `word` on one baseline, each in its own colour; returns their boxes."""
    sizes = {letter: tall for letter in "bdfhkl"} | {"t": of_t}
    glyphs = [_glyph(font, sizes.get(letter, small), thicken, letter) for letter in word]
    lefts = _lefts(rng, [mask.width for mask, _ in glyphs])
    highest = min(top for _, top in glyphs)
    lowest = max(top + mask.height for mask, top in glyphs)
    baseline = _place(rng, highest, lowest, HEIGHT, min(mask.height for mask, _ in glyphs))
    boxes = []
    for left, (mask, top) in zip(lefts, glyphs, strict=True):
        image.paste(_colour(rng), (left, baseline + top), mask)
        boxes.append((left, baseline + top, left + mask.width, baseline + top + mask.height))
    return boxes


def _lefts(rng, widths):
    """Where the ink of each letter begins, in pixels, given the letters' widths."""
    gaps = rng.uniform(*GAP, size=len(widths) - 1)
    room = WIDTH - 2 * MARGIN - sum(widths)
    gaps *= min(1, max(0, room) / gaps.sum())
    starts = np.concatenate([[0], np.cumsum(np.array(widths[:-1]) + gaps.astype(int))])
    return (starts + _place(rng, 0, starts[-1] + widths[-1], WIDTH, min(widths))).tolist()


def _place(rng, low, high, space, letter):
    """A shift that brings the stretch from `low` to `high` into the stretch from 0 to `space`.

    Now and then it sticks out instead, at either end, by at most a third of the size `letter`.
    """
    least, most = MARGIN - low, space - MARGIN - high
    if rng.random() < CUT_OFF / 2:
        beyond = MARGIN + _whole(rng, (1, letter // 3))
        return int(least - beyond if rng.random() < 0.5 else most + beyond)
    return _whole(rng, (least, max(least, most)))


@cache
def _glyph(font, size, thicken, letter):
    """The ink of a letter as a grey-level mask, and the mask's top, counted from the baseline."""
    path = DATA / "fonts" / font
    face = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = face.getbbox(letter, anchor="ls", stroke_width=thicken)
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text(
        (-left, -top), letter, fill=255, font=face, anchor="ls", stroke_width=thicken
    )
    ink = image.getbbox()
    return image.crop(ink), top + ink[1]


# --- The files ------------------------------------------------------------------------------------


def make(images, counts, seed=2, processes=None):
    """Draws the images that are missing from the folder `images`; yields each image's index.

    `counts` holds the numbers of training, validation and test images, so sum(counts) indices are
    yielded, those of images that are already there first. The labels of the training and
    validation images are written beside the images. Raises ValueError if the folder holds other
    images, and OSError if the disk is too small for them; neither changes anything.
    """
    images = Path(images)
    if min(counts) < 0:
        raise ValueError("The numbers of images must not be negative.")
    train, validation, test = counts
    settings = {"version": VERSION, "seed": seed, "train": train}
    settings |= {"validation": validation, "test": test}
    marker = json.dumps({"made_by": "data/stand_in.py", **settings}, indent=2) + "\n"
    names = set(os.listdir(images)) if images.is_dir() else set()
    _check_folder(images, names, marker)
    missing = [index for index in range(sum(counts)) if f"a{index}.png" not in names]
    folder = next(path for path in [images, *images.absolute().parents] if path.is_dir())
    free, needed = shutil.disk_usage(folder).free, 1.05 * len(missing) * BYTES_PER_IMAGE
    if free < needed:
        raise OSError(
            f"{len(missing):,} images need about {needed / 1e9:.1f} GB, but {images} has only "
            f"{free / 1e9:.1f} GB: free some space, or give another folder."
        )

    images.mkdir(parents=True, exist_ok=True)
    _write(images / MARKER, marker)
    _write(images / LABELS, labels_text(train + validation, seed))
    yield from sorted(set(range(sum(counts))) - set(missing))
    yield from _draw_all(images, missing, seed, processes or os.cpu_count() or 1)


def _check_folder(images, names, marker):
    """Refuses a folder with other images than those to be drawn."""
    if MARKER in names:
        if (images / MARKER).read_bytes() != marker.encode("ascii"):
            raise ValueError(
                f"{images} holds stand-in images of another version, seed or number: delete "
                "that folder, or give another."
            )
    elif LABELS in names or any(re.fullmatch(r"a\d+\.png", name) for name in names):
        raise ValueError(
            f"{images} holds images or labels that are not the stand-in's, perhaps the course's: "
            "give another folder, or move them away."
        )


def _write(path, text):
    """Writes a text file in one step, unless it is there and holds that text already."""
    content = text.encode("ascii")
    if not path.exists() or path.read_bytes() != content:
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(content)
        os.replace(part, path)


def _draw_all(images, indices, seed, processes):
    """Draws the images `indices` into a folder, in worker processes; yields those just drawn."""
    chunks = (indices[at : at + CHUNK] for at in range(0, len(indices), CHUNK))
    # Fresh processes: copies of one that runs threads, as notebooks and TensorFlow do, can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _set_up_worker)
    try:
        running = set()
        # Only a few chunks wait at a time, so that workers rest when nobody takes the results.
        while running := running | {
            pool.submit(_draw_chunk, images, chunk, seed)
            for chunk in islice(chunks, 2 * processes - len(running))
        }:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for job in done:
                yield from job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _draw_chunk(images, indices, seed):
    """Draws some images into a folder and returns their indices."""
    for index in indices:
        part = images / f".a{index}.png.part"
        draw(index, seed)[0].save(part, "PNG", compress_level=4)
        os.replace(part, images / f"a{index}.png")
    return indices


def _set_up_worker():
    """Has a worker process end when its parent is gone, and leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- The command line -----------------------------------------------------------------------------


def main(argv=None):
    """Runs the script; returns its exit status."""
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description="Draws the stand-in for the course's images.")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder")
    parser.add_argument("--train", type=int, default=100_000, help="number of training images")
    parser.add_argument("--validation", type=int, default=20_000)
    parser.add_argument("--test", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--processes", type=int, help="default: one for each processor core")
    asked = parser.parse_args(argv)
    counts = (asked.train, asked.validation, asked.test)
    try:
        drawn = make(asked.images, counts, asked.seed, asked.processes)
        for _ in tqdm(drawn, total=sum(counts), unit=" images", smoothing=0.02):
            pass
        if asked.images.resolve() == IMAGES:  # the project keeps a copy at its top level
            _write(DATA.parent / LABELS, (IMAGES / LABELS).read_text(encoding="ascii"))
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: a worker was killed
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Run the script again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
