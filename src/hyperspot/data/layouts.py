"""How each known data set lies on the disk."""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hyperspot.errors import DataError, ImageError
from hyperspot.images.reading import find_folders, find_images, natural_key, read_mask

MASK_ENDING = re.compile(r"(_mask|_gt|_label)$", re.IGNORECASE)
KOLEKTOR_ITEM = re.compile(r"kos\d+$", re.IGNORECASE)
SET_ASIDE = {"kolektorsdd": 4, "visa": 10}
"""Where a data set has no official split, one of so many good photos is set aside for the test."""
LABELS = {
    **dict.fromkeys(("0", "good", "ok", "normal"), 0),
    **dict.fromkeys(("1", "bad", "ko", "ng", "defect", "defective", "anomaly", "anomalous"), 1),
    "": None,
}


@dataclass(frozen=True)
class Sample:
    """One photo of a data set.

    Attributes:
        path: Where it is.
        label: 0 is good, 1 is defective, none is unknown.
        split: What it is for.
        defect: The name of the defect, `good`, or empty where the label is unknown.
        masks: Files that outline its defects; none for good photos and where nobody outlined them.

    """

    path: Path
    label: Literal[0, 1] | None
    split: Literal["train", "test"]
    defect: str
    masks: tuple[Path, ...] = ()


class Found(NamedTuple):
    """The photos of one data set in order, and sentences on what is wrong with it."""

    photos: list[Sample]
    problems: list[str]


class Layout(NamedTuple):
    """How to recognize and read one layout; `expects` tells a person what it looks like."""

    recognizes: Callable[[Path], bool]
    read: Callable[[Path], Found]
    expects: str


def recognize(root: Path) -> str | None:
    """Return the name of the layout of a folder or manifest, none where it is none of them."""
    return next((name for name, layout in LAYOUTS.items() if layout.recognizes(root)), None)


def visa_objects(root: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of VisA's official one-class split by object; empty where there is no such file."""
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
    photos = [Sample(path, 0, "train", "good") for path in _images(root / "train" / good)]
    problems: list[str] = []
    test = root / "test" if (root / "test").is_dir() else root / "test_public"
    truth = root / "ground_truth" if (root / "ground_truth").is_dir() else test / "ground_truth"
    photos += [Sample(path, None, "test", "") for path in _images(test)]
    folders = find_folders(test) if test.is_dir() else []
    for folder in sorted(folders, key=lambda folder: folder.name != good):
        if folder.name == good:
            photos += [Sample(path, 0, "test", "good") for path in find_images(folder)]
        elif folder != truth:
            masks = _masks_by_stem(truth / folder.name)
            paths = find_images(folder)
            photos += [Sample(path, 1, "test", folder.name, masks.get(path.stem, ())) for path in paths]
            problems += _orphans(masks, {path.stem for path in paths}, root)
    return Found(photos, problems + _orphans_of_no_folder(truth, folders, root))


def _read_visa(root: Path) -> Found:
    rows = visa_objects(root.parent).get(root.name)
    if rows is None:
        return _read_visa_folders(root)
    photos, problems = [], []
    for row in rows:
        path = root.parent / row["image"]
        label = _label(row["label"], root.parent / "split_csv" / "1cls.csv")
        masks = (root.parent / row["mask"],) if row["mask"] and label == 1 else ()
        if path.is_file():
            photos.append(Sample(path, label, _split(row["split"], path), "anomaly" if label else "good", masks))
        else:
            problems.append(f"{row['image']} is listed in split_csv/1cls.csv but missing; it is left out")
    return Found(photos, problems)


def _read_visa_folders(root: Path) -> Found:
    images, masks = root / "Data" / "Images", _masks_by_stem(root / "Data" / "Masks" / "Anomaly")
    anomalous = _images(images / "Anomaly")
    photos = _set_aside(_images(images / "Normal"), root, SET_ASIDE["visa"])
    photos += [Sample(path, 1, "test", "anomaly", masks.get(path.stem, ())) for path in anomalous]
    problems = [f"split_csv/1cls.csv is missing: one of {SET_ASIDE['visa']} good photos was set aside for the test"]
    return Found(photos, problems + _orphans(masks, {path.stem for path in anomalous}, root))


def _read_kolektorsdd(root: Path) -> Found:
    """Read kosNN/PartN.jpg with PartN_label.bmp; there is no official split for learning from good photos."""
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
    photos: list[Sample] = []
    problems: list[str] = []
    for split in ("train", "test"):
        folder = root / split
        for path, mask, marked in _labeled_pairs(folder, root, problems) if folder.is_dir() else ():
            if marked:
                photos.append(Sample(path, 1, _split(split, path), "defect", (mask,)))
            else:
                photos.append(Sample(path, 0, _split(split, path), "good"))
    return Found(photos, problems)


def _read_folder(root: Path) -> Found:
    """Read plain photos, all good; or the folder `good` and beside it a folder per defect, to be tested."""
    if _images(root / "good"):
        photos = [Sample(path, 0, "train", "good") for path in find_images(root / "good")]
        problems: list[str] = []
        truth = root / "ground_truth"
        folders = find_folders(root)
        for folder in folders:
            if folder.name not in ("good", truth.name):
                masks = _masks_by_stem(truth / folder.name)
                paths = find_images(folder)
                photos += [Sample(path, 1, "test", folder.name, masks.get(path.stem, ())) for path in paths]
                problems += _orphans(masks, {path.stem for path in paths}, root)
        return Found(photos, problems + _orphans_of_no_folder(truth, folders, root))
    images = find_images(root)
    stems = {path.stem for path in images}
    named_so = [path for path in images if _photo_stem(path) != path.stem]
    beside = [path for path in named_so if _photo_stem(path) in stems]
    orphans = [path for path in named_so if path not in beside]
    problems = [f"{path.name} looks like a mask and is left out" for path in beside]
    if beside:
        problems += _orphans({path.stem: (path,) for path in orphans}, (), root)
    elif len(orphans) < len(images):
        # A photo of a label may be called so: where no mask has a photo, that is as likely.
        problems += [f"{path.name} is named like a mask without a photo, and is taken as a photo" for path in orphans]
    left_out = {*beside, *orphans} if beside else set()
    return Found([Sample(path, 0, "train", "good") for path in images if path not in left_out], problems)


def _read_manifest(table: Path) -> Found:
    """Read a CSV table with the columns path, split, label and, if wanted, mask and defect."""
    photos = []
    for line, row in _rows(table, ("path", "split", "label")):
        where = f"line {line} of {table}"
        path = table.parent / row["path"]
        if not row["path"] or not path.is_file():
            raise DataError(f"{where} names the photo '{row['path']}', which does not exist; correct the path")
        split = _split(row["split"], where)
        label = _label(row["label"], where)
        masks = tuple(table.parent / part.strip() for part in row.get("mask", "").split("|") if part.strip())
        for mask in masks:
            if not mask.is_file():
                raise DataError(f"{where} names the mask '{mask.name}', which does not exist; correct the path")
        defect = {0: "good", 1: row.get("defect") or "defect", None: ""}[label]
        photos.append(Sample(path, label, split, defect, masks if label != 0 else ()))
    return Found(photos, [])


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
        "photos of good parts, or the folder good and one folder for each defect",
    ),
}
"""All layouts by name, in the order in which they are recognized."""


