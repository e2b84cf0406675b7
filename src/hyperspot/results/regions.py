"""Regions: the connected parts of a defect mask."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from hyperspot.images.masks import connected_runs


@dataclass(frozen=True)
class Region:
    """One connected defect.

    Attributes:
        left, top, width, height: Its bounding box, in pixels of the original image.
        area: In pixels.
        score: Its highest anomaly score.
        length_px: Its longest caliper, in pixels of the original image; None if it was not measured.
        width_px: Its shortest caliper.
        length_mm, width_mm, area_mm2: In millimeters; None without a scale.
        zone: Name of the zone with most of its pixels; None without zones.

    Examples:
        >>> from hyperspot import Region
        >>> Region(left=4, top=2, width=10, height=5, area=37, score=1.5).xyxy
        (4, 2, 14, 7)
        >>> Region(left=4, top=2, width=10, height=5, area=37, score=1.5).to_dict()["area"]
        37

    """

    left: int
    top: int
    width: int
    height: int
    area: int
    score: float
    length_px: float | None = None
    width_px: float | None = None
    length_mm: float | None = None
    width_mm: float | None = None
    area_mm2: float | None = None
    zone: str | None = None

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        """The box as left, top, right, bottom; right and bottom lie one pixel outside."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def to_dict(self) -> dict[str, int | float | str]:
        """Return the fields by name, without those that are None."""
        return {name: value for name, value in self.__dict__.items() if value is not None}


def find_regions(mask: Bool[np.ndarray, "h w"], heatmap: Float[np.ndarray, "h w"]) -> tuple[Region, ...]:
    """Return the 8-connected regions of a mask, highest score first.

    Examples:
        >>> mask = np.array([[True, False, False], [False, False, True]])
        >>> [region.xyxy for region in find_regions(mask, np.arange(6.0).reshape(2, 3))]
        [(2, 1, 3, 2), (0, 0, 1, 1)]

    """
    if not mask.any():
        return ()
    rows, starts, stops, parts = connected_runs(mask)
    lengths = stops - starts
    count = int(parts.max()) + 1
    top, left = np.full((2, count), max(mask.shape))
    bottom, right, areas = np.zeros((3, count), dtype=np.intp)
    scores = np.full(count, -np.inf, dtype=heatmap.dtype)
    np.minimum.at(top, parts, rows)
    np.maximum.at(bottom, parts, rows + 1)
    np.minimum.at(left, parts, starts)
    np.maximum.at(right, parts, stops)
    np.add.at(areas, parts, lengths)
    np.maximum.at(scores, parts, np.maximum.reduceat(heatmap[mask], np.cumsum(lengths) - lengths))
    regions = [
        Region(
            left=int(left[part]),
            top=int(top[part]),
            width=int(right[part] - left[part]),
            height=int(bottom[part] - top[part]),
            area=int(areas[part]),
            score=float(scores[part]),
        )
        for part in range(count)
    ]
    return tuple(sorted(regions, key=lambda region: -region.score))
