"""The notebook's functions and layers, each tried on little data."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import stand_in
from conftest import ROOT, small_encoder
from PIL import Image

WORDS = ["thus", "www", "tied", "ids", "jam", "zoo", "apple", "big"]


def features(notebook, depth=5):
    """Three feature maps of 2×4 cells of noise."""
    values = np.random.default_rng(3).random((3, 2, 4, depth), "float32")
    return notebook.ops.convert_to_tensor(values)


def noise(count, height=16, width=32):
    """Images of noise: float32 from 0 to 255."""
    return np.random.default_rng(5).integers(256, size=(count, height, width, 3)).astype("float32")


def tiny(notebook, decoder=None):
    """An untrained captioner for images of 16×32 pixels, and a batch of eight."""
    notebook.HEIGHT, notebook.WIDTH = 16, 32
    captioner = notebook.Captioner(small_encoder(notebook), decoder or notebook.Decoder(32))
    tokens = notebook.tokenize(WORDS)
    inputs = noise(8), tokens[:, :-1]
    captioner(inputs)
    return captioner, inputs, tokens[:, 1:]


def test_tokens(notebook):
    assert (notebook.LONGEST, notebook.STEPS, notebook.VOCABULARY) == (5, 6, 30)
    tokens = notebook.tokenize(["abz", "apple"])
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [[2, 4, 5, 29, 3, 0, 0], [2, 4, 19, 19, 15, 8, 3]]
    words = stand_in.words()
    tokens = notebook.tokenize(words)
    assert notebook.detokenize(tokens) == notebook.detokenize(tokens[:, 1:]) == words
    assert notebook.detokenize(np.array([[3, 4, 4], [4, 3, 5], [1, 4, 5]])) == ["", "a", "?ab"]


def test_guess_next(notebook):
    notebook.STEPS = 3
    known = np.array([[2, 4, 5, 3], [2, 4, 5, 3], [2, 4, 6, 3], [2, 7, 3, 0]])
    guesses = notebook.guess_next(known, np.array([[2, 4, 6, 3], [2, 7, 8, 3], [2, 4, 5, 3]]))
    assert guesses.tolist() == [[4, 5, 3], [4, 3, 0], [4, 5, 3]]


@pytest.fixture
def files(notebook, tmp_path):
    """The notebook with eight images of noise, 32×64 pixels, as files."""
    notebook.HEIGHT, notebook.WIDTH = 16, 32
    notebook.paths = np.array([str(tmp_path / f"a{index}.png") for index in range(8)])
    for path, pixels in zip(notebook.paths, noise(8, 32, 64), strict=True):
        Image.fromarray(pixels.astype("uint8")).save(path)
    notebook.words, notebook.tokens = WORDS, notebook.tokenize(WORDS)
    return notebook


@pytest.mark.parametrize("height", [160, 80])
def test_augment(notebook, height):
    """Shifted by so many pixels at most, filled with white, channels permuted, repeatable."""
    grey = np.full((height, 40, 3), [10, 20, 30], "float32")
    shifts, orders = set(), set()
    for number in range(60):
        image = notebook.augment(notebook.tf.constant(grey), 1, number).numpy()
        again = notebook.augment(notebook.tf.constant(grey), 1, number).numpy()
        assert image.shape == grey.shape and (image == again).all()
        inside = (image != 255).all(axis=-1)
        down, across = inside.any(axis=1), inside.any(axis=0)
        assert (inside == down[:, None] & across).all() and (image[~inside] == 255).all()
        assert len(np.unique(image[inside], axis=0)) == 1
        shifts |= {height - down.sum(), 40 - across.sum()}
        orders.add(tuple(image[inside][0]))
    assert max(shifts) == height // 20 and min(shifts) == 0
    assert orders == set(itertools.permutations([10, 20, 30]))


@pytest.mark.parametrize("height", [160, 80])
def test_erase(notebook, height):
    """One white rectangle of at most a quarter of the height; the rest stays; repeatable."""
    black, sizes = notebook.tf.zeros((height, 300, 3)), []
    for number in range(60):
        image = notebook.erase(black, 1, number).numpy()
        assert (image == notebook.erase(black, 1, number).numpy()).all()
        white = (image == 255).all(axis=-1)
        down, across = white.any(axis=1), white.any(axis=0)
        assert (white == down[:, None] & across).all() and (image[~white] == 0).all()
        sizes += [down.sum(), across.sum()]
    assert height // 5 < max(sizes) <= height // 4 + 1 and len(set(sizes)) > 10


def test_training_batches(files):
    """The same for the same seed, of both sizes; each image with its own word."""
    files.BATCH_SIZE, indices = 3, np.array([7, 1, 5, 2, 0, 3, 4, 6])
    for shrink in (1, 2):
        batches = (files.training_batches(indices, shrink, seed) for seed in (4, 4, 5))
        first, again, other = (list(dataset.as_numpy_iterator()) for dataset in batches)
        assert len(first) == 2, "a batch that is not full is left out"
        for ((images, _), _), same, changed in zip(first, again, other, strict=True):
            assert images.shape == (3, 16 // shrink, 32 // shrink, 3)
            assert (images == same[0][0]).all() and (images != changed[0][0]).any()
        rows = np.concatenate([given for (_, given), _ in first])
        assert (rows == files.tokens[indices[:6], :-1]).all()
        targets = np.concatenate([targets for _, targets in first])
        assert files.detokenize(targets) == [WORDS[index] for index in indices[:6]]


def test_batches_as_they_are(files):
    files.BATCH_SIZE = 3
    images = np.concatenate(list(files.image_batches(np.arange(8)).as_numpy_iterator()))
    expected = noise(8, 32, 64).reshape(8, 16, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(images, expected, atol=1e-3)
    batches = list(files.labelled_batches(np.arange(8), 2).as_numpy_iterator())
    assert [len(targets) for _, targets in batches] == [6, 2]
    assert batches[0][0][0].shape == (6, 8, 16, 3)
    assert files.detokenize(np.concatenate([targets for _, targets in batches])) == WORDS


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_open_image_takes_any_mode(notebook, tmp_path, mode):
    picture, path = stand_in.draw(1, seed=4)[0].convert("L"), tmp_path / "image.png"
    deep = Image.fromarray(np.asarray(picture).astype("uint16") * 257)
    (deep if mode == "I;16" else picture.convert("RGB").convert(mode)).save(path)
    opened = notebook.open_image(path)
    assert opened.shape == (notebook.HEIGHT, notebook.WIDTH, 3) and opened.dtype == np.float32
    assert np.abs(opened[..., 0] - np.asarray(picture.reduce(2))).mean() < 6


def test_open_image_pads_with_white(notebook, tmp_path):
    Image.new("RGB", (320, 320), "black").save(tmp_path / "square.png")
    black = np.argwhere(notebook.open_image(tmp_path / "square.png")[..., 0] < 128)
    assert black.min(axis=0).tolist() == [0, 70] and black.max(axis=0).tolist() == [159, 229]
    clear = Image.new("RGBA", (600, 320), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert (notebook.open_image(tmp_path / "clear.png") == 255).all()


def test_filters_have_mean_0_and_a_learned_length(notebook):
    conv = notebook.StandardizedConv(6, size=5, strides=2)
    assert conv(noise(2)).shape == (2, 8, 16, 6)
    conv.gain.assign(np.arange(6) / 2)
    filters = np.array(conv.filter_matrix())
    assert filters.shape == (75, 6) and np.abs(filters.mean(axis=0)).max() < 1e-6
    assert np.linalg.norm(filters, axis=0) == pytest.approx(np.arange(6) / 2, rel=1e-3)
    linear = notebook.StandardizedConv(6, activation=None)
    inside = np.array(linear(np.ones((1, 5, 5, 3), "float32")))[:, 1:-1, 1:-1]
    assert np.abs(inside).max() < 1e-5, "an even image gives nothing"


def test_residual_block_is_the_identity_at_first(notebook):
    feature_map = features(notebook, depth=8)
    assert (np.array(notebook.residual_block(feature_map, 8)) == np.array(feature_map)).all()


def test_encoder(notebook):
    encoder = notebook.build_encoder()
    assert encoder(noise(1, 160, 300)).shape == (1, 10, 19, 128)
    assert encoder(noise(2, 80, 150)).shape == (2, 5, 10, 128)
    white = np.array(encoder(np.full((1, 160, 300, 3), 255, "float32")))
    assert np.abs(white).max() == 0, "nothing is seen in a white image, nor at its border"


def test_attention(notebook):
    """Weights sum to 1, the context is the weighted mean, and scores are Bahdanau's."""
    attention, feature_map = notebook.BahdanauAttention(units=7), features(notebook)
    state = np.random.default_rng(2).random((3, 6), "float32")
    memory = attention.memory(feature_map)
    context, weights = map(np.array, attention(state, memory))
    cells = np.array(feature_map).reshape(3, 8, 5)
    assert weights.shape == (3, 8) and weights.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    np.testing.assert_allclose(context, (weights[:, :, None] * cells).sum(axis=1), rtol=1e-5)
    layers = ("state_to_query", "score")
    w_q, v = (getattr(attention, name).get_weights()[0] for name in layers)
    scores = (np.tanh((state @ w_q)[:, None] + np.array(memory[0])) @ v)[..., 0]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, expected, rtol=1e-4)


