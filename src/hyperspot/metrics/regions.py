"""Connected regions of defect masks, which have equal weight in AUPRO."""

import numpy as np
from jaxtyping import Bool, Int64

from hyperspot.images.masks import connected_runs


def label_regions(
    mask: Bool[np.ndarray, "h w"],
) -> tuple[Int64[np.ndarray, "_defective"], Int64[np.ndarray, "_regions"]]:
    """Return the region number of each defective pixel, in the order of `image[mask]`, and the areas of the regions.

    Regions are 8-connected, as in the evaluation of MVTec AD.

    Examples:
        >>> import numpy as np
        >>> regions, areas = label_regions(np.array([[True, False, True], [True, False, True]]))
        >>> regions.tolist(), areas.tolist()
        ([0, 1, 0, 1], [2, 2])

    """
    if not mask.any():
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    _, starts, stops, parts = connected_runs(mask)
    region = np.repeat(parts, stops - starts).astype(np.int64)
    return region, np.bincount(region).astype(np.int64)
