"""A training that is killed, again and again, ends as one that ran through."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import cell_with, make_training_folder, run_script, write_script

SETTINGS = """
HEIGHT, WIDTH, TRAIN, VALIDATION, TEST, TOTAL = 8, 16, 40, 8, 4, 52
BATCH_SIZE, EPOCHS, COARSE_EPOCHS = 4, 4, 1
CACHE, CHECKPOINTS, LABELS = Path("cache.uint8"), Path("checkpoints"), Path("labels.txt")
LEARNING_RATE, RUN, display = 1e-2, CHECKPOINTS / "run", lambda *args, **options: DISPLAY
DISPLAY = type("Display", (), {"update": lambda *args, **options: None})()
words = read_labels(LABELS, TRAIN + VALIDATION)
tokenizer = make_tokenizer(5)
STEPS, VOCABULARY, START = 6, tokenizer.vocabulary_size(), 2
tokens = tokenize(words, tokenizer)


def build_encoder():
    image = layers.Input((None, None, 3))
    return keras.Model(image, StandardizedConv(16, strides=2)(layers.Rescaling(1 / 255)(image)))


def die():
    os.kill(os.getpid(), 9)


def halve_and_die(path):
    os.truncate(path, os.stat(path).st_size // 2)
    die()


class Moment(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        print("epoch", epoch, flush=True)

    def on_train_batch_end(self, batch, logs=None):
        if MOMENT == ["batch", self.epoch, batch]:
            die()


class KilledCheckpoint(Checkpoint):
    def on_epoch_end(self, epoch, logs=None):
        self.epoch = epoch
        super().on_epoch_end(epoch, logs)

    def save(self, name):
        if MOMENT == ["before", self.epoch, name]:
            die()
        if MOMENT == ["half", self.epoch, name]:
            self.model.save_weights(self.folder / "part.weights.h5")
            halve_and_die(self.folder / "part.weights.h5")
        super().save(name)


def callbacks(folder, watch=watch):
    *others, checkpoint = watch(folder)
    return [Moment(), *others, KilledCheckpoint(folder)]


watch, MOMENT = callbacks, json.loads(sys.argv[1])
(image_batch, token_batch), _ = next(iter(training_batches(tokens)))
"""
FINISH = """
captioner.load_weights(LATEST)
weights = {str(i): weight for i, weight in enumerate(captioner.get_weights())}
np.savez("weights.npz", steps=int(captioner.optimizer.iterations), **weights)
"""


SHRINKING = """
def killed(paths, indices, chunk, decoded=decoded):
    for index, image in decoded(paths, indices, chunk):
        if index == 23:
            os.kill(os.getpid(), 9)
        yield index, image


decoded, bar = killed, lambda images, **options: images
shrink_all(sys.argv[1:], Path("cache/x.uint8"), chunk=5)
"""


def test_killed_shrinking_goes_on(notebook, tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    paths = [str(tmp_path / f"a{index}.png") for index in range(40)]
    for path in paths:
        pixels = rng.integers(256, size=(32, 60, 3), dtype=np.uint8)
        notebook.Image.fromarray(pixels).save(path)
    killed = run_script(write_script(tmp_path / "shrinking.py", SHRINKING), *paths)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    cut, whole = tmp_path / "cache" / "x.uint8", tmp_path / "whole" / "x.uint8"
    assert not cut.exists()

    asked, decoded = [], notebook.decoded

    def spy(paths, indices, chunk):
        asked.append(len(indices))
        return decoded(paths, indices, chunk)

    monkeypatch.setattr(notebook, "decoded", spy)
    notebook.shrink_all(paths, cut)
    notebook.shrink_all(paths, whole)
    assert asked[0] in (17, 18) and asked[1] == 40
    assert cut.read_bytes() == whole.read_bytes()


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The notebook's definitions and training cell, for very small images."""
    path = tmp_path_factory.mktemp("script") / "training.py"
    one_device = "STRATEGY = tf.distribute.get_strategy()"
    return write_script(path, one_device, SETTINGS, cell_with("captioner.fit("), FINISH)


def start(script, folder, moment=None):
    """Begins the training in a folder, to be killed at a moment, or else to go to its end."""
    if not folder.exists():
        make_training_folder(folder)
    return subprocess.Popen(
        [sys.executable, str(script), json.dumps(moment)],
        cwd=folder,
        env=os.environ | {"QUICK": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Waits for the end of a training; returns the epochs that it began."""
    output, error = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL), error[-3000:]
    return [int(line.split()[1]) for line in output.splitlines() if line.startswith("epoch ")]


def test_killed_training_ends_as_if_it_had_run_through(script, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert finish(start(script, whole)) == [0, 1, 2, 3]

    assert finish(start(script, cut, ["half", 0, "best.weights.h5"])) == [0]
    assert finish(start(script, cut, ["batch", 1, 5])) == [0, 1], "nothing whole had been saved"
    assert finish(start(script, cut, ["before", 1, "latest.weights.h5"])) == [1]

    process = start(script, cut)  # epoch 1 once more, although its row and best are there
    assert process.stdout.readline() == "epoch 1\n"
    deadline = time.monotonic() + 100
    log = cut / "checkpoints" / "run" / "log.csv"
    while log.read_text().count("\n") < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()  # from outside, at a moment that is left to chance
    finish(process)

    begun = finish(start(script, cut))
    assert begun in ([1, 2, 3], [2, 3], [3], [])
    with np.load(whole / "weights.npz") as expected, np.load(cut / "weights.npz") as found:
        assert set(found) == set(expected) and found["steps"] == 40
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)
    rows = [text.split(",")[:2] for text in log.read_text().splitlines()[1:]]
    assert {int(epoch) for epoch, _ in rows} == {0, 1, 2, 3}
    names = {path.name for path in log.parent.iterdir()} - {"part.weights.h5"}
    assert names == {"log.csv", "best.weights.h5", "latest.weights.h5"}


FLOAT16 = """
import keras.src.trainers.trainer as trainer

keras.config.set_dtype_policy("mixed_float16")


class LargeLossScale(keras.optimizers.LossScaleOptimizer):
    def __init__(self, optimizer, **options):
        super().__init__(optimizer, initial_scale=2.0**20, **options)


trainer.LossScaleOptimizer = LargeLossScale
"""


def test_steps_that_float16_leaves_out_are_no_lost_epoch(tmp_path):
    """Where gradients overflow, Keras leaves out a step and doesn't count it."""
    one_device = "STRATEGY = tf.distribute.get_strategy()"
    parts = [one_device, FLOAT16, SETTINGS, cell_with("captioner.fit("), FINISH]
    script, folder = write_script(tmp_path / "training.py", *parts), tmp_path / "run"
    assert finish(start(script, folder, ["batch", 2, 5])) == [0, 1, 2]
    assert finish(start(script, folder)) == [2, 3]
    assert finish(start(script, folder)) == []
    with np.load(folder / "weights.npz") as end:
        assert 35 < end["steps"] < 40, "some steps were left out"
