"""The recorded run: full size, as right as told; its answers, and its network on other images."""

import numpy as np
import stand_in
from conftest import ROOT, WEIGHTS, answers_of, load_notebook, results_of, run_cells

GENUINE = sorted((ROOT.parent / "shared" / "reference").glob("*.png"))
COUNT = 600  # of validation images drawn again


def test_full_size_and_right_answers():
    """On the test as on validation: both are shares of 20,000 words, which differ by chance."""
    results = results_of(load_notebook())
    assert results["data"] == "stand-in" and results["images"] == [100_000, 20_000, 20_000]
    assert results["parameters"] <= 1_500_000
    assert results["trained_in_this_run"] is True
    assert 0.985 <= results["validation_word_accuracy_greedy"] <= 1
    share = results["validation_word_accuracy"]
    assert 0.995 <= share <= 1
    (path,) = ROOT.glob("Lab12-2_*.txt")
    answers = answers_of(path, 20_000)
    right = np.mean([word == stand_in.word_of(120_000 + i) for i, word in enumerate(answers)])
    assert right >= 0.995 and abs(right - share) <= 4 * (share * (1 - share) / 10_000) ** 0.5


def test_reads_other_images(notebook, tmp_path):
    """Attention lies on the letter that is written: the mean place of the cells with at least half
    of the largest weight is in the letter's box. `pytest -rP` shows the figures."""
    drawn = [stand_in.draw(100_000 + index) for index in range(COUNT)]
    for index, (image, _, _) in enumerate(drawn):
        image.save(tmp_path / f"a{100_000 + index}.png", compress_level=1)
    notebook.files, notebook.IMAGES = {}, tmp_path
    notebook.VALIDATED, notebook.VALIDATION = np.arange(100_000, 100_000 + COUNT), COUNT
    notebook.captioner = notebook.Captioner(notebook.build_encoder(), notebook.Decoder())
    notebook.captioner((notebook.image_batch, notebook.token_batch))
    notebook.captioner.load_weights(WEIGHTS)
    run_cells(notebook, "predict", "greedy", "spell", "word_scores", "look_again", "with_lexicon")
    run_cells(notebook, "answers", "show_attention", "read")
    print(f"{notebook.greedy_accuracy:.1%} greedily, {notebook.accuracy:.1%} with the lexicon")
    assert notebook.greedy_accuracy >= 0.98 and notebook.accuracy >= 0.99
    word, probability = notebook.read(tmp_path / "a100000.png")
    assert word == notebook.truths[0] and probability > 0.5
    inside = []
    maps = notebook.attention_weights.reshape(COUNT, -1, 10, 19)
    for letters, (_, _, boxes) in zip(maps, drawn, strict=True):
        for weights, (left, top, right, bottom) in zip(letters, boxes, strict=False):
            weights = np.where(weights >= weights.max() / 2, weights, 0)
            x = np.average(notebook.ACROSS, weights=weights.sum(axis=0))
            y = np.average(notebook.DOWN, weights=weights.sum(axis=1))
            inside.append((left <= x <= right, top <= y <= bottom))
    across, down = np.mean(inside, axis=0)
    print(f"attention lies on {len(inside)} letters: across {across:.1%}, down {down:.1%}")
    assert across >= 0.9 and down >= 0.95
    genuine = {path.stem: notebook.read(path) for path in GENUINE}
    print(genuine)
    wrong = {name for name, (word, _) in genuine.items() if not name.endswith(f"-{word}")}
    assert len(wrong) <= 2, wrong
