"""The recorded run: as large and as right as told; and its answers."""

import json
import re

import conftest
import numpy as np
import pytest
import stand_in
from conftest import ROOT, WEIGHTS

CONTENT = conftest.load_notebook()
TEXT = conftest.printed(CONTENT)
RESULTS = conftest.results_of(CONTENT) if TEXT else {"images": None}
KEPT = ROOT / "data" / "recorded.json"
if RESULTS["images"] != [100_000, 20_000, 20_000]:
    pytest.skip("the notebook's run is not a full one", allow_module_level=True)


def test_is_full_and_right():
    assert RESULTS["data"] == "stand-in" and RESULTS["trained_in_this_run"] is True
    assert RESULTS["parameters"] <= 1_500_000
    assert 0.987 <= RESULTS["validation_word_accuracy_greedy"] <= 1
    assert 0.9975 <= RESULTS["validation_word_accuracy"] <= 1


def test_answers_are_as_right_as_those_on_validation():
    """Both are shares of 20,000 words, which differ by chance."""
    (path,) = ROOT.glob("Lab12-2_*.txt")
    words = [stand_in.word_of(index) for index in stand_in.TEST]
    right = np.mean(np.equal(conftest.answers_of(path, 20_000), words))
    share = RESULTS["validation_word_accuracy"]
    assert abs(right - share) <= 4 * (share * (1 - share) / 10_000) ** 0.5


def test_is_steady():
    """No round falls by more than two points once nine of ten words are right."""
    log = json.loads(str(np.load(WEIGHTS)["log"]))
    shares = np.array([row["val_word_accuracy"] for row in log])
    assert shares[-1] > 0.98
    assert np.diff(shares)[shares[:-1] > 0.9].min() >= -0.02


def test_looks_at_the_letter_that_it_writes():
    (share, count), *_ = re.findall(r"([\d.]+)% of ([\d,]+) letters in 600 images", TEXT)
    assert float(share) >= 88 and int(count.replace(",", "")) > 2000


def test_kept_figures_are_those_of_the_notebook():
    kept = json.loads(KEPT.read_text())
    assert kept["results"] == RESULTS
    assert [*kept["systems"]] == ["soft attention", "Seq2Seq", "NIC", "m-RNN"]
    assert kept["systems"]["soft attention"] >= 0.9
