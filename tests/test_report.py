"""What the notebook and README are as documents: length, order, pictures, and their figures.

    NOTEBOOK=mine.ipynb pytest tests/test_report.py

lists each sentence of that notebook whose figure is not that run's.
"""

import base64
import os
import re
import subprocess
import sys

import conftest
import pytest
from conftest import CELLS, ROOT, cells_of, noise_of, outputs_of

# In each row # is a figure. That of the prose must be that of the cell, rounded like it.
FIGURES = [  # prose, without its asterisks; the cell; what the cell shows
    ("It reads # of # validation words", "greedy", "# of # words right"),
    ("and # with a list of the words", "look_again", "# of .* words right"),
    ("For # of the letters, the centre", "inside", "^trained: # of .* letters"),
    ("it reads # of new ones", "compare", "'soft attention': '#"),
    ("the best rival #", "compare", "'m-RNN': '#"),
    ("# tokens", "tokenizer", r"\(.*, #\)"),
    ("at most # steps for a word", "tokenizer", r"\(#, "),
    ("#×# pixels", "load", r"\[32, #, #, 3\]"),
    ("#×# cells", "encoder", r"\[32, #, #, "),
    ("cells with # features each; # weights", "encoder", r", #\]\), #\)"),
    ("near ln #", "tokenizer", r"\(.*, #\)"),
    ("its loss is #", "loss", r"\(#"),
    ("# weights in all", "untrained", r"\), #\)"),
    ("Attention reads #,", "compare", "'soft attention': '#"),
    ("m-RNN #", "compare", "'m-RNN': '#"),
    ("Seq2Seq #", "compare", "'Seq2Seq': '#"),
    ("NIC #", "compare", "'NIC': '#"),
    ("after # minutes", "results", "'minutes_to_90_percent': #"),
    ("the end after #", "results", "'training_minutes': #"),
    ("# minutes, two cores", "results", "'training_minutes': #"),
    ("# greedily, ", "greedy", "# of .* words right"),
    ("# with the lexicon, ", "lexicon", "# right, with"),
    ("# with a second look", "look_again", "# of .* words right"),
    (r"then a lexicon\|#", "look_again", "# of .* words right"),
    ("only # words", "lexicon", "the # words of the lexicon"),
    ("For # of the letters the centre", "inside", "^trained: # of .* letters"),
    ("letter's box, untrained #", "inside", "untrained: # of .* letters"),
    ("# of [0-9.,]+ mistakes change", "kinds", "'one letter changed': #"),
    ("of # mistakes change", "kinds", "# mistakes"),
    ("; # leave one out", "kinds", "'one letter left out': #"),
    ("# lines", "test", ", # lines"),
    ("costs # ms an image at half size, # at full", "speed", "whole step +# +#"),
    ("with Keras' own, it costs #", "speed", "Keras' normalization +[0-9.]+ +#"),
    ("in the small world # of the words are read", "speed", "^small world +#"),
    ("without the average #", "speed", "without average +#"),
    ("in place of Muon #", "speed", "with adamw +#"),
    ("With the features #", "learn_frozen", "features: #"),
    ("without an image #", "learn_frozen", "zeros: #"),
    ("quarter of the rate #", "speed", "slow adamw +#"),
]
SETTINGS = [  # prose, the cell, its code
    ("the next # validate, the last # are the test", "parameters", "= .*?, #, #"),
    ("batches of #", "parameters", "BATCH_SIZE = #"),
    ("at first to #×#", "small_world", r"\(count, #, #, 3\)"),
    ("learned from once; # others", "small_world", "JUDGED = #"),
    ("# for black", "encoder", r"= # \* ops.sqrt"),
    ("over # columns", "positional", r"cosines\(#\)"),
    ("passes, at #, # and # rows", "parameters", "{#: 3, #: 3, #: 3}"),
    ("in validation after it, from # images", "train", r"validation_data=.*\[:#\]"),
    ("confidence below #", "look_again", "SURE, COPIES = #"),
    ("a little, above #;", "calibration", r"0\.7, #"),
    ("cells of #;", "learn_frozen", r'Dense\(#, "relu"'),
    ("from # images, in # passes", "learn_frozen", r"TRAINED\[:#\].*(?s:.*)epochs=#"),
    ("judged on #", "learn_frozen", r"VALIDATED\[:#\]"),
    ("the same # labels", "learn_frozen", r"TRAINED\[:#\]"),
]
FACTS = [  # prose: the lab's rules, and what other libraries do
    "images # to # train",
    "the lab asks for #",
    "Result. # after",
    "# for white",
    "At #×#, kernels",
    "and #×# [(]rows",
    "# convolutions",
    "network is # sure, # are right",
    "#×#×# features become # cells",
]
NO_FIGURES = re.compile(
    r"\$[^$]+\$|`[^`]+`|\]\([^)]*\)"  # formulas, code, addresses
    r"|Lab 12-2|^## \d+|\b[Ss]ections? \d+(?: (?:and|to) \d+)?|^\d\. "  # numbers of headings, lists
    r"|\b[A-Za-z]+\d\w*|\b(?:19|20)\d\d\b"  # names and years
    r"|\b(?:with|for|to|at|near|mean|variance) [01]\b(?![.,]\d| ?%)",
    re.MULTILINE,
)

