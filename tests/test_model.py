"""The notebook's functions and layers, each tried on little data."""

import itertools

import numpy as np
import pytest
import stand_in
from conftest import run_cells
from PIL import Image

WORDS = ["thus", "www", "tied", "ids", "jam", "zoo", "apple", "big"]


def features(notebook, depth=5):
    """Three feature maps of 2×4 cells of noise."""
    values = np.random.default_rng(3).random((3, 2, 4, depth), "float32")
    return notebook.ops.convert_to_tensor(values)


def noise(count, height, width):
    """Images of noise, uint8; the levels of image i are 20 i to 20 i + 19."""
    levels = np.random.default_rng(5).integers(20, size=(count, height, width, 3))
    return (levels + 20 * np.arange(count)[:, None, None, None]).astype("uint8")


def small_encoder(notebook):
    """An encoder of one convolution, for images of a few pixels."""
    image = notebook.layers.Input((None, None, 3))
    x = notebook.layers.Rescaling(1 / 255)(image)
    x = notebook.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
    return notebook.keras.Model(image, notebook.PositionalEncoding()(x), name="encoder")


def small_captioner(notebook, decoder=None):
    """An untrained captioner for images of 16×32 pixels, and a batch of eight."""
    captioner = notebook.Captioner(small_encoder(notebook), decoder or notebook.Decoder(32))
    tokens = notebook.tokenize(WORDS)
    inputs = noise(8, 16, 32).astype("float32"), tokens[:, :-1]
    captioner(inputs)
    return captioner, inputs, tokens[:, 1:]


def test_tokens(notebook):
    assert (notebook.STEPS, notebook.VOCABULARY) == (6, 30)
    tokens = notebook.tokenize(["abz", "apple"])
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [[2, 4, 5, 29, 3, 0, 0], [2, 4, 19, 19, 15, 8, 3]]
    words = stand_in.words()
    tokens = notebook.tokenize(words)
    assert notebook.detokenize(tokens) == notebook.detokenize(tokens[:, 1:]) == words
    assert notebook.detokenize(np.array([[3, 4, 4], [4, 3, 5], [1, 4, 5]])) == ["", "a", "?ab"]


@pytest.fixture
def files(notebook, tmp_path):
    """The notebook with eight images of noise, 32×64 pixels, as files."""
    for index, pixels in enumerate(noise(8, 32, 64)):
        Image.fromarray(pixels).save(tmp_path / f"a{index}.png")
    settings = {"HEIGHT": 16, "WIDTH": 32, "files": {}, "IMAGES": tmp_path, "PLAIN": True}
    settings |= {"words": np.array(WORDS), "TRAINED": np.arange(8)}
    settings |= {"VALIDATED": np.arange(8), "tokens": notebook.tokenize(WORDS)}
    vars(notebook).update(settings)
    return notebook


@pytest.mark.parametrize("height", [160, 80])
def test_augment(notebook, height):
    """Shifted by so many pixels at most, filled with white, channels permuted."""
    grey, shifts, orders = np.full((height, 40, 3), [10, 20, 30], "float32"), set(), set()
    for _ in range(80):
        image = notebook.augment(notebook.tf.constant(grey)).numpy()
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
    """One white rectangle of at most a quarter of the height; the rest stays."""
    sizes = []
    for _ in range(80):
        image = notebook.erase(notebook.tf.fill((height, 300, 3), 7.0)).numpy()
        white = (image == 255).all(axis=-1)
        down, across = white.any(axis=1), white.any(axis=0)
        assert (white == down[:, None] & across).all() and (image[~white] == 7).all()
        sizes += [down.sum(), across.sum()]
    assert height // 5 < max(sizes) <= height // 4 and len(set(sizes)) > 10


