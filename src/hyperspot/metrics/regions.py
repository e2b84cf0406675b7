"""The connected regions of defect masks, each of which counts the same in AUPRO."""

import numpy as np
from jaxtyping import Bool, Int64

from hyperspot.images.masks import connected_runs


def label_regions(
    mask: Bool[np.ndarray, "h w"],
) -> tuple[Int64[np.ndarray, "_defective"], Int64[np.ndarray, "_regions"]]:
    """Return which region each defective pixel belongs to, in the order of `image[mask]`, and the areas.

    Pixels that touch at a side or a corner are connected, as in the evaluation of MVTec AD.
    """
    if not mask.any():
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    _, starts, stops, parts = connected_runs(mask)
    region = np.repeat(parts, stops - starts).astype(np.int64)
    return region, np.bincount(region).astype(np.int64)