CONTENT = conftest.load_notebook()
OPENING = cells_of(CONTENT, "markdown")[0]["source"]
PROSE = "\n\n".join(cell["source"] for cell in cells_of(CONTENT, "markdown"))
PROSE = re.sub(r"\(data:[^)]*\)", "()", PROSE)
TEXT = re.sub("[\u00a0\u202f]", " ", PROSE.split("exercises**")[0].replace("*", ""))
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEADINGS = re.findall("^## (.+)", PROSE, re.MULTILINE)
SECTIONS = re.split("^(?=## )", PROSE, flags=re.MULTILINE)  # page 1 is the first
LINES = {tag: [line for line in code.splitlines() if line.strip()] for tag, code in CELLS.items()}
OUTPUTS = {cell["metadata"]["tags"][0]: cell["outputs"] for cell in cells_of(CONTENT)}
TAGS = list(CELLS)
FIRST = next(place for place, tag in enumerate(TAGS) if "Conv2D(" in CELLS[tag])
MEASURE = {  # what is counted, and its ceiling
    "lines before the first layer": (sum(len(LINES[tag]) for tag in TAGS[:FIRST]), 110),
    "lines on data": (sum(len(LINES[tag]) for tag in conftest.tags("find", "labels")), 35),
    "lines": (sum(map(len, LINES.values())), 540),
    "lines of a cell": (max(map(len, LINES.values())), 25),
    "cells without output": (sum(not shown for shown in OUTPUTS.values()), len(CELLS) / 4),
    "words": (len(PROSE.split()), 2_600),
    "words of a section": (max(len(section.split()) for section in SECTIONS), 260),
    "words of README": (len(README.split()), 700),
    "bytes": (conftest.find_notebook().stat().st_size, 3_000_000),
}


MISSED = {"lines"}  # ceilings that this edition does not reach


@pytest.mark.parametrize("what", MEASURE)
def test_is_brief(what):
    count, most = MEASURE[what]
    if what in MISSED and count > most:
        pytest.xfail(f"{count:,} {what}, where {most:,} are the ceiling")
    assert count <= most and what not in MISSED


def test_headings_are_numbered_and_links_lead_to_them():
    numbers = [int(heading.split()[0]) for heading in HEADINGS]
    assert numbers == list(range(1, 17))
    links = re.findall(r"\]\(#([^)]*)\)", PROSE)
    assert len(links) >= 10
    assert {*links} - {heading.replace(" ", "-") for heading in HEADINGS} == set()


