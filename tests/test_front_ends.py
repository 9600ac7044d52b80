"""The notebook where students run it: in JupyterLab in a browser, and in papermill.

The first needs Debian's `chromium` and the Python package `playwright`, the second `papermill`;
each is skipped where they are not there.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import cells_of, make_folder, noise_of, outputs_of, printed, results_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NAME = "Lab12-2_studentID.ipynb"
SMALL = "TRAIN, VALIDATION, TEST, ROUNDS, BATCH_SIZE = 384, 16, 16, 2, 16"
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"


@pytest.fixture
def environment(monkeypatch):
    """What a front end's process gets."""
    monkeypatch.delenv("MPLBACKEND")
    return os.environ | {"QUICK": "1"}


@pytest.fixture
def page(drawn, tmp_path, environment):
    """JupyterLab's page with the notebook, made small, without outputs."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    folder = make_folder(tmp_path / "run", drawn)
    book = nbformat.read(folder / NAME, as_version=4)
    for cell in cells_of(book):
        cell.outputs = []
        if "parameters" in cell.metadata.tags:
            cell.source += f"\n{SMALL}"
    nbformat.write(book, folder / NAME)
    log = (tmp_path / "server.log").open("w")
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--IdentityProvider.token=x"]
    command += ["--LabApp.expose_app_in_browser=True"]
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", Path(log.name).read_text())):
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.2)
        with api.sync_playwright() as playwright:
            options = {"executable_path": CHROMIUM, "args": ["--no-sandbox"]}
            browser = playwright.chromium.launch(**options)
            opened = browser.new_page(viewport={"width": 1100, "height": 1400})
            opened.set_default_timeout(180_000)
            opened.goto(f"{found[0]}lab/tree/{NAME}?token=x")
            opened.wait_for_function(f"() => {KERNEL}?.status === 'idle'")
            opened.folder = folder
            yield opened
            browser.close()
    finally:
        server.terminate()
        server.wait()


def choose(page, item):
    """Does what an item of JupyterLab's menus does, and does not wait for its end."""
    page.evaluate(f"() => void window.jupyterapp.commands.execute('{item}')")


def wait_for(page, condition, seconds=240):
    """Saves the notebook until what is saved fulfils a condition; returns it."""
    deadline = time.monotonic() + seconds
    save = "async () => {await window.jupyterapp.commands.execute('docmanager:save')}"
    while True:
        page.wait_for_timeout(1000)
        page.evaluate(save)
        book = nbformat.read(page.folder / NAME, as_version=4)
        if condition(book):
            return book
        assert time.monotonic() < deadline, printed(book)[-2000:] + page.inner_text("body")[-2000:]


def test_runs_in_a_browser_and_goes_on_after_an_interruption(page):
    choose(page, "notebook:run-all-cells")
    saved = "checkpoints/*/training_metadata.json"  # after the first round
    moving = wait_for(page, lambda book: list(page.folder.glob(saved)))
    assert noise_of(moving) == [] and re.search(r"^training: .*[1-9]/16", printed(moving), re.M)
    choose(page, "notebook:interrupt-kernel")
    stopped = wait_for(page, noise_of)
    assert [output["ename"] for output in noise_of(stopped)] == ["KeyboardInterrupt"]

    choose(page, "notebook:restart-run-all")
    page.click(".jp-Dialog button:has-text('Restart')")
    done = wait_for(page, lambda book: '"trained_in_this_run"' in printed(book))
    assert noise_of(done) == []
    assert "1 of 2 rounds come from checkpoints/course-" in printed(done)
    assert len(re.findall(r"^training: ", printed(done), re.MULTILINE)) == 1
    assert "training: 100%" in printed(done) and results_of(done)["images"] == [384, 16, 16]
    pictures = [o for o in outputs_of(done) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 8


def test_takes_parameters_of_papermill(drawn, tmp_path, environment):
    """On the command line, where digits become a number, and started from another folder."""
    pytest.importorskip("papermill", reason="papermill is not installed")
    folder = make_folder(tmp_path / "run", drawn)
    book = nbformat.read(folder / NAME, as_version=4)
    (end,) = [i for i, c in enumerate(book.cells) if "try_tokens" in c.metadata.get("tags", [])]
    book.cells[end + 1 :] = [nbformat.v4.new_code_cell("print(STUDENT_ID, QUICK, TRAIN)")]
    nbformat.write(book, folder / NAME)
    command = [sys.executable, "-m", "papermill", folder / NAME, tmp_path / "out.ipynb"]
    command += ["--cwd", folder, "-k", "python3", "-p", "QUICK", "True", "-p", "STUDENT_ID", "105"]
    for name, count in {"TRAIN": "960", "VALIDATION": "160", "TEST": "160"}.items():
        command += ["-p", name, count]
    environment.pop("QUICK")
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    book = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert noise_of(book) == [] and printed(book).endswith("105 True 960\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ipynb", "run"]
