"""Where the time of a training step goes, and what Muon and the average bring in the small world.

    python tests/profile_step.py

prints a table and writes it to data/profile.txt. It needs images in data/stand_in, and a computer
that does nothing else.
"""

import os
import time

import conftest
from conftest import ROOT, run_cells, tags

REPEATS, COUNT = 12, 256  # of a measurement; of the images that are read


def best(run, repeats=REPEATS):
    """The milliseconds that `run` takes, at the least."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begin))
    return min(times)


def back(nb, run, variables):
    """A function that computes the gradient of what `run` returns."""

    @nb.tf.function
    def both_ways():
        with nb.tf.GradientTape() as tape:
            result = run()
        return tape.gradient(result, variables)

    return both_ways


def time_optimizer(nb, gradients, variables, use_ema):
    optimizer = nb.make_optimizer(1000, 4e-3)
    optimizer.use_ema = use_ema
    optimizer.build(variables)
    pairs = list(zip(gradients, variables, strict=True))
    return best(nb.tf.function(lambda: optimizer.apply_gradients(pairs)), 8 * REPEATS)


def time_step(nb, data):
    """The seconds of a first step, as in `learn`, and the milliseconds of a later one."""
    begin = time.perf_counter()
    model = nb.Captioner(nb.build_encoder(), nb.Decoder())
    model.compile(nb.make_optimizer(1000, 4e-3), nb.loss, metrics=[nb.word_accuracy])
    model.evaluate(data, verbose=0)
    model.optimizer.build(model.trainable_variables)
    model.fit(data, verbose=0, shuffle=False)
    seconds, batches = time.perf_counter() - begin, iter(data.repeat())
    return seconds, best(lambda: model.train_function(batches))


def profile(nb, height):
    """What takes time: milliseconds an image, and for the first step seconds."""
    read = nb.batches(nb.TRAINED[:COUNT], height)
    changed = nb.batches(nb.TRAINED[:COUNT], height, nb.augment)
    decode, pipeline = best(lambda: [*read]) / COUNT, best(lambda: [*changed]) / COUNT
    data = read.take(1).cache()
    inputs, targets = next(iter(data))
    model = nb.Captioner(nb.build_encoder(), nb.Decoder())
    model(inputs)

    def encode():
        return model.encoder(inputs[0], training=True)

    def learn():
        return nb.loss(targets, model(inputs, training=True))

    forward = best(nb.tf.function(encode))
    encoder = best(back(nb, encode, model.encoder.trainable_variables))
    network = back(nb, learn, model.trainable_variables)
    raw, averaged = [
        time_optimizer(nb, network(), model.trainable_variables, ema) for ema in (False, True)
    ]
    first, step = time_step(nb, data)
    fused, nb.FusedBatchNormalization = nb.FusedBatchNormalization, nb.layers.BatchNormalization
    _, unfused = time_step(nb, data)
    nb.FusedBatchNormalization = fused
    batch = {
        "encoder, forward": forward,
        "encoder, forward and back": encoder,
        "decoder and loss, forward and back": best(network) - encoder,
        "optimizer": averaged,
        "of which the average": averaged - raw,
        "whole step": step,
        "the same, Keras' normalization": unfused,
    }
    rows = {"decoding and shrinking": decode, "augmenting": pipeline - decode}
    rows |= {what: time / nb.BATCH_SIZE for what, time in batch.items()}
    return rows | {"first step": first}


def compare(nb):
    """The share of words that are read in the small world, by what is changed."""
    muon, adamw = nb.make_optimizer, nb.keras.optimizers.AdamW

    def without_average(steps, rate):
        optimizer = muon(steps, rate)
        optimizer.ema_momentum = 0.0
        return optimizer

    def with_adamw(steps, rate, factor=1.0):
        return adamw.from_config(muon(steps, factor * rate).get_config())

    def with_slow_adamw(steps, rate):
        return with_adamw(steps, rate, 0.25)

    shares = {"small world": nb.systems["soft attention"]}
    for nb.make_optimizer in (without_average, with_adamw, with_slow_adamw):
        what = f"small world, {nb.make_optimizer.__name__.replace('_', ' ')}"
        shares[what] = nb.learn(nb.Decoder)
    return shares


if __name__ == "__main__":
    os.chdir(ROOT)
    nb = conftest.ModuleType("notebook")
    run_cells(nb, "imports", "parameters")
    nb.TRAIN, nb.VALIDATION, nb.TEST, nb.QUICK = COUNT, nb.BATCH_SIZE, 1, False
    nb.tf.get_logger().setLevel("ERROR")
    run_cells(nb, *tags("derived", "loss"), *tags("orthogonalize", "learn"), "augment")
    half, full = [profile(nb, height) for height in (min(nb.ROUNDS), max(nb.ROUNDS))]
    table = [("what", "half size", "full size", "unit")]
    for what, value in half.items():
        unit = "s" if what == "first step" else "ms an image"
        table.append((what, f"{value:.2f}", f"{full[what]:.2f}", unit))
    for what, share in compare(nb).items():
        table.append((what, f"{share:.1%}", "", f"of words, {nb.SMALL_STEPS} steps"))
    lines = [f"{what:36}{half:>10}{full:>11}  {unit}" for what, half, full, unit in table]
    (ROOT / "data" / "profile.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(*lines, sep="\n")
