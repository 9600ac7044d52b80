#!/usr/bin/env bash
# Keras: ModelCheckpoint picks by the averaged weights, but saves the raw ones.
#
# An optimizer with use_ema=True keeps a running mean of the weights. SwapEMAWeights puts this mean
# in place for each validation. ModelCheckpoint saves the epoch with the best validation loss.
#
# One would expect: the file gives the very val_loss for which it was chosen.
# What happens: the mean is taken out again when the validation ends, and before the file is
# written. So the file holds the raw weights, which nobody has validated. No warning is given, and
# the order of the two callbacks does not matter.
# SwapEMAWeights(swap_on_epoch=True) puts the mean back at the end of the epoch. Then the file is
# right if SwapEMAWeights stands before ModelCheckpoint in the list. In the other order it still
# holds the raw weights. (The docstring names this pair, but not what the default does to it.)
#
# Versions: Python 3.11, Keras 3.15.1, TensorFlow 2.21.0, NumPy 2.4.6; Linux x86-64, CPU.
# Seen where: a network was trained with averaged weights and its best epoch was to be kept.
# Output seen:
#   swap_on_epoch=False, swap first:       chosen for val_loss 1.231, the file gives 1.487
#   swap_on_epoch=False, checkpoint first: chosen for val_loss 1.231, the file gives 1.487
#   swap_on_epoch=True,  swap first:       chosen for val_loss 1.231, the file gives 1.231
#   swap_on_epoch=True,  checkpoint first: chosen for val_loss 1.231, the file gives 1.487
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

rng = np.random.default_rng(1)
x = rng.normal(size=(256, 8)).astype("float32")
y = (x.sum(axis=1, keepdims=True) + rng.normal(size=(256, 1))).astype("float32")
for swap_on_epoch in False, True:
    for order in "swap first", "checkpoint first":
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.2, use_ema=True, ema_momentum=0.9), "mse")
        callbacks = [
            keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch),
            keras.callbacks.ModelCheckpoint("best.keras", "val_loss", save_best_only=True),
        ][:: 1 if order == "swap first" else -1]
        history = model.fit(x[:128], y[:128], batch_size=8, epochs=8, callbacks=callbacks,
                            validation_data=(x[128:], y[128:]), verbose=0).history
        chosen = min(history["val_loss"])
        loaded = keras.saving.load_model("best.keras").evaluate(x[128:], y[128:], verbose=0)
        label = f"swap_on_epoch={swap_on_epoch},".ljust(20) + f" {order}:".ljust(18)
        print(f"{label} chosen for val_loss {chosen:.3f}, the file gives {loaded:.3f}")
        same = abs(chosen - loaded) < 0.001
        assert same == (swap_on_epoch and order == "swap first"), "the behaviour has changed"
PYTHON
"$tmp/venv/bin/python" trial.py 2> log || { cat log; exit 1; }
