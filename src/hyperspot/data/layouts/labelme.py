"""labelme: a JSON file with `shapes` beside each annotated image."""

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hyperspot.data.layouts.annotations import Annotated, found_in, holds_keys, read_json, size_problems, split_folders
from hyperspot.data.layouts.base import Found, Layout, image_files
from hyperspot.data.shapes import Box, Polygon, RunLengths, Shape, circle, strip
from hyperspot.errors import DataError

KEYS = ("shapes", "imagePath")


def _read_labelme(root: Path) -> Found:
    annotated: list[Annotated] = []
    problems: list[str] = []
    bare: list[Path] = []
    for folder in _folders(root):
        split = folder.name if folder != root else ""
        images = image_files(folder)
        for path in images:
            described = path.with_suffix(".json")
            if described.is_file():
                annotated.append(_annotated(described, path, split, root, problems))
            else:
                bare.append(path)
                annotated.append(Annotated(path, split, ()))
        stems = {path.stem for path in images}
        lost = [path for path in sorted(folder.glob("*.json")) if path.stem not in stems and holds_keys(path, KEYS)]
        problems += [f"{path.relative_to(root).as_posix()} has no image beside it; it is left out" for path in lost]
    if bare:
        verb = "image has no JSON file and is" if len(bare) == 1 else "images have no JSON file and are"
        problems.append(f"{len(bare)} {verb} taken as good ({bare[0].relative_to(root).as_posix()})")
    flagged = [one for one in annotated if one.sample("test").label is None]
    if flagged:
        verb = "image has a flag and no shape of a defect, thus no label, and is"
        if len(flagged) > 1:
            verb = "images have a flag and no shape of a defect, thus no label, and are"
        named = f"{flagged[0].path.relative_to(root).as_posix()}: {', '.join(flagged[0].flags)}"
        problems.append(f"{len(flagged)} {verb} left out ({named}); draw the defect, or remove the flag")
    return found_in(annotated, root, problems)


def _annotated(described: Path, image: Path, split: str, root: Path, problems: list[str]) -> Annotated:
    name = described.relative_to(root).as_posix()
    content = read_json(described)
    shapes: list[tuple[str, Shape]] = []
    try:
        problems += size_problems(name, image, content.get("imageHeight"), content.get("imageWidth"))
        for one in content["shapes"]:
            kind = one.get("shape_type") or "polygon"
            points = [(float(column), float(row)) for column, row in one["points"]]
            size = int(content["imageHeight"]), int(content["imageWidth"])
            parts = _parts(kind, points, one, size)
            if parts is None:
                problems.append(f"{name} has a shape of the kind {kind}, which is not read; draw a polygon")
            shapes += [(str(one["label"]), part) for part in parts or ()]
        flags = tuple(str(flag) for flag, is_set in (content.get("flags") or {}).items() if is_set)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, binascii.Error) as error:
        raise DataError(f"{described} is no labelme file ({error!r}); save it again") from None
    return Annotated(image, split, tuple(shapes), flags)


def _parts(
    kind: str, points: Sequence[tuple[float, float]], shape: Mapping[str, Any], size: tuple[int, int]
) -> Sequence[Shape] | None:
    if kind in ("polygon", "point"):
        return [Polygon(tuple(points))]
    if kind in ("line", "linestrip"):
        return strip(points)
    if kind == "points":
        return [Polygon((point,)) for point in points]
    if kind == "circle":
        return [circle(points[0], math.dist(*points))]
    columns, rows = zip(*points, strict=True)
    if kind == "rectangle":
        return [Box(min(columns), min(rows), max(columns), max(rows))]
    if kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
            pixels = np.asarray(image).astype(bool)
        whole = np.zeros(size, dtype=bool)
        top, left = round(min(rows)), round(min(columns))
        whole[top : top + len(pixels), left : left + pixels.shape[1]] = pixels
        edges = np.flatnonzero(np.diff(np.concatenate([[0], whole.T.ravel().view(np.int8), [0]])))
        counts = np.diff(np.concatenate([[0], edges, [whole.size]]))
        return [RunLengths(*size, tuple(int(count) for count in counts))]
    return None


def _folders(root: Path) -> list[Path]:
    return [root, *split_folders(root)]


def _recognizes(root: Path) -> bool:
    for folder in _folders(root) if root.is_dir() else ():
        stems = {path.stem for path in image_files(folder)}
        if any(path.stem in stems and holds_keys(path, KEYS) for path in folder.glob("*.json")):
            return True
    return False


LABELME = Layout(_recognizes, _read_labelme, "images with JSON files of labelme beside them")
