#!/usr/bin/env bash
# ipykernel and Matplotlib: MPLBACKEND=Agg takes every picture out of a notebook, without a word.
#
# The variable is set on many servers, in images for CI and in test suites, so that scripts can draw
# where there is no screen.
#
# One would expect: a notebook that is run there shows its pictures, since a kernel never needs a
# screen; or plt.show() warns, as it does in a script, that this backend cannot show anything.
# What happens: the kernel leaves the backend as it is. Neither a figure at the end of a cell nor
# plt.show() gives an output, and the run ends well. With "%matplotlib inline" in the notebook the
# pictures are there under both settings.
# Versions: Python 3.11, Matplotlib 3.11.2, ipykernel 7.4.0, matplotlib-inline 0.2.2, nbclient 0.11.0.
# Seen where: in a test that ran a notebook from within a test suite, and counted its pictures.
# Output seen:
#   no variable: pictures 1 1, other outputs 0
#   MPLBACKEND=Agg: pictures 0 0, other outputs 0
#   MPLBACKEND=Agg, %matplotlib inline: pictures 1 1, other outputs 0
# Ends with 0 if so, and with another status if the behaviour has changed.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
python3.11 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q matplotlib==3.11.2 ipykernel==7.4.0 matplotlib-inline==0.2.2 nbclient==0.11.0
cd "$tmp"
cat > trial.py <<'PYTHON'
import os

from nbclient import NotebookClient
from nbformat import v4

os.environ.pop("MPLBACKEND", None)


def count(first_line):
    """The pictures of two cells, and how many other outputs they have."""
    codes = ["plt.plot([1, 2]);", "plt.figure()\nplt.plot([2, 1])\nplt.show()"]
    start = f"{first_line}\nimport matplotlib.pyplot as plt"
    book = v4.new_notebook(cells=[v4.new_code_cell(code) for code in [start, *codes]])
    NotebookClient(book, kernel_name="python3").execute()
    outputs = [cell.outputs for cell in book.cells]
    pictures = [sum("image/png" in output.get("data", {}) for output in some) for some in outputs]
    return pictures[1:], sum(map(len, outputs)) - sum(pictures)


seen = {"no variable": count("")}
os.environ["MPLBACKEND"] = "Agg"
seen["MPLBACKEND=Agg"] = count("")
seen["MPLBACKEND=Agg, %matplotlib inline"] = count("%matplotlib inline")
for what, (pictures, others) in seen.items():
    print(f"{what}: pictures", *pictures, end=f", other outputs {others}\n")
assert [*seen.values()] == [([1, 1], 0), ([0, 0], 0), ([1, 1], 0)], "the behaviour has changed"
PYTHON
PATH="$tmp/venv/bin:$PATH" "$tmp/venv/bin/python" trial.py
