"""What the notebook and README are as documents: length, order, figures, and files beside them."""

import re
import subprocess
import sys

import conftest
import pytest
from conftest import CELLS, ROOT, cells_of, noise_of, outputs_of

CONTENT = conftest.load_notebook()
PROSE = [cell["source"] for cell in cells_of(CONTENT, "markdown")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [[line for line in code.splitlines() if line.strip()] for code in CELLS.values()]


def words_of(text):
    """How many words a text has; a picture in it counts for nothing."""
    return len(re.sub(r"\(data:[^)]*\)", "", text).split())


def test_are_short():
    assert len(CONTENT["cells"]) <= 95 and len(CELLS) == len(cells_of(CONTENT))
    assert sum(map(len, LINES)) <= 562
    assert max(map(len, LINES)) <= 22
    assert sum(code.count("raise ") for code in CELLS.values()) <= 8
    assert words_of("\n".join(PROSE)) <= 3_600
    numbers = re.findall(r"^## (\d+) ", "\n".join(PROSE), re.MULTILINE)
    assert [*map(int, numbers)] == list(range(1, 16))
    assert words_of(README) <= 600
    assert words_of((ROOT / "data" / "README.md").read_text(encoding="utf-8")) <= 400
    assert conftest.find_notebook().stat().st_size < 3_000_000


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_ruff(command):
    line = [sys.executable, "-m", "ruff", *command.split(), "--no-cache", "."]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ran_in_order_without_errors_and_noise():
    counts = [cell["execution_count"] for cell in cells_of(CONTENT)]
    assert counts == list(range(1, len(counts) + 1))
    assert outputs_of(CONTENT) and noise_of(CONTENT) == []
    texts = [str(o.get("text", o.get("data", {}).get("text/plain"))) for o in outputs_of(CONTENT)]
    assert [text for text in texts if re.search(r"/(home|root|tmp|work|Users)/", text)] == []


def test_figures_are_those_of_the_run():
    """In README, and in the notebook's table at a glance."""
    results = conftest.results_of(CONTENT)
    table = PROSE[0]
    assert "stand-in's images" in README and "stand-in" in table
    for name in ("validation_word_accuracy", "validation_word_accuracy_greedy"):
        figure = f"{results[name]:.2%}".replace("%", " %")
        for text in (README, table):
            text = re.sub(r"[\u00a0\u202f]", " ", text)
            assert re.search(rf"(?<![\d.,]){re.escape(figure)}", text), figure
    assert f" {results['training_minutes']} minutes" in table
