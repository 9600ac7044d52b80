"""The notebook's functions and layers, each tried on little data."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import run_cells
from PIL import Image

WORDS = ["thus", "www", "tied", "ids", "jam", "zoo", "apple", "big"]


def noise():
    """Eight images, 32×64 pixels, uint8; the levels of image i are 20 i to 20 i + 19."""
    levels = np.random.default_rng(5).integers(20, size=(8, 32, 64, 3))
    return (levels + 20 * np.arange(8)[:, None, None, None]).astype("uint8")


def make_small(notebook):
    """Eight images of noise as files, words for them, and an encoder of one convolution."""

    def build_encoder():
        image = notebook.layers.Input((None, None, 3))
        x = notebook.layers.Rescaling(1 / 255)(image)
        x = notebook.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
        return notebook.keras.Model(image, notebook.PositionalEncoding()(x), name="encoder")

    for index, pixels in enumerate(noise()):
        Image.fromarray(pixels).save(f"a{index}.png")
    settings = {"HEIGHT": 16, "WIDTH": 32, "BATCH_SIZE": 3, "files": {}, "IMAGES": Path()}
    settings |= {"TRAINED": np.arange(8), "VALIDATED": np.arange(8), "words": np.array(WORDS)}
    settings |= {"tokens": notebook.tokenize(WORDS), "build_encoder": build_encoder}
    vars(notebook).update(settings)
    return notebook


@pytest.fixture
def small(notebook):
    return make_small(notebook)


def make_captioner(small, decoder=None):
    """An untrained captioner, and a batch of eight for it."""
    captioner = small.Captioner(small.build_encoder(), decoder or small.Decoder(32))
    inputs = noise()[:, ::2, ::2].astype("float32"), small.tokens[:, :-1]
    captioner(inputs)
    return captioner, inputs


def test_tokens(notebook):
    assert (notebook.STEPS, notebook.VOCABULARY) == (6, 30)
    tokens = notebook.tokenize(["abz", "apple"])
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [[2, 4, 5, 29, 3, 0, 0], [2, 4, 19, 19, 15, 8, 3]]
    assert notebook.detokenize(tokens) == notebook.detokenize(tokens[:, 1:]) == ["abz", "apple"]
    assert notebook.detokenize(np.array([[3, 4, 4], [4, 3, 5], [1, 4, 5]])) == ["", "a", "?ab"]


def test_load(small):
    """Of any size; what is transparent becomes white."""
    levels = np.asarray(Image.linear_gradient("L").resize((64, 32)), "float32")
    for alpha, channels in ((None, 3), (levels > 99, 4)):
        image = Image.fromarray(levels.astype("uint8")).convert("RGB")
        if alpha is not None:
            image.putalpha(Image.fromarray(alpha))
            levels = np.where(alpha, levels, 255)
        image.save("x.png")
        assert small.channels_of("x.png") == channels
        expected = levels.reshape(8, 4, 16, 4, 1).mean(axis=(1, 3))
        np.testing.assert_allclose(small.load("x.png", 2, channels), np.tile(expected, 3), atol=0.1)


@pytest.mark.parametrize("name", ["augment", "erase"])
def test_what_is_lost_is_white(notebook, name):
    """`augment` keeps a rectangle, of which it shuffles the channels; `erase` leaves out one."""
    image, is_augment = notebook.tf.tile([[[10.0, 20.0, 30.0]]], (80, 150, 1)), name == "augment"
    lost, colours = set(), set()
    for _ in range(80):
        changed = vars(notebook)[name](image).numpy()
        white = (changed == 255).all(axis=-1)
        part = ~white if is_augment else white
        down, across = part.any(axis=1), part.any(axis=0)
        assert (part == down[:, None] & across).all()
        high, wide = down.sum(), across.sum()
        lost |= {80 - high, 150 - wide} if is_augment else {high, wide}
        colours |= {tuple(colour) for colour in np.unique(changed[~white], axis=0).tolist()}
    assert (min(lost), max(lost)) == (0, 4 if is_augment else 20)
    assert colours == ({*itertools.permutations([10, 20, 30])} if is_augment else {(10, 20, 30)})


def test_training_batches(small):
    """Without end, shuffled, changed, of both sizes; each image with its own word."""
    for shrink in (1, 2):
        dataset, order = small.batches(small.TRAINED, shrink, training=True).take(16), []
        for (images, given), targets in dataset.as_numpy_iterator():
            assert images.shape == (3, 16 // shrink, 32 // shrink, 3)
            numbers = images.min(axis=(1, 2, 3)).astype(int) // 20
            assert (given == small.tokens[numbers, :-1]).all()
            assert (targets == small.tokens[numbers, 1:]).all()
            order += numbers.tolist()
        rounds = np.reshape(order, (6, 8))
        assert (np.sort(rounds) == range(8)).all() and len({*map(tuple, rounds)}) > 1


def test_batch_normalization_is_keras_own(notebook):
    """But for the average of the variance, which is divided by n - 1 here."""
    x = np.random.default_rng(1).normal(3, 2, size=(8, 5, 6, 4)).astype("float32")
    kinds = notebook.BatchNormalization, notebook.layers.BatchNormalization
    fused, plain = (kind(momentum=0.9) for kind in kinds)
    for training in (True, False):
        outputs = fused(x, training=training), plain(x, training=training)
        np.testing.assert_allclose(*outputs, atol=1e-5 if training else 0.05)
        np.testing.assert_allclose(fused.moving_mean, plain.moving_mean, atol=1e-5)
        np.testing.assert_allclose(fused.moving_variance, plain.moving_variance, rtol=0.01)


def test_attention_is_the_papers(notebook):
    attention, random = notebook.BahdanauAttention(units=7), np.random.default_rng(2)
    state, cells = random.random((3, 6), "float32"), random.random((3, 8, 5), "float32")
    feature_map = notebook.ops.convert_to_tensor(cells.reshape(3, 2, 4, 5))
    context, weights = attention(state, attention.memory(feature_map))
    keys = cells @ attention.to_keys.kernel.numpy()
    query = state @ attention.to_query.kernel.numpy()
    scores = np.tanh(query[:, None] + keys) @ attention.attend.scale.numpy()
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(context, np.einsum("ij,ijk->ik", expected, cells), atol=1e-6)


@pytest.mark.parametrize("name", ["attention", "Seq2Seq", "NIC", "m-RNN"])
def test_every_system_is_trained_and_reads_alike(small, name):
    """Given its own greedy outputs as tokens, teacher forcing gives the same logits."""
    run_cells(small, "vector_decoder")
    decoder = small.Decoder() if name == "attention" else small.VectorDecoder(name)
    captioner, (images, tokens) = make_captioner(small, decoder)
    logits, weights = small.write(captioner.encoder, decoder, images)
    greedy = np.stack(logits, axis=1)
    if name == "attention":
        predicted = captioner.predict_on_batch(images)
        np.testing.assert_allclose(predicted[0], greedy, atol=1e-5)
        np.testing.assert_allclose(predicted[1], np.stack(weights, axis=1), atol=1e-5)
    own = np.concatenate([tokens[:, :1], greedy.argmax(axis=-1)[:, :-1]], axis=1)
    np.testing.assert_allclose(captioner((images, own)), greedy, atol=1e-5)
    blank = np.array(captioner((images * 0, own)))
    assert (np.abs(blank - greedy).max(axis=(0, 2)) > 1e-4).all(), "it sees the image"


def test_accuracies_and_loss(notebook):
    """What is predicted on padding counts for nothing."""
    run_cells(notebook, "letter_accuracy")
    targets = notebook.tokenize(["big", "jam", "zoo", "apple"])[:, 1:]
    logits = 20 * np.eye(30, dtype="float32")[targets]
    logits[1, 1] = 20 * np.eye(30)[5]  # one wrong letter
    logits[2][targets[2] == 0] = 20 * np.eye(30)[9]  # padding
    assert np.array(notebook.word_accuracy(targets, logits)).tolist() == [1, 0, 1, 1]
    assert notebook.letter_accuracy(targets, logits) == pytest.approx(17 / 18)
    assert float(notebook.loss(targets, logits)) == pytest.approx(20 / 18, rel=1e-3)


def test_muon_is_for_matrices_and_convolutions(small):
    """Biases, other vectors, the embedding and the logits are left to AdamW."""
    captioner, _ = make_captioner(small)
    optimizer, variables = small.make_optimizer(10, 1e-3), captioner.trainable_variables
    optimizer.build(variables)
    for variable, velocity in zip(variables, optimizer.adam_velocities, strict=True):
        is_kernel = variable.name in ("kernel", "recurrent_kernel")
        assert (velocity is None) == (is_kernel and "logits" not in variable.path)


@pytest.mark.parametrize("shape", [(3, 3, 2, 8), (1, 2, 4, 20)])
def test_muon_is_keras_on_the_matrix(notebook, shape):
    """Two steps for the kernel of a convolution change it as Keras' own Muon its matrix."""
    start, *gradients = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    changed = []
    for kind, size in ((notebook.Muon, shape), (notebook.keras.optimizers.Muon, (-1, shape[-1]))):
        kernel = notebook.keras.Variable(start.reshape(size), name="kernel")
        optimizer = kind(0.1, ns_steps=3, weight_decay=0.02)
        for gradient in gradients:
            optimizer.apply([notebook.ops.convert_to_tensor(gradient.reshape(size))], [kernel])
        changed.append(kernel.numpy().reshape(shape))
    np.testing.assert_allclose(*changed, atol=1e-5)
    assert np.abs(changed[0] - start).max() > 0.01


