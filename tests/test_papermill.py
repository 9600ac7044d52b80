"""The notebook in papermill, if it is installed."""

import subprocess
import sys

import conftest
import nbformat
import pytest
from conftest import NAME, cells_of, environment, make_stand_in, noise_of, printed


def run(drawn, path):
    """Parameters on the command line, where digits become a number; from another folder."""
    pytest.importorskip("papermill", reason="papermill is not installed")
    folder = make_stand_in(path / "run", drawn)
    conftest.change(folder, last="derived", derived="\nprint(STUDENT_ID, QUICK)")
    command = [sys.executable, "-m", "papermill", folder / NAME, path / "out.ipynb"]
    command += ["--cwd", folder, "-k", "python3", "-p", "QUICK", "True", "-p", "STUDENT_ID", "105"]
    subprocess.run(command, cwd=path, env=environment(), check=True, capture_output=True)
    return path, nbformat.read(path / "out.ipynb", as_version=4)


def test_takes_parameters_and_writes_where_it_is_told(begun):
    path, book = begun[__name__].result()
    cells_of(book)[0].outputs.clear()  # TensorFlow's greeting
    assert noise_of(book) == [] and printed(book).endswith("105 True\n")
    assert sorted(file.name for file in path.iterdir()) == ["out.ipynb", "run"]
