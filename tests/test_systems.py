"""The lecture's systems, each with the notebook's own training code."""

import json

import numpy as np
import pytest
from test_notebook import draw_files

NAMES = ["NIC", "m-RNN", "Seq2Seq", "soft attention"]


@pytest.fixture
def features(notebook):
    """The feature maps of 3 images."""
    return notebook.ops.convert_to_tensor(
        np.random.default_rng(3).random((3, 2, 4, 5), dtype=np.float32)
    )


def run(notebook, decoder, feature_map, steps=3, change=None):
    """The logits of some steps, all given the same token; from step `change` on, of no image."""
    cells = notebook.flatten_cells(feature_map)
    state, memory = decoder.start(feature_map)
    token = notebook.ops.full((3,), notebook.START, dtype="int32")
    logits = []
    for step in range(steps):
        if step == change:
            blank = notebook.ops.zeros_like(feature_map)
            cells, (_, memory) = notebook.flatten_cells(blank), decoder.start(blank)
        step_logits, state, weights = decoder(token, state, memory, cells)
        np.testing.assert_allclose(weights.numpy().sum(axis=1), 1, atol=1e-5)
        logits.append(step_logits.numpy())
    return np.stack(logits)


@pytest.mark.parametrize(
    ("name", "sees"),
    [("NIC", False), ("m-RNN", True), ("Seq2Seq", False), ("soft attention", True)],
)
def test_which_systems_see_the_image_again(notebook, features, name, sees):
    """NIC and Seq2Seq have it from their state alone, m-RNN and attention at every step."""
    decoder = notebook.SYSTEMS[name]()
    whole = run(notebook, decoder, features)
    hidden = run(notebook, decoder, features, change=1)
    np.testing.assert_array_equal(whole[0], hidden[0])
    assert (np.abs(whole[1:] - hidden[1:]).max() > 1e-6) == sees
    other = run(notebook, decoder, features[::-1])
    assert np.abs(whole - other).max() > 1e-6, "another image gives other logits"


def test_states_that_see_no_image(notebook, features):
    """Two images put m-RNN into the same first state, the others into different ones."""
    same = {}
    for name, decoder in notebook.SYSTEMS.items():
        state, _ = decoder().start(features)
        first = notebook.ops.convert_to_numpy(notebook.keras.tree.flatten(state)[0])
        same[name] = np.allclose(first[0], first[1], atol=1e-7)
    assert same == {name: name == "m-RNN" for name in NAMES}


def test_image_vector_tells_places_apart(notebook):
    """Two cells changing places change it, though the features are the same."""
    feature_map = np.random.default_rng(3).random((1, 2, 4, 5), dtype=np.float32)
    swapped = feature_map.copy()
    swapped[0, 0, 0], swapped[0, 1, 3] = feature_map[0, 1, 3], feature_map[0, 0, 0]
    layer = notebook.ImageVector(256)
    vectors = [layer(x).numpy() for x in (feature_map, swapped)]
    assert vectors[0].shape == (1, 256)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-5


def test_letter_accuracy(notebook):
    targets = np.array([[3, 4, 2, 0], [3, 4, 5, 2], [3, 2, 0, 0]], "int32")
    read = np.array([[3, 4, 2, 9], [3, 9, 6, 2], [9, 9, 0, 0]])
    logits = np.eye(30, dtype="float32")[read]
    assert notebook.letter_accuracy(targets, logits).numpy().tolist() == [1, 0.5, 0]


def test_blind_guesses(notebook):
    """The most frequent token after the same beginning; none after one that is not known."""
    start, end = 2, 3
    known = [[start, 5, 6, end], [start, 5, 7, end], [start, 5, 7, end], [start, 8, end, 0]]
    tokens = np.array([[start, 5, 6, end], [start, 9, 6, end]], "int32")
    guesses = notebook.blind_guesses(np.array(known, "int32"), tokens)
    assert guesses.tolist() == [[5, 7, end], [5, 0, 0]]


