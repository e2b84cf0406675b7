"""COCO: a JSON document with `images`, `annotations` and `categories`; one for each split, or one for all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperspot.data.layouts.annotations import (
    Annotated,
    found_in,
    holds_keys,
    images_by_name,
    locate,
    named_split,
    read_json,
    size_problems,
    split_folders,
    split_of_name,
    unlisted,
)
from hyperspot.data.layouts.base import Found, Layout
from hyperspot.data.shapes import Box, Polygon, RunLengths, Shape
from hyperspot.errors import DataError
from hyperspot.images.finding import find_images

KEYS = ("images", "annotations", "categories")


def _read_coco(root: Path) -> Found:
    documents = [root] if root.is_file() else _documents(root)
    folder = root.parent if root.is_file() else root
    # Documents lie beside the images, in `annotations` beside their folder, or in the folder of a split.
    top = folder.parent if root.is_file() and folder.name == "annotations" else folder
    images = find_images(top, recursive=True)
    annotated: list[Annotated] = []
    problems: list[str] = []
    for document in documents:
        content = read_json(document)
        name = document.relative_to(top).as_posix()
        try:
            split = _split(document, top, is_alone=len(documents) == 1)
            by_name = images_by_name(images, top, split)
            places = [document.parent, top, top / "images", top / split, top / "images" / split]
            categories = {one["id"]: str(one["name"]) for one in content["categories"]}
            by_image: dict[Any, list[tuple[str, Shape]]] = {}
            for one in content["annotations"]:
                of_image = by_image.setdefault(one["image_id"], [])
                defect = categories.get(one.get("category_id"), "")
                of_image += [(defect, shape) for shape in _shapes(one)]
            for one in content["images"]:
                path = locate(one["file_name"], places, by_name)
                if path is None:
                    problems.append(f"{one['file_name']} is listed in {name} but missing; it is left out")
                else:
                    problems += size_problems(name, path, one.get("height"), one.get("width"))
                    annotated.append(Annotated(path, split, tuple(by_image.get(one["id"], ()))))
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(f"{document} is no COCO document ({error!r}); export it again") from None
    problems += unlisted((one.path for one in annotated), top, ", ".join(one.name for one in documents))
    return found_in(annotated, top, problems)


def _shapes(annotation: Mapping[str, Any]) -> list[Shape]:
    """Return the parts of an annotation: its segmentation or, without one, its box."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, Mapping):
        height, width = segmentation["size"]
        return [RunLengths.from_coco(height, width, segmentation["counts"])]
    if segmentation:
        return [Polygon(tuple(zip(part[::2], part[1::2], strict=True))) for part in segmentation]
    left, top, width, height = annotation["bbox"]
    return [Box(left, top, left + width, top + height)]


def _split(document: Path, top: Path, is_alone: bool) -> str:
    """Return the split that a document is for, by its folder or its name, or nothing."""
    folder = "" if document.parent == top else document.parent.name
    return folder if split_of_name(folder) else named_split(document.stem, is_alone)


def _documents(root: Path) -> list[Path]:
    places = [root, root / "annotations", *(split_folders(root) if root.is_dir() else ())]
    found = [path for place in places if place.is_dir() for path in sorted(place.glob("*.json"))]
    return [path for path in found if holds_keys(path, KEYS)]


def _recognizes(root: Path) -> bool:
    return holds_keys(root, KEYS) if root.is_file() and root.suffix.lower() == ".json" else bool(_documents(root))


COCO = Layout(_recognizes, _read_coco, "a COCO document (.json), or a folder with one for each split")
