#!/usr/bin/env bash
# Matplotlib: imread gives up to 85 for a grey PNG with 2 bits a pixel, up to 17 with 4 bits.
#
# Programs that shrink PNG files store an image with few grey levels in 2 or 4 bits a pixel.
#
# One would expect: matplotlib.image.imread gives floats from 0 to 1 for every PNG, as its
# documentation says; so 0, 1/3, 2/3 and 1 for the four levels of 2 bits.
# What happens: Pillow has spread the levels over 0 to 255 already, and Matplotlib divides by the
# largest level in the file, 3 or 15. imshow with vmax=1 then draws all but black as white, and a
# network that learned from 8-bit files sees numbers up to 85 times too large. With 1 and 8 bits,
# all is right. Pillow's own array and tf.io.decode_png are right for all.
# Versions: Python 3.11, Matplotlib 3.11.2, Pillow 13.0.0, NumPy 2.4.6.
# Seen where: in a comparison of what reads PNG files of all depths alike.
# Output seen:
#   1 bit:  Pillow 0 255, imread 0.00 1.00
#   2 bits: Pillow 0 85 170 255, imread 0.00 28.33 56.67 85.00
#   4 bits: Pillow 0 17 170 255, imread 0.00 1.13 11.33 17.00
#   8 bits: Pillow 0 17 170 255, imread 0.00 0.07 0.67 1.00
# Ends with 0 if so, and with another status if the behaviour has changed.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
python3.11 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q matplotlib==3.11.2 pillow==13.0.0 numpy==2.4.6
cd "$tmp"
cat > trial.py <<'PYTHON'
import struct
import zlib

import matplotlib.image
import numpy as np
from PIL import Image

LEVELS = {1: [0, 1], 2: [0, 1, 2, 3], 4: [0, 1, 10, 15], 8: [0, 17, 170, 255]}


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def write(path, bits, levels):
    """A grey image of one row, as the PNG specification lays it out."""
    row = "".join(f"{level:0{bits}b}" for level in levels)
    row = row.ljust(-(-len(row) // 8) * 8, "0")
    pixels = bytes(int(row[i : i + 8], 2) for i in range(0, len(row), 8))
    header = struct.pack(">IIBBBBB", len(levels), 1, bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" + pixels)), chunk(b"IEND", b"")
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


largest = {}
for bits, levels in LEVELS.items():
    write("grey.png", bits, levels)
    seen = np.asarray(Image.open("grey.png").convert("L"))[0]
    read = matplotlib.image.imread("grey.png")[0]
    label = f"{bits} bit{'s' if bits > 1 else ''}:".ljust(7)
    print(label, "Pillow", *(f"{level}" for level in seen), end=", imread ")
    print(*(f"{value:.2f}" for value in read))
    assert seen.max() == 255
    largest[bits] = round(float(read.max()), 2)
assert largest == {1: 1, 2: 85, 4: 17, 8: 1}, "the behaviour has changed"
PYTHON
"$tmp/venv/bin/python" trial.py
