"""The notebook's definitions, each tried alone."""

import hashlib
import itertools
import json

import numpy as np
import pytest
from conftest import new_captioner, random_images

GOOD_LINES = ["a0 thus", "a1 www", "a2 tied", "a3 ids"]


def draw_files(stand_in, folder, count):
    """Draws images of the stand-in into a folder; returns their paths."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        (folder / f"a{index}.png").write_bytes(stand_in.png(stand_in.draw(index, seed=4)[0]))
    return [str(folder / f"a{index}.png") for index in range(count)]


# --- Labels and data ------------------------------------------------------------------------------


def write_labels(folder, lines, encoding="utf-8", newline="\n"):
    path = folder / "labels.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding, newline=newline)
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"], ids=["plain", "byte-order-mark"])
def test_reads_labels(notebook, tmp_path, encoding, newline):
    path = write_labels(tmp_path, GOOD_LINES, encoding, newline)
    assert notebook.read_labels(path, 4) == ["thus", "www", "tied", "ids"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a2",
        "a2 ",
        "tied",
        "2 tied",
        "b2 tied",
        "a2\ttied",
        "a2  tied",
        " a2 tied",
        "a2 tied ",
        "a2 Tied",
        "a2 ti3d",
        "a2 tïed",
        "a2 tied up",
        "a2 " + "tied" * 10,
        "a1 www",
        "a0 thus",
        "a3 ids",
        "a02 tied",
        "a-2 tied",
    ],
)
def test_names_the_bad_line(notebook, tmp_path, line):
    path = write_labels(tmp_path, [*GOOD_LINES[:2], line, GOOD_LINES[3]])
    with pytest.raises(ValueError, match=r"labels\.txt, line 3: expected .*a2") as raised:
        notebook.read_labels(path, 4)
    assert str(path) in str(raised.value)


def test_names_the_file_that_is_not_text(notebook, tmp_path):
    path = write_labels(tmp_path, ["a0 thus", "a1 ww\u00e9"], encoding="latin-1")
    with pytest.raises(ValueError, match=r"labels\.txt"):
        notebook.read_labels(path, 2)


@pytest.mark.parametrize(("count", "message"), [(3, "expected 3 lines"), (5, "expected 5 lines")])
def test_counts_the_labels(notebook, tmp_path, count, message):
    path = write_labels(tmp_path, GOOD_LINES)
    with pytest.raises(ValueError, match=rf"labels\.txt: {message}, found 4"):
        notebook.read_labels(path, count)


def test_names_the_missing_labels(notebook, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.txt is missing"):
        notebook.read_labels(tmp_path / "nowhere.txt", 4)


def test_split_of_the_full_size(definitions):
    """100,000 images train and the next 20,000 validate, whatever stands for QUICK=1."""
    assert (definitions.TRAIN, definitions.VALIDATION, definitions.TEST) == (2000, 600, 600)
    code = definitions.Path(definitions.__file__).read_text(encoding="utf-8")
    assert "(2_000, 600, 600) if QUICK else (100_000, 20_000, 20_000)" in code


@pytest.fixture
def data(tmp_path):
    """A folder of four (empty) images, and labels; none of them the stand-in's."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(4):
        (images / f"a{index}.png").touch()
    return images, write_labels(tmp_path, GOOD_LINES)


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def mark(images, digest):
    """Makes the images the stand-in's, with labels of a digest."""
    (images / "stand_in.json").write_text(json.dumps({"labels_sha256": digest}))


def test_accepts_images_of_either_origin(notebook, data):
    images, labels = data
    notebook.check_data(images, labels, 4)
    mark(images, digest_of(labels))
    notebook.check_data(images, labels, 4)


def test_refuses_stand_in_images_with_other_labels(notebook, data):
    images, labels = data
    mark(images, "0" * 64)
    with pytest.raises(ValueError, match="stand-in images.*not their labels.*(?i:delete|copy)"):
        notebook.check_data(images, labels, 4)


