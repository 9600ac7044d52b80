"""What the report shows: attention on letters, mistakes, confidence, and any image file read."""

import re
import string

import keras
import numpy as np
import pytest
from conftest import ROOT, STAND_IN_SEED, random_images
from PIL import Image

GENUINE = sorted((ROOT.parent / "shared" / "reference").glob("*.png"))


@pytest.fixture
def picture(stand_in):
    """One image of the stand-in."""
    return stand_in.draw(1, seed=4)[0]


@pytest.fixture
def trained(notebook, recorded_captioner, stand_in, monkeypatch):
    """The notebook with a reader that has the committed weights."""
    reader = notebook.Reader(recorded_captioner)
    reader.compile()
    blank = np.zeros((1, notebook.HEIGHT, notebook.WIDTH, 3), np.uint8)
    rows, columns = recorded_captioner.encoder(blank).shape[1:3]
    values = {"reader": reader, "captioner": recorded_captioner, "rows": rows, "columns": columns}
    values["lexicon"] = stand_in.words()
    for name, value in values.items():
        monkeypatch.setattr(notebook, name, value, raising=False)
    return notebook


# --- What the decoder looks at --------------------------------------------------------------------


def test_centre_of_attention(notebook):
    maps = np.full((2, 3, 4), 0.01)
    maps[0, 1, 0] = maps[1, 0, 2] = maps[1, 2, 3] = 0.9
    assert notebook.attention_centres(maps) == pytest.approx([0.125, 0.75])
    everything = notebook.attention_centres(maps, least=0)
    assert 0.125 < everything[0] < 0.5 < everything[1] < 0.75  # the rest pulls to the middle


@pytest.mark.parametrize("value", [0.1, 1.0])
def test_even_attention_is_centred_and_has_no_outline(notebook, value):
    even = np.full((3, 4), value)
    assert notebook.attention_centres(even) == pytest.approx(0.5)
    figure, axis = notebook.plt.subplots()
    notebook.outline(axis, (12, 16), even)
    assert not axis.collections
    notebook.plt.close(figure)


def test_outline_lies_around_the_peak(notebook):
    step = np.full((5, 10), 0.01)
    step[1, 7] = 0.5
    figure, axis = notebook.plt.subplots()
    notebook.outline(axis, (50, 100), step)
    (lines,) = axis.collections
    x, y = np.concatenate([path.vertices for path in lines.get_paths()]).T
    assert 65 <= x.min() < 75 < x.max() <= 85
    assert 5 <= y.min() < 15 < y.max() <= 25
    notebook.plt.close(figure)


def test_drawing_again_tells_font_and_boxes(notebook, stand_in):
    fonts = set()
    for index in range(30):
        image, word, boxes = stand_in.draw(index, seed=4)
        font, shares = notebook.redraw(index, 4)
        fonts.add(font)
        assert shares.shape == (len(word), 4)
        assert shares * [*image.size, *image.size] == pytest.approx(np.array(boxes))
    assert len(fonts) > 2
    assert fonts <= {path.stem for path in (ROOT / "data" / "fonts").glob("*.ttf")}


def test_attention_lies_on_the_letters(trained, results, stand_in):
    first = results["images"]["train"]
    drawn = [stand_in.draw(index, STAND_IN_SEED) for index in range(first, first + 300)]
    small = [image.resize((trained.WIDTH, trained.HEIGHT), Image.BOX) for image, _, _ in drawn]
    logits, weights = trained.reader.predict(np.stack(small), batch_size=100, verbose=0)
    readings, _ = trained.read_words(logits, trained.tokenizer)
    maps = weights.reshape(len(drawn), trained.STEPS, trained.rows, trained.columns)
    centres = stand_in.WIDTH * trained.attention_centres(maps)
    half_a_cell = stand_in.WIDTH / trained.columns / 2
    on_letter, in_word, moves = [], [], []
    for (_, word, boxes), reading, places in zip(drawn, readings, centres, strict=True):
        if reading == word:
            begin, end = np.array(boxes)[:, [0, 2]].T
            places = places[: len(word)]
            near = (begin - half_a_cell < places) & (places < end + half_a_cell)
            on_letter += near.tolist()
            in_word += ((begin[0] <= places) & (places <= end[-1])).tolist()
            moves += (np.diff(places) > 0).tolist()
    assert len(in_word) > 300
    assert np.mean(on_letter) > 0.7
    assert np.mean(in_word) > 0.8
    assert np.mean(moves) > 0.9


