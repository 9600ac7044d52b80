"""The training on little data: broken off, killed, damaged, finished, and on several devices."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import WORDS, noise, run_cells, tags
from test_model import make_captioner, make_small, set_small_decoder


def values(variables):
    return [variable.numpy() for variable in variables]


def same(ones, others):
    return all(np.array_equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.fixture
def small(notebook):
    """Sets what a training of two rounds of two batches needs, which learns the first letter alone.

    It stops by a signal if it is told to, and leaves what it saw in `notebook`.
    """
    make_small(notebook)
    set_small_decoder(notebook)  # where the real one matters, its cell runs again
    make_optimizer = notebook.make_optimizer
    notebook.make_optimizer = lambda steps, rate: make_optimizer(10 * steps, rate)  # so it averages
    notebook.BATCH_SIZE, notebook.HEIGHTS, notebook.STEPS = 2, [8, 16], 1
    notebook.tokens = notebook.tokens[:, :2]
    notebook.token_batch, notebook.target_batch = notebook.tokens[:8, :1], notebook.tokens[:8, 1:]
    notebook.stop_at, notebook.trained, notebook.starts = None, 0, []

    class Hooked(notebook.SaveRound):
        def stop(self, place):
            if notebook.stop_at and (place, notebook.trained) == notebook.stop_at[:2]:
                os.kill(os.getpid(), notebook.stop_at[2])

        def on_train_begin(self, logs=None):
            notebook.starts.append(self.model.get_weights())

        def on_train_batch_begin(self, batch, logs=None):
            notebook.trained += 1
            self.stop("training")

        def on_test_begin(self, logs=None):
            self.stop("validation")

        def on_test_end(self, logs=None):
            super().on_test_end(logs)
            notebook.averages = values(self.model.trainable_variables)

        def on_epoch_end(self, epoch, logs):
            super().on_epoch_end(epoch, logs)
            notebook.saved = self.model.get_weights()

    notebook.SaveRound = Hooked
    return notebook


def check_finished(small):
    """All rounds are done, each is logged once, and the average of the weights is in place."""
    optimizer = small.captioner.optimizer
    assert int(optimizer.iterations) == 4
    assert float(optimizer.learning_rate) == pytest.approx(36 / 40 * small.LEARNING_RATE)
    assert [row["height"] for row in small.log] == [8, 16]
    weights = values(small.captioner.trainable_variables)
    assert same(weights, values(optimizer._model_variables_moving_average))
    assert same(weights, small.averages) and not same(small.saved, small.captioner.get_weights())


@pytest.mark.parametrize("place", ["training", "validation"])
def test_goes_on_after_an_interruption(small, place):
    """In the second round. The average of the first is in place then, until the cell runs again."""
    small.stop_at = place, 4, signal.SIGINT
    run_cells(small, "run", "build")
    with pytest.raises(KeyboardInterrupt):
        run_cells(small, "train")
    assert len(small.log) == 1 and same(values(small.captioner.trainable_variables), small.averages)
    saved, small.stop_at = small.saved, None
    run_cells(small, "train")
    assert small.trained == 4 + 2, "the first round is not trained again"
    assert same(saved, small.starts[2]), "it goes on without the average"
    check_finished(small)
    run_cells(small, "train", "curves")
    assert small.trained == 6
    check_finished(small)


def test_begins_anew_after_an_interruption_of_the_first_round(small):
    small.stop_at = "training", 2, signal.SIGINT
    run_cells(small, "run", "build")
    with pytest.raises(KeyboardInterrupt):
        run_cells(small, "train")
    assert small.log == [] and same(small.starts[0], small.captioner.get_weights())
    run_cells(small, "train")
    check_finished(small)


def test_broken_off_after_each_round_it_sees_every_image(small):
    """In three rounds, as read from the disk; no change of an image comes twice."""
    seen = []

    class Watched(small.Captioner):
        def train_step(self, data):
            seen.extend(data[0][0].numpy())
            return super().train_step(data)

    small.Captioner = Watched
    small.augment = lambda image: image + small.tf.random.uniform([])
    for number in range(4):
        small.HEIGHTS = [16] * (number + 1)
        run_cells(small, "run", "build")
        assert small.rounds_before == number
        (small.RUN / f"round{number + 1:03d}.npz").write_bytes(b"PK")  # killed while writing
        run_cells(small, "train")
    indices = np.min(seen, axis=(1, 2, 3)).astype(int) // 20
    assert sorted(indices[:8]) == [*range(8)] and len(indices) == 8 + 3
    changes = [image - small.shrink(noise()[i], 16) for i, image in zip(indices, seen, strict=True)]
    assert len({round(float(change[0, 0, 0]), 4) for change in changes}) == 8 + 3


def test_stops_when_the_loss_is_not_a_number(small):
    """Nothing of that round is saved, and the messages say so."""
    small.loss = lambda targets, logits: np.nan * small.ops.sum(logits)
    run_cells(small, "run", "build")
    with pytest.raises(RuntimeError, match="NaN"):
        run_cells(small, "train")
    assert small.log == [] and [path.name for path in small.RUN.iterdir()] == ["round000.npz"]
    with pytest.raises(ValueError, match="^No round is finished yet"):
        run_cells(small, "curves")


def test_does_not_save_a_weight_that_is_not_a_number(small):
    """The loss of the last batch was one. The round before is kept."""

    class Broken(small.SaveRound):
        def on_epoch_end(self, epoch, logs):
            if epoch == 1:
                weight = self.model.trainable_variables[0]
                weight.assign(np.nan * weight)
            super().on_epoch_end(epoch, logs)

    small.SaveRound = Broken
    run_cells(small, "run", "build")
    with pytest.raises(FloatingPointError, match="Set a lower LEARNING_RATE"):
        run_cells(small, "train")
    names = sorted(path.name for path in small.RUN.iterdir())
    assert names == ["round000.npz", "round001.npz"] and len(small.log) == 1
    assert np.isfinite(small.captioner.trainable_variables[0]).all()


def test_damaged_states(small, capsys):
    """An older one is used instead of the newest, and a message names the file."""
    run_cells(small, "run", "build", "train")
    fresh, older, newest = sorted(small.RUN.glob("round*.npz"))
    whole, middle = newest.read_bytes(), newest.stat().st_size // 2
    damages = {
        "cut": whole[:-1000],
        "zeros in the weights": whole[:middle] + bytes(512) + whole[middle + 512 :],
        "zeros in a name": whole.replace(b"\x93NUMPY", bytes(6), 1),
        "zeros in a shape": whole.replace(b"), }", bytes(4), 1),
        "empty": b"",
    }
    optimizer = small.captioner.optimizer
    variables = [*small.captioner.weights, *optimizer.variables]
    for name, content in damages.items():
        newest.write_bytes(content)
        log = small.restore([older, newest], variables)
        assert (len(log), int(optimizer.iterations)) == (1, 2), name
        assert f"{newest} is damaged, or of another network" in capsys.readouterr().out, name
        optimizer.iterations.assign(9)
    older.write_bytes(b"")
    assert small.restore([older, newest], variables) == []
    assert small.restore([fresh, older], variables) == [] and int(optimizer.iterations) == 0
    older.write_bytes(whole)
    assert len(small.restore([older], variables)) == 2


def test_other_settings_begin_another_training(small):
    """The settings that a training depends on; how the device computes is none of them."""
    names, before = [], dict(vars(small))
    changes = [
        {"PRECISION": "mixed_bfloat16"},
        {"TRAIN": 9},
        {"ROUNDS": {16: 3}},
        {"BATCH_SIZE": 9},
        {"LEARNING_RATE": 1.0},
    ]
    changes += [{"SEED": 1}, {"ORIGIN": "stand-in"}, {"words": np.array(WORDS)}, {"LETTERS": "a"}]
    for change in [{}, *changes, {"VALIDATION": 9}, {"DEVICE": "2 GPU"}]:
        vars(small).update({"words": np.array(WORDS[::-1])} | change)
        run_cells(small, "run")
        names.append(small.RUN)
        vars(small).update(before)
    assert len(set(names)) == 1 + len(changes) and all(path.is_dir() for path in names)
    assert names[0] == names[-1] == names[-2]


def test_recorded_weights(small, capsys):
    """A quick look reads with them if they fit; a whole run never does."""
    os.mkdir("data")
    run_cells(small, "decoder")
    fitting, other = (make_captioner(small, small.Decoder(units)) for units in (256, 64))
    rounds = json.dumps([{"height": 16}] * 9)
    for small.QUICK, recorded in [(True, None), (False, fitting), (True, other), (True, fitting)]:
        if recorded:
            np.savez("data/recorded.npz", *recorded.get_weights(), log=rounds)
        run_cells(small, "run", "build")
        text = capsys.readouterr().out
        assert ("of another network" in text) == (recorded is other)
        borrowed = small.QUICK and recorded is fitting
        assert borrowed == ("come from data/recorded.npz, which the stand-in taught: 9" in text)
        assert small.recorded_log == ([{"height": 16}] * 9 if borrowed else [])
    run_cells(small, "train")
    assert small.trained == 0 and same(small.captioner.get_weights(), fitting.get_weights())


def test_answers_of_a_whole_run_are_kept(small):
    """What an unfinished training or a quick look answers lies in data/."""
    small.captioner, small.read_greedily = None, lambda *_: (None, None)
    small.read_with_lexicon = lambda _, logits, indices: (small.answers[indices], indices)
    small.STUDENT_ID, whole, other = "x", Path("Lab12-2_x.txt"), Path("data", "Lab12-2_x.txt")
    for count, rounds, path in [(20_000, 2, whole), (20_000, 1, other), (9, 2, other)]:
        small.TESTED, small.log = np.arange(count), [{}] * rounds
        small.answers = np.resize(WORDS[rounds:], count)
        before = whole.read_bytes() if path != whole else None
        run_cells(small, "test")
        lines = [f"a{i} {word}\n" for i, word in enumerate(small.answers)]
        assert path.read_bytes() == "".join(lines).encode()
        assert path == whole or whole.read_bytes() == before


def test_sections_6_and_7_run_again_change_nothing(small):
    """Neither the trained captioner nor how its training goes on."""
    run_cells(small, "run", "build", "train")
    captioner = small.captioner
    run_cells(small, *tags("scores", "nonsense"), "train")
    assert small.captioner is captioner and small.trained == 4
    check_finished(small)


def test_several_devices(small, monkeypatch):
    """They train as one does, in equal shares, go on, and then read an image alike."""
    small.HEIGHTS, small.LEARNING_RATE = [16, 16], 1e-3
    small.TRAINED, small.VALIDATED = np.arange(200) % 8, np.arange(66) % 8
    image, losses = np.repeat(small.image_batch[:1], 6, axis=0), {}
    distribute = small.tf.distribute
    for devices, batch in [(1, 32), (2, 32), (3, 33)]:
        small.tf.config.run_functions_eagerly(devices == 1)
        small.BATCH_SIZE, small.ORIGIN = 32, f"{devices} devices"
        names = [f"CPU:{i}" for i in range(devices)]
        strategy = partial(distribute.MirroredStrategy, names, distribute.ReductionToOneDevice())
        with monkeypatch.context() as patch:
            patch.setattr(distribute, "MirroredStrategy", strategy)
            patch.setattr(small.tf.config, "list_physical_devices", {"GPU": names}.get)
            run_cells(small, "round_batches")
        run_cells(small, "run", "build", "train")  # of 67 images in a round, 66 are used
        assert batch == small.BATCH_SIZE and small.captioner.distribute_strategy is small.strategy
        losses[devices] = [row["loss"] for row in small.log]
        assert losses[devices] == pytest.approx(losses[1], rel=0.01)
        read = small.captioner.predict(image, verbose=0)[0]
        run_cells(small, "round_batches", "build", "train")
        np.testing.assert_allclose(read, small.captioner.predict_on_batch(image)[0], atol=1e-5)


def test_compiled_by_xla(small):
    """As Keras does by itself on a single GPU."""
    small.tf.config.run_functions_eagerly(False)
    run_cells(small, "decoder")
    captioner = make_captioner(small)
    captioner.compile(small.make_optimizer(2, 1e-3), small.loss, jit_compile=True)
    inputs = small.image_batch, small.token_batch
    losses = [captioner.train_on_batch(inputs, small.tokens[:8, 1:]) for _ in range(2)]
    assert np.isfinite(losses).all() and losses[0] != losses[1]


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_16_bits(small, precision):
    """The training goes on, with the loss scale in place where it is needed."""
    small.keras.config.set_dtype_policy(precision)
    small.HEIGHTS = [16]
    run_cells(small, "decoder", "run", "build", "train", "build", "train")
    assert small.rounds_before == 1 and np.isfinite(small.log[0]["loss"])
    optimizer = small.captioner.optimizer
    assert int(optimizer.iterations) == 2
    assert hasattr(optimizer, "dynamic_scale") == (precision == "mixed_float16")
    assert small.captioner.decoder.cell.compute_dtype == precision.removeprefix("mixed_")
