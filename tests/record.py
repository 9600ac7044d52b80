"""Runs the notebook in place, as a student would, and keeps what a quick look needs in data/.

    PRECISION=mixed_bfloat16 python tests/record.py

That variable is for processors with 16-bit arithmetic. A run that fails leaves data/failed.ipynb.
"""

import base64
import re
import sys

import nbformat
from conftest import ROOT, cells_of, find_notebook, noise_of
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

KEEP = """
arrays = [ops.convert_to_numpy(variable) for variable in captioner.weights]
np.savez_compressed("data/recorded.npz", *arrays, log=json.dumps(log))
kept = json.dumps({"systems": shares, "results": results}, indent=1)
Path("data/recorded.json").write_text(kept + "\\n")
"""


def execute(book):
    """Runs all cells, and then one that keeps weights and figures and is not stored."""
    book.cells.append(nbformat.v4.new_code_cell(KEEP, metadata={"tags": ["keep"]}))
    place = {"metadata": {"path": str(ROOT)}}
    client = NotebookClient(
        book, timeout=None, kernel_name="python3", resources=place, record_timing=False
    )
    try:
        client.execute()
    except CellExecutionError as error:
        nbformat.write(book, ROOT / "data" / "failed.ipynb")
        sys.exit(f"{error}\nThe run is in data/failed.ipynb.")
    book.cells.pop()


def tidy(book):
    """Leaves one line of each bar, and no greeting of TensorFlow's."""
    CoalesceStreamsPreprocessor().preprocess(book, {})
    (imports,) = [cell for cell in cells_of(book) if cell.metadata.tags == ["imports"]]
    imports.outputs = [output for output in imports.outputs if output.get("name") != "stderr"]


def embed(book):
    """Puts the picture of attention into the opening, and into data/."""
    (rows,) = [cell for cell in cells_of(book) if cell.metadata.tags == ["attention_rows"]]
    (picture,) = [o.data["image/png"] for o in rows.outputs if "image/png" in o.get("data", {})]
    picture = "".join(picture.split())
    (ROOT / "data" / "attention.png").write_bytes(base64.b64decode(picture))
    pattern = r"(!\[[^\]]*\]\(data:image/png;base64,)[^)]*"
    opening = cells_of(book, "markdown")[0]
    opening.source, count = re.subn(pattern, rf"\g<1>{picture}", opening.source, count=1)
    if not count:
        sys.exit("The opening has no picture, so none was put there.")


if __name__ == "__main__":
    path = find_notebook()
    notebook = nbformat.read(path, as_version=4)
    execute(notebook)
    try:
        tidy(notebook)
        embed(notebook)
    finally:
        nbformat.write(notebook, path)
    if noise := noise_of(notebook):
        sys.exit(f"The run is stored, but it was not quiet:\n{noise}")
