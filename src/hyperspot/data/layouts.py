"""The known layouts of data sets on the disk."""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hyperspot.errors import DataError, ImageError
from hyperspot.images.finding import find_folders, find_images, natural_key
from hyperspot.images.reading import read_mask

MASK_ENDING = re.compile(r"(_mask|_gt|_label)$", re.IGNORECASE)
KOLEKTOR_ITEM = re.compile(r"kos\d+$", re.IGNORECASE)
SET_ASIDE = {"kolektorsdd": 4, "visa": 10}
"""Layouts without an official split: one of so many good images becomes a test image."""
LABELS = {
    **dict.fromkeys(("0", "good", "ok", "normal"), 0),
    **dict.fromkeys(("1", "bad", "ko", "ng", "defect", "defective", "anomaly", "anomalous"), 1),
    "": None,
}


@dataclass(frozen=True)
class Sample:
    """One image of a data set, with its label and masks.

    Attributes:
        path: The image file.
        label: 0 is good, 1 is defective, none is unknown.
        split: Whether it is for training or for the test.
        defect: The name of the defect, `good`, or empty if the label is unknown.
        masks: Mask files of its defects; empty for good images and defects without a mask.

    Examples:
        >>> from pathlib import Path
        >>> from hyperspot.data import Sample
        >>> sample = Sample(Path("test/scratch/000.png"), label=1, split="test", defect="scratch")
        >>> sample.defect, sample.masks
        ('scratch', ())

    """

    path: Path
    label: Literal[0, 1] | None
    split: Literal["train", "test"]
    defect: str
    masks: tuple[Path, ...] = ()


class Found(NamedTuple):
    """What a layout reads.

    Attributes:
        samples: The samples in order.
        problems: Faults of the data, a sentence each.
        masks: Folders of masks, which hold no samples.

    """

    samples: list[Sample]
    problems: list[str]
    masks: tuple[Path, ...] = ()


class Layout(NamedTuple):
    """How to recognize and read one layout; `expects` describes it in errors."""

    recognizes: Callable[[Path], bool]
    read: Callable[[Path], Found]
    expects: str


def recognize(root: Path) -> str | None:
    """Return the name of the layout of a folder or manifest, none if it is unknown."""
    return next((name for name, layout in LAYOUTS.items() if layout.recognizes(root)), None)


