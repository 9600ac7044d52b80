"""The notebook's functions and layers, each tried on little data."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import noise, run_cells
from PIL import Image


def set_small_encoder(notebook):
    """From now on, the encoder is one convolution."""

    def build_encoder():
        image = notebook.layers.Input((None, None, 3))
        x = notebook.normalized_conv(image / 255, 16, size=4, strides=notebook.CELL)
        x = notebook.PositionalEncoding()(notebook.ops.relu(x))
        return notebook.keras.Model(image, x, name="encoder")

    notebook.build_encoder = build_encoder


def set_small_decoder(notebook):
    """From now on, the decoder is one dense layer, which looks at all cells alike."""

    class Decoder(notebook.layers.Layer):
        def __init__(self):
            super().__init__()
            self.logits = notebook.layers.Dense(notebook.VOCABULARY, name="logits")

        def start(self, feature_map):
            features = notebook.layers.Reshape((-1, feature_map.shape[-1]))(feature_map)
            return notebook.ops.mean(features, axis=1), features, features

        def call(self, token, state, features, keys):
            return self.logits(state), state, features[:, :, 0]

    notebook.Decoder = Decoder


def make_small(notebook):
    """Eight images of noise for all purposes, and a small encoder."""
    set_small_encoder(notebook)
    notebook.TRAINED = notebook.VALIDATED = notebook.TESTED = np.arange(8)
    notebook.HEIGHTS, notebook.HEIGHT, notebook.CELL, notebook.BATCH_SIZE = [8, 16, 16], 16, 4, 3
    notebook.image_batch = noise()[:, ::2, ::2].astype("float32")
    return notebook


@pytest.fixture
def small(notebook):
    return make_small(notebook)


def make_captioner(small, decoder=None):
    """An untrained captioner, with its weights."""
    captioner = small.Captioner(small.build_encoder(), decoder or small.Decoder(64))
    captioner((small.image_batch, small.token_batch))
    return captioner


def test_tokens(notebook):
    assert (notebook.STEPS, notebook.VOCABULARY) == (6, 30)
    tokens = notebook.tokenize(["abz", "apple"])
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [[2, 4, 5, 29, 3, 0, 0], [2, 4, 19, 19, 15, 8, 3]]
    assert notebook.detokenize(tokens[:, 1:]) == ["abz", "apple"]
    assert notebook.detokenize(np.array([[3, 4, 4], [4, 3, 5], [1, 2, 5]])) == ["", "a", "?<b"]


def test_shrink(notebook):
    """Of any size."""
    pixels = noise()[0]
    means = pixels.reshape(16, 2, 30, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(notebook.shrink(pixels, 16), means, atol=1e-3)
    large = notebook.shrink(np.full((7, 900, 3), 9, "uint8"), 16)
    assert large.shape == (16, 30, 3) and np.allclose(large, 9)


def test_augmenting(notebook):
    """It shifts an image, shuffles its channels, and fills up with white."""
    image = notebook.tf.tile([[[10.0, 20.0, 30.0]]], (40, 75, 1))
    lost, colours = set(), set()
    for _ in range(40):
        changed = notebook.augment(image).numpy()
        kept = ~(changed == 255).all(axis=-1)
        down, across = kept.any(axis=1), kept.any(axis=0)
        assert (kept == down[:, None] & across).all()
        lost |= {40 - down.sum(), 75 - across.sum()}
        colours |= {tuple(colour) for colour in np.unique(changed[kept], axis=0).tolist()}
    assert (min(lost), max(lost)) == (0, 2)
    assert colours == {*itertools.permutations([10, 20, 30])}


def test_three_rounds_show_each_image_once(small):
    """In another order each time, changed, at the round's height, and each with its own word."""
    small.HEIGHTS, order = [8, 16, 16, 8, 8, 16], []
    for number, height in enumerate(small.HEIGHTS):
        for (images, given), targets in small.batches_of_round(number).as_numpy_iterator():
            assert images.shape[1:] == (height, height * 15 // 8, 3) and len(images) <= 3
            indices = images.min(axis=(1, 2, 3)).astype(int) // 20
            assert (given == small.tokens[indices, :-1]).all()
            assert (targets == small.tokens[indices, 1:]).all()
            order += indices.tolist()
    first, second = order[:8], order[8:]
    assert sorted(first) == sorted(second) == [*range(8)] and first != second != sorted(second)


def test_batch_normalization_is_keras_own(notebook):
    """But for the average of the variance, which is divided by n - 1 here."""
    x = np.random.default_rng(1).normal(3, 2, size=(8, 5, 6, 4)).astype("float32")
    kinds = notebook.FusedBatchNormalization, notebook.layers.BatchNormalization
    fused, plain = (kind(momentum=0.9) for kind in kinds)
    for training in (True, False):
        outputs = fused(x, training=training), plain(x, training=training)
        np.testing.assert_allclose(*outputs, atol=1e-5 if training else 0.05)
        np.testing.assert_allclose(fused.moving_mean, plain.moving_mean, atol=1e-5)
        np.testing.assert_allclose(fused.moving_variance, plain.moving_variance, rtol=0.01)


def test_attention_is_the_papers(notebook):
    attention, random = notebook.BahdanauAttention(units=7), np.random.default_rng(2)
    state, features = random.random((3, 6), "float32"), random.random((3, 8, 5), "float32")
    context, weights = attention(state, features, attention.to_keys(features))
    keys = features @ attention.to_keys.kernel.numpy()
    query = state @ attention.to_query.kernel.numpy()
    scores = np.tanh(query[:, None] + keys) @ attention.attend.scale.numpy()
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(context, np.einsum("ij,ijk->ik", expected, features), atol=1e-6)


@pytest.mark.parametrize("name", ["Decoder", "Seq2Seq", "NIC", "MRNN"])
def test_every_system_is_trained_and_reads_alike(small, name):
    """Given its own greedy outputs as tokens, teacher forcing gives the same logits."""
    run_cells(small, "vector_systems")
    small.STEPS, images = 3, small.image_batch
    captioner = make_captioner(small, vars(small)[name](64))
    greedy, weights = (np.array(array) for array in captioner.write(images))
    for predicted, array in zip(captioner.predict_on_batch(images), (greedy, weights), strict=True):
        np.testing.assert_allclose(predicted, array, atol=1e-5)
    own = np.pad(greedy.argmax(axis=-1)[:, :-1], [(0, 0), (1, 0)], constant_values=small.START)
    np.testing.assert_allclose(captioner((images, own)), greedy, atol=1e-5)
    blank = np.array(captioner((images * 0, own)))
    assert (np.abs(blank - greedy).max(axis=(0, 2)) > 1e-4).all(), "it sees the image"


def test_accuracy_and_loss(notebook):
    """What is predicted on padding counts for nothing."""
    targets = notebook.tokenize(["big", "jam", "zoo", "apple"])[:, 1:]
    logits = 20 * np.eye(30, dtype="float32")[targets]
    logits[1, 1] = 20 * np.eye(30)[5]  # one wrong letter
    logits[2][targets[2] == 0] = 20 * np.eye(30)[9]  # padding
    assert np.array(notebook.word_accuracy(targets, logits)).tolist() == [1, 0, 1, 1]
    assert float(notebook.loss(targets, logits)) == pytest.approx(20 / 18, rel=1e-3)


def test_muon_is_for_kernels(small):
    """But the logits': in its first step, AdamW changes all other numbers by the learning rate."""
    variables, random = make_captioner(small).trainable_variables, np.random.default_rng(1)
    before = [variable.numpy() for variable in variables]
    gradients = [small.ops.array(random.normal(size=v.shape), "float32") for v in variables]
    small.make_optimizer(10, 1e-3).apply(gradients, variables)
    for variable, old in zip(variables, before, strict=True):
        is_kernel = variable.name in ("kernel", "recurrent_kernel")
        is_adam = np.allclose(abs(variable - old), 1e-3, rtol=0.05)
        assert is_adam != (is_kernel and "logits" not in variable.path), variable.path


@pytest.mark.parametrize("shape", [(3, 3, 2, 8), (1, 2, 4, 20), (2, 2, 2, 8)])
def test_muon_is_keras_on_the_matrix(notebook, shape):
    """Two steps for the kernel of a convolution change it as Keras' own Muon its matrix."""
    start, *gradients = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    changed = []
    own, keras_own = notebook.Muon(0.1), notebook.keras.optimizers.Muon(0.1, ns_steps=3)
    for optimizer, size in ((own, shape), (keras_own, (-1, shape[-1]))):
        optimizer.weight_decay = 0.02
        kernel = notebook.keras.Variable(start.reshape(size), name="kernel")
        for gradient in gradients:
            optimizer.apply([notebook.ops.convert_to_tensor(gradient.reshape(size))], [kernel])
        changed.append(kernel.numpy().reshape(shape))
    np.testing.assert_allclose(*changed, atol=1e-4)
    assert np.abs(changed[0] - start).max() > 0.01


def test_small_world(notebook):
    """Three letters in three places on white, the same for the same seed."""
    (images, words), (again, _) = (notebook.draw_small_world(9, seed=1) for _ in range(2))
    assert (images == again).all() and images.dtype == np.uint8 and images.shape == (9, 80, 150, 3)
    assert len({*words}) == 9 and all(len(word) == 3 and word.isalpha() for word in words)
    ink = (images < 255).any(axis=(1, 3))
    assert ink[:, :50].any() and ink[:, 50:100].any() and ink[:, 100:].any() and not ink.all()


def test_kinds_of_mistakes(notebook):
    notebook.truths, notebook.wrong = notebook.words[:8], []
    run_cells(notebook, "kinds")
    kinds = [notebook.kind_of("horn", word) for word in ("hon", "ho", "horns", "born", "barn")]
    assert kinds[:3] == ["one letter left out", "shorter", "longer"]
    assert kinds[3:] == ["one letter changed", "several letters changed"]


@pytest.fixture
def reading(small):
    """The notebook with a lexicon of eight words, and a network that always writes the first."""
    small.VALIDATED, small.truths = np.arange(1), small.words[:1]
    small.logits = 20 * np.eye(30, dtype="float32")[small.tokens[:1, 1:]]
    predict = SimpleNamespace(predict_on_batch=lambda images: (small.logits[[0] * len(images)], 0))
    small.captioner, small.augment = predict, lambda image: image
    run_cells(small, "lexicon", "look_again", "read")
    return small


def test_reads_with_the_lexicon(reading):
    """Beside a loop over its words; unsure images are looked at again."""
    random, indices = np.random.default_rng(1), np.array([2, 5, 6, 0, 7])
    logits = random.normal(scale=3, size=(5, 6, 30)).astype("float32")
    rows, log_p = reading.tokenize(reading.lexicon)[:, 1:], reading.ops.log_softmax(logits).numpy()
    scores = [[sum(p[i, t] for i, t in enumerate(row) if t) for row in rows] for p in log_p]
    np.testing.assert_allclose(reading.word_scores(logits, reading.spellings), scores, rtol=1e-4)
    second_look = random.normal(size=(5, 8))
    second_looks = dict(zip(indices.tolist(), second_look, strict=True))
    reading.look_again = lambda _, image, *more: second_looks[int(np.min(image)) // 20]
    once, again = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (scores, second_look))
    reading.SURE = np.median(once.max(axis=1))
    expected = np.where(once.max(axis=1, keepdims=True) < reading.SURE, again, once)
    words, confidences = reading.read_with_lexicon(reading.captioner, logits, indices)
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
    captioner = SimpleNamespace(predict_on_batch=predict)
    found = reading.look_again(captioner, 0, reading.spellings, 8)
    scores = reading.word_scores(logits, reading.spellings).astype("float64")
    np.testing.assert_allclose(found, np.log(np.exp(scores).mean(axis=0)), rtol=1e-4)


@pytest.mark.parametrize(("ahead", "word"), [(6.6, "big"), (7.2, "bog")])
def test_a_word_outside_the_lexicon_must_be_a_thousand_times_likelier(reading, ahead, word):
    """6.9 is the logarithm of a thousand."""
    logits = np.full((6, 30), -50.0, "float32")
    logits[range(6), reading.tokenize(["bog"])[0, 1:]] = 0
    logits[1, reading.tokenize(["i"])[0, 1]] = -ahead
    predict = SimpleNamespace(predict_on_batch=lambda images: (np.stack([logits] * len(images)), 0))
    found, probability = reading.read(predict, reading.paths_of([0])[0])
    assert found == word
    odds = np.exp(ahead) / 1000
    assert probability == pytest.approx(max(odds, 1) / (1 + odds), rel=1e-3)


LEVELS = np.asarray(Image.linear_gradient("L").resize((60, 32)), "float32")
GREY = Image.fromarray(LEVELS.astype("uint8"))
CLEAR = GREY.convert("RGBA")
CLEAR.putalpha(GREY.point(lambda level: 255 * (level > 99)))  # dark pixels are transparent
PICTURES = {  # the picture, the format of its file, and how much its grey levels may be off
    "RGBA": (CLEAR, "PNG", 1),
    "LA": (CLEAR.convert("LA"), "PNG", 1),
    "P": (GREY.convert("P"), "PNG", 1),
    "1": (GREY.convert("1"), "PNG", 160),
    "L": (GREY, "PNG", 1),
    "16 bits": (Image.fromarray(LEVELS.astype("uint16") * 257), "PNG", 4),
    "floats": (Image.fromarray(LEVELS / 255), "TIFF", 1),
    "CMYK": (GREY.convert("CMYK"), "JPEG", 9),
    "GIF": (GREY, "GIF", 1),
    "a clear GIF": (CLEAR, "GIF", 9),
    "WebP": (GREY, "WEBP", 9),
    "BMP": (GREY, "BMP", 1),
    "TIFF": (GREY, "TIFF", 1),
}


@pytest.mark.parametrize("name", PICTURES)
def test_reads_every_picture(reading, name):
    """What is transparent becomes white."""
    picture, kind, most = PICTURES[name]
    picture.save("picture", kind)
    seen = []
    reading.look_again = lambda _, image, spellings, copies: seen.append(image) or spellings[:, 0]
    reading.read(reading.captioner, "picture")
    levels = np.where(LEVELS > 99, LEVELS, 255) if "A" in picture.mode else LEVELS
    expected = levels.reshape(16, 2, 30, 2, 1).mean(axis=(1, 3))
    np.testing.assert_allclose(seen[0], np.tile(expected, 3), atol=most)


@pytest.mark.parametrize("content", [b"text", b"", None, "folder", "cut"])
def test_says_what_is_no_picture(reading, tmp_path, content):
    path = tmp_path / "picture.png"
    if content == "folder":
        path.mkdir()
    elif content == "cut":
        GREY.save(path)
        path.write_bytes(path.read_bytes()[:-40])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"/picture\.png can't be opened as a picture: .+"):
        reading.read(reading.captioner, path)
