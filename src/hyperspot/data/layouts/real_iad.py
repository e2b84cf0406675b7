"""Real-IAD: OK/SAMPLE/*.jpg and NG/DEFECT/SAMPLE/*.jpg of several views, and a JSON file with the split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hyperspot.data.layouts.annotations import read_json
from hyperspot.data.layouts.base import Found, Layout, Sample, set_aside
from hyperspot.errors import DataError
from hyperspot.images.finding import find_folders, find_images

ONE_OF = 2
"""Without a JSON file, one of so many good images becomes a test image, about as in the official split."""
LISTS = ("", "realiad_jsons", "realiad_jsons/realiad_jsons", "realiad_jsons/jsons")
"""Where the JSON files lie, in one of the two folders around a product."""


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
    samples = set_aside(good, root, ONE_OF)
    for folder in find_folders(root / "NG") if (root / "NG").is_dir() else ():
        paths = find_images(folder, recursive=True)
        # Masks lie beside the images and are the only PNG files.
        masks = {_bare(path): path for path in paths if path.suffix.lower() == ".png"}
        for path in paths:
            if path.suffix.lower() != ".png":
                mask = masks.get(path.with_suffix(""))
                # Without a mask, the defect may be hidden in this view.
                label: Literal[1] | None = None if mask is None else 1
                samples.append(Sample(path, label, "test", folder.name if mask else "", (mask,) if mask else ()))
    named = f"realiad_jsons/{root.name}.json"
    return Found(samples, [f"{named} is missing: one of {ONE_OF} good images was set aside for the test"])


def _bare(mask: Path) -> Path:
    return mask.with_name(mask.stem.removesuffix("_mask"))


def _list_of(root: Path) -> Path | None:
    around = (root, root.resolve().parent, root.resolve().parent.parent)
    places = [folder / below / f"{root.resolve().name}.json" for folder in around for below in LISTS]
    return next((path for path in places if path.is_file()), None)


def _recognizes(root: Path) -> bool:
    """Return whether a folder of samples lies in OK, or of defects in NG."""
    return any((root / name).is_dir() and find_folders(root / name) for name in ("OK", "NG"))


REAL_IAD = Layout(
    _recognizes, _read_real_iad, "OK/SAMPLE/NAME.jpg, NG/DEFECT/SAMPLE/NAME.jpg and realiad_jsons/PRODUCT.json"
)
