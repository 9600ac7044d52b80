"""The notebook runs top to bottom with QUICK=1, and a second time without training again."""

import os
import subprocess
import sys

import pytest
from conftest import (
    ANSWERS,
    LABELS,
    NOTEBOOK,
    answers_of,
    copy_project,
    execution_counts,
    import_file,
    noise_of,
    outputs_of,
    results_of,
)

HOOK = """
import os, sys


def refuse_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments
        host = address[0] if isinstance(address, tuple) else "localhost"  # else a file's name
        if host not in (None, "", "localhost", "127.0.0.1", "::1", b"127.0.0.1"):
            note(f"{event} {host}")
            raise OSError("no network in this test")
    if event == "pickle.find_class" and "ipykernel_launcher" in " ".join(sys.orig_argv):
        note(f"{event} {arguments}")


def note(text):
    with open(os.environ["HOOK_LOG"], "a") as file:
        file.write(text + "\\n")


sys.addaudithook(refuse_network)
if "ipykernel_launcher" in " ".join(sys.orig_argv):
    note("a kernel was watched")
"""

RECORDED = {ANSWERS.name: b"recorded answers\n", LABELS.name: b"recorded labels\n"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the project without images, and with files in the place of the recorded ones."""
    folder = tmp_path_factory.mktemp("quick") / "Übung 12 – 文字"
    copy_project(folder)
    for name, content in RECORDED.items():
        (folder / name).write_bytes(content)
    return folder


def run_all_cells(folder):
    """Runs the notebook in its folder, with this Python as the kernel; returns its results."""
    spec = folder.parent / f"{folder.name}-jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    launch = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    spec.write_text(f'{{"argv": {launch}, "display_name": "test", "language": "python"}}')
    hook = folder.parent / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(HOOK)
    environment = {"QUICK": "1", "JUPYTER_PATH": str(spec.parents[2])}
    environment |= {"PYTHONPATH": str(hook), "HOOK_LOG": str(hook / "log.txt")}
    result = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", folder / NOTEBOOK.name],
        cwd=folder.parent,  # not the notebook's folder
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert noise_of(folder / NOTEBOOK.name) == []
    return results_of(folder / NOTEBOOK.name)


@pytest.fixture(scope="module")
def first(folder):
    """The results of the first run."""
    return run_all_cells(folder)


@pytest.fixture(scope="module")
def second(folder, first):
    """The results of the second run in the same folder, and the training's log before and after."""
    (log,) = (folder / "data" / "quick" / "checkpoints").glob("*/log.csv")
    before = log.read_bytes()
    results = run_all_cells(folder)
    (log,) = (folder / "data" / "quick" / "checkpoints").glob("*/log.csv")
    return results, before, log.read_bytes()


def test_results(first, definitions):
    assert first["data"] == "stand-in"
    assert first["images"] == {"train": 2000, "validation": 600, "test": 600}
    assert 0 <= first["validation_word_accuracy"] <= 1
    assert 0 < first["validation_character_error_rate"] <= 2
    assert 100_000 < first["parameters"] < 10_000_000
    assert first["epochs"] == 2
    assert 0 < first["training_minutes"] < first["notebook_minutes"] < 10
    assert first["training_images_per_second"] > 10
    assert first["prediction_images_per_second"] > 10
    assert 0.3 < first["peak_memory_gib"] < 1.5
    assert first["device"].startswith(("CPU", "GPU"))
    assert first["precision"] == definitions.best_precision()
    assert set(first["versions"]) == {"python", "tensorflow", "keras", "numpy"}
    assert first["trained_in_this_run"] is True
    assert first["code_sha256"] == definitions.code_digest(NOTEBOOK)


@pytest.mark.parametrize(
    ("code", "noted"),
    [
        ("import socket; socket.create_connection(('192.0.2.1', 9), 1)", "socket.getaddrinfo"),
        ("import socket; socket.socket().connect(('192.0.2.1', 9))", "socket.connect 192.0.2.1"),
        ("import pickle; pickle.loads(pickle.dumps(print))", "pickle.find_class"),
    ],
)
def test_a_connection_or_a_pickle_would_be_noticed(tmp_path, code, noted):
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    environment = {"PYTHONPATH": str(tmp_path), "HOOK_LOG": str(tmp_path / "log.txt")}
    line = [sys.executable, "-c", code, "ipykernel_launcher"]
    subprocess.run(line, env=os.environ | environment, capture_output=True, check=False)
    watched, event = (tmp_path / "log.txt").read_text().splitlines()
    assert watched == "a kernel was watched" and event.startswith(noted)


def test_opens_no_connection_and_no_pickle(folder, first):
    """The kernel and all that it starts reach the loopback address alone."""
    log = (folder.parent / "hook" / "log.txt").read_text()
    assert set(log.splitlines()) == {"a kernel was watched"}


def test_says_that_images_are_the_stand_ins(folder, first):
    text = "".join("".join(output.get("text", "")) for output in outputs_of(folder / NOTEBOOK.name))
    assert "NOT the course's images" in text


def test_every_cell_ran_in_order(folder, first):
    counts = execution_counts(folder / NOTEBOOK.name)
    assert counts == list(range(1, len(counts) + 1))


def test_answer_file(folder, first):
    assert len(answers_of(folder / "data" / "quick" / ANSWERS.name, 2600, 600)) == 600


def test_recorded_files_are_not_touched(folder, first):
    assert {name: (folder / name).read_bytes() for name in RECORDED} == RECORDED
    assert {path.name for path in folder.iterdir()} == {"data", NOTEBOOK.name, *RECORDED}
    assert not (folder / "data" / "words_captcha").exists()


def test_words_of_test_images_are_in_no_file(folder, first):
    labels = (folder / "data" / "quick" / LABELS.name).read_text(encoding="ascii")
    module = import_file("copied_stand_in", folder / "data" / "stand_in.py")
    assert labels == module.labels_text(2600, seed=3)


def test_second_run_finds_the_finished_training(first, second):
    results, before, after = second
    assert results["trained_in_this_run"] is False
    assert after == before
    for name in ("validation_word_accuracy", "validation_character_error_rate", "epochs"):
        assert results[name] == first[name]
