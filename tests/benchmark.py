"""How many images a second each long step of the notebook does: `python -m tests.benchmark`.

Needs no data: it draws 512 images in a temporary folder. Takes a few minutes.
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from conftest import ROOT, WEIGHTS, globals_for, import_definitions, import_file, new_captioner

IMAGES = 512


def rate(step, images, least_seconds=5.0):
    """Images a second of `step`, which does `images` of them, after one call that isn't timed."""
    step()
    calls, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + least_seconds:
        step()
        calls += 1
    return calls * images / (time.perf_counter() - begin)


def set_up(folder):
    """The stand-in and the notebook's definitions with their globals, and the words to be drawn."""
    stand_in = import_file("stand_in", ROOT / "data" / "stand_in.py")
    notebook = import_definitions(folder)
    words = [stand_in.word_of(index, seed=1) for index in range(IMAGES)]
    vars(notebook).update(globals_for(notebook, words))
    notebook.TRAIN = notebook.TOTAL = IMAGES
    notebook.CACHE = folder / "images.uint8"
    notebook.keras.config.set_dtype_policy(notebook.best_precision())
    return stand_in, notebook, words


def rates(folder):
    """Yields what is measured, and its images a second."""
    stand_in, notebook, words = set_up(folder)
    yield "drawing, one process", rate(lambda: stand_in.png(stand_in.draw(0, 1)[0]), 1)

    paths = [str(folder / f"a{index}.png") for index in range(IMAGES)]
    for index, path in enumerate(paths):
        Path(path).write_bytes(stand_in.png(stand_in.draw(index, 1)[0]))
    yield (
        "shrinking into the cache",
        rate(lambda: notebook.shrink_all(paths, notebook.CACHE), IMAGES),
    )

    tokens = notebook.tokenize(words, notebook.tokenizer)
    captioner = new_captioner(notebook)
    for coarse_epochs, name in ((1, "training, half size"), (0, "training, full size")):
        notebook.COARSE_EPOCHS = coarse_epochs
        batches = notebook.training_batches(tokens).take(4).cache().repeat()
        notebook.compile_for_training(captioner, 100, 1e-3)
        options = {"steps_per_epoch": 4, "shuffle": False, "verbose": 0}
        step = partial(captioner.fit, batches, **options)
        yield name, rate(step, 4 * notebook.BATCH_SIZE)

    captioner = new_captioner(notebook)
    captioner.load_weights(WEIGHTS)
    reader = notebook.Reader(captioner)
    reader.compile()
    everything = notebook.plain_batches(0, IMAGES).cache()
    yield "reading greedily", rate(lambda: reader.predict(everything, verbose=0), IMAGES)

    logits, _ = reader.predict(everything, verbose=0)
    greedy = notebook.read_words(logits, notebook.tokenizer)
    search = notebook.LexiconReader(captioner, trie_of(notebook, stand_in.words()), beams=8)
    search.compile()
    for copies in (1, notebook.COPIES):
        images = notebook.plain_batches(0, IMAGES, 1).map(lambda image, _: image[0])
        images = images.map(lambda image, copies=copies: notebook.make_copies(image, copies))
        batches = images.batch(64 // copies).cache()
        name = f"lexicon, {copies} cop{'ies' if copies > 1 else 'y'}"
        yield name, rate(lambda batches=batches: search.predict(batches, verbose=0), IMAGES)
    unsure = np.mean(greedy[1] <= notebook.SURE)
    print(f"{unsure:.1%} of the readings have a probability of at most {notebook.SURE}")


def trie_of(notebook, words):
    """The trie of a list of words."""
    return notebook.make_trie(notebook.tokenize(words, notebook.tokenizer)[:, 1:])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name, images_per_second in rates(Path(folder)):
            print(f"{name:26}{images_per_second:9,.0f} images/s", flush=True)
