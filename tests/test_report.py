"""What the notebook and README are as documents: length, order, figures, and files beside them."""

import re

import conftest
import stand_in
from conftest import CELLS, ROOT, cells_of, noise_of, outputs_of

CONTENT = conftest.load_notebook()
PROSE = [cell["source"] for cell in cells_of(CONTENT, "markdown")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [[line for line in code.splitlines() if line.strip()] for code in CELLS.values()]
SECTIONS = """Set-up, Data, Tokenizing characters, Input pipeline, CNN encoder, Bahdanau attention,
GRU decoder, Training, Validation accuracy, What the decoder looks at, Mistakes,
The lecture's systems, Answer file, Read your own image, Results"""


def words_of(text):
    """How many words a text has; a picture in it counts for nothing."""
    return len(re.sub(r"\(data:[^)]*\)", "", text).split())


def test_are_short():
    assert len(CONTENT["cells"]) <= 95
    assert sum(map(len, LINES)) <= 620
    assert max(map(len, LINES)) <= 22
    assert sum(code.count("raise ") for code in CELLS.values()) <= 8
    assert words_of("\n".join(PROSE)) <= 3_700
    assert words_of(README) <= 600
    assert words_of((ROOT / "data" / "README.md").read_text(encoding="utf-8")) <= 400
    assert conftest.find_notebook().stat().st_size < 3_000_000


def test_every_code_cell_has_a_name_of_its_own():
    tags = [cell["metadata"]["tags"] for cell in cells_of(CONTENT)]
    assert all(len(names) == 1 for names in tags) and len(CELLS) == len(tags)


def test_sections_come_in_order():
    titles = re.findall(r"^## (\d+) (.*)$", "\n".join(PROSE), re.MULTILINE)
    expected = re.split(r",\s", SECTIONS)
    assert [int(number) for number, _ in titles] == list(range(1, len(expected) + 1))
    for (_, title), start in zip(titles, expected, strict=True):
        assert title.replace("’", "'").startswith(start)


def test_ran_in_order_without_errors_and_noise():
    counts = [cell["execution_count"] for cell in cells_of(CONTENT)]
    assert counts == list(range(1, len(counts) + 1))
    assert outputs_of(CONTENT) and noise_of(CONTENT) == []


def test_names_no_folder_of_the_machine():
    texts = [str(o.get("text", o.get("data", {}).get("text/plain"))) for o in outputs_of(CONTENT)]
    assert [text for text in texts if re.search(r"/(home|root|tmp|work|Users)/", text)] == []


def test_figures_are_those_of_the_run(results):
    """In README, and in the notebook's table at a glance; nothing is left to fill in."""
    (table,) = [text for text in PROSE if text.startswith("| ")]
    for name in ("validation_word_accuracy", "validation_word_accuracy_greedy"):
        figure = f"{results[name]:.2%}".replace("%", " %")
        for where, text in {"README": README, "the table": table}.items():
            text = re.sub(r"[\u00a0\u202f]", " ", text)
            assert re.search(rf"(?<![\d.,]){re.escape(figure)}", text), f"{figure} in {where}"
    minutes = rf"(?<![\d.,]){re.escape(str(results['training_minutes']))} minutes"
    assert re.search(minutes, table)
    assert not re.search(r"\{\{|TODO", "\n".join([README, *PROSE]))


def test_begins_with_whose_images_it_is_from():
    assert CONTENT["cells"][0]["cell_type"] == "markdown" and PROSE[0].startswith("# ")
    for text in ("\n".join(README.splitlines()[:20]), PROSE[0]):
        assert "stand-in" in text


def test_pictures_are_shown_everywhere():
    """They lie in the notebook as Colab shows them: in the text, with a description."""
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", "\n".join(PROSE))
    assert len(pictures) >= 2
    for description, address in pictures:
        assert len(description) > 10 and address.startswith("data:image/")
    assert not any("attachments" in cell for cell in CONTENT["cells"])


def test_is_python():
    """Without the ending here, JupyterLab would save it as a script named .txt."""
    assert CONTENT["metadata"]["language_info"]["file_extension"] == ".py"
    assert CONTENT["metadata"]["kernelspec"]["name"] == "python3"


def test_files_that_readme_names_are_there():
    names = re.findall(r"`((?:data|tests)/[\w./-]*\w\.\w+|[\w-]+\.(?:txt|ipynb|md))`", README)
    given = ("data/words_captcha", "data/quick_look", "data/stand_in/")  # or made by a run
    missing = [n for n in names if not n.startswith(given) and not (ROOT / n).exists()]
    assert missing == []
    links = re.findall(r"\]\((?!http|#)([^)#]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_fonts_have_licences():
    folder = ROOT / "data" / "fonts"
    used = {font for fonts in stand_in.STYLES.values() for font in fonts}
    files = {path.name for path in folder.iterdir() if path.suffix != ".txt"}
    assert used == files
    families = {re.split(r"[-.]", name)[0] for name in files}
    assert {path.name.split("-")[0] for path in folder.glob("*.txt")} == families
    assert all(len(path.read_text(encoding="utf-8")) > 3000 for path in folder.glob("*.txt"))