@pytest.mark.parametrize("section", SECTIONS[2:15], ids=HEADINGS[1:14])
def test_opens_with_choice_why_and_result(section):
    pattern = r"\n\n(\*\*Choice\.\*\* .+?\*\*Why\.\*\* .+?\*\*Result\.\*\* .+?)(?:\n\n|\Z)"
    opening = re.match(r"## [^\n]+" + pattern, section.rstrip(), re.DOTALL)
    assert opening and len(opening[1].split()) <= 45


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_ruff(command):
    line = [sys.executable, "-m", "ruff", *command.split(), "--no-cache", "."]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ran_in_order_without_errors_and_noise():
    counts = [cell["execution_count"] for cell in cells_of(CONTENT)]
    assert counts == list(range(1, len(counts) + 1))
    assert outputs_of(CONTENT) and noise_of(CONTENT) == []


def shown(outputs):
    """What outputs show as text."""
    return "\n".join(str(o.get("text", o.get("data", {}).get("text/plain"))) for o in outputs)


def test_names_no_folder_of_the_computer():
    assert not re.findall(r"/(?:home|root|tmp|work|Users)/\S*", shown(outputs_of(CONTENT)))


def test_opens_with_its_own_picture_of_attention():
    pictures = re.findall(r"\(data:([^;)]*);base64,([^)]*)\)", OPENING)
    assert {kind for kind, _ in pictures} == {"image/png"}
    assert "data:" not in PROSE
    (output,) = [o for o in OUTPUTS["attention_rows"] if "image/png" in o.get("data", {})]
    picture = base64.b64decode(output["data"]["image/png"])
    assert base64.b64decode(pictures[0][1]) == picture, "tests/record.py puts it there."
    assert (ROOT / "data" / "attention.png").read_bytes() == picture


def test_readme_has_the_figures_of_the_run():
    results = conftest.results_of(CONTENT)
    names = ("validation_word_accuracy_greedy", "validation_word_accuracy")
    told = {*re.findall(r"\d+\.\d\d(?=\s?%)", README)}
    assert told == {f"{100 * results[name]:.2f}" for name in names}


def pattern_of(row):
    return re.compile(row.replace("#", r"(\d[\d,_]*(?:\.\d+)?(?:e-?\d+)?(?: ?%)?)"), re.MULTILINE)


def is_same(told, found):
    """Whether two texts give the same number, the second rounded like the first."""
    digits, value = (re.sub("[ ,_%]", "", text) for text in (told, found))
    value = float(value) * (100 if "%" in told and "%" not in found else 1)
    return f"{value:.{len(digits.partition('.')[2])}f}" == digits


def sentences_with(positions):
    """The sentences, or lines, that hold some of these places in the text."""
    found = re.finditer(r"\S.*?(?:[.?!:](?=\s)|$)", TEXT, re.MULTILINE)
    return [match[0] for match in found if positions.intersection(range(*match.span()))]


def test_figures_are_those_of_the_run():
    wrong = []
    sources = [(row, shown(OUTPUTS[row[1]])) for row in FIGURES]
    for (told, tag, place), source in [*sources, *[(row, CELLS[row[1]]) for row in SETTINGS]]:
        found = pattern_of(place).search(source)
        for match in pattern_of(told).finditer(TEXT):
            if not (found and all(map(is_same, match.groups(), found.groups()))):
                (sentence,) = sentences_with({match.start(1)})
                is_so = " ".join(found.groups()) if found else "no such thing"
                wrong.append(f"{sentence}\n    {match[0]!r}: the cell {tag!r} says {is_so}")
    if wrong:
        pytest.fail("\n".join(["", *wrong]), pytrace=False)


def test_every_figure_has_its_cell():
    left = {match.start() for match in re.finditer(r"\d", TEXT)}
    for match in NO_FIGURES.finditer(TEXT):
        left -= {*range(*match.span())}
    unused = []
    for row in [*[row[0] for row in FIGURES + SETTINGS], *FACTS]:
        matches = [*pattern_of(row).finditer(TEXT)]
        unused += [] if matches else [row]
        for match in matches:
            left -= {
                place for i in range(len(match.groups())) for place in range(*match.span(i + 1))
            }
    wrong = [f"No row in this file: {sentence}" for sentence in sentences_with(left)]
    wrong += [] if "NOTEBOOK" in os.environ else [f"No such sentence: {row}" for row in unused]
    if wrong:
        pytest.fail("\n".join(["", *wrong]), pytrace=False)
