"""In a live kernel: training is interrupted, reading is killed, and all cells are run again."""

import os
import signal
import time

import pytest
from conftest import (
    ANSWERS,
    NOTEBOOK,
    answers_of,
    cell_with,
    cells_of,
    copy_project,
    run_script,
    source,
    write_script,
)
from jupyter_client.manager import KernelManager

INTERRUPTED, KILLED = "captioner.fit(", "write_answers(ANSWERS"
DIE_WHILE_READING = """
all_batches = plain_batches


def plain_batches(first, last):
    for number, batch in enumerate(all_batches(first, last)):
        if number == 3:
            os.kill(os.getpid(), 9)
        yield batch
"""


class Kernel:
    """A kernel in a folder, which runs code cells one by one."""

    def __init__(self, folder):
        self.manager = KernelManager()
        self.manager.start_kernel(cwd=str(folder), env=os.environ | {"QUICK": "1"})
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def begin(self, code, **options):
        """Has the kernel begin to run some code."""
        self.message = self.client.execute(code, **options)

    def end(self):
        """Waits for the end of what was begun; returns the kernel's reply."""
        while True:
            reply = self.client.get_shell_msg(timeout=300)
            if reply["parent_header"].get("msg_id") == self.message:
                return reply["content"]

    def run(self, code):
        self.begin(code)
        reply = self.end()
        assert reply["status"] == "ok", reply["evalue"]

    def value(self, expression):
        """The `repr` of an expression."""
        self.begin("", user_expressions={"value": expression})
        return self.end()["user_expressions"]["value"]["data"]["text/plain"]

    def stop(self):
        """Kills the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def cells():
    """The notebook's code cells, without the comparison of systems."""
    found = [source(cell) for cell in cells_of(NOTEBOOK)]
    return [cell.replace("COMPARE_SYSTEMS = True", "COMPARE_SYSTEMS = False") for cell in found]


@pytest.fixture
def folder(tmp_path):
    return copy_project(tmp_path)


@pytest.fixture
def kernels(folder):
    """Starts kernels in the folder; they are stopped when the test ends."""
    started = []

    def start():
        started.append(Kernel(folder))
        return started[-1]

    yield start
    for kernel in started:
        kernel.stop()


def test_goes_on_after_interrupt_and_kill(cells, folder, kernels):
    training, reading = (cells.index(cell_with(text)) for text in (INTERRUPTED, KILLED))
    answers = folder / "data" / "quick" / ANSWERS.name
    kernel = kernels()
    for cell in cells[:training]:
        kernel.run(cell)
    run = folder / kernel.value("str(RUN)").strip("'")
    kernel.begin(cells[training])
    deadline = time.monotonic() + 200
    while not (run / "latest.weights.h5").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    kernel.manager.interrupt_kernel()  # the second epoch has begun
    assert kernel.end()["ename"] == "KeyboardInterrupt"

    for cell in cells[:reading]:
        kernel.run(cell)
    assert kernel.value("first_epoch") == "1"
    assert kernel.value("[row['epoch'] for row in log]") == "[0.0, 1.0]"
    kernel.run(DIE_WHILE_READING)
    kernel.begin(cells[reading])
    deadline = time.monotonic() + 100
    while kernel.manager.is_alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not kernel.manager.is_alive() and not answers.exists()

    kernel = kernels()
    for cell in cells:
        kernel.run(cell)
    assert kernel.value("first_epoch") == "2"
    assert len(answers_of(answers, 2600, 600)) == 600


WRITING = """
class HalfWritten(type(Path())):
    def write_text(self, text, **options):
        super().write_text(text[: len(text) // 2], **options)
        os.kill(os.getpid(), 9)


write_answers(HalfWritten("answers.txt"), 0, ["jam"] * 1000)
"""


def test_killed_writing_leaves_the_old_answers(notebook, tmp_path):
    path = tmp_path / "answers.txt"
    notebook.write_answers(path, 0, ["thus", "www"])
    killed = run_script(write_script(tmp_path / "writing.py", WRITING))
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert path.read_text() == "a0 thus\na1 www\n"
    assert len((tmp_path / "answers.part").read_text()) > 1000
    notebook.write_answers(path, 0, ["jam"] * 1000)
    assert len(answers_of(path, 0, 1000)) == 1000
