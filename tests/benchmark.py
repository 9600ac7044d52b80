"""How many images a second the notebook's long steps do: `python -m tests.benchmark`.

Draws 256 images. In float32 and in what the notebook finds fastest, or only in $PRECISION.
"""

import os
import tempfile
import time

import numpy as np

from tests.conftest import definitions, set_up, stand_in

IMAGES = 256


def rate(step, least_seconds=5.0):
    """Images a second of `step`, which does all of them, after one call that isn't timed."""
    step()
    calls, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + least_seconds:
        step()
        calls += 1
    return calls * IMAGES / (time.perf_counter() - begin)


def rates(notebook, indices):
    """Yields what is measured, and its images a second."""
    yield "decoding", rate(lambda: list(notebook.image_batches(indices)))
    for name, shrink in {"training, half size": 2, "training, full size": 1}.items():
        captioner = notebook.Captioner(notebook.build_encoder(), notebook.Decoder())
        batches = notebook.training_batches(indices, shrink, 0).cache()
        captioner.compile(notebook.make_optimizer(1000), notebook.loss)
        yield name, rate(lambda c=captioner, b=batches: c.fit(b, shuffle=False, verbose=0))
    reader = notebook.Reader(captioner)
    images = notebook.image_batches(indices).cache()
    yield "reading", rate(lambda: reader.predict(images, verbose=0))


def main(folder):
    """Draws the images and prints the table."""
    notebook, indices = definitions(), np.arange(IMAGES)
    set_up(notebook, [stand_in.word_of(index, 1) for index in indices])
    notebook.paths = np.array([f"{folder}/a{index}.png" for index in indices])
    for path, index in zip(notebook.paths, indices, strict=True):
        stand_in.draw(index, 1)[0].save(path, compress_level=4)
    best = "mixed_bfloat16" if notebook.bfloat16_is_fast() else "float32"
    asked = os.environ.get("PRECISION", f"float32 {best}")
    for precision in dict.fromkeys(asked.split()):
        notebook.keras.config.set_dtype_policy(precision)
        for name, images_per_second in rates(notebook, indices):
            print(f"{precision:16}{name:22}{images_per_second:8,.0f} images/s", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(temporary)
