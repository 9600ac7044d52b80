"""Draws a stand-in for the course's CAPTCHA data: 140,000 images of words, and their labels.

The course's archive is not ours to pass on, so this script draws images of the same kind: a white
ground, straight strokes, single coloured pixels, arcs, and on top one word of 3 to 5 letters.

    python data/stand_in.py
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

DATA = Path(__file__).resolve().parent
LABELS = "spec_train_val.txt"  # the labels file, beside the images
TRAINING, VALIDATION, TEST = range(100_000), range(100_000, 120_000), range(120_000, 140_000)
SEED = 3
WIDTH, HEIGHT = 600, 320  # pixels
MARGIN = 3  # least distance of most words from the border, in pixels

# The four styles of the genuine fonts. For each font file: the sizes, in pixels per em, of the
# letters b d f h k l, of t and of all others, and by how many pixels their outline is thickened.
# They give the letters the heights of the genuine ones (see data/README.md).
STYLES = {
    "upright brush": {
        "Merienda-Bold.woff": (101, 84, 71, 0),
        "Norican-Regular.woff": (138, 111, 94, 0),
        "Macondo-Regular.woff": (128, 113, 96, 1),
        "PrincessSofia-Regular.woff": (102, 96, 89, 2),
    },
    "slanted script": {
        "DancingScript-Bold.woff": (130, 130, 115, 0),
        "MarckScript-Regular.woff": (130, 130, 116, 0),
        "Allura-Regular.woff": (153, 153, 135, 1),
    },
    "round handwriting": {
        "Kalam-Light.woff": (136, 136, 155, 0),
        "ArchitectsDaughter-Regular.woff": (143, 134, 160, 0),
        "IndieFlower-Regular.woff": (162, 162, 168, 0),
    },
    "humanist sans": {
        "OpenSans-Regular.woff": (138, 138, 132, 0),
        "Lato-Regular.woff": (142, 142, 140, 0),
    },
}


@cache
def words():
    """The 2,500 words that are drawn: a sorted list of strings of 3 to 5 letters a-z."""
    return (DATA / "words.txt").read_text(encoding="ascii").split()


@cache
def _choices():
    """The number of the word, the number of the style, and the share that picks the font, for
    every image: three arrays of 140,000."""
    rng, count = np.random.default_rng(SEED), TEST.stop
    return (
        rng.integers(len(words()), size=count),
        rng.integers(len(STYLES), size=count),
        rng.random(count),
    )


def word_of(index):
    """The word in image `index`. Each of the 2,500 is equally likely."""
    return words()[_choices()[0][index]]


def font_of(index):
    """Style and font file of image `index`, such as ("humanist sans", "Lato-Regular.woff")."""
    _, styles, shares = _choices()
    style = list(STYLES)[styles[index]]
    fonts = list(STYLES[style])
    return style, fonts[int(shares[index] * len(fonts))]


@cache
def labels_text():
    """The text of the labels file, 120,000 lines `a<index> <word>`."""
    return "".join(f"a{index} {word_of(index)}\n" for index in [*TRAINING, *VALIDATION])


def draw(index):
    """Draws image `index`; returns the image (RGB, 600 x 320), its word, and the letters' boxes.

    A box is (left, top, right, bottom) in pixels, the last two excluded. It may stick out.
    """
    rng, word, (style, font) = np.random.default_rng([SEED, index]), word_of(index), font_of(index)
    colours = _colours(rng)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.integers(6, 15)):
        _draw_segment(rng, canvas, next(colours))
    pixels = np.array(image)
    count = round(rng.uniform(0.008, 0.0115) * WIDTH * HEIGHT)  # of single coloured pixels
    rows, columns = rng.integers(HEIGHT, size=count), rng.integers(WIDTH, size=count)
    pixels[rows, columns] = rng.integers(256, size=(count, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.integers(6, 12)):
        _draw_arc(rng, canvas, next(colours))
    return image, word, _draw_word(rng, colours, image, word, font, *STYLES[style][font])


def share_inside(indices, points):
    """The share of the letters whose point lies in their box, and the number of letters.

    `points` holds (x, y) for each letter of each image, as shares of the image's height.
    """
    inside = []
    for index, image_points in zip(indices, points, strict=True):
        boxes = draw(index)[2]
        for (left, top, right, bottom), point in zip(boxes, image_points, strict=False):
            x, y = np.multiply(point, HEIGHT)
            inside.append(left <= x <= right and top <= y <= bottom)
    return float(np.mean(inside)), len(inside)


def _colours(rng):
    """Uniformly random colours (red, green, blue), but none that is too near to white."""
    while True:
        some = rng.integers(256, size=(40, 3))
        yield from map(tuple, some[some @ [0.299, 0.587, 0.114] <= 235].tolist())


def _draw_segment(rng, canvas, colour):
    """Draws one straight stroke; both its ends lie in the image or a few pixels outside."""
    length = 18 + 552 * rng.random() ** 1.8  # the power makes short ones likelier
    steepest = math.asin(min(1, HEIGHT / length))
    angle = rng.uniform(-steepest, steepest)
    across, down = length * math.cos(angle), length * math.sin(angle)
    left = rng.uniform(-8, WIDTH + 8 - across)
    top = rng.uniform(-8, HEIGHT + 8 - abs(down)) - min(0, down)
    ends = [round(left), round(top), round(left + across), round(top + down)]
    thickness = rng.integers(1, 3) if rng.random() < 0.05 else rng.integers(4, 7)
    canvas.line(ends, fill=colour, width=thickness)


def _draw_arc(rng, canvas, colour):
    """Draws 60 to 330 degrees of an ellipse that lies in the image or a few pixels outside."""
    across, down = 15 + 305 * rng.random() ** 1.8, 9 + 181 * rng.random() ** 1.8
    left = rng.uniform(-8, WIDTH + 8 - across)
    top = rng.uniform(-8, HEIGHT + 8 - down)
    box = [round(left), round(top), round(left + across), round(top + down)]
    start = rng.uniform(0, 360)
    canvas.arc(box, start, start + rng.uniform(60, 330), colour, rng.integers(4, 6))


def _draw_word(rng, colours, image, word, font, tall, of_t, small, thicken):
    """Draws the letters of `word` on one baseline, each in its own colour; returns their boxes."""
    sizes = {letter: tall for letter in "bdfhkl"} | {"t": of_t}
    glyphs = [_glyph(font, sizes.get(letter, small), thicken, letter) for letter in word]
    widths = np.array([mask.width for mask, _ in glyphs])
    gaps = rng.uniform(0, 95, size=len(word) - 1)  # between the ink of two letters
    gaps *= min(1, max(0, WIDTH - 2 * MARGIN - widths.sum()) / gaps.sum())
    lefts = np.cumsum([0, *(widths[:-1] + gaps.astype(int))])
    lefts += _place(rng, 0, lefts[-1] + widths[-1], WIDTH, widths.min())
    highest = min(top for _, top in glyphs)
    lowest = max(top + mask.height for mask, top in glyphs)
    baseline = _place(rng, highest, lowest, HEIGHT, min(mask.height for mask, _ in glyphs))
    boxes = []
    for left, (mask, top) in zip(lefts.tolist(), glyphs, strict=True):
        image.paste(next(colours), (left, baseline + top), mask)
        boxes.append((left, baseline + top, left + mask.width, baseline + top + mask.height))
    return boxes


def _place(rng, low, high, space, letter):
    """A shift that brings `low` to `high` inside 0 to `space`, or a third of `letter` outside."""
    least, most = MARGIN - low, space - MARGIN - high
    if rng.random() < 0.02:  # once for x and once for y: about 4 % of the words
        beyond = MARGIN + rng.integers(1, letter // 3 + 1)
        return int(least - beyond if rng.random() < 0.5 else most + beyond)
    return int(rng.integers(least, max(least, most) + 1))


@cache
def _glyph(font, size, thicken, letter):
    """The ink of a letter as a grey-level mask, and the mask's top, counted from the baseline."""
    face = ImageFont.truetype(f"{DATA}/fonts/{font}", size, layout_engine=ImageFont.Layout.BASIC)
    image = Image.new("L", (400, 400))
    ImageDraw.Draw(image).text((100, 250), letter, 255, face, anchor="ls", stroke_width=thicken)
    ink = image.getbbox()
    return image.crop(ink), ink[1] - 250