def test_refuses_course_images_with_the_stand_ins_labels(notebook, data, monkeypatch):
    images, labels = data
    monkeypatch.setattr(notebook, "STAND_IN_LABELS", digest_of(labels))
    with pytest.raises(ValueError, match="course's images.*stand-in's labels.*Copy"):
        notebook.check_data(images, labels, 4)


def test_names_missing_and_extra_images(notebook, data):
    images, labels = data
    (images / "a4.png").touch()
    with pytest.raises(ValueError, match=r"images: expected .* 1 too many.*a4\.png"):
        notebook.check_data(images, labels, 4)
    (images / "a2.png").unlink()
    with pytest.raises(ValueError, match=r"images: expected .* 1 missing.*a2\.png"):
        notebook.check_data(images, labels, 4)


def test_failure_of_the_script_is_told(notebook, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stand_in.py").write_text("print(3)\nraise SystemExit('no room')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="no room"):
        notebook.draw_stand_in(tmp_path / "images", tmp_path / "labels.txt", (3, 1, 1), seed=1)


# --- Tokens ---------------------------------------------------------------------------------------


def test_tokenizer_round_trip(notebook, stand_in):
    words = [*stand_in.words(), "abcde", "fghij", "klmno", "pqrst", "uvwxy", "z"]
    tokens = notebook.tokenize(words, notebook.tokenizer)
    start, end = map(notebook.tokenizer.get_vocabulary().index, ("<start>", "<end>"))
    assert tokens.shape == (len(words), 7) and tokens.dtype == "int32"
    assert notebook.VOCABULARY == 26 + 4 and tokens.max() < 30
    for word, row in zip(words, tokens.tolist(), strict=True):
        assert row[0] == start and row[len(word) + 1] == end
        assert row[len(word) + 2 :] == [0] * (5 - len(word)) and 0 not in row[: len(word) + 2]
    assert 1 not in tokens, "1 stands for what is unknown"
    assert notebook.detokenize(tokens[:, 1:], notebook.tokenizer) == words


def test_reads_up_to_the_end_token(notebook):
    start, end, a, b = map(
        notebook.tokenizer.get_vocabulary().index, ("<start>", "<end>", "a", "b")
    )
    rows = np.array([[a, b, end, a], [a, b, a, b], [end, a, a, a], [a, end, end, start]])
    assert notebook.detokenize(rows, notebook.tokenizer) == ["ab", "abab", "", "a"]


# --- Images ---------------------------------------------------------------------------------------


def test_shrink_averages(notebook, stand_in, tmp_path):
    (path,) = draw_files(stand_in, tmp_path, 1)
    image = np.asarray(stand_in.draw(0, seed=4)[0], float)
    means = image.reshape(80, 4, 150, 4, 3).mean(axis=(1, 3))
    small = notebook.shrink(path).numpy()
    assert small.dtype == np.uint8 and small.shape == (80, 150, 3)
    assert np.abs(small - means).max() <= 0.501


def part_of(notebook, cache, count):
    """The file that `shrink_all` fills before it gets its name."""
    return cache.parent / f"{count}x{notebook.HEIGHT}x{notebook.WIDTH}.part"


