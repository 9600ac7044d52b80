"""The notebook where students run it: in JupyterLab in a browser, in papermill, in a plain kernel.

The first needs Debian's `chromium` and the Python package `playwright`, the second `papermill`;
each is skipped where they are not there. `SCREENSHOTS=folder` in the environment keeps pictures.
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
from conftest import answers_of, cells_of, make_folder, noise_of, outputs_of, printed, results_of
from jupyter_client.manager import start_new_kernel

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NAME = "Lab12-2_studentID.ipynb"
SMALL = {"TRAIN": 512, "VALIDATION": 96, "TEST": 96, "ROUND": 256}  # a minute is enough for that
SMALL |= {"ROUNDS": 4, "COMPARE_SYSTEMS": False}
UPDATE = "update_display_data"
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"


@pytest.fixture
def environment(monkeypatch):
    """What a front end's process gets."""
    monkeypatch.delenv("MPLBACKEND")
    return os.environ | {"QUICK": "1"}


@pytest.fixture
def folder(tmp_path, drawn):
    """A folder with images, and the notebook made small, without outputs."""
    folder = make_folder(tmp_path / "run", drawn)
    book = nbformat.read(folder / NAME, as_version=4)
    for cell in cells_of(book):
        cell.outputs = []
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(f"\n{name} = {value}" for name, value in SMALL.items())
    nbformat.write(book, folder / NAME)
    return folder


@pytest.fixture
def page(folder, tmp_path, environment):
    """JupyterLab's page with the notebook of `folder`."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
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


def wait_for(page, condition, seconds=400):
    """Saves the notebook until what is saved fulfils a condition; returns it."""
    deadline = time.monotonic() + seconds
    while True:
        choose(page, "docmanager:save")
        page.wait_for_timeout(2000)
        book = nbformat.read(page.folder / NAME, as_version=4)
        if condition(book):
            return book
        assert time.monotonic() < deadline, printed(book)[-2000:] + page.inner_text("body")[-2000:]


def bars(book):
    """What the training's progress bar shows, if it is there."""
    texts = [o.get("data", {}).get("text/plain", "") for o in outputs_of(book)]
    return [text for text in texts if text.startswith("training:")]


def keep(page, name):
    """Keeps a picture of the page, if it is asked for."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name)


def test_runs_in_a_browser_and_goes_on_after_an_interruption(page):
    choose(page, "notebook:run-all-cells")
    moving = wait_for(page, lambda book: bars(book) and re.search(r"\b[1-9]\d*/32", bars(book)[0]))
    assert noise_of(moving) == []
    wait_for(page, lambda book: list((page.folder / "checkpoints").glob("*/01.weights.h5")))
    choose(page, "notebook:interrupt-kernel")
    stopped = wait_for(page, noise_of)
    assert [output["ename"] for output in noise_of(stopped)] == ["KeyboardInterrupt"]
    keep(page, "interrupted.png")

    choose(page, "notebook:restart-run-all")
    page.click(".jp-Dialog button:has-text('Restart')")
    done = wait_for(page, lambda book: '"versions"' in printed(book))
    assert noise_of(done) == []
    assert re.search(r"[1-3] of 4 rounds come from checkpoints/course-", printed(done))
    assert bars(done)[0].startswith("training: 100%") and results_of(done)["epochs"] == 2
    pictures = [o for o in outputs_of(done) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 10
    assert len((page.folder / "data" / "Lab12-2_studentID.txt").read_text().splitlines()) == 96
    keep(page, "done.png")


def test_runs_in_papermill(drawn, tmp_path, environment):
    """Parameters on the command line, and started from another folder."""
    pytest.importorskip("papermill", reason="papermill is not installed")
    folder = make_folder(tmp_path / "run", drawn)
    command = [sys.executable, "-m", "papermill", folder / NAME, tmp_path / "out.ipynb"]
    command += ["--cwd", folder, "-k", "python3", "-p", "STUDENT_ID", "x1"]
    for name, value in SMALL.items():
        command += ["-p", name, str(value)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    book = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert noise_of(book) == [] and results_of(book)["images"]["train"] == 512
    assert len(answers_of(folder / "data" / "Lab12-2_x1.txt", 608, 96)) == 96
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ipynb", "run"]


def test_sends_few_messages_to_a_plain_kernel(folder, environment):
    """As VS Code runs it: nothing stands between kernel and page to put outputs together."""
    messages = []
    manager, client = start_new_kernel(kernel_name="python3", cwd=folder, env=environment)
    try:
        for cell in cells_of(nbformat.read(folder / NAME, as_version=4)):
            hook = {"output_hook": messages.append, "timeout": 400}
            assert client.execute_interactive(cell.source, **hook)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    kinds = [message["msg_type"] for message in messages]
    assert not [m for m in messages if m["content"].get("name") == "stderr"]
    updates = [m["content"]["data"]["text/plain"] for m in messages if m["msg_type"] == UPDATE]
    assert updates[-1].startswith("training: 100%") and 3 <= len(updates) <= 100
    assert kinds.count("display_data") >= 10 and len(messages) <= 600