# --- Mistakes -------------------------------------------------------------------------------------


def test_letters_right_at_each_place(notebook):
    readings = ["lot", "lit", "", "lots", "ot"]
    assert notebook.letters_right(readings, ["lot"] * 5) == pytest.approx([0.6, 0.4, 0.6])


def test_letter_swaps(notebook):
    swaps = notebook.letter_swaps(["lot", "lit", "tol", "lots", ""], ["lot"] * 5)
    assert swaps == {("o", "i"): 1, ("l", "t"): 1, ("t", "l"): 1}


def test_reliability_of_a_model_that_knows_how_sure_it_may_be(notebook):
    random = np.random.default_rng(6)
    confidences = random.random(50_000)
    right = random.random(50_000) < confidences
    sure, share, count = notebook.reliability(confidences, right).T
    assert sure == pytest.approx(np.arange(0.05, 1, 0.1), abs=0.01)
    assert share == pytest.approx(sure, abs=0.03)
    assert count.sum() == 50_000


def test_reliability_leaves_empty_bins_out(notebook):
    bins = notebook.reliability(np.array([0.0, 1.0, 0.97]), np.array([False, True, False]))
    assert bins == pytest.approx(np.array([[0, 0, 1], [0.985, 0.5, 2]]))


# --- Try your own ---------------------------------------------------------------------------------


def saved(image, path, **options):
    image.save(path, **options)
    return path


def deep(picture):
    """A picture in grey, as whole numbers of 16 bits."""
    return np.asarray(picture.convert("L")).astype("uint16") * 257


def test_opens_an_image_as_the_cache_has_it(notebook, picture, tmp_path):
    path = saved(picture, tmp_path / "a0.png")
    assert np.array_equal(notebook.open_image(path), notebook.shrink(str(path)).numpy())


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *[(mode, "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
        *[(mode, "tif") for mode in ("CMYK", "YCbCr", "I", "F")],
        *[("RGB", suffix) for suffix in ("jpg", "gif", "bmp", "webp")],
    ],
)
def test_opens_every_mode(notebook, picture, tmp_path, mode, suffix):
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": "uint16", "I": "int32", "F": "float32"}[mode]
        converted = Image.fromarray(deep(picture).astype(kind))
    else:
        converted = picture.convert(mode)
    path = saved(converted, tmp_path / f"image.{suffix}")
    opened = notebook.open_image(path)
    expected = notebook.open_image(saved(picture, tmp_path / "image.png"))
    assert opened.shape == (notebook.HEIGHT, notebook.WIDTH, 3) and opened.dtype == np.uint8
    assert np.abs(opened.mean(axis=2) - expected.mean(axis=2)).mean() < 6


def test_transparency_is_laid_on_white(notebook, picture, tmp_path):
    pixels = np.array(picture.convert("RGBA"))
    pixels[(pixels == 255).all(axis=-1)] = 0
    clear = notebook.open_image(saved(Image.fromarray(pixels), tmp_path / "clear.png"))
    assert np.array_equal(clear, notebook.open_image(saved(picture, tmp_path / "white.png")))


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (150, 80), (334, 178), (1200, 640)])
def test_opens_every_size(notebook, picture, tmp_path, size):
    opened = notebook.open_image(saved(picture.resize(size), tmp_path / "image.png"))
    assert opened.shape == (notebook.HEIGHT, notebook.WIDTH, 3)


def test_another_shape_is_padded_not_stretched(notebook, tmp_path):
    square = saved(Image.new("RGB", (320, 320), "black"), tmp_path / "square.png")
    black = np.argwhere(notebook.open_image(square)[..., 0] < 128)
    assert black.min(axis=0).tolist() == [0, 35] and black.max(axis=0).tolist() == [79, 114]


@pytest.mark.parametrize("content", ["text", "nothing", "half", "no file"])
def test_names_the_file_that_is_no_image(notebook, picture, tmp_path, content):
    path = tmp_path / "image.png"
    if content == "half":
        path.write_bytes(saved(picture, path).read_bytes()[:9000])
    elif content != "no file":
        path.write_text("" if content == "nothing" else "no image")
    with pytest.raises(ValueError, match=re.escape(f"{path} can't be read as an image")):
        notebook.open_image(path)


