"""The recorded run's weights read redrawn images as the recorded run did."""

import numpy as np
import pytest
from conftest import STAND_IN_SEED


@pytest.fixture
def read(notebook, recorded_captioner, stand_in, tmp_path):
    """Draws images, shrinks them and reads them as the notebook does; returns the words that are
    read greedily and with the lexicon, and the probabilities of the latter."""
    reader = notebook.Reader(recorded_captioner)
    reader.compile()
    lexicon = sorted(set(stand_in.words()))

    def read(indices):
        notebook.CACHE.parent.mkdir(parents=True, exist_ok=True)
        notebook.TOTAL = len(indices)  # the fixture `notebook` puts it back
        with notebook.CACHE.open("wb") as file:
            for index in indices:
                path = tmp_path / f"a{index}.png"
                path.write_bytes(stand_in.png(stand_in.draw(index, STAND_IN_SEED)[0]))
                file.write(notebook.shrink(str(path)).numpy().tobytes())
                path.unlink()
        logits, _ = reader.predict(notebook.plain_batches(0, len(indices)), verbose=0)
        greedy, confidences = notebook.read_words(logits, notebook.tokenizer)
        searched = notebook.read_with_lexicon(
            recorded_captioner, lexicon, 0, greedy, confidences, notebook.SURE, notebook.COPIES
        )
        return greedy, *searched[:2]

    return read


def share_right(readings, indices, stand_in):
    """The share of the words that are those drawn in the images with these indices."""
    truths = [stand_in.word_of(index, STAND_IN_SEED) for index in indices]
    return np.mean([reading == truth for reading, truth in zip(readings, truths, strict=True)])


def test_validation_accuracy(read, results, stand_in):
    first = results["images"]["train"]
    indices = range(first, first + 1000)
    greedy, searched, _ = read(indices)
    for readings, name in ((greedy, "_greedy"), (searched, "")):
        share = results[f"validation_word_accuracy{name}"]
        error = (share * (1 - share) / 1000) ** 0.5
        assert abs(share_right(readings, indices, stand_in) - share) <= 4 * error, name


def test_answers(read, results, recorded_answers):
    """The same 500 words, but for a few unsure ones, which another processor may read otherwise."""
    images = results["images"]
    chosen = np.linspace(0, images["test"] - 1, 500).astype(int).tolist()
    greedy, searched, confidences = read(
        [images["train"] + images["validation"] + i for i in chosen]
    )
    lexicon_is_better = (
        results["validation_word_accuracy"] > results["validation_word_accuracy_greedy"]
    )
    readings = searched if lexicon_is_better else greedy
    answers = [recorded_answers[i] for i in chosen]
    differing = [i for i in range(500) if readings[i] != answers[i]]
    assert len(differing) <= 5
    for i in differing:
        assert confidences[i] < 0.6, (readings[i], answers[i], confidences[i])
