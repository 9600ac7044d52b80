"""Two devices that share every batch train as one does."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import cell_with, definitions_text, make_training_folder
from test_interruption import SETTINGS

TWO_DEVICES = """
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import tensorflow as tf
if sys.argv[2] == "2":
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
"""
FINISH = """
weights = {str(i): weight for i, weight in enumerate(captioner.get_weights())}
logits, _ = reader.predict(plain_batches(TRAIN, TRAIN + VALIDATION, 4), verbose=0)
loss = [row["loss"] for row in log]
devices = STRATEGY.num_replicas_in_sync
np.savez("end.npz", loss=loss, devices=devices, logits=logits, **weights)
"""


def train(folder, devices):
    """Trains on some devices, in float32; returns what came out."""
    make_training_folder(folder)
    reading = "with STRATEGY.scope():\n    reader = Reader(captioner)\n    reader.compile()"
    assert reading in cell_with("reader.compile()")
    parts = [TWO_DEVICES, definitions_text(), "keras.config.set_dtype_policy('float32')"]
    parts += [cell_with("STRATEGY ="), "keras.config.set_dtype_policy('float32')"]
    parts += [SETTINGS, cell_with("captioner.fit("), reading, FINISH]
    (folder / "training.py").write_text("\n\n".join(parts), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "training.py", json.dumps(None), str(devices)],
        cwd=folder,
        env=os.environ | {"QUICK": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    with np.load(folder / "end.npz") as end:
        found = {name: end[name] for name in end}
    assert found.pop("devices") == devices
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    return train(folder / "one", 1), train(folder / "two", 2)


def test_losses_are_equal(runs):
    one, two = runs
    assert one["loss"][-1] < one["loss"][0], "something was learned"
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)


def test_weights_and_readings_are_equal(runs):
    one, two = runs
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=1e-3, err_msg=name)