def test_shrinking_goes_on_after_an_interruption(notebook, stand_in, tmp_path, monkeypatch):
    paths = draw_files(stand_in, tmp_path / "images", 8)
    whole, cut = tmp_path / "whole" / "x.uint8", tmp_path / "cut" / "x.uint8"
    notebook.shrink_all(paths, whole, chunk=3)
    assert len(whole.read_bytes()) == 8 * 80 * 150 * 3
    assert not part_of(notebook, whole, 8).exists()

    decoded, asked = notebook.decoded, []

    def interrupted(paths, indices, chunk):
        asked.append(list(indices))
        for index, image in decoded(paths, indices, chunk):
            if len(asked) == 1 and index == 5:
                raise KeyboardInterrupt
            yield index, image

    monkeypatch.setattr(notebook, "decoded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        notebook.shrink_all(paths, cut, chunk=3)
    assert not cut.exists()
    notebook.shrink_all(paths, cut, chunk=3)
    assert asked == [list(range(8)), [5, 6, 7]], "what is done is not decoded again"
    assert cut.read_bytes() == whole.read_bytes()


def test_any_image_can_be_read(cached):
    images = random_images(36)
    assert (cached.read_images([30, 0, 7]) == images[[30, 0, 7]]).all()
    assert (cached.load([35, 35]).numpy() == images[[35, 35]]).all()
    batches = list(cached.plain_batches(24, 32, batch_size=5))
    assert np.concatenate([indices for _, indices in batches]).tolist() == list(range(24, 32))
    assert (np.concatenate([batch for batch, _ in batches]) == images[24:32]).all()


def test_augmentation_follows_its_seed(notebook):
    images = random_images(3, 80, 150)
    same = [notebook.augment(images, notebook.tf.constant([7, 1])).numpy() for _ in range(2)]
    assert (same[0] == same[1]).all()
    assert same[0].shape == images.shape and same[0].dtype == np.float32
    assert (same[0] != notebook.augment(images, notebook.tf.constant([7, 2])).numpy()).any()


def test_augmentation_leaves_white_white(notebook):
    white = np.full((16, 80, 150, 3), 255, np.uint8)
    assert (notebook.augment(white, notebook.tf.constant([7, 1])).numpy() == 255).all()


def test_augmentation_shifts_and_permutes_colours(notebook):
    """A single coloured pixel keeps its three values, in another order and at another place."""
    images = np.full((300, 80, 150, 3), 255, np.uint8)
    images[:, 40, 75] = (10, 90, 170)
    changed = notebook.augment(images, notebook.tf.constant([7, 1])).numpy()
    orders, shifts = set(), set()
    for image in changed:
        ((row, column),) = np.argwhere((image < 254).any(axis=2))
        orders.add(tuple(np.round(image[row, column]).astype(int).tolist()))
        shifts.add((int(row) - 40, int(column) - 75))
    assert orders == set(itertools.permutations((10, 90, 170)))
    for axis in (0, 1):
        assert {shift[axis] for shift in shifts} == set(range(-4, 5))
    assert len(shifts) > 50, "rows and columns are shifted independently"


def test_training_batches(cached):
    """An epoch has every image at most once, and a resumed run sees what it would have seen."""
    tokens = np.arange(36 * 7, dtype="int32").reshape(36, 7)
    batches = list(cached.training_batches(tokens).as_numpy_iterator())
    assert len(batches) == 3 * (24 // 5)
    orders = []
    for epoch in range(3):
        inputs, targets = zip(*batches[4 * epoch : 4 * epoch + 4], strict=True)
        size = (4, 8) if epoch < 1 else (8, 16)  # the first epoch is coarse
        assert all(images.shape == (5, *size, 3) for images, _ in inputs)
        rows = np.concatenate([given[:, 0] for _, given in inputs]) // 7
        orders.append(rows.tolist())
        assert len(set(orders[-1])) == 20 and max(orders[-1]) < 24
        assert (np.concatenate([given for _, given in inputs]) == tokens[rows, :-1]).all()
        assert (np.concatenate(targets) == tokens[rows, 1:]).all()
    assert orders[0] != orders[1] != orders[2] != orders[0]

    resumed = list(cached.training_batches(tokens, first_epoch=1).as_numpy_iterator())
    assert len(resumed) == 8
    for ((images, given), targets), ((images_2, given_2), targets_2) in zip(
        batches[4:], resumed, strict=True
    ):
        assert (images == images_2).all() and (given == given_2).all()
        assert (targets == targets_2).all()


def test_labelled_batches_are_not_augmented(cached):
    tokens = np.arange(36 * 7, dtype="int32").reshape(36, 7)
    (((images, given), targets),) = cached.labelled_batches(tokens, 24, 32).as_numpy_iterator()
    assert (images == random_images(36)[24:32]).all()
    assert (given == tokens[24:32, :-1]).all() and (targets == tokens[24:32, 1:]).all()


# --- The network ----------------------------------------------------------------------------------


def test_encoder(notebook):
    """White ground gives what the zero padding around it gives; half the image, half the grid."""
    encoder = notebook.build_encoder()
    white = np.full((1, 80, 150, 3), 255, np.uint8)
    feature_map = encoder(white).numpy()
    assert np.abs(feature_map - feature_map[:, :1, :1]).max() < 1e-6
    assert encoder(white[:, :40, :75]).shape[1:3] == tuple(
        -(-n // 2) for n in feature_map.shape[1:3]
    )


def test_standardized_conv(notebook):
    """Whatever its kernel, it is Keras' convolution by filters of mean 0 and the gains' length."""
    rng = np.random.default_rng(4)
    images = rng.normal(size=(2, 7, 9, 3)).astype("float32")
    layer = notebook.StandardizedConv(5, size=3, strides=2, activation=None)
    assert layer(images).shape == (2, 4, 5, 5)
    layer.kernel.assign(rng.normal(3, 2, layer.kernel.shape))
    layer.gain.assign([0, 0.5, 1, 2, 3])
    layer.bias.assign([1, 2, 3, 4, 5])
    filters = layer.kernel.numpy() - layer.kernel.numpy().mean(axis=0)
    filters *= layer.gain.numpy() / np.linalg.norm(filters, axis=0)
    expected = notebook.ops.conv(images, filters.reshape(3, 3, 3, 5), 2, padding="same")
    np.testing.assert_allclose(layer(images), expected + layer.bias, rtol=1e-3, atol=1e-4)
    layer.activation = notebook.keras.activations.relu
    np.testing.assert_allclose(layer(images), np.maximum(expected + layer.bias, 0), atol=1e-4)


def test_a_residual_block_is_the_identity_at_first(notebook):
    feature_map = np.random.default_rng(1).random((2, 4, 5, 8)).astype("float32")
    image = notebook.layers.Input((None, None, 8))
    block = notebook.keras.Model(image, notebook.residual_block(image, 8))
    np.testing.assert_allclose(block(feature_map), feature_map, atol=1e-6)


def test_muon_works_on_the_matrices_but_not_on_the_last_layers(notebook):
    """What has a velocity is AdamW's."""
    captioner = new_captioner(notebook)
    notebook.compile_for_training(captioner, 100, 1e-3)
    velocities = captioner.optimizer.adam_velocities
    adamw = {
        variable.path
        for variable, velocity in zip(captioner.trainable_variables, velocities, strict=True)
        if velocity is not None
    }
    decoder = captioner.decoder
    assert {decoder.logits.kernel.path, decoder.attention.score.kernel.path} <= adamw
    assert decoder.embedding.embeddings.path in adamw
    convolutions = [layer for layer in captioner.encoder.layers if hasattr(layer, "gain")]
    assert len(convolutions) == 10
    for layer in convolutions:
        assert layer.kernel.path not in adamw
        assert {layer.gain.path, layer.bias.path} <= adamw


def test_multiply_adds(notebook):
    image = notebook.layers.Input((None, None, 3))
    x = notebook.StandardizedConv(4, size=3, strides=2)(image)  # 4×5 positions, 3·3·3·4 each
    x = notebook.StandardizedConv(5, size=1)(x)  # 4×5 positions, 4·5 each
    encoder = notebook.keras.Model(image, notebook.layers.ReLU()(x))
    assert notebook.multiply_adds(encoder, random_images(2, 8, 10)) == 20 * 108 + 20 * 20


def test_places(notebook):
    """Every cell has a vector of its own, which depends on its share of the picture alone."""
    places = notebook.places(3, 5, waves=4).numpy()
    assert places.shape == (3, 5, 8)
    for row, column, wave in itertools.product(range(3), range(5), range(4)):
        down, across = np.cos(np.pi * wave * np.array([(row + 0.5) / 3, (column + 0.5) / 5]))
        assert places[row, column, wave] == pytest.approx(down, abs=1e-6)
        assert places[row, column, 4 + wave] == pytest.approx(across, abs=1e-6)
    assert len(np.unique(places.reshape(15, 8).round(4), axis=0)) == 15


def test_attention(notebook):
    """Weights and context are what Bahdanau's formula gives in NumPy."""
    rng = np.random.default_rng(3)
    feature_map = rng.normal(size=(4, 2, 3, 5)).astype("float32")
    features = feature_map.reshape(4, 6, 5)
    state = rng.normal(size=(4, 7)).astype("float32")
    layer = notebook.BahdanauAttention(units=8)
    layer(state, layer.keys(feature_map), features)
    for variable in layer.trainable_variables:  # untrained ones are too alike to tell much
        variable.assign(rng.normal(size=variable.shape))
    context, weights = (x.numpy() for x in layer(state, layer.keys(feature_map), features))

    place = notebook.places(2, 3).numpy().reshape(6, -1)
    keys = features @ layer.features_to_keys.kernel.numpy() + layer.features_to_keys.bias.numpy()
    keys += place @ layer.places_to_keys.kernel.numpy()
    query = state @ layer.state_to_query.kernel.numpy()
    scores = np.tanh(query[:, None] + keys) @ layer.score.kernel.numpy()[:, 0]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert weights.shape == (4, 6) and context.shape == (4, 5)
    assert weights.max() > 0.5, "the weights are far from equal"
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(context, np.einsum("bp,bpf->bf", expected, features), atol=1e-5)


def test_attention_of_reading_sums_to_one(notebook):
    captioner = notebook.Captioner()
    images = random_images(3, 80, 150)
    logits, weights = captioner.read(images)
    rows, columns = captioner.encoder(images).shape[1:3]
    assert logits.shape == (3, 6, 30) and weights.shape == (3, 6, rows * columns)
    np.testing.assert_allclose(weights.numpy().sum(axis=2), 1, atol=1e-5)


def test_masked_loss(notebook):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(5, 6, 30)).astype("float32") * 3
    targets = rng.integers(2, 30, size=(5, 6)).astype("int32")
    targets[0, 4:], targets[1, 5:], targets[2, 1:] = 0, 0, 0
    losses = [
        np.mean(
            [
                np.log(np.exp(logits[i, j]).sum()) - logits[i, j, targets[i, j]]
                for j in range(length)
            ]
        )
        for i, length in enumerate([4, 5, 1, 6, 6])
    ]
    np.testing.assert_allclose(notebook.masked_loss(targets, logits), losses, rtol=1e-5)


def test_word_accuracy(notebook):
    targets = np.array([[3, 4, 2, 0], [3, 4, 5, 2], [3, 2, 0, 0], [3, 2, 0, 0]], "int32")
    read = np.array([[3, 4, 2, 9], [3, 4, 6, 2], [3, 2, 0, 2], [3, 3, 0, 0]])
    logits = np.eye(30, dtype="float32")[read]
    assert notebook.word_accuracy(targets, logits).numpy().tolist() == [1, 0, 1, 0]


def test_teacher_forcing_and_greedy_decoding_get_the_same_words_right(tiny, stand_in):
    """In a half-trained model, which gets some words right and others wrong."""
    words = [stand_in.word_of(index, seed=4) for index in range(60)]
    tokens = tiny.tokenize(words, tiny.tokenizer)
    images = random_images(60)
    captioner = tiny.Captioner()
    captioner((images, tokens[:, :-1]))  # builds the weights
    tiny.compile_for_training(captioner, steps=400, peak=3e-3)
    for _ in range(40):
        captioner.fit((images, tokens[:, :-1]), tokens[:, 1:], batch_size=60, epochs=10, verbose=0)
        logits = captioner((images, tokens[:, :-1]))
        right = tiny.word_accuracy(tokens[:, 1:], logits).numpy().astype(bool)
        if right.mean() > 0.2:
            break
    reader = tiny.Reader(captioner)
    reader.compile()
    readings, _ = tiny.read_words(reader.predict(images, verbose=0)[0], tiny.tokenizer)
    forced, _ = tiny.read_words(logits.numpy(), tiny.tokenizer)
    assert 0.1 < right.mean() < 0.9
    assert right.tolist() == [
        reading == word for reading, word in zip(readings, words, strict=True)
    ]
    assert forced != readings, "the two differ on words that are wrong"
    evaluated = captioner.evaluate((images, tokens[:, :-1]), tokens[:, 1:], verbose=0)[1]
    assert evaluated == pytest.approx(right.mean(), abs=1e-6)


def test_probability_of_a_reading(notebook):
    end, a, b = map(notebook.tokenizer.get_vocabulary().index, ("<end>", "a", "b"))
    probabilities = np.full((2, 4, 30), 1e-9)
    for step, token, share in [(0, a, 0.9), (1, b, 0.8), (2, end, 0.7), (3, a, 0.6)]:
        probabilities[:, step, token] = share
        probabilities[:, step, 20] = 1 - share
    probabilities[1, 2, end], probabilities[1, 2, a] = 1e-9, 0.7
    readings, shares = notebook.read_words(np.log(probabilities), notebook.tokenizer)
    assert readings == ["ab", "abaa"]
    np.testing.assert_allclose(shares, [0.9 * 0.8 * 0.7, 0.9 * 0.8 * 0.7 * 0.6], rtol=1e-5)


# --- Training -------------------------------------------------------------------------------------


def test_learns_64_images_by_heart(notebook, stand_in, tmp_path):
    """With the notebook's own training, without augmentation, in the machine's best precision."""
    notebook.keras.config.set_dtype_policy(notebook.best_precision())
    notebook.shrink_all(draw_files(stand_in, tmp_path / "images", 64), notebook.CACHE)
    notebook.TOTAL = 64
    words = [stand_in.word_of(index, seed=4) for index in range(64)]
    tokens = notebook.tokenize(words, notebook.tokenizer)
    captioner = notebook.Captioner()
    batches = notebook.labelled_batches(tokens, 0, 64).unbatch().cache()
    captioner(next(iter(batches.batch(1)))[0])  # builds the weights
    notebook.compile_for_training(captioner, steps=4 * 80, peak=3e-3)
    batches = batches.shuffle(64).batch(16).repeat()
    captioner.fit(batches, epochs=80, steps_per_epoch=4, verbose=0, shuffle=False)
    reader = notebook.Reader(captioner)
    reader.compile()
    logits, _ = reader.predict(notebook.plain_batches(0, 64), verbose=0)
    assert notebook.read_words(logits, notebook.tokenizer)[0] == words


def train(notebook, tokens, folder, callbacks=()):
    """What the training cell does: goes on from the backup in `folder`, if there is one."""
    notebook.keras.utils.set_random_seed(notebook.SEED)
    captioner = notebook.Captioner()
    captioner(next(iter(notebook.training_batches(tokens)))[0])
    notebook.compile_for_training(captioner, steps=4 * notebook.EPOCHS, peak=1e-2)
    states = (folder / f"{name}.weights.h5" for name in ("latest", "best"))
    first_epoch = notebook.restore(captioner, *states) // 4
    if first_epoch == notebook.EPOCHS:
        return captioner
    captioner.fit(
        notebook.training_batches(tokens, first_epoch),
        initial_epoch=first_epoch,
        epochs=notebook.EPOCHS,
        steps_per_epoch=4,
        validation_data=notebook.labelled_batches(tokens, 24, 32),
        callbacks=[*callbacks, *notebook.watch(folder)],
        verbose=0,
        shuffle=False,
    )
    return captioner


@pytest.fixture
def tokens(cached, stand_in):
    """The tokens of the words of 32 images."""
    return cached.tokenize([stand_in.word_of(i, seed=4) for i in range(32)], cached.tokenizer)


def test_interrupted_training_ends_as_if_it_had_not_been(cached, tokens, tmp_path):
    whole = train(cached, tokens, tmp_path / "whole")

    class Interrupt(cached.keras.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            if self.steps == 6:  # of 12, in the middle of the second epoch
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cached, tokens, tmp_path / "cut", [Interrupt()])
    assert len(cached.read_log(tmp_path / "cut" / "log.csv")) == 1
    resumed = train(cached, tokens, tmp_path / "cut")
    assert int(resumed.optimizer.iterations) == 12
    for weight, expected in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-4)

    log = cached.read_log(tmp_path / "cut" / "log.csv")
    assert [row["epoch"] for row in log] == [0, 1, 2]
    assert all(row["seconds"] > 0 and 0 <= row["val_word_accuracy"] <= 1 for row in log)
    assert cached.restore(resumed, tmp_path / "cut" / "best.weights.h5") in (4, 8, 12)


def test_keeps_the_best_state(cached, tokens, tmp_path):
    """It is not overwritten by a worse one, not even after a restart."""
    captioner = train(cached, tokens, tmp_path)
    log = tmp_path / "log.csv"
    best = tmp_path / "best.weights.h5"
    content = best.read_bytes()
    for accuracy, kept in [(0.5, True), (0.25, True), (0.75, False), (0.75, False)]:
        log.write_text("epoch,val_word_accuracy\n0,0.5\n1,0.75\n2,0.5\n")
        best.write_bytes(content)
        callback = cached.Checkpoint(tmp_path)
        callback.set_model(captioner)
        captioner.optimizer.iterations.assign_add(1)
        callback.on_epoch_end(2, {"val_word_accuracy": accuracy})
        assert (best.read_bytes() == content) is kept
    assert cached.restore(captioner, tmp_path / "latest.weights.h5") == 16


@pytest.mark.parametrize("length", [0, 100, 10_000, -1])
def test_a_damaged_state_is_replaced_by_the_best_or_named(cached, tokens, tmp_path, length):
    captioner = train(cached, tokens, tmp_path)
    latest, best = tmp_path / "latest.weights.h5", tmp_path / "best.weights.h5"
    steps = cached.restore(captioner, best)
    latest.write_bytes(latest.read_bytes()[:length])
    assert cached.restore(captioner, latest, best) == steps
    best.write_bytes(best.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"latest\.weights\.h5 can't be read.*\n.*best.*\nDelete"):
        cached.restore(captioner, latest, best)
    assert cached.restore(captioner, tmp_path / "none.weights.h5") == 0


def test_a_half_written_line_of_the_log_is_cut_off(notebook, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("epoch,loss\n0,3.5\n1,")
    assert notebook.read_log(log) == [{"epoch": 0, "loss": 3.5}]
    notebook.watch(tmp_path)
    assert log.read_text() == "epoch,loss\n0,3.5\n"
    assert notebook.read_log(log) == [{"epoch": 0, "loss": 3.5}]


def test_log_keeps_the_last_row_of_each_epoch(notebook, tmp_path):
    path = tmp_path / "log.csv"
    assert notebook.read_log(path) == []
    path.write_text("epoch,loss\n0,3.5\n1,2.5\n1,2.25\n2,1.5\n")
    expected = [{"epoch": 0, "loss": 3.5}, {"epoch": 1, "loss": 2.25}, {"epoch": 2, "loss": 1.5}]
    assert notebook.read_log(path) == expected


def test_digest_of_code_and_settings(notebook):
    def area(side):
        return side * side

    class Square:
        def area(self, side):
            return side * side

    def make(side):
        return side * side + 0

    class Cube:
        def area(self, side):
            return side * side * 6

    digests = [
        notebook.source_digest(code, settings)
        for code in ([area], [make], [Square], [Cube], [area, Cube])
        for settings in ([1, 2], [1, 3])
    ]
    assert len(set(digests)) == len(digests)
    assert notebook.source_digest([area, Cube], [1, 3]) == digests[-1]


# --- Results --------------------------------------------------------------------------------------


def levenshtein(a, b):
    """The least number of insertions, deletions and substitutions that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(row[-1] + 1, previous[j] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def test_character_error_rate(notebook, stand_in):
    rng = np.random.default_rng(3)
    truths = [str(word) for word in rng.choice(stand_in.words(), 300)]
    readings = [*rng.choice(stand_in.words(), 100), *truths[100:200], *([""] * 50)]
    readings += [word[1:] + "e" for word in truths[250:]]
    readings = [str(word) for word in readings]
    expected = sum(map(levenshtein, readings, truths)) / sum(map(len, truths))
    assert 0 < expected < 1
    assert notebook.character_error_rate(readings, truths) == pytest.approx(expected)


def test_character_error_rate_at_its_ends(notebook):
    assert notebook.character_error_rate(["lot", "toe"], ["lot", "toe"]) == 0
    assert notebook.character_error_rate(["", ""], ["lot", "toe"]) == 1
    assert notebook.character_error_rate(["lottery"], ["lot"]) == pytest.approx(4 / 3)


def test_answer_file(notebook, tmp_path):
    path = tmp_path / "answers.txt"
    notebook.write_answers(path, 120_000, ["thus", "www", "", "ids"])
    lines = path.read_bytes().split(b"\n")
    assert lines[:2] == [b"a120000 thus", b"a120001 www"] and lines[3:] == [b"a120003 ids", b""]
    assert notebook.re.fullmatch(rb"a120002 [a-z]+", lines[2]), "an empty reading has a word too"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("bad", ["Tied", "ti3d", "tied up", "tied\n", "tïed"])
def test_bad_answers_leave_the_old_file(notebook, tmp_path, bad):
    path = tmp_path / "answers.txt"
    path.write_text("the old file")
    with pytest.raises(ValueError):
        notebook.write_answers(path, 120_000, ["thus", "www", bad])
    assert path.read_text() == "the old file"


def test_failed_writing_leaves_the_old_file(notebook, tmp_path, monkeypatch):
    path = tmp_path / "answers.txt"
    path.write_text("the old file")
    write_text = notebook.Path.write_text

    def fill_the_disk(self, text, **options):
        write_text(self, text[: len(text) // 2], **options)
        raise OSError("no space left on device")

    monkeypatch.setattr(notebook.Path, "write_text", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        notebook.write_answers(path, 120_000, ["thus", "www"])
    assert path.read_text() == "the old file"


def test_digest_of_the_code_cells(notebook, tmp_path):
    """It follows the code, not the outputs or the prose."""

    def digest(code, prose="words", outputs=()):
        cells = [
            {"cell_type": "markdown", "source": [prose]},
            {"cell_type": "code", "source": code, "outputs": list(outputs)},
        ]
        path = tmp_path / "notebook.ipynb"
        path.write_text(json.dumps({"cells": cells}))
        return notebook.code_digest(path)

    assert digest(["x = 1\n", "x"]) == digest(["x = 1\n", "x"], "other words", ["1"])
    assert digest(["x = 1\n", "x"]) != digest(["x = 2\n", "x"])


def test_bar_leaves_its_last_line(notebook, monkeypatch):
    shown = []
    handle = notebook.inspect.types.SimpleNamespace(
        update=lambda data, raw: shown.append(data["text/plain"])
    )
    monkeypatch.setattr(notebook, "display", lambda *args, **options: handle)
    assert list(notebook.bar(range(3), desc="three", mininterval=0)) == [0, 1, 2]
    assert "three: 100%" in shown[-1] and "3/3" in shown[-1]
    assert all(text and "\r" not in text and "\n" not in text for text in shown)


def test_pictures_of_attention(notebook):
    figure, axes = notebook.plt.subplots(1, 6)
    weights = np.random.default_rng(3).random((6, 2, 4))
    notebook.show_attention(axes, random_images(1)[0], "lot", weights)
    assert [axis.get_title() for axis in axes] == ["l", "o", "t", "<end>", "", ""]
    assert [len(axis.images) for axis in axes] == [2, 2, 2, 2, 0, 0]
    assert axes[0].images[1].get_extent() == [0, 16, 8, 0]
    notebook.plt.close(figure)
