"""A training that is killed, and killed again, ends as one that ran through."""

import itertools
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, run_cells
from PIL import Image

SCRIPT = """
import os
import resource
import signal
import sys

sys.path.insert(0, sys.argv[1])
import conftest
import numpy as np

moment = sys.argv[2:]
notebook = conftest.definitions()
settings = {"TRAIN": 32, "VALIDATION": 8, "TEST": 4, "TOTAL": 44, "HEIGHT": 16, "WIDTH": 32}
settings |= {"ROUND": 16, "HALF_SIZE_ROUNDS": 1, "ROUNDS": 4, "BATCH_SIZE": 4, "ORIGIN": "course"}
words = [conftest.stand_in.word_of(index, 2) for index in range(39)] + ["apple"]
conftest.set_up(notebook, words, LEARNING_RATE=1e-2, **settings)
notebook.paths = np.array([f"a{index}.png" for index in range(44)])
notebook.build_encoder = lambda: conftest.small_encoder(notebook)
batch = next(iter(notebook.training_batches(np.arange(32), 1, 0)))
(notebook.image_batch, notebook.token_batch), notebook.target_batch = batch
for text in ("captioner.optimizer.build(", "first_round = len("):
    conftest.run_cells(notebook, text)
notebook.captioner.decoder.hidden.layers[1].rate = 0  # dropout draws anew after a restart
counts, save_weights = {"batch": 0, "half": 0}, notebook.captioner.save_weights


def step(kind, path=None):
    counts[kind] += 1
    if moment == [kind, str(counts[kind])]:
        if path:
            os.truncate(path, os.stat(path).st_size // 2)
        os.kill(os.getpid(), 9)


def save(path, **options):
    if moment == ["full", str(counts["half"] + 1)]:  # as on a full disk, files can't grow
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    save_weights(path, **options)
    step("half", path)


die = {"on_train_batch_end": lambda batch, logs: step("batch")}
callback = notebook.keras.callbacks.LambdaCallback(**die)
notebook.captioner.save_weights, notebook.count_batches = save, lambda progress: callback
conftest.run_cells(notebook, "captioner.fit(batches, verbose")
print("rounds", counts["half"])
weights = {str(i): weight for i, weight in enumerate(notebook.captioner.get_weights())}
np.savez("weights.npz", steps=int(notebook.captioner.optimizer.iterations), **weights)
assert len(notebook.log) == 4
"""


def train(folder, *moment):
    """Trains in a folder, to the end, or until it is killed or fails; returns what it prints."""
    command = [sys.executable, "-c", SCRIPT, ROOT / "tests", *moment]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if moment[:1] == ("full",):  # h5py may crash when it ends after that
        assert result.returncode and "File too large" in result.stderr
    else:
        assert result.returncode == (-signal.SIGKILL if moment else 0), result.stderr[-3000:]
    return result.stdout


def test_killed_training_ends_as_if_it_had_run_through(tmp_path):
    """Killed in the second round while its state is being written, and in the third while it is
    trained, and stopped by a full disk after the third: what was finished is kept, a half-written
    state does no harm."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder, index in itertools.product((whole, cut), range(44)):
        folder.mkdir(exist_ok=True)
        pixels = np.random.default_rng(index).integers(256, size=(32, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"a{index}.png")
    assert train(whole).endswith("rounds 4\n")

    train(cut, "half", "2")
    (run,) = (cut / "checkpoints").iterdir()
    names = {"00.json", "00.weights.h5", "01.json", "part.weights.h5"}
    assert {path.name for path in run.iterdir()} == names
    assert "1 of 4 rounds come from checkpoints/course-" in train(cut, "batch", "6")
    train(cut, "full", "1")
    text = train(cut)
    assert "2 of 4 rounds come from" in text and text.endswith("rounds 2\n")

    with np.load(whole / "weights.npz") as expected, np.load(cut / "weights.npz") as found:
        assert set(found) == set(expected) and found["steps"] == 16
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)


def test_other_settings_begin_another_training(notebook):
    names, before = set(), dict(vars(notebook)) | {"ORIGIN": "course", "captioner": None}
    for change in ({}, {"TRAIN": 9}, {"HEIGHT": 80}, {"SEED": 1}, {"words": ["big"]}, {}):
        vars(notebook).update(before | change)
        run_cells(notebook, "first_round = len(")
        names.add(notebook.RUN)
    assert len(names) == 5 and all(path.is_dir() for path in names)


def test_killed_writing_leaves_the_old_answers(notebook, monkeypatch):
    """Answers get their name when all are written."""
    path, predict = Path("Lab12-2_studentID.txt"), lambda *args, **options: (None, None)
    path.write_text("old")
    vars(notebook).update({"TRAIN": 4, "VALIDATION": 2, "TOTAL": 9, "IMAGES": path, "QUICK": False})
    notebook.image_batches, notebook.reader = len, SimpleNamespace(predict=predict)
    notebook.read_with_lexicon = lambda *args: (["thus", "www", "null"], None)
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(Path, "replace", None)
        run_cells(notebook, "answers_file = (")
    assert path.read_text() == "old"
    run_cells(notebook, "answers_file = (")
    assert path.read_bytes() == b"a6 thus\na7 www\na8 null\n"
