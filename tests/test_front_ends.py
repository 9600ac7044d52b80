"""The notebook in JupyterLab in a browser, and in papermill, if these are installed."""

import re
import shutil
import subprocess
import sys
import time

import conftest
import nbformat
import pytest
from conftest import LABELS, NAME, cells_of, environment, make_stand_in, noise_of, printed

CHROMIUM = shutil.which("chromium")
EAGER = "\ntf.config.run_functions_eagerly(True)"  # so few batches are not worth tracing
SMALL = "\nTRAIN, VALIDATION, TEST, BATCH_SIZE = 24, 16, 16, 8"
SMALL += "\nROUNDS = {32: 1, 48: 1}"
ENDLESS = "\nfinite = batches_of_round"  # the second round, unless the first is done already
ENDLESS += "\nbatches_of_round = lambda n: finite(n).repeat(1 + 99 * (n > rounds_before))"
IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


@pytest.fixture
def page(drawn, tmp_path):
    """JupyterLab's page with the notebook, made small, without outputs."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    folder = make_stand_in(tmp_path / "run", drawn)
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
    log = tmp_path / "server.log"
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
            opened = browser.new_page()
            opened.set_default_timeout(180_000)
            opened.goto(f"{found[0]}lab/tree/{NAME}?token=x")
            opened.wait_for_function(f"() => {IDLE}")
            opened.folder = folder
            yield opened
    finally:
        server.terminate()
        server.wait()


def errors_of(book):
    return [output for output in noise_of(book) if output["output_type"] == "error"]


def choose(page, item):
    """Does what an item of JupyterLab's menus does; does not wait for its end."""
    page.evaluate(f"() => void window.jupyterapp.commands.execute('{item}')")


def wait_for(page, condition):
    """Saves the notebook until what is saved fulfils a condition; returns it."""
    deadline = time.monotonic() + 240
    save = "async () => {await window.jupyterapp.commands.execute('docmanager:save')}"
    while True:
        page.wait_for_timeout(300)
        page.evaluate(save)
        book = nbformat.read(page.folder / NAME, as_version=4)
        if condition(book):
            return book
        assert time.monotonic() < deadline, printed(book)[-2000:] + page.inner_text("body")[-2000:]


def test_runs_in_a_browser_and_goes_on_after_an_interruption(page):
    choose(page, "notebook:run-all-cells")
    wait_for(page, lambda _: list(page.folder.glob("checkpoints/*/round001.npz")))
    choose(page, "notebook:interrupt-kernel")
    stopped = wait_for(page, errors_of)
    (error,) = errors_of(stopped)  # TensorFlow's C code makes a SystemError of it now and then
    assert error["ename"] in ("KeyboardInterrupt", "SystemError")

    choose(page, "notebook:restart-run-all")
    page.click(".jp-Dialog button:has-text('Restart')")
    done = wait_for(page, lambda book: "of 16 words right" in printed(book))
    assert errors_of(done) == []
    assert re.search(
        r"Rounds of training that come from checkpoints/course-\w+: 1\.", printed(done)
    )
    assert re.findall("Epoch ./2", printed(done)) == ["Epoch 2/2"]
    assert sum("image/png" in output.get("data", {}) for output in conftest.outputs_of(done)) == 5


def test_takes_parameters_of_papermill(drawn, tmp_path):
    """On the command line, where digits become a number, and started from another folder."""
    pytest.importorskip("papermill", reason="papermill is not installed")
    folder = make_stand_in(tmp_path / "run", drawn)
    conftest.change(folder, last="derived", derived="\nprint(STUDENT_ID, QUICK)")
    command = [sys.executable, "-m", "papermill", folder / NAME, tmp_path / "out.ipynb"]
    command += ["--cwd", folder, "-k", "python3", "-p", "QUICK", "True", "-p", "STUDENT_ID", "105"]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    book = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    cells_of(book)[0].outputs.clear()  # TensorFlow's greeting
    assert noise_of(book) == [] and printed(book).endswith("105 True\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ipynb", "run"]
