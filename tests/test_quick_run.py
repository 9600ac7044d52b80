"""The notebook as a whole, run by a real kernel as a student runs it, with QUICK=1."""

import shutil

import conftest
from conftest import NAME, WEIGHTS, noise_of, printed
from nbclient import NotebookClient

IMAGES = [192, 100, 16]  # those of `drawn`


def test_runs_to_the_end_and_writes_into_data_alone(drawn, tmp_path):
    """With images as the course's; a whole run's answers are not replaced."""
    folder = conftest.make_folder(tmp_path / "Übung 12 – 文字", drawn)
    data, answers = folder / "data", "Lab12-2_studentID.txt"
    shutil.copy(WEIGHTS, data)
    (folder / answers).write_text("answers of a whole run")
    settings = f"\nTRAIN, VALIDATION, TEST, ROUNDS = {[*IMAGES, 1]}"
    book = conftest.change(folder, parameters=settings)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(book, timeout=300, kernel_name="python3", resources=resources)
    client.execute(env=conftest.environment(QUICK="1", KERAS_BACKEND="jax"))

    assert noise_of(book) == [] and "Warning" not in printed(book)
    assert "From here on: the weights of" in printed(book)
    results = conftest.results_of(book)
    assert results["data"] == "course" and results["trained_in_this_run"] is True
    assert results["images"] == IMAGES
    assert 0 < results["training_minutes"] < results["notebook_minutes"] < 5
    assert 0.98 <= results["validation_word_accuracy_greedy"] <= 1
    assert 0.98 <= results["validation_word_accuracy"] <= 1
    assert (folder / answers).read_text() == "answers of a whole run"
    conftest.answers_of(data / answers, 16)
    assert {path.name for path in folder.iterdir()} == {NAME, answers, "checkpoints", "data"}
    assert {path.name for path in data.iterdir()} == {answers, WEIGHTS.name, "words_captcha"}
    assert len(list((data / "words_captcha").iterdir())) == sum(IMAGES) + 1