def test_attention_knows_places(notebook):
    """Without places, permuted cells give permuted weights and the same context; with them not."""
    attention, feature_map = notebook.BahdanauAttention(units=7), features(notebook)
    state, order = np.ones((3, 6), "float32"), [3, 1, 0, 2]
    permuted = notebook.ops.take(feature_map, order, axis=2)

    def results():
        found = [attention(state, attention.memory(cells)) for cells in (feature_map, permuted)]
        (context, weights), (other, moved) = [list(map(np.array, pair)) for pair in found]
        expected = weights.reshape(3, 2, 4)[:, :, order].reshape(3, 8)
        return np.allclose(moved, expected, atol=1e-6), np.allclose(context, other, atol=1e-5)

    assert results() == (False, False)
    attention.to_keys.from_places.kernel.assign(np.zeros((24, 7)))
    assert results() == (True, True)


def test_vector_knows_places(notebook):
    """Permuted cells change it, but not if places count for nothing."""
    vector, feature_map = notebook.image_vector(16), features(notebook)
    permuted = notebook.ops.take(feature_map, [3, 1, 0, 2], axis=2)

    def is_same():
        first, other = (np.array(vector(cells)) for cells in (feature_map, permuted))
        assert first.shape == (3, 16)
        return np.allclose(first, other, atol=1e-5)

    assert not is_same()
    vector.layers[0].from_places.kernel.assign(np.zeros((24, 16)))
    assert is_same()


