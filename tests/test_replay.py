"""The recorded run's weights read redrawn images as the recorded run did."""

import numpy as np
import pytest
from conftest import ROOT, STAND_IN_SEED

WEIGHTS = ROOT / "tests" / "recorded.weights.h5"


@pytest.fixture
def read(notebook, results, stand_in, tmp_path):
    """Draws images, shrinks them and reads them as the notebook does; returns words and logits."""
    if results["precision"] == notebook.best_precision():
        notebook.keras.config.set_dtype_policy(results["precision"])
    reader = notebook.Reader(notebook.Captioner())
    blank = np.zeros((1, notebook.HEIGHT, notebook.WIDTH, 3), np.uint8)
    reader.captioner((blank, np.zeros((1, notebook.STEPS), "int32")))  # builds the weights
    assert reader.captioner.count_params() == results["parameters"]
    reader.captioner.load_weights(WEIGHTS)
    reader.compile()

    def read(indices):
        images = []
        for index in indices:
            path = tmp_path / f"a{index}.png"
            path.write_bytes(stand_in.png(stand_in.draw(index, STAND_IN_SEED)[0]))
            images.append(notebook.shrink(str(path)).numpy())
            path.unlink()
        logits, _ = reader.predict(np.stack(images), batch_size=100, verbose=0)
        return notebook.read_words(logits, notebook.tokenizer)[0], logits

    return read


def test_validation_accuracy(read, results, stand_in):
    first = results["images"]["train"]
    indices = range(first, first + 1000)
    words = [stand_in.word_of(index, STAND_IN_SEED) for index in indices]
    readings, _ = read(indices)
    right = [reading == word for reading, word in zip(readings, words, strict=True)]
    share = results["validation_word_accuracy"]
    assert abs(np.mean(right) - share) <= 4 * (share * (1 - share) / 1000) ** 0.5


def test_answers(read, results, notebook, recorded_answers):
    """The same 500 words, save for near ties, which another processor may round the other way."""
    images = results["images"]
    chosen = np.linspace(0, images["test"] - 1, 500).astype(int).tolist()
    readings, logits = read([images["train"] + images["validation"] + i for i in chosen])
    answers = [recorded_answers[i] for i in chosen]
    tokens = [notebook.tokenize(words, notebook.tokenizer)[:, 1:] for words in (readings, answers)]
    assert len(readings) == len(answers) == 500
    differing = [i for i in range(500) if readings[i] != answers[i]]
    assert len(differing) <= 5
    for i in differing:
        step = np.argmax(tokens[0][i] != tokens[1][i])
        read_token, answer_token = (rows[i][step] for rows in tokens)
        margin = logits[i, step, read_token] - logits[i, step, answer_token]
        assert margin < 0.25, (readings[i], answers[i], margin)
