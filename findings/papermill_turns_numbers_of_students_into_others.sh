#!/usr/bin/env bash
# papermill: -p changes a student's number before the notebook sees it: 0123 becomes 123.
#
# papermill fills in the parameters of a notebook from the command line, for example to grade a
# hundred of them, or to run one for each student.
#
# One would expect: what looks like a number is passed on as that number, and what would not survive
# this stays text: a leading zero is no part of a number, nor is an underscore.
# What happens: the text goes to Python's int and float. A leading zero is lost, and 1_2 becomes 12;
# nan and infinity become floats, so a word of a dataset that is called nan is a number. There is no
# warning, and files named after the parameter get another name. With -r the text stays as it is.
# Versions: Python 3.11, papermill 2.7.0, nbformat 5.10.4, ipykernel 7.4.0.
# Seen where: in a test of a notebook that names its answer file after the student's number.
# Output seen:
#   -p 0123: 123
#   -p 1_2: 12
#   -p 1e5: 100000.0
#   -p nan: nan
#   -p infinity: inf
#   -p yes: 'yes'
#   -r 0123: '0123'
# Ends with 0 if so, and with another status if the behaviour has changed.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
python3.11 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q papermill==2.7.0 nbformat==5.10.4 ipykernel==7.4.0
cd "$tmp"
cat > trial.py <<'PYTHON'
import subprocess
import sys

import nbformat
from nbformat import v4

cells = [v4.new_code_cell("NUMBER = ''"), v4.new_code_cell("print(repr(NUMBER))")]
cells[0].metadata.tags = ["parameters"]
kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), "asked.ipynb")
expected = {"0123": "123", "1_2": "12", "1e5": "100000.0", "nan": "nan", "infinity": "inf"}
given = [("-p", *pair) for pair in expected.items()]
for option, text, value in [*given, ("-p", "yes", "'yes'"), ("-r", "0123", "'0123'")]:
    command = [sys.executable, "-m", "papermill", "asked.ipynb", "done.ipynb", "-k", "python3"]
    subprocess.run([*command, option, "NUMBER", text], check=True, capture_output=True)
    seen = nbformat.read("done.ipynb", as_version=4).cells[-1].outputs[0].text.strip()
    print(f"{option} {text}: {seen}")
    assert seen == value, "the behaviour has changed"
PYTHON
PATH="$tmp/venv/bin:$PATH" "$tmp/venv/bin/python" trial.py