DECODERS = {
    "attention": lambda notebook: notebook.Decoder(32),
    "Seq2Seq": lambda notebook: notebook.VectorDecoder(units=32),
    "NIC": lambda notebook: notebook.NIC(notebook.layers.LSTMCell, units=32),
    "m-RNN": lambda notebook: notebook.MRNN(units=32),
}


def test_one_step_of_the_decoder(notebook):
    decoder = notebook.Decoder()
    state, memory = decoder.start(features(notebook))
    logits, after, weights = decoder(np.array([2, 2, 5]), state, memory)
    assert (logits.shape, after.shape, weights.shape) == ((3, 30), (3, 256), (3, 8))
    assert np.abs(np.array(after) - np.array(state)).max() > 1e-3


@pytest.mark.parametrize("name", DECODERS)
def test_every_system_is_trained_and_reads_alike(notebook, name):
    """Given its own greedy outputs as tokens, teacher forcing gives the logits of greedy reading;
    what comes later in the true word changes no earlier logits."""
    captioner, (images, tokens), _ = tiny(notebook, DECODERS[name](notebook))
    logits, _ = captioner.unroll(images)
    greedy = np.stack(logits, axis=1)
    own = np.concatenate([tokens[:, :1], greedy.argmax(axis=-1)[:, :-1]], axis=1)
    np.testing.assert_allclose(captioner((images, own)), greedy, atol=1e-5)
    forced = np.array(captioner((images, tokens)))
    tokens = tokens.copy()
    tokens[:, 3:] = 7
    changed = np.array(captioner((images, tokens)))
    assert (changed[:, :3] == forced[:, :3]).all() and (changed[:, 3:] != forced[:, 3:]).any()
    assert np.abs(captioner((images * 0, tokens)) - changed).max() > 1e-4, "it sees the image"


