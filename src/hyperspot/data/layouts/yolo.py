"""YOLO: a text file of boxes or polygons for each image, in `labels` beside `images`, or beside the image."""

import re
from collections.abc import Iterator
from pathlib import Path

from hyperspot.data.layouts.annotations import Annotated, found_in, split_folders
from hyperspot.data.layouts.base import Found, Layout, image_files
from hyperspot.data.shapes import Box, Polygon, Shape
from hyperspot.errors import DataError, ImageError
from hyperspot.images.reading import read_size

NO_LABELS = frozenset({"classes.txt", "obj.names", "train.txt", "val.txt", "test.txt", "readme.txt"})
"""Text files that hold no annotations."""
NAMES = re.compile(r"^names:[ \t]*(\[.*?\]|\{.*?\}|(?:\n[ \t]*(?:-|\d+[ \t]*:)[^\n]*)+)", re.DOTALL | re.MULTILINE)
"""The names of classes in a YAML file, as a list or a mapping."""


def _read_yolo(root: Path) -> Found:
    names = _class_names(root)
    annotated: list[Annotated] = []
    problems: list[str] = []
    bare: list[Path] = []
    for images, labels, split in _folders(root):
        paths = image_files(images)
        for path in paths:
            file = labels / f"{path.stem}.txt"
            if not file.is_file():
                bare.append(path)
            annotated.append(Annotated(path, split, tuple(_shapes(file, path, names)) if file.is_file() else ()))
        stems = {path.stem for path in paths}
        lost = [file for file in _label_files(labels) if file.stem not in stems]
        problems += [f"{file.relative_to(root).as_posix()} has no image; it is left out" for file in lost]
    if bare:
        verb = "image has no label file and is" if len(bare) == 1 else "images have no label file and are"
        problems.append(f"{len(bare)} {verb} taken as good ({bare[0].relative_to(root).as_posix()})")
    return found_in(annotated, root, problems)


def _shapes(file: Path, image: Path, names: dict[int, str]) -> Iterator[tuple[str, Shape]]:
    """Yield the class and the shape of each line: a class and 4 numbers of a box, or at least 6 of a polygon."""
    try:
        height, width = read_size(image)
    except ImageError:
        return  # reported with the image
    for number, line in enumerate(_text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            kind, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            kind, values = 0, []
        if len(values) == 4:
            x, y, w, h = values
            sides = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            shape: Shape = Box(*sides)
        elif len(values) >= 6 and len(values) % 2 == 0:
            points = zip(values[::2], values[1::2], strict=True)
            shape = Polygon(tuple((column * width, row * height) for column, row in points))
        else:
            raise DataError(
                f"line {number} of {file} is neither a box (class x y width height) nor a polygon (class x1 y1 x2 y2 "
                "x3 y3 ...); correct it"
            )
        yield names.get(kind, f"class {kind}"), shape


def _class_names(root: Path) -> dict[int, str]:
    """Return the names of the classes from `data.yaml` or `classes.txt`; empty without them."""
    for place in (root, root / "labels"):
        if (place / "classes.txt").is_file():
            listed = _text(place / "classes.txt").splitlines()
            return dict(enumerate(name.strip() for name in listed if name.strip()))
    for file in sorted(root.glob("*.y*ml")):
        block = NAMES.search(_text(file))
        if block:
            listed = [one for one in re.split(r"[\[\]{},\n]", block[1]) if one.strip()]
            names = {}
            for number, one in enumerate(listed):
                key, _, name = one.partition("#")[0].rpartition(":")
                names[int(key) if key.strip().isdigit() else number] = name.strip().lstrip("-").strip(" '\"")
            return names
    return {}


def _folders(root: Path) -> list[tuple[Path, Path, str]]:
    """Return the folders of images with those of their labels and the name of the split."""
    images, labels = root / "images", root / "labels"
    if images.is_dir() and labels.is_dir():
        splits = split_folders(images)
        return [(images, labels, ""), *((folder, labels / folder.name, folder.name) for folder in splits)]
    splits = [folder for folder in split_folders(root) if (folder / "images").is_dir()] if root.is_dir() else []
    if splits:
        return [(folder / "images", folder / "labels", folder.name) for folder in splits]
    return [(root, root, "")]


def _label_files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    return [file for file in found if file.name.lower() not in NO_LABELS]


def _recognizes(root: Path) -> bool:
    """Return whether a label file has an image and a line of numbers, or folders and names are those of YOLO."""
    if not root.is_dir():
        return False
    for images, labels, _ in _folders(root):
        stems = {path.stem for path in image_files(images)}
        files = [file for file in _label_files(labels) if file.stem in stems]
        if files and (images != labels or any(_is_label_file(file) for file in files)):
            return True
    return False


def _is_label_file(file: Path) -> bool:
    """Return whether the first line is a class and numbers relative to the image."""
    words = _text(file).split("\n", 1)[0].split()
    if len(words) < 5 or not words[0].isdigit():
        return False
    try:
        return all(-0.5 <= float(word) <= 1.5 for word in words[1:])
    except ValueError:
        return False


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8 ({error}); save it again") from None


YOLO = Layout(_recognizes, _read_yolo, "images/NAME.jpg with labels/NAME.txt, with or without folders for splits")
