"""The connected regions of defect masks, each of which counts the same in AUPRO."""

import numpy as np
from jaxtyping import Bool, Int64
from scipy import ndimage

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def label_regions(
    mask: Bool[np.ndarray, "h w"],
) -> tuple[Int64[np.ndarray, "_defective"], Int64[np.ndarray, "_regions"]]:
    """Return which region each defective pixel belongs to, in the order of `image[mask]`, and the areas.

    Pixels that touch at a side or a corner are connected, as in the evaluation of MVTec AD.
    """
    if not mask.any():
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    # Labelling the bounding box alone is several times faster for the small defects that are usual.
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, count = ndimage.label(box, structure=EIGHT_CONNECTED)
    region = labels[box].astype(np.int64) - 1
    return region, np.bincount(region, minlength=count).astype(np.int64)