def visa_objects(root: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of VisA's official one-class split by object; empty without that file."""
    table = root / "split_csv" / "1cls.csv"
    objects: dict[str, list[dict[str, str]]] = {}
    if table.is_file():
        for _, row in _rows(table, ("object", "split", "label", "image", "mask")):
            objects.setdefault(row["object"], []).append(row)
    return objects


def _read_mvtec(root: Path) -> Found:
    return _read_splits(root, good="good")


def _read_btad(root: Path) -> Found:
    return _read_splits(root, good="ok")


def _read_splits(root: Path, good: str) -> Found:
    """Read train/GOOD, test/GOOD, test/DEFECT and ground_truth/DEFECT (MVTec AD, LOCO, AD 2, MPDD, BTAD)."""
    samples = [Sample(path, 0, "train", "good") for path in _images(root / "train" / good)]
    problems: list[str] = []
    test = root / "test" if (root / "test").is_dir() else root / "test_public"
    truth = root / "ground_truth" if (root / "ground_truth").is_dir() else test / "ground_truth"
    samples += [Sample(path, None, "test", "") for path in _images(test)]
    folders = find_folders(test) if test.is_dir() else []
    for folder in sorted(folders, key=lambda folder: folder.name != good):
        if folder.name == good:
            samples += [Sample(path, 0, "test", "good") for path in find_images(folder)]
        elif folder != truth:
            masks = _masks_by_stem(truth / folder.name)
            paths = find_images(folder)
            samples += [Sample(path, 1, "test", folder.name, masks.get(path.stem, ())) for path in paths]
            problems += _orphans(masks, {path.stem for path in paths}, root)
    return Found(samples, problems + _orphans_of_no_folder(truth, folders, root), (truth,))


def _read_visa(root: Path) -> Found:
    rows = visa_objects(root.parent).get(root.name)
    if rows is None:
        return _read_visa_folders(root)
    samples, problems = [], []
    for row in rows:
        path = root.parent / row["image"]
        label = _label(row["label"], root.parent / "split_csv" / "1cls.csv")
        masks = (root.parent / row["mask"],) if row["mask"] and label == 1 else ()
        if path.is_file():
            samples.append(Sample(path, label, _split(row["split"], path), "anomaly" if label else "good", masks))
        else:
            problems.append(f"{row['image']} is listed in split_csv/1cls.csv but missing; it is left out")
    return Found(samples, problems, (root / "Data" / "Masks",))


def _read_visa_folders(root: Path) -> Found:
    images, masks = root / "Data" / "Images", _masks_by_stem(root / "Data" / "Masks" / "Anomaly")
    anomalous = _images(images / "Anomaly")
    samples = _set_aside(_images(images / "Normal"), root, SET_ASIDE["visa"])
    samples += [Sample(path, 1, "test", "anomaly", masks.get(path.stem, ())) for path in anomalous]
    problems = [f"split_csv/1cls.csv is missing: one of {SET_ASIDE['visa']} good images was set aside for the test"]
    orphans = _orphans(masks, {path.stem for path in anomalous}, root)
    return Found(samples, problems + orphans, (root / "Data" / "Masks",))


def _read_kolektorsdd(root: Path) -> Found:
    """Read kosNN/PartN.jpg with PartN_label.bmp; there is no official split for training on good images."""
    good: list[Path] = []
    bad: list[Sample] = []
    problems: list[str] = []
    for folder in find_folders(root):
        if KOLEKTOR_ITEM.match(folder.name):
            for path, mask, marked in _labeled_pairs(folder, root, problems):
                if marked:
                    bad.append(Sample(path, 1, "test", "defect", (mask,)))
                else:
                    good.append(path)
    return Found(_set_aside(good, root, SET_ASIDE["kolektorsdd"]) + bad, problems)


def _read_kolektorsdd2(root: Path) -> Found:
    samples: list[Sample] = []
    problems: list[str] = []
    for split in ("train", "test"):
        folder = root / split
        for path, mask, marked in _labeled_pairs(folder, root, problems) if folder.is_dir() else ():
            if marked:
                samples.append(Sample(path, 1, _split(split, path), "defect", (mask,)))
            else:
                samples.append(Sample(path, 0, _split(split, path), "good"))
    return Found(samples, problems)


def _read_folder(root: Path) -> Found:
    """Read plain images, all good; or the folder `good` for training and a folder per defect for the test."""
    if _images(root / "good"):
        samples = [Sample(path, 0, "train", "good") for path in find_images(root / "good")]
        problems: list[str] = []
        truth = root / "ground_truth"
        folders = find_folders(root)
        for folder in folders:
            if folder.name not in ("good", truth.name):
                masks = _masks_by_stem(truth / folder.name)
                paths = find_images(folder)
                samples += [Sample(path, 1, "test", folder.name, masks.get(path.stem, ())) for path in paths]
                problems += _orphans(masks, {path.stem for path in paths}, root)
        return Found(samples, problems + _orphans_of_no_folder(truth, folders, root), (truth,))
    images = find_images(root)
    stems = {path.stem for path in images}
    named_so = [path for path in images if _image_stem(path) != path.stem]
    beside = [path for path in named_so if _image_stem(path) in stems]
    orphans = [path for path in named_so if path not in beside]
    problems = [f"{path.name} looks like a mask and is left out" for path in beside]
    if beside:
        problems += _orphans({path.stem: (path,) for path in orphans}, (), root)
    elif len(orphans) < len(images):
        # An image of a label may have such a name: if no mask has an image, that is as likely.
        problems += [f"{path.name} is named like a mask without an image, and is taken as an image" for path in orphans]
    left_out = {*beside, *orphans} if beside else set()
    samples = [Sample(path, 0, "train", "good") for path in images if path not in left_out]
    return Found(samples, problems, (root / "ground_truth",))


def _read_manifest(table: Path) -> Found:
    """Read a CSV table with the columns path, split, label and optionally mask and defect."""
    samples = []
    for line, row in _rows(table, ("path", "split", "label")):
        where = f"line {line} of {table}"
        path = table.parent / row["path"]
        if not row["path"] or not path.is_file():
            raise DataError(f"{where} names the image '{row['path']}', which does not exist; correct the path")
        split = _split(row["split"], where)
        label = _label(row["label"], where)
        masks = tuple(table.parent / part.strip() for part in row.get("mask", "").split("|") if part.strip())
        for mask in masks:
            if not mask.is_file():
                raise DataError(f"{where} names the mask '{mask.name}', which does not exist; correct the path")
        defect = {0: "good", 1: row.get("defect") or "defect", None: ""}[label]
        samples.append(Sample(path, label, split, defect, masks if label != 0 else ()))
    return Found(samples, [])


def _is_kolektorsdd2(root: Path) -> bool:
    return any(path.stem.lower().endswith("_gt") for split in ("train", "test") for path in _images(root / split))


def _has(*places: str) -> Callable[[Path], bool]:
    return lambda root: any((root / place).is_dir() for place in places)


LAYOUTS: Mapping[str, Layout] = {
    "csv": Layout(
        lambda root: root.is_file() and root.suffix.lower() == ".csv",
        _read_manifest,
        "a CSV table with the columns path, split and label",
    ),
    "mvtec": Layout(
        _has("train/good", "test/good", "test_public/good"),
        _read_mvtec,
        "train/good, test/good, test/DEFECT and ground_truth/DEFECT/NAME_mask.png",
    ),
    "mpdd": Layout(lambda root: False, _read_mvtec, "the folders of the layout mvtec"),  # noqa: ARG005
    "btad": Layout(_has("train/ok", "test/ok"), _read_btad, "train/ok, test/ok, test/ko and ground_truth/ko"),
    "visa": Layout(_has("Data/Images"), _read_visa, "Data/Images/Normal and Data/Images/Anomaly"),
    "kolektorsdd": Layout(
        lambda root: root.is_dir() and any(KOLEKTOR_ITEM.match(folder.name) for folder in find_folders(root)),
        _read_kolektorsdd,
        "kosNN/PartN.jpg with PartN_label.bmp beside it",
    ),
    "kolektorsdd2": Layout(_is_kolektorsdd2, _read_kolektorsdd2, "train/NAME.png with NAME_GT.png, test likewise"),
    "folder": Layout(
        lambda root: bool(_images(root) or _images(root / "good")),
        _read_folder,
        "images of good parts, or the folder good and one folder for each defect",
    ),
}
"""All layouts by name, in the order in which they are recognized."""


def _images(folder: Path) -> list[Path]:
    return find_images(folder) if folder.is_dir() else []


def _image_stem(mask: Path) -> str:
    return MASK_ENDING.sub("", mask.stem)


def _masks_by_stem(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the masks of each image: NAME_mask.png, NAME.png, or all files in a folder NAME."""
    masks: dict[str, tuple[Path, ...]] = {}
    if folder.is_dir():
        for path in find_images(folder):
            masks[_image_stem(path)] = (*masks.get(_image_stem(path), ()), path)
        for inner in find_folders(folder):
            masks[inner.name] = (*masks.get(inner.name, ()), *find_images(inner))
    return masks


def _orphans(masks: Mapping[str, tuple[Path, ...]], stems: Iterable[str], root: Path) -> list[str]:
    lost = [path for stem, paths in masks.items() if stem not in stems for path in paths]
    return [f"{path.relative_to(root).as_posix()} is a mask without an image; it is left out" for path in lost]


def _orphans_of_no_folder(truth: Path, folders: Iterable[Path], root: Path) -> list[str]:
    """Return a problem for each mask of a defect that has no folder of images."""
    known = {folder.name for folder in folders}
    return [
        problem
        for folder in (find_folders(truth) if truth.is_dir() else [])
        if folder.name not in known
        for problem in _orphans(_masks_by_stem(folder), (), root)
    ]


def _labeled_pairs(folder: Path, root: Path, problems: list[str]) -> Iterator[tuple[Path, Path, bool]]:
    """Yield each image with its mask and whether the mask is not empty; an unreadable mask becomes a problem."""
    for path, mask in _pairs(folder, root, problems):
        try:
            marked = bool(read_mask(mask).any())
        except ImageError as error:
            problems.append(f"{error}; until then {path.relative_to(root).as_posix()} has no label and is left out")
        else:
            yield path, mask, marked


def _pairs(folder: Path, root: Path, problems: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yield each image of a folder with the mask beside it; one without the other becomes a problem."""
    files = find_images(folder)
    images = {path.stem: path for path in files if _image_stem(path) == path.stem}
    masks = {_image_stem(path): path for path in files if _image_stem(path) != path.stem}
    for stem, path in images.items():
        if stem in masks:
            yield path, masks[stem]
        else:
            problems.append(f"{path.relative_to(root).as_posix()} has no mask and thus no label; it is left out")
    problems += _orphans({stem: (mask,) for stem, mask in masks.items()}, images.keys(), root)


def _set_aside(good: list[Path], root: Path, one_of: int) -> list[Sample]:
    """Split good images into training and test by the hash of their names, equally on every machine."""
    names = {path: path.relative_to(root).as_posix() for path in good}
    drawn = sorted(good, key=lambda path: hashlib.sha256(names[path].encode()).digest())
    aside = set(drawn[: round(len(good) / one_of)])
    ordered = sorted(good, key=lambda path: natural_key(names[path]))
    train = [Sample(path, 0, "train", "good") for path in ordered if path not in aside]
    return train + [Sample(path, 0, "test", "good") for path in ordered if path in aside]


def _rows(table: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the trimmed values of each row that is not blank."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = ";" if header.count(";") > header.count(",") else ","
            columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
            missing = [name for name in needed if name not in columns]
            if missing:
                raise DataError(
                    f"{table} has no column {' and no column '.join(missing)}; its first line must name the columns"
                )
            twice = [name for name in needed if columns.count(name) > 1]
            if twice:
                raise DataError(f"{table} has the column {twice[0]} twice; remove one of them")
            reader = csv.reader(file, delimiter=delimiter)
            for values in reader:
                if any(value.strip() for value in values):
                    padded = [value.strip() for value in values] + [""] * len(columns)
                    yield reader.line_num + 1, dict(zip(columns, padded, strict=False))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a table in UTF-8 ({error}); save it as CSV (UTF-8)") from None


def _label(text: str, where: object) -> Literal[0, 1] | None:
    if text.lower() not in LABELS:
        raise DataError(f"{where} has the label '{text}'; write good or defect, or leave it empty if it is unknown")
    number = LABELS[text.lower()]
    return None if number is None else 1 if number else 0


def _split(text: str, where: object) -> Literal["train", "test"]:
    if text.lower() not in ("train", "test"):
        raise DataError(f"{where} has the split '{text}'; write train or test")
    return "train" if text.lower() == "train" else "test"
