"""The recorded run: full size, as right as told; its answers, and its network on other images."""

import numpy as np
import pytest
import stand_in
from conftest import LABELS, ROOT, WEIGHTS, answers_of

SEED = 2  # of the run's images
GENUINE = sorted((ROOT.parent / "shared" / "reference").glob("*.png"))


def test_full_size(results):
    assert results["data"] == "stand-in"
    assert results["images"] == {"train": 100_000, "validation": 20_000, "test": 20_000}
    assert results["parameters"] <= 1_500_000
    assert results["trained_in_this_run"] is True
    assert 0.985 <= results["validation_word_accuracy_greedy"] <= 1
    assert 0.995 <= results["validation_word_accuracy"] <= 1


def test_answers_are_right(results):
    """All lines are there, in order; no file tells the true words, they are drawn again.

    As right as on validation: both shares come from 20,000 words, so they differ by chance alone.
    """
    (path,) = ROOT.glob("Lab12-2_*.txt")
    answers = answers_of(path, 120_000, 20_000)
    right = [word == stand_in.word_of(120_000 + i, SEED) for i, word in enumerate(answers)]
    assert np.mean(right) >= 0.995
    share = results["validation_word_accuracy"]
    assert abs(np.mean(right) - share) <= 4 * (share * (1 - share) / 10_000) ** 0.5


def test_labels_are_the_stand_ins():
    assert (ROOT / LABELS).read_bytes().decode("ascii") == stand_in.labels_text(120_000, SEED)


@pytest.fixture
def trained(notebook):
    """The notebook with a reader that has the recorded weights."""
    captioner = notebook.Captioner(notebook.build_encoder(), notebook.Decoder())
    images = np.zeros((1, notebook.HEIGHT, notebook.WIDTH, 3), "float32")
    captioner((images, np.zeros((1, notebook.STEPS), "int32")))
    captioner.load_weights(WEIGHTS)
    notebook.reader = notebook.Reader(captioner)
    notebook.rows, notebook.columns = captioner.encoder(images).shape[1:3]
    notebook.lexicon = np.array(stand_in.words())
    notebook.spellings = notebook.spell(notebook.lexicon)
    return notebook


def test_reads_images_drawn_again(trained, tmp_path):
    """Validation images; attention lies on the word for the first three letters."""
    first, count = 100_000, 64
    drawn = [stand_in.draw(index, SEED) for index in range(first, first + count)]
    trained.paths = np.array([str(tmp_path / f"a{index}.png") for index in range(count)])
    for path, (image, _, _) in zip(trained.paths, drawn, strict=True):
        image.save(path)
    truths = np.array([word for _, word, _ in drawn])
    images = trained.image_batches(np.arange(count))
    logits, weights = trained.reader.predict(images, verbose=0)
    readings = np.array(trained.detokenize(logits.argmax(axis=-1)))
    assert np.mean(readings == truths) >= 0.95
    words, confidences = trained.read_with_lexicon(logits, np.arange(count))
    assert np.mean(words == truths) >= 0.95 and 0 < confidences.min() <= confidences.max() <= 1.001
    maps = weights.reshape(count, trained.STEPS, trained.rows, trained.columns)
    centres = (trained.centres(maps) + 0.5) * stand_in.WIDTH / trained.columns
    lefts, rights = np.array([(boxes[0][0], boxes[-1][2]) for _, _, boxes in drawn]).T[..., None]
    assert np.mean(((lefts - 16 < centres) & (centres < rights + 16))[:, :3]) > 0.8
    i = np.argmax(np.where(words == truths, confidences, 0))
    word, probability, maps = trained.read(trained.paths[i])
    assert (word, maps.shape[0]) == (truths[i], len(truths[i]) + 1) and probability > 0.5


@pytest.mark.skipif(not GENUINE, reason="no genuine images beside the project")
def test_reads_genuine_images(trained):
    """All but one, as README says; `pytest -rP` shows how surely."""
    readings = {path.stem: trained.read(path)[:2] for path in GENUINE}
    print(readings)
    wrong = {name for name, (word, _) in readings.items() if not name.endswith(f"-{word}")}
    assert wrong <= {"screenshot-thus"}, wrong