def make(folder, counts):
    """Draws the images that are missing from `folder`, and writes the labels beside them.

    `counts` holds the numbers of training, validation and test images. Raises ValueError if one
    is impossible or other images are there, OSError if the disk is too full: nothing is changed.
    """
    folder, indices = Path(folder).absolute(), []
    for part, count in zip((TRAINING, VALIDATION, TEST), counts, strict=True):
        if not 0 <= count <= len(part):
            raise ValueError(f"There can be 0 to {len(part):,} of these images, not {count:,}.")
        indices += part[:count]
    if not is_ours(folder):
        raise ValueError(
            f"{folder} holds images or labels that are not the stand-in's, perhaps the course's. "
            "They belong in another folder, such as data/words_captcha. Delete only damaged files."
        )
    there = {path.name for path in folder.glob("a*.png")}
    missing = [index for index in indices if f"a{index}.png" not in there]
    disk = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    needed, free = len(missing) * 36e-6, shutil.disk_usage(disk).free / 1e9  # GB
    if free < needed:
        raise OSError(f"{needed:.2f} GB are needed, but {folder} has only {free:.2f} GB free.")
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f".{LABELS}.{os.getpid()}.part"
    half.write_text(labels_text(), encoding="ascii", newline="\n")
    os.replace(half, folder / LABELS)
    processes = min(os.cpu_count() or 1, 61)  # Windows allows no more
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _set_up_worker)
    done = len(indices) - len(missing)
    bar = tqdm(desc="drawing", total=len(indices), initial=done, file=sys.stdout)
    with pool, bar:
        for _ in pool.map(partial(_draw_file, folder), missing, chunksize=25):
            bar.update()


