#!/usr/bin/env bash
# tf.data: throwing away an iterator that is used up can wait, for as long as it has run.
#
# A dataset with a parallel map is autotuned: a thread of the iterator looks at its speed, sleeps, and
# doubles its sleep each time, up to a minute.
#
# One would expect: when the iterator is at its end and is thrown away, the thread ends at once.
# What happens: now and then the thread is not woken. Whoever throws the iterator away, such as Keras
# at the end of each fit, evaluate and predict, waits idly until the sleep is over. The longer the
# pass, the longer the wait: a pass of three minutes was followed by a minute of nothing.
#   With options.autotune.enabled = False there is no such thread, and no wait.
# Versions: Python 3.11, TensorFlow 2.21.0, NumPy 2.4.6; Linux x86-64, two cores.
# Seen where: a training with one fit for each round stood still after the first round.
# Output seen (seconds differ from run to run):
#   autotuned: the longest of ten waits 2.4 s, after passes of some seconds
#   not autotuned: the longest of ten waits 0.0 s
# Ends with 0 if so, and with another status if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 numpy==2.4.6
cat >"$folder/try.py" <<'EOF'
import time

import tensorflow as tf


def work(number):
    return tf.reduce_sum(tf.sort(tf.random.stateless_uniform([40_000], [number, 1])))


def longest_wait(autotuned):
    options = tf.data.Options()
    options.autotune.enabled = autotuned
    waits = []
    for _ in range(10):
        dataset = tf.data.Dataset.range(1_500).map(work, 2).batch(32).prefetch(2)
        iterator = iter(dataset.with_options(options))
        for _ in iterator:
            pass
        begin = time.perf_counter()
        del iterator
        waits.append(time.perf_counter() - begin)
    return max(waits)


first, second = longest_wait(True), longest_wait(False)
print(f"autotuned: the longest of ten waits {first:.1f} s, after passes of some seconds")
print(f"not autotuned: the longest of ten waits {second:.1f} s")
assert first > 0.3 > second
EOF
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/try.py" 2>"$folder/errors" || {
    tail -n 5 "$folder/errors"
    exit 1
}
