#!/usr/bin/env bash
# Keras 3: under MirroredStrategy each device has moving means of its own; one's are saved.
# MirroredStrategy keeps equal copies of a weight on all devices. Each trains on a share of a batch.
# One would expect: after fit() all devices hold the same moving mean, or the model reads and saves
# the mean of theirs. So did Keras 2 (VariableAggregation.MEAN): tf_keras 2.21.0 reads 43.60 here.
# What happens: the moving mean and variance have VariableAggregation.NONE. Each device follows its
# own share, and the copies drift apart. predict() gives the same input other values on another
# device. What is read and saved is the first device's copy: the other shares are lost.
# What helps: BatchNormalization(synchronized=True). Then all copies are 43.60.
# Here one CPU is made into two devices, and the first gets the smaller values of each batch.
# Versions: Python 3.11, Keras 3.15.1, TensorFlow 2.21.0, NumPy 2.4.6; Linux x86-64, CPU.
# Seen where: it was asked whether a network with BatchNormalization can be trained on two devices.
# Output seen:
#   moving mean, device by device: 39.61 47.58; read by the model: 39.61
#   four equal inputs on two devices: 2.265 2.265 4.519 4.519
#   the saved model: 39.61; it predicts: 2.265 2.265 2.265 2.265
#   with synchronized=True, device by device: 43.60 43.60
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
import tensorflow as tf

def trained(**options):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        norm = keras.layers.BatchNormalization(momentum=0.5, **options)
        model = keras.Sequential([keras.layers.Input((1,)), norm, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    model.fit(x, x / 64, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return model, norm.moving_mean, [copy.numpy()[0] for copy in norm.moving_mean.value.values]

def show(*values):
    return " ".join(f"{value:#.4g}" for value in np.ravel(values))

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x, equal = np.arange(64, dtype="float32")[:, None], np.full((4, 1), 32, "float32")
model, mean, copies = trained()
outputs = model.predict(equal, batch_size=4, verbose=0)[:, 0]
print(f"moving mean, device by device: {show(copies)}; read by the model: {show(mean.numpy())}")
print(f"four equal inputs on two devices: {show(outputs)}")
model.save("model.keras")
loaded = keras.saving.load_model("model.keras")
saved = loaded.layers[0].moving_mean.numpy()[0]
print(f"the saved model: {show(saved)}; it predicts: {show(loaded.predict(equal, verbose=0))}")
synchronized = trained(synchronized=True)[2]
print(f"with synchronized=True, device by device: {show(synchronized)}")
same = [np.isclose(*copies), np.isclose(outputs[0], outputs[2]), np.isclose(*synchronized)]
assert same == [False, False, True] and copies[0] == saved, "the behaviour has changed"
PYTHON
"$tmp/venv/bin/python" trial.py 2> log || { cat log; exit 1; }