def test_judges_words_by_length(notebook):
    rows = [[5, 6, 7, 3, 0], [5, 6, 8, 3, 0], [5, 6, 7, 8, 3]]
    targets = np.array(rows, "int32")
    logits = 9 * np.eye(30, dtype="float32")[targets]
    logits[1, 0] = 9 * np.eye(30)[20]
    figures = notebook.judge(targets, logits)
    assert figures["of 3"] == 0.5 and figures["of 4"] == 1
    assert figures["words"] == pytest.approx(2 / 3)
    assert figures["letters"] == pytest.approx((1 + 3 / 4 + 1) / 3)
    assert figures["loss"] == pytest.approx(np.mean(notebook.masked_loss(targets, logits)))


# --- Training -------------------------------------------------------------------------------------


@pytest.fixture
def drawn(notebook, stand_in, tmp_path, monkeypatch):
    """The tokens of 64 drawn images, which are in the notebook's cache; in the best precision."""
    notebook.keras.config.set_dtype_policy(notebook.best_precision())
    monkeypatch.setattr(notebook, "TOTAL", 64)
    monkeypatch.setattr(notebook, "BATCH_SIZE", 8)
    notebook.shrink_all(draw_files(stand_in, tmp_path / "images", 64), notebook.CACHE)
    words = [stand_in.word_of(index, seed=4) for index in range(64)]
    return notebook.tokenize(words, notebook.tokenizer)


@pytest.mark.parametrize("name", NAMES)
def test_learns_64_images_by_heart(notebook, drawn, tmp_path, name):
    """At half the size, without augmentation, with the code and the rate of the comparison."""

    def halve(inputs, targets):
        images = notebook.tf.cast(inputs[0], "float32")
        return (notebook.tf.nn.avg_pool2d(images, 2, 2, "VALID"), inputs[1]), targets

    whole = notebook.labelled_batches(drawn, 0, 64).map(halve)
    rows = notebook.tf.data.Dataset.from_tensor_slices(next(iter(whole)))
    figures = notebook.train_system(
        tmp_path / "system.json",
        notebook.build_encoder,
        notebook.SYSTEMS[name],
        rows.shuffle(64, seed=1).repeat().batch(8),
        rows.batch(64),
        images=64 * 40,
    )
    print(f"{name}: loss {figures['loss']:.3f}, words {figures['words']:.1%}")
    assert figures["words"] == 1
    assert json.loads((tmp_path / "system.json").read_text()) == figures


def test_finished_system_is_not_trained_again(notebook, tmp_path):
    path = tmp_path / "system.json"
    path.write_text('{"words": 0.25}')
    assert notebook.train_system(path, None, None, None, None, images=64) == {"words": 0.25}
    assert notebook.train_inception(path, None, 64, 64) == {"words": 0.25}


# --- InceptionV3 ----------------------------------------------------------------------------------


def test_inception_with_random_weights_learns_64_images_by_heart(
    notebook, drawn, tmp_path, monkeypatch
):
    for name, value in {"tokens": drawn, "TRAIN": 60, "QUICK": False}.items():
        monkeypatch.setattr(notebook, name, value, raising=False)
    figures = notebook.train_inception(tmp_path / "system.json", None, trained_on=64, tried_on=4)
    print(f"loss {figures['loss']:.3f}, letters {figures['log']['letter_accuracy'][-1]:.1%}")
    assert figures["log"]["letter_accuracy"][-1] > 0.9, "of the images in training"
    assert figures["words"] == 1, "the last 4 of them are those it is tried on"


def test_inception_weights_are_taken_from_where_they_lie(notebook, tmp_path, monkeypatch):
    """In data/ first, then in Keras' own folder; None where there are none."""
    (tmp_path / "data").mkdir()
    (tmp_path / "keras" / "models").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert notebook.find_inception_weights() is None
    in_keras = tmp_path / "keras" / "models" / notebook.INCEPTION_WEIGHTS
    in_keras.touch()
    assert notebook.find_inception_weights() == in_keras
    in_data = notebook.Path("data") / notebook.INCEPTION_WEIGHTS
    in_data.touch()
    assert notebook.find_inception_weights() == in_data
