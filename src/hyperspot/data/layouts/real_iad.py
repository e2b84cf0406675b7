"""Real-IAD: OK/SAMPLE/*.jpg and NG/DEFECT/SAMPLE/*.jpg of several views, and a JSON file with the split."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hyperspot.data.layouts.annotations import holds_keys, read_json
from hyperspot.data.layouts.base import Found, Layout, Sample, set_aside
from hyperspot.errors import DataError
from hyperspot.images.finding import find_folders, find_images

ONE_OF = 2
"""Without a JSON file, one of so many good samples is for the test, about as in the official split."""
SAMPLE, VIEW = re.compile(r"S\d{4}"), re.compile(r"_C\d+_")
"""Names of the folders of samples, and what the names of images hold."""
LISTS = ("", "realiad_jsons", "realiad_jsons/realiad_jsons", "realiad_jsons/jsons")
"""Where the JSON files lie, in one of the two folders around a product."""
LIST_KEYS = ("train", "test", "anomaly_class", "image_path")


def _read_real_iad(root: Path) -> Found:
    listed = _list_of(root)
    if listed is None:
        return _read_folders(root)
    content = read_json(listed)
    samples: list[Sample] = []
    missing: list[str] = []
    try:
        normal = content.get("meta", {}).get("normal_class", "OK")
        for split in ("train", "test"):
            for entry in content[split]:
                sample = _sample(entry, root, normal)
                if sample is None:
                    missing.append(entry["image_path"])
                else:
                    samples.append(Sample(sample.path, sample.label, split, sample.defect, sample.masks))
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{listed} is no list of Real-IAD ({error!r}); download it again") from None
    problems = []
    if missing:
        verb = "image is" if len(missing) == 1 else "images are"
        problems.append(f"{len(missing)} {verb} listed in {listed.name} but missing ({missing[0]})")
    return Found(samples, problems)


def _sample(entry: Mapping[str, Any], root: Path, normal: str) -> Sample | None:
    path = root / entry["image_path"]
    if not path.is_file():
        return None
    if entry["anomaly_class"] == normal:
        return Sample(path, 0, "test", "good")
    masks = (root / entry["mask_path"],) if entry.get("mask_path") else ()
    return Sample(path, 1, "test", entry["anomaly_class"], masks)


def _read_folders(root: Path) -> Found:
    good = find_images(root / "OK", recursive=True) if (root / "OK").is_dir() else []

    def part_of(path: Path) -> Path:
        # The views of one part, and thus its folder, stay together.
        return root / Path(*path.relative_to(root).parts[:2])

    samples = set_aside(good, root, ONE_OF, part_of)
    unlabeled: list[Path] = []
    orphans: list[Path] = []
    for folder in find_folders(root / "NG") if (root / "NG").is_dir() else ():
        paths = find_images(folder, recursive=True)
        # Masks lie beside the images and are the only PNG files.
        masks = {_bare(path): path for path in paths if path.suffix.lower() == ".png"}
        for path in paths:
            if path.suffix.lower() == ".png":
                continue
            mask = masks.pop(path.with_suffix(""), None)
            if mask is None:
                # The defect may be hidden in this view.
                unlabeled.append(path)
                samples.append(Sample(path, None, "test", ""))
            else:
                samples.append(Sample(path, 1, "test", folder.name, (mask,)))
        orphans += masks.values()
    problems = [f"realiad_jsons/{root.name}.json is missing: one of {ONE_OF} good samples was set aside for the test"]
    for paths, one, many in (
        (unlabeled, "image in NG has no mask and thus no label", "images in NG have no mask and thus no label"),
        (orphans, "PNG file in NG is a mask without an image", "PNG files in NG are masks without an image"),
    ):
        if paths:
            example = paths[0].relative_to(root).as_posix()
            left_out = "it is left out" if len(paths) == 1 else "they are left out"
            problems.append(f"{len(paths)} {one if len(paths) == 1 else many} ({example}); {left_out}")
    return Found(samples, problems)


def _bare(mask: Path) -> Path:
    return mask.with_name(mask.stem.removesuffix("_mask"))


def _list_of(root: Path) -> Path | None:
    around = (root, root.resolve().parent, root.resolve().parent.parent)
    places = [folder / below / f"{root.resolve().name}.json" for folder in around for below in LISTS]
    return next((path for path in places if path.is_file()), None)


def _recognizes(root: Path) -> bool:
    """Return whether OK or NG holds folders, and a list or the names of Real-IAD: others name folders so, too."""
    if not any((root / name).is_dir() and find_folders(root / name) for name in ("OK", "NG")):
        return False
    listed = _list_of(root)
    return (listed is not None and holds_keys(listed, LIST_KEYS)) or any(
        VIEW.search(path.name) for folder in _sample_folders(root) for path in find_images(folder)
    )


def _sample_folders(root: Path) -> Iterator[Path]:
    outer = [root / "OK", *(find_folders(root / "NG") if (root / "NG").is_dir() else ())]
    for place in outer:
        for folder in find_folders(place) if place.is_dir() else ():
            if SAMPLE.fullmatch(folder.name):
                yield folder


REAL_IAD = Layout(
    _recognizes, _read_real_iad, "OK/SAMPLE/NAME.jpg, NG/DEFECT/SAMPLE/NAME.jpg and realiad_jsons/PRODUCT.json"
)