def test_training_batches(files):
    """Without end, shuffled, changed, of both sizes; each image with its own word."""
    files.BATCH_SIZE, indices = 3, np.array([7, 1, 5, 2, 0, 3, 4, 6])
    for shrink in (1, 2):
        dataset, order = files.batches(indices, shrink, training=True).take(16), []
        for (images, given), targets in dataset.as_numpy_iterator():
            assert images.shape == (3, 16 // shrink, 32 // shrink, 3)
            numbers = images.min(axis=(1, 2, 3)).astype(int) // 20
            assert (given == files.tokens[numbers, :-1]).all()
            assert (targets == files.tokens[numbers, 1:]).all()
            order += numbers.tolist()
        rounds = np.reshape(order, (6, 8))
        assert (np.sort(rounds) == range(8)).all() and len({*map(tuple, rounds)}) > 1


def test_batches_as_they_are(files):
    """In order, unchanged, the last one smaller, whether or not all images are plain."""
    files.BATCH_SIZE = 3
    pixels = noise(8, 32, 64).astype("float32")
    for files.PLAIN, shrink in itertools.product((True, False), (1, 2)):
        (first, *_, last) = batches = list(files.batches(np.arange(8), shrink).as_numpy_iterator())
        assert (len(first[1]), len(last[1])) == (3, 2)
        blocks = pixels.reshape(8, 16 // shrink, 2 * shrink, 32 // shrink, 2 * shrink, 3)
        images = np.concatenate([images for (images, _), _ in batches])
        np.testing.assert_allclose(images, blocks.mean(axis=(2, 4)), atol=1e-3)
        assert files.detokenize(np.concatenate([targets for _, targets in batches])) == WORDS


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_open_image_takes_any_mode(notebook, tmp_path, mode):
    picture, path = stand_in.draw(1)[0].convert("L"), tmp_path / "image.png"
    deep = Image.fromarray(np.asarray(picture).astype("uint16") * 257)
    (deep if mode == "I;16" else picture.convert("RGB").convert(mode)).save(path)
    opened = notebook.open_image(path)
    assert opened.shape == (320, 600, 3) and opened.dtype == np.uint8
    expected = picture.convert("1") if mode == "1" else picture
    assert np.abs(opened[..., 0] - np.asarray(expected.convert("L"), "float32")).mean() < 3


def test_open_image_pads_with_white(notebook, tmp_path):
    Image.new("RGB", (320, 320), "black").save(tmp_path / "square.png")
    black = np.argwhere(notebook.open_image(tmp_path / "square.png")[..., 0] < 128)
    assert black.min(axis=0).tolist() == [0, 140] and black.max(axis=0).tolist() == [319, 459]
    Image.new("RGBA", (600, 320), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (notebook.open_image(tmp_path / "clear.png") == 255).all()


def test_encoder(notebook):
    """For both sizes; a residual block of it changes nothing at first."""
    encoder = notebook.build_encoder()
    assert encoder(np.zeros((2, 160, 300, 3), "float32")).shape == (2, 10, 19, 128)
    assert encoder(np.zeros((2, 80, 150, 3), "float32")).shape == (2, 5, 10, 128)
    feature_map = features(notebook, depth=8)
    assert np.array_equal(notebook.residual_block(feature_map, 8), feature_map)


def test_places_are_added(notebook):
    """A linear map of the row's cosines and one of the column's, the same for all images."""
    places, feature_map = notebook.PositionalEncoding(), features(notebook)
    added = np.array(places(feature_map)) - np.array(feature_map)
    rows, columns = (np.array(notebook.cosines(cells)) for cells in (2, 4))
    middles = (np.arange(4) + 0.5) / 4
    waves = np.cos(np.pi * np.outer(middles, [0, 1, 2]))
    np.testing.assert_allclose(columns[:, :3], waves, atol=1e-6)
    from_row, from_column = (x.kernel.numpy() for x in (places.from_row, places.from_column))
    expected = (rows @ from_row)[:, None] + columns @ from_column
    np.testing.assert_allclose(added, np.stack([expected] * 3), atol=1e-5)


def test_decoder_knows_places(notebook):
    """Permuted cells change what one step gives, but not if places count for nothing."""
    places, decoder = notebook.PositionalEncoding(), notebook.Decoder()
    feature_map = features(notebook)
    permuted = notebook.ops.take(feature_map, [3, 1, 0, 2], axis=2)

    def is_same():
        starts = [decoder.start(places(cells)) for cells in (feature_map, permuted)]
        first, other = (decoder(np.array([2, 2, 5]), *start) for start in starts)
        assert [x.shape for x in first] == [(3, 30), (3, 256), (3, 8)]
        return np.allclose(first[0], other[0], atol=1e-6)

    assert not is_same()
    for layer in (places.from_row, places.from_column):
        layer.kernel.assign(layer.kernel * 0)
    assert is_same()


def test_attention_is_the_papers(notebook):
    attention, feature_map = notebook.BahdanauAttention(units=7), features(notebook)
    state = np.random.default_rng(2).random((3, 6), "float32")
    context, weights = attention(state, attention.memory(feature_map))
    cells = np.reshape(feature_map, (3, 8, 5))
    keys = cells @ attention.to_keys.kernel.numpy()
    query = state @ attention.to_query.kernel.numpy()
    scores = np.tanh(query[:, None] + keys) @ attention.attend.scale.numpy()
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(context, np.einsum("ij,ijk->ik", expected, cells), atol=1e-6)
    assert np.std(expected) > 1e-3 and np.sum(weights, axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["attention", "Seq2Seq", "NIC", "m-RNN"])
def test_every_system_is_trained_and_reads_alike(notebook, name):
    """Given its own greedy outputs as tokens, teacher forcing gives the logits of greedy reading;
    what comes later in the true word changes no earlier logits."""
    run_cells(notebook, "vector_decoder")
    decoder = notebook.Decoder() if name == "attention" else notebook.VectorDecoder(name)
    captioner, (images, tokens), _ = small_captioner(notebook, decoder)
    logits, weights = notebook.write(captioner.encoder, decoder, images)
    greedy = np.stack(logits, axis=1)
    if name == "attention":
        predicted = captioner.predict(images, verbose=0)
        np.testing.assert_allclose(predicted[0], greedy, atol=1e-5)
        np.testing.assert_allclose(predicted[1], np.stack(weights, axis=1), atol=1e-5)
    own = np.concatenate([tokens[:, :1], greedy.argmax(axis=-1)[:, :-1]], axis=1)
    np.testing.assert_allclose(captioner((images, own)), greedy, atol=1e-5)
    forced = np.array(captioner((images, tokens)))
    tokens = tokens.copy()
    tokens[:, 3:] = 7
    changed = np.array(captioner((images, tokens)))
    assert (changed[:, :3] == forced[:, :3]).all() and (changed[:, 3:] != forced[:, 3:]).any()
    blank = np.array(captioner((images * 0, tokens)))
    assert (np.abs(blank - changed).max(axis=(0, 2)) > 1e-4).all(), "it sees the image"


def test_accuracy_and_loss(notebook):
    """Beside plain Python; what is predicted on padding counts for nothing."""
    random, targets = np.random.default_rng(8), notebook.tokenize(WORDS)[:, 1:]
    logits = random.normal(size=(8, 6, 30)).astype("float32")
    logits[:6] += 20 * np.eye(30, dtype="float32")[targets[:6]]
    logits[2, 1] = 20 * np.eye(30)[5]  # one wrong letter
    logits[3][targets[3] == 0] = 20 * np.eye(30)[9]  # padding
    pairs = zip(logits.argmax(axis=-1), targets, strict=True)
    right = [all(a == b for a, b in zip(*pair, strict=True) if b) for pair in pairs]
    assert right == [1, 1, 0, 1, 1, 1, 0, 0]
    assert np.array(notebook.word_accuracy(targets, logits)).tolist() == right
    log_p = np.array(notebook.ops.log_softmax(logits))
    true = np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    expected = -true[targets > 0].mean()
    logits[targets == 0] = 5
    assert float(notebook.loss(targets, logits)) == pytest.approx(expected, rel=1e-5)


def test_muon_is_for_matrices_and_convolutions(notebook):
    """Biases, other vectors, the embedding and the logits are left to AdamW."""
    captioner, _, _ = small_captioner(notebook)
    optimizer, variables = notebook.make_optimizer(10), captioner.trainable_variables
    optimizer.build(variables)
    pairs = zip(variables, optimizer.adam_velocities, strict=True)
    muon = [v for v, velocity in pairs if velocity is None]
    kernels = [v for v in variables if v.name in ("kernel", "recurrent_kernel")]
    assert {v.path for v in muon} == {v.path for v in kernels if "logits" not in v.path}
    assert {len(v.shape) for v in muon} == {2, 4}


@pytest.mark.parametrize("shape", [(3, 3, 2, 8), (1, 2, 4, 20), (9, 9)])
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


def test_dropout_is_on_in_training_alone(notebook):
    """With a learning rate of 0, the loss of a batch varies by dropout alone."""
    captioner, inputs, targets = small_captioner(notebook)
    captioner.compile(notebook.keras.optimizers.SGD(0.0), notebook.loss, jit_compile=False)
    trained = {float(captioner.train_on_batch(inputs, targets)) for _ in range(2)}
    tested = {float(captioner.test_on_batch(inputs, targets)) for _ in range(2)}
    assert (len(trained), len(tested)) == (2, 1)


@pytest.fixture
def reading(files):
    """The notebook with an untrained captioner and a lexicon of eight words."""
    files.captioner, inputs, _ = small_captioner(files)
    files.ROWS, files.COLUMNS = 8, 16
    files.truths, files.logits = files.words, np.array(files.captioner(inputs))
    run_cells(files, "guess", "spell", "look_again", "with_lexicon", "read")
    return files


def test_reads_with_the_lexicon(reading):
    """Beside a loop over its words; unsure images are read again, from augmented copies."""
    random, indices = np.random.default_rng(1), np.array([2, 5, 6, 0, 7])
    first, *copies = random.normal(scale=3, size=(6, 5, 6, 30)).astype("float32")
    loaded = [reading.load(path) for path in reading.paths_of(indices)]

    def look_again(image):
        (number,) = [i for i, other in enumerate(loaded) if np.array_equal(other, image)]
        return copies[number]

    def scores(logits):
        log_p = np.array(reading.ops.log_softmax(logits))
        rows = reading.tokenize(list(reading.lexicon))[:, 1:]
        return [[sum(p[i, t] for i, t in enumerate(row) if t) for row in rows] for p in log_p]

    found = reading.word_scores(first, reading.spellings)
    np.testing.assert_allclose(found, scores(first), rtol=1e-4)
    reading.look_again = look_again
    once = np.exp(scores(first))
    again = np.array([np.exp(scores(x)).mean(axis=0) for x in copies])
    once, again = (p / p.sum(axis=1, keepdims=True) for p in (once, again))
    reading.SURE = np.median(once.max(axis=1))
    expected = np.where(once.max(axis=1, keepdims=True) < reading.SURE, again, once)
    words, confidences = reading.read_with_lexicon(first, indices)
    assert words.tolist() == reading.lexicon[expected.argmax(axis=1)].tolist()
    assert confidences == pytest.approx(expected.max(axis=1), rel=1e-3)


def test_looks_again_at_augmented_copies(reading):
    """As many as asked for, and not all alike; what it sees is the network's logits."""
    image = np.random.default_rng(3).uniform(0, 255, (40, 60, 3)).astype("float32")
    logits = reading.look_again(image)
    assert logits.shape == (reading.COPIES, 6, 30) and np.ptp(logits, axis=0).max() > 1e-6
    reading.augment = lambda image: image
    expected, _ = reading.captioner.predict(image[None], verbose=0)
    np.testing.assert_allclose(reading.look_again(image)[1], expected[0], atol=1e-5)


@pytest.mark.parametrize(("ahead", "word"), [(2.0, "big"), (2.6, "bog")])
def test_a_word_outside_the_lexicon_must_be_ten_times_likelier(reading, ahead, word):
    """2.3 is the logarithm of ten. The same image is read whichever word wins."""
    logits = np.full((3, 6, 30), -50.0, "float32")
    for step, token in enumerate(reading.tokenize(["bog"])[0, 1:]):
        logits[:, step, token] = 0
    logits[:, 1, reading.tokenize(["i"])[0, 1]] = -ahead
    reading.look_again = lambda image: logits
    (path,) = reading.paths_of([0])
    found, probability, maps = reading.read(path)
    assert found == word and maps.shape == (4, 8, 16)
    assert maps.sum(axis=(1, 2)) == pytest.approx(np.ones(4), abs=1e-4)
    odds = np.exp(ahead) / 10
    assert probability == pytest.approx(max(odds, 1) / (1 + odds), rel=1e-3)