@pytest.fixture
def reading(small):
    """The notebook with an untrained captioner and a lexicon of eight words."""
    small.captioner, inputs = make_captioner(small)
    small.truths = small.words
    small.logits = np.array(small.captioner(inputs))
    run_cells(small, "spell", "word_scores", "look_again", "with_lexicon", "read")
    return small


def test_reads_with_the_lexicon(reading):
    """Beside a loop over its words; unsure images are looked at again."""
    random, indices = np.random.default_rng(1), np.array([2, 5, 6, 0, 7])
    logits = random.normal(scale=3, size=(5, 6, 30)).astype("float32")
    rows, log_p = reading.tokenize(reading.lexicon)[:, 1:], reading.ops.log_softmax(logits).numpy()
    scores = [[sum(p[i, t] for i, t in enumerate(row) if t) for row in rows] for p in log_p]
    np.testing.assert_allclose(reading.word_scores(logits, reading.spellings), scores, rtol=1e-4)
    second_look = random.normal(size=(5, 8))
    second_looks = dict(zip(reading.paths_of(indices), second_look, strict=True))
    reading.load = lambda path, *_: path
    reading.look_again = lambda path, *_: second_looks[path]
    once, again = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (scores, second_look))
    reading.SURE = np.median(once.max(axis=1))
    expected = np.where(once.max(axis=1, keepdims=True) < reading.SURE, again, once)
    words, confidences = reading.read_with_lexicon(logits, indices)
    assert words.tolist() == reading.lexicon[expected.argmax(axis=1)].tolist()
    assert confidences == pytest.approx(expected.max(axis=1), rel=1e-3)


