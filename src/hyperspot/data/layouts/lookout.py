"""Manifests of Amazon Lookout for Vision and SageMaker Ground Truth: a JSON object in each line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from hyperspot.data.layouts.annotations import ONE_OF, named_split, split_of_name
from hyperspot.data.layouts.base import Found, Layout, Sample, label_of, set_aside
from hyperspot.errors import DataError

IMAGE, LABEL, MASK = "source-ref", "anomaly-label", "anomaly-mask-ref"
CLASSIFICATION, SEGMENTATION = "groundtruth/image-classification", "groundtruth/semantic-segmentation"
ENDINGS = (".manifest", ".jsonl")


def _read_lookout(root: Path) -> Found:
    folder = root.parent if root.is_file() else root
    # Manifests lie beside the folders of images, or in `manifests` beside them.
    top = folder.parent if root.is_file() and folder.name == "manifests" else folder
    manifests = [root] if root.is_file() else _manifests(root)
    samples: list[Sample] = []
    problems: list[str] = []
    undivided: list[Path] = []
    masks: set[Path] = set()
    for manifest in manifests:
        split = split_of_name(named_split(manifest.stem, is_alone=len(manifests) == 1))
        places = [top] if manifest.parent == top else [top, manifest.parent]
        for number, line in enumerate(manifest.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if not line.strip():
                continue
            where = f"line {number} of {manifest}"
            try:
                sample = _sample(json.loads(line), places, where, problems)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise DataError(f"{where} is no line of a Lookout for Vision manifest ({error!r})") from None
            if sample is None:
                continue
            masks.update(mask.parent for mask in sample.masks)
            if sample.label == 0 and split == "":
                undivided.append(sample.path)
            else:
                kept: Literal["train", "test"] = "train" if split == "train" and sample.label == 0 else "test"
                samples.append(replace(sample, split=kept))
    if undivided:
        problems.append(f"there is no split: one of {ONE_OF} good images was set aside for the test")
    samples += set_aside(undivided, top, ONE_OF)
    ordered = sorted(samples, key=lambda sample: (sample.split == "test", sample.label == 1))
    return Found(ordered, problems, tuple(sorted(masks - {sample.path.parent for sample in samples})))


def _sample(line: Mapping[str, Any], places: Sequence[Path], where: str, problems: list[str]) -> Sample | None:
    path = _local(line[IMAGE], places)
    if path is None:
        problems.append(f"{where} names {line[IMAGE]}, which is not below {places[0]}; it is left out")
        return None
    label_key, mask_key = _attribute(line, CLASSIFICATION, LABEL), _attribute(line, SEGMENTATION, MASK)
    # The number is 1 for good images too in manifests of the console: the name of the class decides.
    described = line.get(f"{label_key}-metadata", {}).get("class-name", line.get(label_key, ""))
    label = label_of(str(described), where)
    if label != 1:
        return Sample(path, label, "test", "good" if label == 0 else "")
    colors = line.get(f"{mask_key}-metadata", {}).get("internal-color-map", {})
    names = sorted({one["class-name"] for one in colors.values() if one["class-name"].upper() != "BACKGROUND"})
    background = [one["hex-color"] for one in colors.values() if one["class-name"].upper() == "BACKGROUND"]
    color = bytes.fromhex(background[0].lstrip("#")) if background else bytes(3)
    mask = _local(line[mask_key], places) if mask_key in line else None
    if mask_key in line and mask is None:
        problems.append(f"{where} names the mask {line[mask_key]}, which is not below {places[0]}")
    masks = () if mask is None else (mask,)
    return Sample(path, 1, "test", "+".join(names) or "anomaly", masks, (), (color[0], color[1], color[2]))


def _attribute(line: Mapping[str, Any], kind: str, usual: str) -> str:
    """Return the name of the attribute of a kind; labeling jobs choose their own names."""
    described = [name for name, value in line.items() if isinstance(value, Mapping) and value.get("type") == kind]
    return described[0].removesuffix("-metadata") if described else usual


def _local(reference: str, places: Sequence[Path]) -> Path | None:
    """Return the file of an S3 address or a path: the longest end of it that exists below one of the folders."""
    parts = PurePosixPath(reference.removeprefix("s3://").replace("\\", "/")).parts
    for first in range(len(parts)):
        for folder in places:
            path = folder.joinpath(*parts[first:])
            if path.is_file():
                return path
    return None


def _manifests(root: Path) -> list[Path]:
    places = [root, root / "manifests"]
    return [path for place in places if place.is_dir() for path in sorted(place.iterdir()) if _is_manifest(path)]


def _is_manifest(path: Path) -> bool:
    if path.suffix.lower() not in ENDINGS or not path.is_file():
        return False
    with path.open("rb") as file:
        return f'"{IMAGE}"'.encode() in file.readline()


LOOKOUT = Layout(
    lambda root: bool(_manifests(root)) if root.is_dir() else _is_manifest(root),
    _read_lookout,
    "a manifest of JSON lines with source-ref and anomaly-label",
)