def test_reads_one_file(trained, results, stand_in, tmp_path):
    index = results["images"]["train"]
    path = saved(stand_in.draw(index, STAND_IN_SEED)[0], tmp_path / f"a{index}.png")
    word, confidence, maps = trained.read(path)
    logits, weights = trained.reader.predict(trained.shrink(str(path)).numpy()[None], verbose=0)
    (expected,), (probability,) = trained.read_words(logits, trained.tokenizer)
    assert word == expected
    assert confidence == pytest.approx(probability, abs=0.05)
    assert maps.shape == (min(len(word) + 1, trained.STEPS), trained.rows, trained.columns)
    assert maps.sum(axis=(1, 2)) == pytest.approx(np.ones(len(maps)), abs=1e-3)
    assert maps.ravel() == pytest.approx(weights[0, : len(maps)].ravel(), abs=0.02)


def probability(trained, word, image):
    """Of a word in an image, over its copies: the geometric mean of what each copy gives it."""
    copies = trained.make_copies(image, trained.COPIES)
    spelled = trained.tokenize([word], trained.tokenizer).repeat(len(copies), axis=0)
    logits, _ = trained.captioner.unroll(copies, spelled, training=False)
    log_p = keras.ops.convert_to_numpy(keras.ops.log_softmax(logits))
    following = spelled[:, 1:]
    log_p = np.take_along_axis(log_p, following[..., None], axis=-1)[..., 0]
    return np.exp((log_p * (following > 0)).sum(axis=1).mean())


def test_most_probable_word(trained, picture):
    """The best of the choices, whatever else is in the picture, with its probability."""
    image = np.asarray(picture.resize((trained.WIDTH, trained.HEIGHT)))
    choices = ["lot", "apple", "zoo", "tied"]
    expected = {choice: probability(trained, choice, image) for choice in choices}
    word, found = trained.most_probable(choices, image)
    assert word == max(expected, key=expected.get)
    assert found == pytest.approx(expected[word], rel=0.2)
    assert trained.most_probable([word], image)[1] == pytest.approx(found, rel=0.2)


@pytest.mark.parametrize(("of_lexicon", "gives_way"), [(0.021, True), (0.019, False)])
def test_an_unsure_reading_gives_way(
    trained, picture, tmp_path, monkeypatch, of_lexicon, gives_way
):
    """To a word of the lexicon that is more than a tenth as probable; the maps are its own."""
    path = saved(picture, tmp_path / "image.png")
    own, _, own_maps = trained.read(path)

    def most_probable(choices, image):
        assert np.array_equal(image, trained.open_image(path))
        return (own, 0.2) if choices == [own] else (choices[0], of_lexicon)

    monkeypatch.setattr(trained, "most_probable", most_probable)
    monkeypatch.setattr(trained, "lexicon", ["www"])
    assert trained.read(path)[0] == own  # sure, so nothing is asked
    monkeypatch.setattr(trained, "SURE", 1)
    word, confidence, maps = trained.read(path)
    assert (word, confidence) == (("www", of_lexicon) if gives_way else (own, 0.2))
    assert maps.shape == (len(word) + 1, trained.rows, trained.columns)
    assert maps.sum(axis=(1, 2)) == pytest.approx(np.ones(len(maps)), abs=1e-2)
    if not gives_way:
        assert maps.ravel() == pytest.approx(own_maps.ravel(), abs=0.02)


def test_noise_is_read_without_failing(trained, tmp_path):
    noise = saved(Image.fromarray(random_images(1, 320, 600)[0]), tmp_path / "noise.png")
    word, confidence, _ = trained.read(noise)
    assert 0 < confidence <= trained.SURE and set(word) <= set(string.ascii_lowercase)


@pytest.mark.skipif(not GENUINE, reason="no genuine images beside the project")
def test_reads_genuine_images(trained):
    """All are right, as README says; `pytest -rP` shows what is read."""
    wrong = []
    for path in GENUINE:
        word, confidence, _ = trained.read(path)
        print(f"{path.name}: {word} ({confidence:.0%})")
        assert word and set(word) <= set(string.ascii_lowercase)
        assert 0 < confidence <= 1
        if not path.stem.endswith(f"-{word}"):
            wrong.append(f"{path.name} read as {word}")
    assert not wrong