def test_accuracies_and_loss(notebook):
    """Beside plain Python; what is predicted on padding counts for nothing."""
    random, targets = np.random.default_rng(8), notebook.tokenize(WORDS)[:, 1:]
    logits = random.normal(size=(8, 6, 30)).astype("float32")
    logits[:6] += 20 * np.eye(30, dtype="float32")[targets[:6]]
    logits[2, 1] = 20 * np.eye(30)[5]  # one wrong letter
    logits[3][targets[3] == 0] = 20 * np.eye(30)[9]  # padding
    pairs = zip(logits.argmax(axis=-1), targets, strict=True)
    letters = [[a == b for a, b in zip(*pair, strict=True) if b] for pair in pairs]
    assert [all(word) for word in letters] == [1, 1, 0, 1, 1, 1, 0, 0]
    assert np.array(notebook.word_accuracy(targets, logits)).tolist() == list(map(all, letters))
    shares = [sum(word) / len(word) for word in letters]
    assert np.array(notebook.letter_accuracy(targets, logits)) == pytest.approx(shares)
    log_p = np.array(notebook.ops.log_softmax(logits))
    true = np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    terms = (0.95 * true + 0.05 * log_p.mean(axis=-1))[targets > 0]
    assert float(notebook.loss(targets, logits)) == pytest.approx(-terms.mean(), rel=1e-5)
    changed = logits.copy()
    changed[targets == 0] = 5
    assert float(notebook.loss(targets, changed)) == float(notebook.loss(targets, logits))


@pytest.mark.parametrize("shape", [(40, 8), (8, 40), (9, 9)])
def test_muon_makes_the_steps_of_keras(notebook, shape):
    """With 32 bits, and for matrices of any shape."""
    gradient = np.random.default_rng(1).normal(size=shape).astype("float32")
    kinds = (notebook.keras.optimizers.Muon, notebook.Muon)
    theirs, ours = (np.array(k(1.0).zeropower_via_newtonschulz5(gradient, 3)) for k in kinds)
    assert ours.dtype == np.float32 and ours.shape == shape
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_tiny_captioner_learns(notebook):
    captioner, inputs, targets = tiny(notebook)
    captioner.compile(notebook.make_optimizer(60), notebook.loss, jit_compile=False)
    options = {"batch_size": 8, "epochs": 60, "verbose": 0}
    losses = captioner.fit(inputs, targets, **options).history["loss"]
    assert losses[0] == pytest.approx(np.log(30), abs=0.5) and losses[-1] < 0.75 * losses[0]


def test_dropout_is_on_in_training_alone(notebook):
    """With a learning rate of 0, the loss of a batch varies by dropout alone."""
    captioner, inputs, targets = tiny(notebook)
    systems = notebook.SideBySide({"attention": captioner})
    together = [{"attention": part} for part in (targets, notebook.loss)]
    for model, (true, loss) in ((captioner, (targets, notebook.loss)), (systems, together)):
        model.compile(notebook.keras.optimizers.SGD(0.0), loss, jit_compile=False)
        trained = {model.train_on_batch(inputs, true) for _ in range(2)}
        tested = {model.test_on_batch(inputs, true) for _ in range(2)}
        assert (len(trained), len(tested)) == (2, 1)


TWO_DEVICES = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from conftest import definitions, set_up
from test_model import WORDS, tiny
notebook = set_up(definitions(), WORDS)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    captioner, inputs, targets = tiny(notebook)
    captioner.compile(notebook.make_optimizer(6), notebook.loss, metrics=[notebook.word_accuracy])
    captioner.optimizer.build(captioner.trainable_variables)
