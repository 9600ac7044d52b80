#!/usr/bin/env bash
# Keras and tf.data: once a seed is set, fit sees the same augmentation in every epoch.
#
# An image is often changed at random in Dataset.map, with tf.random; and a notebook often begins
# with keras.utils.set_random_seed, so that it can be repeated.
#
# One would expect: each epoch changes an image in another way, seed or not. Dataset.shuffle, in the
# same pipeline and with the same seed, gives each epoch another order, after all.
# What happens: each epoch makes a new iterator, in which the random numbers of the map begin anew
# from the seed. So the second epoch sees the changes of the first, one for one. Without a seed it
# does not; nor with one after repeat(), nor with a layer of Keras in the map, which keeps its state
# between epochs. Nothing says so.
# Versions: Python 3.11, Keras 3.15.1, TensorFlow 2.21.0; Linux x86-64, CPU.
# Seen where: in a training whose rounds are resumed, so that each sets a seed of its own.
# Output seen (numbers differ where no seed is set):
#   no seed, fit:        differ, 6 of 6 numbers
#   seed, fit:           repeat, 3 of 6 numbers
#   seed, repeat:        differ, 6 of 6 numbers
#   seed, Keras' layer:  differ, 6 of 6 numbers
#   seed, shuffle alone: the orders of 8 numbers differ
# Ends with 0 if so, and with another status if the behaviour has changed.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export TF_CPP_MIN_LOG_LEVEL=3 PIP_DISABLE_PIP_VERSION_CHECK=1
python3.11 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1 numpy==2.4.6
cd "$tmp"
cat > trial.py <<'PYTHON'
import keras
import tensorflow as tf


class Watched(keras.Model):
    """Keeps the first number of each batch that it is trained on."""

    def __init__(self):
        super().__init__()
        self.dense, self.seen = keras.layers.Dense(1), []

    def train_step(self, data):
        self.seen.append(float(tf.reshape(data[0], [-1])[0]))
        return super().train_step(data)

    def call(self, inputs):
        return self.dense(inputs)


def plain(number):
    return tf.random.uniform([1]), 0.0


noise = keras.layers.GaussianNoise(1.0)


def with_layer(number):
    return noise(tf.zeros([1]), training=True), 0.0


def watch(change, seed=None, repeat=False):
    """What two epochs of three images see."""
    if seed is not None:
        keras.utils.set_random_seed(seed)
    data = tf.data.Dataset.range(3).map(change)
    data = data.repeat(2).batch(1) if repeat else data.batch(1)
    model = Watched()
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(data, epochs=1 if repeat else 2, verbose=0, shuffle=False)
    return model.seen


cases = {
    "no seed, fit:": (watch(plain), 6),
    "seed, fit:": (watch(plain, seed=1), 3),
    "seed, repeat:": (watch(plain, seed=1, repeat=True), 6),
    "seed, Keras' layer:": (watch(with_layer, seed=1), 6),
}
for what, (seen, _) in cases.items():
    told = "repeat" if seen[:3] == seen[3:] else "differ"
    print(f"{what:20} {told}, {len({*seen})} of {len(seen)} numbers")
shuffled = tf.data.Dataset.range(8).shuffle(8)
orders = [[int(number) for number in shuffled] for _ in range(2)]
print("seed, shuffle alone: the orders of 8 numbers", "differ" if orders[0] != orders[1] else "repeat")
assert all(len({*seen}) == count for seen, count in cases.values()), "the behaviour has changed"
assert orders[0] != orders[1], "the behaviour has changed"
PYTHON
"$tmp/venv/bin/python" trial.py 2> log || { cat log; exit 1; }
