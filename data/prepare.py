"""Finds, unpacks and checks the course's images, or draws the stand-in; checks the settings."""

import errno
import os
import re
import sys
from importlib import import_module
from multiprocessing.pool import ThreadPool
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from PIL import Image, __version__
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for stand_in, also in the processes that draw
stand_in = import_module("stand_in") if (HERE / "stand_in.py").exists() else None
LABELS = "spec_train_val.txt"
NAMED = "[Ww]ords?[Cc]aptcha*"  # what the course's folder or archive is called
ARCHIVES = ".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst"
ARCHIVES += ".zipx", ".z01", ".001", ".part", ".crdownload"  # in pieces, or not yet here
PRECISIONS = "float32", "mixed_bfloat16", "mixed_float16"


def prepare(folder="data", train=100_000, validation=20_000, test=20_000):
    """The folder of the images, the path of their labels, and "course" or "stand-in".

    The stand-in is drawn only if there is nothing else, and if `folder` is this script's.
    """
    if not hasattr(Image.Image, "has_transparency_data"):
        raise ImportError(f"Pillow {__version__} is older than 10.1. Run: pip install -U pillow")
    folder, counts = Path(folder).expanduser(), (train, validation, test)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Set FOLDER to another.")
    parts = zip((0, 100_000, 120_000), counts, strict=True)
    names = [f"a{start + number}.png" for start, count in parts for number in range(count)]
    files = find_files(folder)
    images = find_images(files, names)
    labels = find_labels(files, images)
    wanted = {*names} - files.get(images, set())
    if labels is None or (wanted and labels.parent != images):  # labels beside images are theirs
        wanted.add(LABELS)
    remarks = unpack_all(files, wanted, images or folder / "words_captcha") if wanted else {}
    files = find_files(folder)
    images = find_images(files, names)
    labels = find_labels(files, images)
    origin = "course" if images else "stand-in"
    if origin == "stand-in":
        remarks |= {labels: "its images are missing"} if labels else {}
        images, labels = draw_stand_in(folder, counts, remarks)
    check(images, names)
    if labels is None:
        raise FileNotFoundError(f"There is no {LABELS} of the course: copy it to {images}.")
    print(f"All {len(names):,} images in {images} are whole. They are the {origin}'s.")
    return images, labels, origin


def check_settings(settings):
    """Raises a ValueError that names the first of the notebook's settings that cannot work."""

    def is_number(value, least, most):
        return type(value) is int and least <= value <= most

    def number(name, least, most):
        return f"a number from {least:,} to {most:,}", is_number(settings[name], least, most)

    rounds, letters, rate = (settings[name] for name in ("ROUNDS", "LETTERS", "LEARNING_RATE"))
    pairs = [*rounds.items()] if isinstance(rounds, dict) else []
    fitting = [is_number(height, 16, 320) and is_number(n, 1, 99) for height, n in pairs]
    known = {*letters} - {*"<> "} if isinstance(letters, str) else {}
    expected = {
        "QUICK": ("True or False", settings["QUICK"] in (True, False)),
        "TRAIN": number("TRAIN", 3, 100_000),
        "VALIDATION": number("VALIDATION", 1, 20_000),
        "TEST": number("TEST", 1, 20_000),
        "LETTERS": ("letters, each once, no < or >", known and len(known) == len(letters)),
        "ROUNDS": ("heights from 16 to 320, with 1 to 99 rounds each", fitting and all(fitting)),
        "SMALL_STEPS": number("SMALL_STEPS", 2, 10_000),
        "BATCH_SIZE": number("BATCH_SIZE", 1, 1_000),
        "LEARNING_RATE": ("a number between 0 and 1", isinstance(rate, float) and 0 < rate < 1),
        "PRECISION": (f"one of {PRECISIONS}", settings["PRECISION"] in PRECISIONS),
        "SEED": number("SEED", 0, 2_000_000_000),
    }
    for name, (values, is_fine) in expected.items():
        if not is_fine:
            raise ValueError(f"{name}: expected {values}, found {settings[name]!r}.")


def find_files(folder):
    """The names of the files in each folder. Folders called stand_in are left out."""
    files, seen = {}, {os.path.realpath(HERE / "stand_in")}
    for top in [folder, *sorted(Path().glob(NAMED))]:
        for path, folders, names in os.walk(top, followlinks=True):
            real = os.path.realpath(path)
            if real in seen or os.path.basename(path) == "stand_in":
                folders.clear()  # do not enter them: a link can lead in circles
            else:
                folders.sort()
                seen.add(real)
                files[Path(path)] = {*names}
    return {Path(): {path.name for path in Path().iterdir() if path.suffix != ".png"}} | files


def find_images(files, names):
    """The folder with most of the images, or None. Two folders with all of them are an error."""
    counts = {folder: len(there.intersection(names)) for folder, there in files.items()}
    whole = [str(folder) for folder, count in counts.items() if count == len(names)]
    if len(whole) > 1:
        raise ValueError(f"All images are in {' and in '.join(whole)}. Keep them in one folder.")
    best = max(counts, key=counts.get)
    if counts[best] and LABELS in files[best] and stand_in and stand_in.is_ours(best):
        raise ValueError(f"{best} holds a copy of the stand-in. Name it stand_in, or delete it.")
    return best if counts[best] else None