def _images(folder: Path) -> list[Path]:
    return find_images(folder) if folder.is_dir() else []


def _photo_stem(mask: Path) -> str:
    return MASK_ENDING.sub("", mask.stem)


def _masks_by_stem(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the masks of each photo: NAME_mask.png, NAME.png, or all that is in a folder NAME."""
    masks: dict[str, tuple[Path, ...]] = {}
    if folder.is_dir():
        for path in find_images(folder):
            masks[_photo_stem(path)] = (*masks.get(_photo_stem(path), ()), path)
        for inner in find_folders(folder):
            masks[inner.name] = (*masks.get(inner.name, ()), *find_images(inner))
    return masks


def _orphans(masks: Mapping[str, tuple[Path, ...]], stems: Iterable[str], root: Path) -> list[str]:
    lost = [path for stem, paths in masks.items() if stem not in stems for path in paths]
    return [f"{path.relative_to(root).as_posix()} is a mask without a photo; it is left out" for path in lost]


def _orphans_of_no_folder(truth: Path, folders: Iterable[Path], root: Path) -> list[str]:
    """Return a problem for each mask of a defect that has no folder of photos."""
    known = {folder.name for folder in folders}
    return [
        problem
        for folder in (find_folders(truth) if truth.is_dir() else [])
        if folder.name not in known
        for problem in _orphans(_masks_by_stem(folder), (), root)
    ]


def _labeled_pairs(folder: Path, root: Path, problems: list[str]) -> Iterator[tuple[Path, Path, bool]]:
    """Yield each photo with its mask and whether anything is marked in it; an unreadable mask becomes a problem."""
    for path, mask in _pairs(folder, root, problems):
        try:
            marked = bool(read_mask(mask).any())
        except ImageError as error:
            problems.append(f"{error}; until then {path.relative_to(root).as_posix()} has no label and is left out")
        else:
            yield path, mask, marked


def _pairs(folder: Path, root: Path, problems: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yield each photo of a folder with the mask beside it; what has no partner becomes a problem."""
    images = find_images(folder)
    photos = {path.stem: path for path in images if _photo_stem(path) == path.stem}
    masks = {_photo_stem(path): path for path in images if _photo_stem(path) != path.stem}
    for stem, path in photos.items():
        if stem in masks:
            yield path, masks[stem]
        else:
            problems.append(f"{path.relative_to(root).as_posix()} has no mask to tell its label; it is left out")
    problems += _orphans({stem: (mask,) for stem, mask in masks.items()}, photos.keys(), root)


def _set_aside(good: list[Path], root: Path, one_of: int) -> list[Sample]:
    """Split good photos into training and test by the hash of their names: the same on every machine."""
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
        raise DataError(f"{where} has the label '{text}'; write good or defect, or leave it empty where unknown")
    number = LABELS[text.lower()]
    return None if number is None else 1 if number else 0


def _split(text: str, where: object) -> Literal["train", "test"]:
    if text.lower() not in ("train", "test"):
        raise DataError(f"{where} has the split '{text}'; write train or test")
    return "train" if text.lower() == "train" else "test"