def is_ours(folder):
    """Whether labels, and first and last image of each part, are the stand-in's or not there."""
    labels = folder / LABELS
    try:
        if labels.exists() and labels.read_text(encoding="ascii") != labels_text():
            return False
    except (OSError, ValueError):  # it can't be read, or is no text
        return False
    for index in [part[end] for part in (TRAINING, VALIDATION, TEST) for end in (0, -1)]:
        with contextlib.suppress(Exception):  # it is missing, or broken in one of many ways
            if Image.open(folder / f"a{index}.png").tobytes() != draw(index)[0].tobytes():
                return False
    return True


def are_ours(labels):
    """Whether most of the first 1,000 lines of labels, as bytes, give the stand-in's words."""
    lines = {*labels.splitlines()[:1000]}
    drawn = {f"a{index} {word_of(index)}".encode() for index in range(1000)}
    return len(lines & drawn) > len(lines) / 2


def _draw_file(folder, index):
    """Draws image `index` into a folder, under another name first: so nobody sees half of it."""
    half = folder / f".a{index}.png.{os.getpid()}.part"
    draw(index)[0].save(half, "PNG", compress_type=zlib.Z_RLE)  # the fastest that is small enough
    os.replace(half, folder / f"a{index}.png")


def _set_up_worker():
    """Leaves Ctrl-C to the parent process, and ends the worker when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main():
    """Runs the script; returns its exit status, or a line that says what is wrong."""
    parser = argparse.ArgumentParser(description="Draws the stand-in for the course's images.")
    for name, part in {"train": TRAINING, "validation": VALIDATION, "test": TEST}.items():
        parser.add_argument(name, nargs="?", type=int, default=len(part), help="how many images")
    parser.add_argument("--folder", default=DATA / "stand_in", help="default: data/stand_in")
    asked = parser.parse_args()
    try:
        make(asked.folder, (asked.train, asked.validation, asked.test))
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: a worker was killed
        return str(error)
    except KeyboardInterrupt:
        print("Stopped. Run it again to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
