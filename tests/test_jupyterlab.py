"""The notebook in JupyterLab in a browser, if playwright and chromium are installed."""

import re
import shutil
import subprocess
import sys
import time

import conftest
import nbformat
import pytest
from conftest import LABELS, NAME, environment, make_stand_in, noise_of, printed

CHROMIUM = shutil.which("chromium")
EAGER = "\ntf.config.run_functions_eagerly(True)"  # so few batches are not worth tracing
SMALL = "\nTRAIN, VALIDATION, TEST, BATCH_SIZE = 24, 16, 16, 8"
SMALL += "\nROUNDS = {32: 1, 48: 1}"
ENDLESS = "\nfinite = batches_of_round"  # the second round, unless the first is done already
ENDLESS += "\nbatches_of_round = lambda n: finite(n).repeat(1 + 99 * (n > rounds_before))"
IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


def errors_of(book):
    return [output for output in noise_of(book) if output["output_type"] == "error"]


def choose(page, item):
    """Does what an item of JupyterLab's menus does; does not wait for its end."""
    page.evaluate(f"() => void window.jupyterapp.commands.execute('{item}')")


def wait_for(page, folder, condition):
    """Saves the notebook until what is saved fulfils a condition; returns it."""
    deadline = time.monotonic() + 240
    save = "async () => {await window.jupyterapp.commands.execute('docmanager:save')}"
    while True:
        page.wait_for_timeout(1000)
        page.evaluate(save)
        book = nbformat.read(folder / NAME, as_version=4)
        if condition(book):
            return book
        assert time.monotonic() < deadline, printed(book)[-2000:] + page.inner_text("body")[-2000:]


def run(drawn, path):
    """The notebook in JupyterLab, made small: after an interruption, and after its end."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    folder = make_stand_in(path / "run", drawn)
    place = folder / "data" / "words_captcha"  # where the course's images lie
    (folder / "data" / "stand_in").rename(place)
    (place / LABELS).unlink()  # a link to a file that others read
    conftest.write_labels(place / LABELS, "ab")
    without = ["small_world", *conftest.tags("learn", "show_systems")]  # so much the faster
    added = {"parameters": SMALL, "derived": EAGER, "round_batches": ENDLESS}
    conftest.change(folder, "greedy", without, **added)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--IdentityProvider.token=x"]
    command += ["--LabApp.expose_app_in_browser=True"]
    log = path / "server.log"
    with log.open("w") as file:
        variables = environment(QUICK="1", PYTHONWARNINGS="ignore")
        server = subprocess.Popen(command, cwd=folder, env=variables, stderr=file)
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.2)
        with api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(180_000)
            page.goto(f"{found[0]}lab/tree/{NAME}?token=x")
            page.wait_for_function(f"() => {IDLE}")
            choose(page, "notebook:run-all-cells")
            wait_for(page, folder, lambda book: "Epoch 2/2" in printed(book))
            choose(page, "notebook:interrupt-kernel")
            stopped = wait_for(page, folder, errors_of)
            choose(page, "notebook:restart-run-all")
            page.click(".jp-Dialog button:has-text('Restart')")
            return stopped, wait_for(
                page, folder, lambda book: "of 16 words right" in printed(book)
            )
    finally:
        server.terminate()
        server.wait()


def test_goes_on_after_an_interruption_in_a_browser(begun):
    stopped, done = begun[__name__].result()
    (error,) = errors_of(stopped)  # TensorFlow's C code makes a SystemError of it now and then
    assert error["ename"] in ("KeyboardInterrupt", "SystemError")
    assert errors_of(done) == []
    rounds = r"Rounds of training that come from checkpoints/course-\w+: 1\."
    assert re.search(rounds, printed(done))
    assert re.findall("Epoch ./2", printed(done)) == ["Epoch 2/2"]
    assert sum("image/png" in output.get("data", {}) for output in conftest.outputs_of(done)) == 5
