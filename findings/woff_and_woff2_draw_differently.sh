#!/usr/bin/env bash
# Fontsource: a face's .woff and its .woff2 are not the same font.
#
# The npm packages of Fontsource hold each face twice, as .woff and as .woff2. Both are packed
# TrueType fonts; fontTools unpacks them.
# One would expect: unpacked, they draw the same pixels. What happens depends on the face:
# - Allura: all outlines are equal. But only the .woff2 has a table `prep` (7 bytes, it sets the
#   drop-out mode). Pillow 11.3.0 (FreeType 2.13.3) lets its auto-hinter shape the .woff, which has
#   no instructions, but not the .woff2. Pillow 13.0.0 (FreeType 2.14.3) draws both alike.
# - Merienda Bold: here the outlines differ, too, in 14 of the letters a to z. In the .woff the
#   strokes are merged (x is 1 contour), in the .woff2 they overlap (x is 2 contours).
#   Both Pillows draw them differently.
# Versions: @fontsource/allura and @fontsource/merienda 5.3.0, Python 3.11, fontTools 4.68.0,
# Brotli 1.2.1, Pillow 13.0.0 and 11.3.0 (basic layout, 120 pixels per em); Linux x86-64.
# Seen where: images of words were drawn anew with another packing of the fonts: other pixels.
# Output seen:
#   Pillow 13.0.0, allura: prep [False, True]; other: 0 outlines of a to z, 0 pixels
#   Pillow 13.0.0, merienda: prep [False, True]; other: 14 outlines of a to z, 1339 pixels
#   Pillow 11.3.0, allura: prep [False, True]; other: 0 outlines of a to z, 3823 pixels
#   Pillow 11.3.0, merienda: prep [False, True]; other: 14 outlines of a to z, 6868 pixels
# Ends with 0 if so, and with another status if the behaviour has changed.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
python3.11 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q fonttools==4.68.0 brotli==1.2.1
cd "$tmp"
for family in allura merienda; do
    mkdir "$family"
    tar xzf "$(npm pack --silent "@fontsource/$family@5.3.0")" -C "$family"
done
cat > trial.py <<'PYTHON'
import sys
from string import ascii_lowercase
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont, __version__

for (face, weight), expected in zip([("allura", 400), ("merienda", 700)], sys.argv[1:]):
    letters, pixels, prep = [], [], []
    for kind in "woff", "woff2":
        font = TTFont(f"{face}/package/files/{face}-latin-{weight}-normal.{kind}")
        glyf, names = font["glyf"], font.getBestCmap()
        letters.append([glyf[names[ord(c)]].getCoordinates(glyf)[0] for c in ascii_lowercase])
        prep.append("prep" in font)
        font.flavor = None  # no packing
        font.save("font.ttf")
        drawn = ImageFont.truetype("font.ttf", 120, layout_engine=ImageFont.Layout.BASIC)
        image = Image.new("L", (1000, 300))
        ImageDraw.Draw(image).text((50, 200), "attention", 255, drawn, anchor="ls")
        pixels.append(image.tobytes())
    other = sum(a != b for a, b in zip(*letters)), sum(a != b for a, b in zip(*pixels))
    found = "other: %d outlines of a to z, %d pixels" % other
    print(f"Pillow {__version__}, {face}: prep {prep}; {found}")
    assert prep == [False, True] and f"{other[0]} {other[1] > 0}" == expected, "it has changed"
PYTHON
"$tmp/venv/bin/pip" install -q pillow==13.0.0
"$tmp/venv/bin/python" trial.py "0 False" "14 True"
"$tmp/venv/bin/pip" install -q pillow==11.3.0
"$tmp/venv/bin/python" trial.py "0 True" "14 True"
