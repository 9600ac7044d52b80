#!/usr/bin/env bash
# Keras: a list of labels in the order of the numbers in the file names goes to other images.
#
# Datasets often number their images, a0.png, a1.png and so on, and keep the labels in a file in the
# same order. keras.utils.image_dataset_from_directory takes them as a list.
#
# One would expect: label 2 goes to a2.png. The documentation asks for labels in "alphanumeric order
# of the image file paths"; where files end in numbers, that can well be read as their order.
# What happens: the paths are sorted as text, so a10.png stands before a2.png and gets its label. The
# number of labels is all that is checked. Of twelve images ten get another's label, of 1,200 all but
# two, without a word.
# Versions: Python 3.11, Keras 3.15.1, TensorFlow 2.21.0, Pillow 13.0.0.
# Seen where: in a comparison of ways to load numbered images of words.
# Output seen:
#   images: 0 1 10 11 2 3 4 5 6 7 8 9
#   labels: 0 1 2 3 4 5 6 7 8 9 10 11
#   wrong of 12: 10; wrong of 1,200: 1198
# Ends with 0 if so, and with another status if the behaviour has changed.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export TF_CPP_MIN_LOG_LEVEL=3 PIP_DISABLE_PIP_VERSION_CHECK=1
python3.11 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q tensorflow==2.21.0 keras==3.15.1 pillow==13.0.0
cd "$tmp"
cat > trial.py <<'PYTHON'
import pathlib

import keras
from PIL import Image


def load(count):
    """The numbers of the images, which their pixels tell, and the labels they were given."""
    folder = pathlib.Path(f"images{count}")
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (2, 2), (number % 100, number // 100, 0)).save(folder / f"a{number}.png")
    options = {"shuffle": False, "image_size": (2, 2), "batch_size": count, "verbose": 0}
    data = keras.utils.image_dataset_from_directory(folder, labels=[*range(count)], **options)
    images, labels = next(data.as_numpy_iterator())
    numbers = images[:, 0, 0, 0] + 100 * images[:, 0, 0, 1]
    return numbers.astype(int).tolist(), labels.tolist()


numbers, labels = load(12)
print("images:", *numbers)
print("labels:", *labels)
wrong = sum(number != label for number, label in zip(numbers, labels))
wrong_of_many = sum(number != label for number, label in zip(*load(1200)))
print(f"wrong of 12: {wrong}; wrong of 1,200: {wrong_of_many}")
assert (wrong, wrong_of_many) == (10, 1198), "the behaviour has changed"
PYTHON
"$tmp/venv/bin/python" trial.py 2> log || { cat log; exit 1; }