def find_labels(files, images):
    """The first labels file that is not the stand-in's, or None: those near the images first."""
    near = [images, images.parent] if images else []
    places = [*near, *files] if stand_in else near[:1]  # else ours would be taken for theirs
    paths = [place / LABELS for place in places if (place / LABELS).is_file()]
    ours = [path for path in paths if stand_in and stand_in.are_ours(path.read_bytes())]
    return next((path for path in paths if path not in ours), None)


def unpack_all(files, wanted, target):
    """Unpacks the wanted files into one folder; returns remarks on archives of no use, by path."""
    paths = {Path(folder, name) for folder in files for name in files[folder] if name[0] != "."}
    archives = [path for path in paths if path.name.lower().endswith(ARCHIVES)]
    remarks, parts, broken = {}, [], []
    for path in sorted(filter(Path.is_file, archives)):
        try:
            parts += [(path, members) for members in list_members(path, wanted)]
        except Exception as error:  # a broken archive can raise many kinds
            remarks[path] = advice(path, error)
            with open(path, "rb") as file:
                if re.search(rb"(?<!stand_in[/\\])\ba\d+\.png", file.read(2**22)):
                    broken.append(path)
    if broken and wanted.difference([LABELS], *[members for _, members in parts]):
        raise ValueError(f"{broken[0]}: {remarks[broken[0]]}.")
    for path, remark in remarks.items():
        print(f"{path} is passed over: {remark}.")
    for path, members in sorted(parts, key=lambda part: -len(part[1])):
        try:
            unpack(path, members, wanted, target)
        except Exception as error:
            raise ValueError(f"{path}: {advice(path, error)}.") from error
    return remarks


def list_members(archive, wanted):
    """The wanted members of an archive by name, in one dictionary for each folder."""
    parts, inner = {}, []
    with ZipFile(archive) as file:
        for member in file.namelist():
            *folders, name = member.replace("\\", "/").split("/")
            if name in wanted and "stand_in" not in folders:
                parts.setdefault("/".join(folders), {})[name] = member
            elif name.lower().endswith(ARCHIVES) and name[0] != ".":
                inner.append(name)
    if inner and not parts:
        raise BadZipFile(f"It holds {inner[0]}")
    return list(parts.values())


def advice(archive, error):
    """What an error says of an archive, and what to do."""
    reason = str(error) or "it ends too early"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{reason}. Make room, or unpack it yourself on another disk and set FOLDER"
    if archive.stat().st_size > 2**32:
        return f'{reason}. Unpack it yourself, with: bsdtar -xf - < "{archive}"'
    return f"{reason}. Copy it again, or unpack it yourself"


def unpack(archive, members, wanted, target):
    """Unpacks members that are still wanted, under another name first: so none is half there."""
    with ZipFile(archive) as file:
        names = [name for name in members if name in wanted]
        for name in tqdm(names, f"unpacking {archive.name}", file=sys.stdout):
            content = file.read(members[name])
            if name == LABELS and stand_in and stand_in.are_ours(content):
                continue
            target.mkdir(exist_ok=True)
            half = target / f".{name}.part"
            half.write_bytes(content)
            os.replace(half, target / name)
            wanted.remove(name)


def draw_stand_in(folder, counts, remarks):
    """Draws the stand-in, unless something may hold the course's images; see `prepare`."""
    remarks = dict.fromkeys([*folder.glob(NAMED), *Path().glob(NAMED)], "it holds none") | remarks
    remarks |= {} if stand_in else {HERE / "stand_in.py": "it is missing"}
    if remarks or not folder.samefile(HERE):
        places = "".join(f" {path}: {remark}." for path, remark in remarks.items())
        raise FileNotFoundError(
            f"No a0.png and so on in {folder.resolve()} or in zip archives there.{places} Put "
            f"words_captcha.zip there. The stand-in is drawn only for FOLDER {HERE}, without these."
        )
    print("There are no images of the course, so the stand-in is drawn.")
    stand_in.make(folder / "stand_in", counts)
    return folder / "stand_in", folder / "stand_in" / LABELS


def check(folder, names):
    """Raises an error that names images that are missing, damaged or transparent."""
    bad = [f"{name} (missing)" for name in names if not (folder / name).exists()]
    if not bad:
        with ThreadPool(8) as pool:
            faults = pool.imap(fault_of, [folder / name for name in names], chunksize=100)
            bar = tqdm(zip(names, faults, strict=True), "checking", len(names), file=sys.stdout)
            bad = [f"{name} ({fault})" for name, fault in bar if fault]
    if bad:
        raise ValueError(
            f"Bad images in {folder}: {len(bad):,} of {len(names):,}, {', '.join(bad[:10])}. "
            "Delete what is damaged, put whole files or their archive there, and run this again."
        )


def fault_of(path):
    """What is wrong with an image, or None."""
    try:
        with open(path, "rb") as file, Image.open(file, formats=["PNG"]) as image:
            can_be_transparent = image.has_transparency_data
            image.verify()  # it stops before the last four bytes
            if len(file.read(4)) < 4:
                return "damaged"
        if can_be_transparent and Image.open(path).convert("RGBA").getextrema()[3][0] < 255:
            return "transparent"
    except (OSError, SyntaxError, ValueError, IndexError, Image.DecompressionBombError) as error:
        return getattr(error, "strerror", None) or "damaged"