def test_looks_again_at_augmented_copies(reading):
    """The probability of each word is averaged over the copies."""
    logits = np.random.default_rng(3).normal(scale=3, size=(8, 6, 30)).astype("float32")
    numbers = iter(range(8))

    def predict(copies):
        assert copies.numpy().tolist() == [*range(8)]
        return logits, None

    reading.augment = lambda image: image + next(numbers)
    reading.captioner = SimpleNamespace(predict_on_batch=predict)
    found = reading.look_again(0, reading.spellings, 8)
    scores = reading.word_scores(logits, reading.spellings).astype("float64")
    np.testing.assert_allclose(found, np.log(np.exp(scores).mean(axis=0)), rtol=1e-4)


@pytest.mark.parametrize(("ahead", "word"), [(6.6, "big"), (7.2, "bog")])
def test_a_word_outside_the_lexicon_must_be_a_thousand_times_likelier(reading, ahead, word):
    """6.9 is the logarithm of a thousand."""
    logits = np.full((6, 30), -50.0, "float32")
    logits[range(6), reading.tokenize(["bog"])[0, 1:]] = 0
    logits[1, reading.tokenize(["i"])[0, 1]] = -ahead

    def predict(images):
        return np.stack([logits] * len(images)), None

    reading.captioner = SimpleNamespace(predict_on_batch=predict)
    found, probability = reading.read(reading.IMAGES / "a0.png")
    assert found == word
    odds = np.exp(ahead) / 1000
    assert probability == pytest.approx(max(odds, 1) / (1 + odds), rel=1e-3)
