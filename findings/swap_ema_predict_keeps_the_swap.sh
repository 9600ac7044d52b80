#!/usr/bin/env bash
# Keras: predict() with SwapEMAWeights leaves the averaged weights in the model.
#
# An optimizer with use_ema=True keeps a running mean of the weights. SwapEMAWeights puts this mean
# in place for evaluate() and predict(), and should bring back the raw weights afterwards.
#
# One would expect: predict() with it leaves the model as it was, as evaluate() does.
# What happens: on_predict_end asks `if not self._ema_weights_in_model`, where on_test_end asks
# `if self._ema_weights_in_model`. So nothing is brought back.
#   - The next predict() with a new SwapEMAWeights swaps back: equal calls give two answers.
#   - A callback that predicts at the end of each epoch changes the training: it goes on from the
#     averaged weights. A callback that evaluates does not.
# Versions: Python 3.11, Keras 3.15.1, TensorFlow 2.21.0, NumPy 2.4.6; Linux x86-64, CPU.
# Seen where: the code of the callback was read, to know when it swaps.
# Output seen:
#   four equal calls of predict(): 0.0419 0.7061 0.0419 0.7061
#   training loss, nothing at the end of an epoch:  8.747 6.674 5.157 4.033
#   training loss, evaluate at the end of an epoch: 8.747 6.674 5.157 4.033
#   training loss, predict at the end of an epoch:  8.747 7.958 6.774 5.961
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
import numpy as np

def build(rate):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate, use_ema=True, ema_momentum=0.9), "mse")
    return model

def train(action):
    def look(epoch, logs):
        if data := {"nothing": None, "evaluate": (x, y), "predict": (x,)}[action]:
            getattr(model, action)(*data, callbacks=[keras.callbacks.SwapEMAWeights()], verbose=0)
    model, callback = build(0.01), keras.callbacks.LambdaCallback(on_epoch_end=look)
    history = model.fit(x, y, batch_size=8, epochs=4, callbacks=[callback], verbose=0).history
    label = f"training loss, {action} at the end of an epoch:".ljust(47)
    print(label, *(f"{loss:.3f}" for loss in history["loss"]))
    return history["loss"]

x = np.random.default_rng(1).normal(size=(64, 8)).astype("float32")
y, model = x.sum(axis=1, keepdims=True), build(0.1)
for _ in range(5):
    model.train_on_batch(x, y)
calls = []
for _ in range(4):
    calls += [model.predict(x, callbacks=[keras.callbacks.SwapEMAWeights()], verbose=0)[0, 0]]
print("four equal calls of predict():", *(f"{value:.4f}" for value in calls))
nothing, evaluate, predict = map(train, ["nothing", "evaluate", "predict"])
assert calls[0] == calls[2] != calls[1] == calls[3], "the behaviour has changed"
assert np.allclose(nothing, evaluate) and abs(nothing[-1] - predict[-1]) > 1, "it has changed"
PYTHON
"$tmp/venv/bin/python" trial.py 2> log || { cat log; exit 1; }
