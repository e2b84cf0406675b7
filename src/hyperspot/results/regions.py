"""Regions: the connected parts of a defect mask."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from hyperspot.images.masks import connected_runs, maxima


@dataclass(frozen=True)
class Region:
    """One connected defect.

    Attributes:
        left, top, width, height: Its bounding box, in pixels of the original image.
        area: In pixels.
        score: Its highest anomaly score.

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

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        """The box as left, top, right, bottom; right and bottom lie one pixel outside."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields by name."""
        return dict(self.__dict__)


def find_regions(
    mask: Bool[np.ndarray, "h w"], heatmap: Float[np.ndarray, "h w"], origin: tuple[int, int] = (0, 0)
) -> tuple[Region, ...]:
    """Return the 8-connected regions of a mask, highest score first.

    Args:
        mask: Of the image, or of a part of it with all set pixels.
        heatmap: Of the same part.
        origin: Row and column of the part in the image.

    Examples:
        >>> mask = np.array([[True, False, False], [False, False, True]])
        >>> [region.xyxy for region in find_regions(mask, np.arange(6.0).reshape(2, 3))]
        [(2, 1, 3, 2), (0, 0, 1, 1)]

    """
    if not mask.any():
        return ()
    runs = connected_runs(mask)
    count = int(runs.parts.max()) + 1
    top, left = np.full((2, count), max(mask.shape))
    bottom, right = np.zeros((2, count), dtype=np.intp)
    np.minimum.at(top, runs.parts, runs.rows)
    np.maximum.at(bottom, runs.parts, runs.rows + 1)
    np.minimum.at(left, runs.parts, runs.starts)
    np.maximum.at(right, runs.parts, runs.stops)
    areas = np.bincount(runs.parts, runs.stops - runs.starts).astype(np.intp)
    scores = maxima(heatmap, mask, runs)
    # Stable, so that regions of equal score keep the reading order.
    order = np.argsort(-scores, kind="stable")
    columns = (left + origin[1], top + origin[0], right - left, bottom - top, areas, scores.astype(np.float64))
    return tuple(Region(*values) for values in zip(*(column[order].tolist() for column in columns), strict=True))
