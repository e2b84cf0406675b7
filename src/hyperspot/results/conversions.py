"""Results in the formats of other tools: COCO, YOLO and supervision."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool

from hyperspot.images.masks import connected_runs
from hyperspot.results.regions import Region
from hyperspot.results.verdict import Verdict
from hyperspot.utils.optional_packages import require

CATEGORY = {"id": 1, "name": "anomaly", "supercategory": "anomaly"}


class CocoBuilder:
    """Collects verdicts in one COCO document: `images`, `annotations` and `categories`.

    Each region is an annotation with its box, area, score and mask (uncompressed run-length encoding). Each image also
    has the keys `score` and `is_anomalous`.

    Examples:
        >>> import numpy as np
        >>> from hyperspot import CocoBuilder, Detector
        >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
        >>> bad = good[0].copy()
        >>> bad[24:40, 24:40] = 255
        >>> coco = CocoBuilder()
        >>> for verdict in Detector.fit(good, short_side=64, false_alarm_rate=0.2).predict_many([good[0], bad]):
        ...     coco.add(verdict)
        >>> document = coco.document()
        >>> [image["is_anomalous"] for image in document["images"]], len(document["annotations"])
        ([False, True], 1)
        >>> document["annotations"][0]["image_id"], document["categories"][0]["name"]
        (2, 'anomaly')

    """

    def __init__(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, verdict: Verdict) -> None:
        """Append the image and the regions of a verdict."""
        height, width = verdict.mask.shape
        number = len(self._images) + 1
        self._images.append(
            {
                "id": number,
                "file_name": None if verdict.path is None else str(verdict.path),
                "width": width,
                "height": height,
                "score": verdict.score,
                "is_anomalous": verdict.is_anomalous,
            }
        )
        for region, mask in region_masks(verdict):
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": CATEGORY["id"],
                    "bbox": [region.left, region.top, region.width, region.height],
                    "area": region.area,
                    "score": region.score,
                    "segmentation": _run_lengths(region, mask, (height, width)),
                    "iscrowd": 0,
                }
            )

    def document(self) -> dict[str, Any]:
        """Return the COCO document as JSON values."""
        return {"images": self._images, "annotations": self._annotations, "categories": [CATEGORY]}


def to_yolo(verdict: Verdict) -> str:
    """Return a YOLO label file: `class x_center y_center width height` per region, relative to the image, class 0.

    It is empty for an image that passed: the regions of a suspicious one would read as defects.

    Examples:
        >>> import dataclasses
        >>> import numpy as np
        >>> from hyperspot import Detector, Region, to_yolo
        >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
        >>> verdict = Detector.fit(good, short_side=64, false_alarm_rate=0.2).predict(good[0])
        >>> to_yolo(verdict)
        ''
        >>> region = Region(left=16, top=8, width=32, height=16, area=512, score=1.0)
        >>> to_yolo(dataclasses.replace(verdict, is_anomalous=True, regions=(region,)))
        '0 0.500000 0.250000 0.500000 0.250000\\n'

    """
    height, width = verdict.mask.shape
    lines = []
    for region in () if verdict.is_anomalous is False else verdict.regions:
        x, y = (region.left + region.width / 2) / width, (region.top + region.height / 2) / height
        lines.append(f"0 {x:.6f} {y:.6f} {region.width / width:.6f} {region.height / height:.6f}\n")
    return "".join(lines)


def to_supervision(verdict: Verdict) -> Any:
    """Return the regions as `supervision.Detections`, with boxes, masks and scores.

    Raises:
        MissingPackageError: If supervision is not installed.

    Examples:
        >>> import numpy as np
        >>> from hyperspot import Detector, MissingPackageError, to_supervision
        >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
        >>> verdict = Detector.fit(good, short_side=64, false_alarm_rate=0.2).predict(good[0])
        >>> try:
        ...     count = len(to_supervision(verdict))
        ... except MissingPackageError:
        ...     count = 0
        >>> count
        0

    """
    supervision = require("supervision", "supervision", "converting to supervision.Detections")
    if not verdict.regions:
        return supervision.Detections.empty()
    regions = verdict.regions
    masks = np.zeros((len(regions), *verdict.mask.shape), dtype=bool)
    for whole, (region, mask) in zip(masks, region_masks(verdict), strict=True):
        whole[region.top : region.top + region.height, region.left : region.left + region.width] = mask
    return supervision.Detections(
        xyxy=np.array([region.xyxy for region in regions], dtype=np.float32),
        mask=masks,
        confidence=np.array([region.score for region in regions], dtype=np.float32),
        class_id=np.zeros(len(regions), dtype=int),
        data={"class_name": np.array(["anomaly"] * len(regions))},
    )


def region_masks(verdict: Verdict) -> Iterator[tuple[Region, Bool[np.ndarray, "_h _w"]]]:
    """Yield each region with its mask inside of its box, in the order of `verdict.regions`."""
    if not verdict.regions:
        return
    runs = connected_runs(verdict.mask)
    order = np.argsort(runs.parts, kind="stable")
    rows, starts, stops = (one[order] for one in runs[:3])
    firsts = np.searchsorted(runs.parts[order], np.arange(int(runs.parts.max()) + 1))
    # Two connected components never have the same box: they would cross.
    lefts, rights = np.minimum.reduceat(starts, firsts), np.maximum.reduceat(stops, firsts)
    tops, bottoms = np.minimum.reduceat(rows, firsts), np.maximum.reduceat(rows, firsts) + 1
    boxes = zip(*(one.tolist() for one in (lefts, tops, rights, bottoms)), strict=True)
    spans = dict(zip(boxes, itertools.pairwise([*firsts.tolist(), len(rows)]), strict=True))
    for region in verdict.regions:
        mask = np.zeros((region.height, region.width), dtype=bool)
        for place in range(*spans[region.xyxy]):
            mask[rows[place] - region.top, starts[place] - region.left : stops[place] - region.left] = True
        yield region, mask


def _run_lengths(region: Region, mask: Bool[np.ndarray, "_h _w"], size: tuple[int, int]) -> dict[str, Any]:
    """Return uncompressed COCO run lengths of an image: column by column, first of zeros.

    Args:
        region: Where the mask lies.
        mask: Inside of the box of the region.
        size: Height and width of the image.

    """
    bordered = np.zeros((region.width, region.height + 2), dtype=bool)
    bordered[:, 1:-1] = mask.T
    columns, rows = np.nonzero(bordered[:, 1:] != bordered[:, :-1])
    edges = (columns + region.left) * size[0] + rows + region.top
    # A run that goes on at the top of the next column is one run.
    goes_on = np.flatnonzero(edges[1::2][:-1] == edges[2::2])
    edges = np.delete(edges, np.concatenate([2 * goes_on + 1, 2 * goes_on + 2]))
    counts = np.diff(np.concatenate([[0], edges, [size[0] * size[1]]]))
    # The last run is empty if the mask ends with a set pixel.
    return {"size": list(size), "counts": [int(count) for count in (counts if counts[-1] else counts[:-1])]}
