#!/usr/bin/env bash
# Keras: a run that goes on from BackupAndRestore begins the shuffled data anew.
#
# The data are shuffled with a fixed seed and repeated: dataset.shuffle(n, seed).repeat(). An epoch
# (steps_per_epoch) is a third of them, so that backups are frequent. BackupAndRestore saves after
# each epoch. The run is broken off after each epoch and started again, as a new process.
#
# One would expect: three epochs see all the data once, as in an unbroken run. A fixed seed is
# there to make runs equal.
# What happens: weights, optimizer and the epoch's number come back, but not the place in the data.
# Each process begins the shuffled order at its first sample. With the fixed seed this is always the
# same order. So each epoch sees the same third, and the rest is never seen. Nothing warns of it.
# What helps: an epoch that is all of the data; or another seed at each start.
#
# The model counts for itself: an embedding has one weight for each sample, all 0 at first. The
# gradient lowers the sample's weight by 1 at each visit. The backup keeps these weights, too.
#
# Versions: Python 3.11, Keras 3.15.1, TensorFlow 2.21.0, NumPy 2.4.6; Linux x86-64, CPU.
# Seen where: long trainings with a fixed seed, broken off and started again on a busy computer.
# Output seen:
#   unbroken:   30 of 30 samples seen in 3 epochs; visits to each: {1}
#   broken off: 10 of 30 samples seen in 3 epochs; visits to each: {3}
# Ends with 0 if so, and with another status if the behaviour has changed.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export TF_CPP_MIN_LOG_LEVEL=3 PIP_DISABLE_PIP_VERSION_CHECK=1
python3.11 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1 numpy==2.4.6
cd "$tmp"
cat > run.py <<'PYTHON'
import os
import sys
import keras
import numpy as np
import tensorflow as tf

label, folder, break_off, expected = sys.argv[1], sys.argv[2], sys.argv[3] == "yes", sys.argv[4]
keras.utils.set_random_seed(1)
data = tf.data.Dataset.range(30).shuffle(30, seed=7).repeat().map(lambda i: (i, 0.0)).batch(1)
embedding = keras.layers.Embedding(30, 1, embeddings_initializer="zeros")
model = keras.Sequential([keras.layers.Input((), dtype="int32"), embedding])
model.compile(keras.optimizers.SGD(1.0), loss=lambda true, output: output)
callbacks = [keras.callbacks.BackupAndRestore(folder)]
if break_off:  # the process ends here, after the backup
    callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: os._exit(0)))
model.fit(data, epochs=3, steps_per_epoch=10, callbacks=callbacks, verbose=0)
visits = np.rint(-model.get_weights()[0].ravel()).astype(int)
seen = visits[visits > 0]
print(f"{label} {len(seen)} of 30 samples seen in 3 epochs; visits to each:", set(seen.tolist()))
assert f"{len(seen)}" == expected, "the behaviour has changed"
PYTHON
run() { "$tmp/venv/bin/python" run.py "$@" 2> log || { cat log; exit 1; }; }
run "unbroken:  " one no 30
run "" two yes -
run "" two yes -
run "broken off:" two no 10
