"""The training on little data: interrupted, killed, finished, failed, and with other settings."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, WEIGHTS, run_cells
from PIL import Image
from test_model import noise, small_encoder

WORDS = ["ids", "jam", "www", "zoo", "big", "end", "cat"] * 8
ROUND, ROUNDS = 2, 3
KILLED = """
import os
import sys
from types import ModuleType

sys.path.insert(0, sys.argv[1])
from conftest import run_cells, tags
from test_training import begin, stop_at

notebook = sys.modules["notebook"] = ModuleType("notebook")
run_cells(notebook, "imports", "parameters")
notebook.FOLDER, notebook.QUICK = sys.argv[2], True
notebook.TRAIN, notebook.VALIDATION, notebook.TEST, notebook.BATCH_SIZE = 12, 8, 8, 8
run_cells(notebook, *tags("derived", "log_round"))
notebook.tf.config.run_functions_eagerly(True)
stop_at(begin(notebook), 6, lambda: os.kill(os.getpid(), 9))
run_cells(notebook, "run", "train")
"""


def begin(notebook):
    """Sets what a training of three short rounds needs, the first at half size."""
    sizes = {"TRAIN": 24, "VALIDATION": 8, "TEST": 4, "HEIGHT": 16, "WIDTH": 32, "BATCH_SIZE": 4}
    sizes |= {"TRAINED": np.arange(24), "VALIDATED": np.arange(48, 56), "QUICK": True}
    sizes |= {"ROUNDS": ROUNDS, "HALF_SIZE_ROUNDS": 1, "ORIGIN": "course", "DEVICE": "cores"}
    files = {f"a{index}.png": f"images/{index % 8}.png" for index in range(56)}
    os.makedirs("images", exist_ok=True)
    for index, pixels in enumerate(noise(8, 32, 64)):
        Image.fromarray(pixels).save(f"images/{index}.png")
    vars(notebook).update({"words": np.array(WORDS), "PLAIN": True, "files": files, **sizes})
    run_cells(notebook, "tokenizer")
    notebook.tokens = notebook.tokenize(WORDS)
    notebook.build_encoder = lambda: small_encoder(notebook)
    run_cells(notebook, "try_batch")
    return notebook


def stop_at(notebook, batch, stop):
    """From now on, `stop` is called before so many batches are trained."""

    class Stop(notebook.ShowProgress):
        seen = 0

        def on_train_batch_begin(self, number, logs=None):
            self.seen += 1
            if self.seen == batch:
                stop()

    notebook.ShowProgress = Stop


@pytest.fixture
def small(notebook):
    """The notebook's names for a training of three short rounds, which nothing is traced for."""
    notebook.tf.config.run_functions_eagerly(True)
    yield begin(notebook)
    notebook.tf.config.run_functions_eagerly(False)


def check_finished(notebook):
    """All rounds are done, each is logged once, and the average of the weights is in place."""
    optimizer = notebook.captioner.optimizer
    assert int(optimizer.iterations) == ROUND * ROUNDS and float(optimizer.learning_rate) == 0
    assert [row["epoch"] for row in notebook.read_log()] == ["0", "1", "2"]
    weights = [weight.numpy() for weight in optimizer._trainable_variables]
    averages = optimizer._model_variables_moving_average
    assert all(map(np.array_equal, weights, [average.numpy() for average in averages]))
    return notebook.captioner.get_weights()


def test_goes_on_after_an_interruption(small):
    """Stopped in the second round, the cell is run again, and once more after the end."""

    def interrupt():
        raise KeyboardInterrupt

    stop_at(small, ROUND + 2, interrupt)
    run_cells(small, "run")
    with pytest.raises(KeyboardInterrupt):
        run_cells(small, "train")
    assert small.ROUND == ROUND and len(small.read_log()) == 1

    seen = []
    stop_at(small, 0, None)
    small.ShowProgress.on_train_batch_begin = lambda self, batch, logs=None: seen.append(batch)
    run_cells(small, "train")
    assert len(seen) == ROUND * (ROUNDS - 1), "the first round is not trained again"
    finished = check_finished(small)
    run_cells(small, "train", "curves")
    assert len(seen) == ROUND * (ROUNDS - 1)
    assert all(map(np.array_equal, finished, check_finished(small)))


def test_goes_on_when_it_was_killed(small, tiny):
    """By another process, in the third round."""
    command = [sys.executable, "-c", KILLED, ROOT / "tests", tiny.parent]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr[-3000:]
    run_cells(small, "run", "train")
    assert small.rounds_before == 2
    check_finished(small)


def test_stops_when_the_loss_is_not_a_number(small):
    """Nothing of that round is saved, and the message says so."""
    small.LEARNING_RATE = float("nan")
    with pytest.raises(RuntimeError, match="NaN"):
        run_cells(small, "run", "train")
    assert list(small.RUN.iterdir()) in ([], [small.RUN / "log.csv"]) and small.read_log() == []


def test_other_settings_begin_another_training(small):
    """The settings that a training depends on; how the device computes is none of them."""
    names, before = [], dict(vars(small))
    changes = [{"TRAIN": 9}, {"ROUNDS": 9}, {"HALF_SIZE_ROUNDS": 0}, {"BATCH_SIZE": 2}]
    changes += [{"LEARNING_RATE": 1.0}, {"SEED": 1}, {"ORIGIN": "stand-in"}, {"words": ["big"]}]
    for change in [{}, *changes, {"VALIDATION": 9}, {"DEVICE": "GPU, mixed_bfloat16"}]:
        vars(small).update(before | change)
        small.keras.config.set_dtype_policy(change.get("DEVICE", "float32").split(", ")[-1])
        run_cells(small, "run")
        names.append(small.RUN)
    assert len(set(names)) == 1 + len(changes) and all(path.is_dir() for path in names)
    assert names[0] == names[-1] == names[-2]


def test_recorded_weights(small, capsys):
    """A quick look reads with them if they are there; a whole run never does."""

    def build():
        made = small.Captioner(small.build_encoder(), small.Decoder())
        made((small.image_batch, small.token_batch))
        return made

    os.mkdir("data")
    recorded, small.captioner = build(), build()
    own = small.captioner.get_weights()
    for small.QUICK, is_there in [(True, False), (False, True), (True, True)]:
        if is_there:
            recorded.save_weights(f"data/{WEIGHTS.name}")
        run_cells(small, "recorded")
        loads = small.QUICK and is_there
        assert ("From here on" in capsys.readouterr().out) == loads
        expected = recorded.get_weights() if loads else own
        assert all(map(np.array_equal, small.captioner.get_weights(), expected))


def test_names_the_weights_of_inception_that_are_cut_off(small, capsys):
    """Before the training, in one line; the rest goes on without them."""
    os.mkdir("data")
    small.QUICK, file = False, "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with open(f"data/{file}", "wb") as weights:
        weights.write(b"\x89HDF\r\n\x1a\n" + bytes(100))
    run_cells(small, "inception")
    assert small.inception is None
    assert re.match(rf"InceptionV3 is left out: data/{file} can't be ", capsys.readouterr().out)
