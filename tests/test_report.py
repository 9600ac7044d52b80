"""What the notebook and README are as documents: length, order, figures, and files beside them."""

import re

import conftest
import stand_in
from conftest import ROOT, SOURCES, cells_of, noise_of, outputs_of

CONTENT = conftest.load_notebook()
PROSE = [cell["source"] for cell in cells_of(CONTENT, "markdown")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [[line for line in code.splitlines() if line.strip()] for code in SOURCES]
SECTIONS = """Set-up, Data, Tokenizing characters, Input pipeline, CNN encoder, Bahdanau attention,
GRU decoder, Training, Validation accuracy, Reading with the lexicon, What the decoder looks at,
Mistakes, The lecture's systems, Test predictions, Read your own image, Results"""


def test_are_short():
    assert len(README.splitlines()) <= 90
    assert len(CONTENT["cells"]) <= 100
    assert sum(map(len, LINES)) <= 750
    assert max(map(len, LINES)) <= 25
    assert sum(code.count("raise ") for code in SOURCES) <= 8
    assert sum(len(text.split()) for text in PROSE) <= 5_000
    assert conftest.find_notebook().stat().st_size < 3_000_000


def test_sections_come_in_order():
    titles = re.findall(r"^## (.*)$", "\n".join(PROSE), re.MULTILINE)
    titles = [title.lower().replace("’", "'") for title in titles]
    found = [
        next((i for i, title in enumerate(titles) if name.lower() in title), name)
        for name in re.split(r",\s", SECTIONS)
    ]
    assert [name for name in found if isinstance(name, str)] == [], titles
    assert found == sorted(found), titles


def test_ran_in_order_without_errors_and_noise():
    counts = [cell["execution_count"] for cell in cells_of(CONTENT)]
    assert counts == list(range(1, len(counts) + 1))
    assert outputs_of(CONTENT) and noise_of(CONTENT) == []


def test_names_no_folder_of_the_machine():
    texts = [str(o.get("text", o.get("data", {}).get("text/plain"))) for o in outputs_of(CONTENT)]
    assert [text for text in texts if re.search(r"/(home|root|tmp|work|Users)/", text)] == []


def test_figures_are_those_of_the_run(results):
    for name in ("validation_word_accuracy", "validation_word_accuracy_greedy"):
        figure = f"{results[name]:.2%}".replace("%", " %")
        for where, text in {"README": README, "the first cell": PROSE[0]}.items():
            text = re.sub(r"[\u00a0\u202f]", " ", text)
            assert re.search(rf"(?<![\d.,]){re.escape(figure)}", text), f"{figure} in {where}"


def test_begins_with_the_result_and_whose_images_it_is_from():
    assert PROSE[0].startswith("# ") and "](" in PROSE[0]
    assert CONTENT["cells"][0]["cell_type"] == "markdown"
    for text in ("\n".join(README.splitlines()[:20]), PROSE[0]):
        assert "stand-in" in text


def test_files_that_readme_names_are_there():
    names = re.findall(r"`((?:data|tests)/[\w./-]*\w\.\w+|[\w-]+\.(?:txt|ipynb|md))`", README)
    given = ("data/words_captcha", "data/quick")  # by the course, or made by a run
    missing = [n for n in names if not n.startswith(given) and not (ROOT / n).exists()]
    assert missing == []
    links = re.findall(r"\]\((?!http|#|attachment)([^)#]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_fonts_have_licences():
    folder = ROOT / "data" / "fonts"
    used = {font for fonts in stand_in.STYLES.values() for font in fonts}
    files = {path.name for path in folder.iterdir() if path.suffix != ".txt"}
    assert used == files
    families = {re.split(r"[-.]", name)[0] for name in files}
    assert {path.name.split("-")[0] for path in folder.glob("*.txt")} == families
    assert all(len(path.read_text(encoding="utf-8")) > 3000 for path in folder.glob("*.txt"))
