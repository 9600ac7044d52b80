"""The committed notebook shows one whole run at full size, and its figures are those told."""

import hashlib
import re

from conftest import (
    LABELS,
    NOTEBOOK,
    ROOT,
    STAND_IN_SEED,
    cells_of,
    execution_counts,
    figures,
    noise_of,
    outputs_of,
    source,
)

README = (ROOT / "README.md").read_text(encoding="utf-8")

# What README's table calls the figures.
ROWS = {
    "validation words right, greedy decoding": "validation_word_accuracy_greedy",
    "validation words right, with the lexicon": "validation_word_accuracy",
    "test words right": "test_word_accuracy",
    "character error rate on validation": "validation_character_error_rate",
    "parameters of the network": "parameters",
    "million floating-point operations an image": "megaflops_per_image",
    "epochs": "epochs",
    "minutes of training": "training_minutes",
    "of these, until 90 % were right": "minutes_to_90_percent",
    "minutes for the whole notebook": "notebook_minutes",
    "images a second, training": "training_images_per_second",
    "images a second, reading": "prediction_images_per_second",
    "peak memory, GiB": "peak_memory_gib",
    "device": "device",
    "precision": "precision",
}


def stands_in(figure, text):
    """Whether a text has the figure, and not just as part of a longer number."""
    return re.search(rf"(?<![\d.,]){re.escape(figure)}(?![.,]?\d)", text) is not None


def percentages(text):
    """All shares that a text gives with decimals, such as `97.53 %`."""
    return set(re.findall(r"\d+\.\d+[\s\u00a0\u202f]?%", text))


def test_every_cell_ran_in_order():
    counts = execution_counts(NOTEBOOK)
    assert counts == list(range(1, len(counts) + 1))


def test_no_errors_and_no_noise():
    assert outputs_of(NOTEBOOK)
    assert noise_of(NOTEBOOK) == []


def test_outputs_name_no_folder_of_the_machine():
    """Nothing of where the run took place is left in the outputs."""
    texts = [
        str(output.get("text", output.get("data", {}).get("text/plain")))
        for output in outputs_of(NOTEBOOK)
    ]
    assert [text for text in texts if re.search(r"/(home|root|tmp|work|Users)/", text)] == []


def test_code_is_the_code_that_ran(results, definitions):
    assert results["code_sha256"] == definitions.code_digest(NOTEBOOK)


def test_full_size(results):
    assert results["data"] == "stand-in"
    assert results["images"] == {"train": 100_000, "validation": 20_000, "test": 20_000}
    assert results["trained_in_this_run"] is True
    assert results["notebook_minutes"] <= 75
    assert results["peak_memory_gib"] <= 3
    assert results["training_minutes"] <= 45
    assert results["parameters"] <= 1_500_000
    assert NOTEBOOK.stat().st_size < 4_000_000


def test_accuracy(results):
    assert 0.95 <= results["validation_word_accuracy_greedy"] <= 1
    assert 0.975 <= results["validation_word_accuracy"] <= 1


def test_figures_in_readme(results, answers_accuracy):
    cells = [[cell.strip() for cell in row.split("|")] for row in README.splitlines()]
    table = {row[1]: row[2] for row in cells if len(row) == 4 and row[1] in ROWS}
    expected = figures(results, answers_accuracy)
    assert table == {row: expected[name] for row, name in ROWS.items()}
    assert "{{" not in README


def test_versions_in_readme(results):
    for name, version in results["versions"].items():
        assert stands_in(version, README), name


def test_figures_in_abstract(results, answers_accuracy):
    abstract = source(cells_of(NOTEBOOK, kind="markdown")[0])
    known = figures(results, answers_accuracy)
    for name in (
        "validation_word_accuracy",
        "validation_word_accuracy_greedy",
        "parameters",
        "training_minutes",
    ):
        assert stands_in(known[name], abstract), f"{name}: {known[name]}"


def test_no_other_percentages_are_told(results, answers_accuracy):
    known = percentages(" ".join(figures(results, answers_accuracy).values()))
    abstract = source(cells_of(NOTEBOOK, kind="markdown")[0])
    assert percentages(abstract) <= known
    assert percentages(README) <= known


def test_answer_file(recorded_answers):
    """Every line was checked on reading."""
    assert len(recorded_answers) == 20_000
    assert max(map(len, recorded_answers)) <= 6


def test_labels_are_the_stand_ins(definitions, stand_in):
    content = LABELS.read_bytes()
    assert hashlib.sha256(content).hexdigest() == definitions.STAND_IN_LABELS
    assert content.decode("ascii") == stand_in.labels_text(120_000, STAND_IN_SEED)


def test_answers_are_as_right_as_on_validation(results, answers_accuracy):
    """The two shares come from 20,000 words each, so they differ by chance alone."""
    share = max(results["validation_word_accuracy"], results["validation_word_accuracy_greedy"])
    error = (share * (1 - share) * (1 / 20_000 + 1 / 20_000)) ** 0.5
    assert abs(answers_accuracy - share) <= 4 * error


def test_figures_in_the_prose():
    """Every number in a paragraph on what came out is one that a cell has printed."""
    printed = " ".join("".join(output.get("text", "")) for output in outputs_of(NOTEBOOK)).replace(
        "%", " %"
    )
    paragraphs = [
        text
        for text in map(source, cells_of(NOTEBOOK, kind="markdown"))
        if text.startswith("*What came out.*")
    ]
    assert len(paragraphs) >= 4
    for paragraph in paragraphs:
        for figure in re.findall(r"\d[\d.,]*\d|\d", paragraph):
            assert stands_in(figure, printed), figure
