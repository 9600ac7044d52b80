"""The notebook in JupyterLab, in a real browser: run, interrupted, and run again.

Needs Debian's `chromium` and the Python package `playwright`; skipped where they are not there.
`SCREENSHOTS=folder` in the environment keeps the pictures.
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


@pytest.fixture
def page(tmp_path, drawn):
    """JupyterLab's page with the notebook, cut to a size that a minute is enough for."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    folder = make_folder(tmp_path / "run", drawn)
    book = nbformat.read(folder / NAME, as_version=4)
    for cell in cells_of(book):
        cell.outputs = []
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += "\nTRAIN, VALIDATION, TEST, ROUND = 512, 96, 96, 256"
            cell.source += "\nROUNDS, COMPARE_SYSTEMS = 4, False"
    nbformat.write(book, folder / NAME)
    log = (tmp_path / "server.log").open("w")
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--IdentityProvider.token=x"]
    environment = os.environ | {"QUICK": "1"}
    environment.pop("MPLBACKEND", None)
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
            opened.set_default_timeout(60_000)
            opened.goto(f"{found[0]}lab/tree/{NAME}?token=x")
            opened.wait_for_selector(".jp-Notebook .jp-CodeCell")
            opened.folder = folder
            yield opened
            browser.close()
    finally:
        server.terminate()
        server.wait()


def choose(page, menu, item):
    """Clicks on an item of a menu."""
    page.click(f".lm-MenuBar-itemLabel:text-is('{menu}')")
    page.click(f".lm-Menu-itemLabel:text-is('{item}')")


def wait_for(page, condition, seconds=240):
    """Saves the notebook until what is saved fulfils a condition; returns it."""
    deadline = time.monotonic() + seconds
    while True:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(1000)
        book = nbformat.read(page.folder / NAME, as_version=4)
        if condition(book):
            return book
        assert time.monotonic() < deadline, printed(book)[-2000:]


def bars(book):
    """What the training's progress bar shows, if it is there."""
    texts = [o.get("data", {}).get("text/plain", "") for o in outputs_of(book)]
    return [text for text in texts if text.startswith("training:")]


def keep(page, name):
    """Keeps a picture of the page, if it is asked for."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name)


def test_runs_in_a_browser_and_goes_on_after_an_interruption(page):
    choose(page, "Run", "Run All Cells")
    moving = wait_for(page, lambda book: bars(book) and re.search(r"\b[1-9]\d*/32", bars(book)[0]))
    assert noise_of(moving) == []
    wait_for(page, lambda book: list((page.folder / "checkpoints").glob("*/01.weights.h5")))
    choose(page, "Kernel", "Interrupt Kernel")
    stopped = wait_for(page, noise_of)
    assert [output["ename"] for output in noise_of(stopped)] == ["KeyboardInterrupt"]
    keep(page, "interrupted.png")

    choose(page, "Kernel", "Restart Kernel and Run All Cells…")
    page.click(".jp-Dialog button:has-text('Restart')")
    done = wait_for(page, lambda book: '"versions"' in printed(book))
    assert noise_of(done) == []
    assert re.search(r"[1-3] of 4 rounds come from checkpoints/course-", printed(done))
    assert bars(done)[0].startswith("training: 100%") and results_of(done)["epochs"] == 2
    pictures = [o for o in outputs_of(done) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 10
    assert len((page.folder / "data" / "Lab12-2_studentID.txt").read_text().splitlines()) == 96
    keep(page, "done.png")