losses = captioner.fit(inputs, targets, batch_size=4, epochs=3, verbose=0).history["loss"]
assert np.isfinite(losses).all() and losses[2] != losses[0], losses
"""


def test_trains_on_two_devices(tmp_path):
    command = [sys.executable, "-c", TWO_DEVICES, ROOT / "tests"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("log_prior", [0.0, [0, -1, -2, -3, 0, 1, 0, -np.inf]])
def test_most_probable_word(notebook, log_prior):
    """Beside a loop over all words of a lexicon."""
    logits = 3 * np.random.default_rng(1).normal(size=(20, 6, 30)).astype("float32")
    log_p = np.array(notebook.ops.log_softmax(logits))
    assert np.exp(log_p).sum(axis=-1) == pytest.approx(np.ones((20, 6)), abs=1e-5)
    tokens, spelled = notebook.tokenize(WORDS)[:, 1:], notebook.spell(WORDS)
    expected = [[sum(p[i, t] for i, t in enumerate(row) if t) for row in tokens] for p in log_p]
    assert spelled.sum(axis=(1, 2)).tolist() == [len(word) + 1 for word in WORDS]
    scores = notebook.word_scores(logits, spelled)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    mean = np.log(np.exp(scores).mean(axis=0))
    differences = notebook.mean_scores(logits, spelled) - mean
    assert differences == pytest.approx(np.full(len(WORDS), np.log(20)), abs=1e-3)
    expected = np.array(expected) + log_prior
    best, confidences = notebook.most_probable(scores + log_prior)
    assert best.tolist() == expected.argmax(axis=1).tolist()
    p = np.exp(expected.max(axis=1)) / np.exp(expected).sum(axis=1)
    assert confidences == pytest.approx(p, rel=1e-4)


@pytest.fixture
def reading(files):
    """The notebook with an untrained reader and a lexicon of eight words."""
    captioner, _, _ = tiny(files)
    files.captioner, files.reader = captioner, files.Reader(captioner)
    files.lexicon, (files.rows, files.columns) = np.array(sorted(WORDS)), (8, 16)
    files.spellings, files.COPIES = files.spell(files.lexicon), 4
    return files


def test_unsure_readings_are_read_again(reading):
    """From augmented copies, of which the probabilities are averaged; the others are not."""
    indices = np.arange(8)
    logits, _ = reading.reader.predict(reading.image_batches(indices), verbose=0)
    once, p_once = reading.most_probable(reading.word_scores(logits, reading.spellings))
    again = [reading.look_again(reading.load(path, 16, 32)) for path in reading.paths]
    means = [np.exp(reading.word_scores(x, reading.spellings)).mean(axis=0) for x in again]
    twice, p_twice = reading.most_probable(np.log(means))
    reading.SURE = np.median(p_once)
    words, confidences = reading.read_with_lexicon(logits, indices)
    sure = p_once >= reading.SURE
    assert 0 < sure.sum() < 8
    assert words.tolist() == reading.lexicon[np.where(sure, once, twice)].tolist()
    assert confidences == pytest.approx(np.where(sure, p_once, p_twice), rel=1e-3)
    reading.SURE = 0
    assert reading.read_with_lexicon(logits, indices)[1] == pytest.approx(p_once)


@pytest.mark.parametrize(("ahead", "word"), [(2.0, "big"), (2.6, "bog")])
def test_a_word_outside_the_lexicon_must_be_ten_times_likelier(reading, monkeypatch, ahead, word):
    """2.3 is the logarithm of ten. The same image is read whichever word wins."""
    logits = np.full((3, 6, 30), -50.0, "float32")
    for step, token in enumerate(reading.tokenize(["bog"])[0, 1:]):
        logits[:, step, token] = 0
    logits[:, 1, reading.tokenize(["i"])[0, 1]] = -ahead
    monkeypatch.setattr(reading, "look_again", lambda image: logits)
    found, probability, maps = reading.read(reading.paths[0])
    assert found == word and maps.shape == (4, 8, 16)
    odds = np.exp(ahead) / 10
    assert probability == pytest.approx(max(odds, 1) / (1 + odds), rel=1e-3)


def test_a_reader_made_before_training_follows_the_weights(notebook):
    """Nothing that it reads with is kept from the untrained network, the cells' places included."""
    captioner = notebook.Captioner(small_encoder(notebook), notebook.Decoder())
    images = np.random.default_rng(1).uniform(0, 255, (2, 8, 12, 3)).astype("float32")
    reader = notebook.Reader(captioner)
    before, _ = reader.predict(images, verbose=0)
    places = captioner.decoder.attention.to_keys.from_places
    places.set_weights([10 * places.get_weights()[0] + 1])
    after, weights = reader.predict(images, verbose=0)
    logits, expected = captioner.read(images)
    assert np.abs(after - before).max() > 1e-6
    np.testing.assert_allclose(after, logits, atol=1e-4)
    np.testing.assert_allclose(weights, expected, atol=1e-4)
