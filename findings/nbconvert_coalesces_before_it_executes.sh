#!/usr/bin/env bash
# nbconvert: --coalesce-streams does nothing for a notebook that the same call executes.
#
# `jupyter nbconvert --coalesce-streams` joins the pieces of text that a cell has printed, and keeps
# of a progress bar only its last state (it obeys the carriage returns).
#
# One would expect: together with --execute it does so to what the cells print in this run.
# What happens: the joining comes before the execution. It sees the old outputs, which are thrown
# away. Each update of a progress bar stays an output of its own in the file. Nothing is reported.
# What helps: a second call, `--to notebook --inplace --coalesce-streams`, without --execute.
# Known: jupyter/nbconvert issue 2269, open at the time of writing.
#
# Versions: Python 3.11, nbconvert 7.17.2, nbclient 0.11.0, nbformat 5.11.1, ipykernel 7.4.0,
# jupyter_client 8.10.0, tqdm 4.70.1; Linux x86-64.
# Seen where: a notebook with progress bars was run by nbconvert, to be kept with its outputs.
# Output seen (the first count may differ by one or two, and so may the bar's times):
#   executed with --coalesce-streams: 8 outputs, 7 carriage returns
#   after a second call:              1 outputs, 0 carriage returns
#   '100%|██████████| 5/5 [00:01<00:00,  4.98it/s]\n'
# Ends with 0 if so, and with another status if the behaviour has changed.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
python3.11 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q nbconvert==7.17.2 nbclient==0.11.0 nbformat==5.11.1 \
    ipykernel==7.4.0 jupyter_client==8.10.0 tqdm==4.70.1
export PATH="$tmp/venv/bin:$PATH" HOME="$tmp"  # so that no settings of the user's count
cd "$tmp"
cat > write.py <<'PYTHON'
import nbformat

cell = nbformat.v4.new_code_cell("""
import sys, time
from tqdm import tqdm
for _ in tqdm(range(5), file=sys.stdout, mininterval=0):
    time.sleep(0.2)
""")
nbformat.write(nbformat.v4.new_notebook(cells=[cell]), "notebook.ipynb")
PYTHON
cat > count.py <<'PYTHON'
import sys
import nbformat

label, as_expected = sys.argv[1:]
outputs = nbformat.read("notebook.ipynb", 4).cells[0].outputs
returns = sum(output.text.count("\r") for output in outputs)
print(f"{label} {len(outputs)} outputs, {returns} carriage returns")
if as_expected == "one line":
    print(repr(outputs[0].text))
assert (len(outputs) == 1 and returns == 0) == (as_expected == "one line"), "it has changed"
PYTHON
nbconvert() {
    jupyter nbconvert --to notebook --inplace "$@" notebook.ipynb 2> log || { cat log; exit 1; }
}
python write.py
nbconvert --execute --coalesce-streams
python count.py "executed with --coalesce-streams:" "many pieces"
nbconvert --coalesce-streams
python count.py "after a second call:             " "one line"
