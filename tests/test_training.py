"""The training on little data: interrupted, killed, finished, failed, and with other settings."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, WEIGHTS, run_cells
from test_model import make_captioner, make_small

ROUND, ROUNDS = 2, 3
KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import define_all, run_cells
from test_training import begin, stop_at

notebook = begin(define_all(sys.argv[2]))
notebook.tf.config.run_functions_eagerly(True)
stop_at(notebook, 6, 9)
run_cells(notebook, "run", "train")
"""


def begin(notebook):
    """Sets what a training of three short rounds needs, the first at half size."""
    make_small(notebook)
    sizes = {"TRAIN": 18, "ROUNDS": ROUNDS, "HALF_SIZE_ROUNDS": 1}
    vars(notebook).update(sizes | {"ORIGIN": "course", "DEVICE": "cores", "QUICK": True})
    make_optimizer = notebook.make_optimizer
    notebook.make_optimizer = lambda steps, rate: make_optimizer(10 * steps, rate)  # so it averages
    run_cells(notebook, "try_batch")
    return notebook


def stop_at(notebook, batch, number=None):
    """From now on, the process gets this signal before so many batches are trained."""

    class Stop(notebook.ShowProgress):
        seen = 0

        def on_train_batch_begin(self, _, logs=None):
            Stop.seen += 1
            if Stop.seen == batch:
                os.kill(os.getpid(), number)

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
    assert int(optimizer.iterations) == ROUND * ROUNDS
    assert float(optimizer.learning_rate) == pytest.approx(0.9 * notebook.LEARNING_RATE)
    assert [row["epoch"] for row in notebook.read_log()] == ["0", "1", "2"]
    weights = [weight.numpy() for weight in optimizer._trainable_variables]
    averages = optimizer._model_variables_moving_average
    assert all(map(np.array_equal, weights, [average.numpy() for average in averages]))
    return notebook.captioner.get_weights()


def test_goes_on_after_an_interruption(small):
    """Stopped in the second round, the cell is run again, and once more after the end."""
    stop_at(small, ROUND + 2, signal.SIGINT)
    run_cells(small, "run")
    with pytest.raises(KeyboardInterrupt):
        run_cells(small, "train")
    assert small.ROUND_BATCHES == ROUND and len(small.read_log()) == 1
    stop_at(small, None)
    run_cells(small, "train")
    assert small.ShowProgress.seen == ROUND * (ROUNDS - 1), "the first round is not trained again"
    finished = check_finished(small)
    run_cells(small, "train", "curves")
    assert small.ShowProgress.seen == ROUND * (ROUNDS - 1)
    assert all(map(np.array_equal, finished, check_finished(small)))


def test_goes_on_when_it_was_killed(small, drawn):
    """By another process, in the third round, which is judged by the average of the weights."""
    command = [sys.executable, "-c", KILLED, ROOT / "tests", drawn]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr[-3000:]

    class Watch(small.LogRound):
        def on_test_end(self, logs=None):
            super().on_test_end(logs)
            small.judged = self.model.get_weights()

    small.LogRound = Watch
    run_cells(small, "run", "train")
    assert small.rounds_before == 2
    assert all(map(np.array_equal, small.judged, check_finished(small)))


def test_stops_when_the_loss_is_not_a_number(small):
    """Nothing of that round is saved, and the message says so."""
    small.loss = lambda targets, logits: np.nan * small.ops.sum(logits)
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
        run_cells(small, "run")
        names.append(small.RUN)
    assert len(set(names)) == 1 + len(changes) and all(path.is_dir() for path in names)
    assert names[0] == names[-1] == names[-2]


def test_recorded_weights(small, capsys):
    """A quick look reads with them if they are there; a whole run never does."""
    os.mkdir("data")
    recorded, own = (make_captioner(small, small.Decoder())[0] for _ in range(2))
    for small.QUICK, is_there in [(True, False), (False, True), (True, True)]:
        if is_there:
            recorded.save_weights(f"data/{WEIGHTS.name}")
        small.captioner = own
        run_cells(small, "recorded")
        loads = small.QUICK and is_there
        assert ("From here on" in capsys.readouterr().out) == loads
        expected = recorded.get_weights() if loads else own.get_weights()
        assert all(map(np.array_equal, small.captioner.get_weights(), expected))
