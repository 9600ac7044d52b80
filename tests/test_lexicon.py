"""The lexicon search returns the word that the network finds most probable, and knows when."""

import numpy as np
import pytest
from conftest import new_captioner

WORDS = ["at", "an", "ant", "and", "end", "ends", "tan", "tea", "team", "zoo"]


@pytest.fixture
def captioner(notebook):
    """A small untrained network, made sure of itself, that reads images of the usual size."""
    captioner = new_captioner(notebook)
    for weight in (captioner.decoder.logits.kernel, captioner.decoder.first_state.kernel):
        weight.assign(weight * 30)
    return captioner


@pytest.fixture
def images(notebook):
    """Twelve images of noise, each in a colour of its own, in the cache."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (12, notebook.HEIGHT, notebook.WIDTH, 3))
    images = (noise * rng.random((12, 1, 1, 3))).astype("uint8")
    notebook.CACHE.parent.mkdir(parents=True, exist_ok=True)
    notebook.CACHE.write_bytes(images.tobytes())
    notebook.TOTAL = len(images)  # the fixture `notebook` puts it back
    return images


def scores_of(notebook, captioner, images, words):
    """The log-probability of each word for each image, word by word with teacher forcing."""
    scores = np.empty((len(images), len(words)))
    for column, word in enumerate(words):
        (row,) = notebook.tokenize([word], notebook.tokenizer)
        rows = np.repeat(row[None], len(images), axis=0)
        logits = np.asarray(captioner((images, rows[:, :-1])))
        log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        written = row[1:] > 0
        scores[:, column] = log_p[:, np.arange(len(row) - 1), row[1:]][:, written].sum(axis=1)
    return scores


def trie_of(notebook, words):
    return notebook.make_trie(notebook.tokenize(words, notebook.tokenizer)[:, 1:])


def test_trie_holds_the_words_and_no_others(notebook):
    trie = trie_of(notebook, WORDS)
    found, paths = [], [((), 1)]
    while paths:
        path, node = paths.pop()
        for token in np.flatnonzero(trie[node]):
            if token:
                paths.append(((*path, int(token)), trie[node, token]))
            else:
                assert trie[node, 0] == node
                found.append(path)
    assert sorted(
        notebook.detokenize(np.array([row + (0,) * 9])[:, :9], notebook.tokenizer)[0]
        for row in found
    ) == sorted(WORDS)
    assert len(trie) == 2 + len(
        {w[:i] for w in WORDS for i in range(1, len(w) + 1)} | {w + "." for w in WORDS}
    )
    assert not trie[0].any()


@pytest.mark.parametrize("beams", [1, 2, 4, 32])
def test_a_proved_word_is_the_arg_max_of_brute_force(notebook, captioner, images, beams):
    search = notebook.LexiconReader(captioner, trie_of(notebook, WORDS), beams)
    tokens, scores, dropped = (np.asarray(part) for part in search(images[:, None]))
    expected = scores_of(notebook, captioner, images, WORDS)
    proved = scores >= dropped
    words = np.array(notebook.detokenize(tokens, notebook.tokenizer))
    assert (words == np.array(WORDS)[expected.argmax(axis=1)])[proved].all()
    np.testing.assert_allclose(scores[proved], expected.max(axis=1)[proved], rtol=1e-3)
    assert proved.all() or beams < 32
    if beams == 32:
        assert len(set(words)) > 1  # else the test would be too easy


@pytest.mark.parametrize("beams", [4, 32])
def test_copies_of_an_image_are_averaged(notebook, captioner, images, beams):
    copies = np.stack([images, images[::-1], np.roll(images, 3, axis=0)], axis=1)
    search = notebook.LexiconReader(captioner, trie_of(notebook, WORDS), beams)
    tokens, scores, dropped = (np.asarray(part) for part in search(copies))
    each = [scores_of(notebook, captioner, copies[:, copy], WORDS) for copy in range(3)]
    expected = np.mean(each, axis=0)
    proved = scores >= dropped
    words = np.array(notebook.detokenize(tokens, notebook.tokenizer))
    assert proved.all() or beams < 32
    assert (words == np.array(WORDS)[expected.argmax(axis=1)])[proved].all()
    np.testing.assert_allclose(scores[proved], expected.max(axis=1)[proved], rtol=1e-3)
    assert (expected.argmax(axis=1) != each[0].argmax(axis=1)).any(), "one copy is not enough"


def test_copies_are_the_image_and_small_changes_of_it(notebook, images):
    copies = notebook.make_copies(images[0], 4).numpy()
    assert (copies[0] == images[0]).all()
    assert (notebook.make_copies(images[0], 1).numpy() == images[:1]).all()
    assert (notebook.make_copies(images[0], 4).numpy() == copies).all(), "the same ones each time"
    for changed in copies[1:]:
        assert (changed != copies[0]).any()
        inside = changed[4:-4, 4:-4].sum(axis=-1)  # the sum over the channels, whatever their order
        places = [(y, x) for y in range(9) for x in range(9)]
        height, width = inside.shape
        windows = [copies[0][y : y + height, x : x + width].sum(axis=-1) for y, x in places]
        assert min(np.abs(inside - window).max() for window in windows) < 1


def test_greedy_readings_are_replaced_unless_they_are_sure_words(notebook, captioner, images):
    expected = np.array(WORDS)[scores_of(notebook, captioner, images, WORDS).argmax(axis=1)]
    greedy = ["xyz"] * 4 + ["team"] * 4 + ["zoo"] * 4
    sure = np.array([0.9] * 8 + [0.5] * 4)
    words, confidences, unproved = notebook.read_with_lexicon(captioner, WORDS, 0, greedy, sure)
    assert words == [*expected[:4], *["team"] * 4, *expected[8:]]
    assert unproved == 0
    assert (confidences[4:8] == 0.9).all() and (confidences <= 1).all()
    assert greedy[0] == "xyz" and sure[0] == 0.9  # the arguments stay as they are
