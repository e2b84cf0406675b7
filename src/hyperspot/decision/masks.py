"""The defect mask of an image: pixels near the peak of the anomaly map, region by region.

An anomaly map is blurred by the patches and by its smoothing. At a fixed level, a strong defect is outlined with a wide
margin; a level relative to the peak follows its edge. The blur widens a small region more than a large one, so the
level inside a region rises as its area falls.
"""

import numpy as np
from jaxtyping import Bool, Float

from hyperspot.images.masks import connected_runs, maxima, run_blocks

LEVEL = 0.4
"""Level of a large region, from the typical score (0) to the peak (1)."""
SMALL_LEVEL = 0.8
"""Level that a region approaches as its area falls."""
SMALL_AREA = 2000.0
"""Area in input pixels at which the level has fallen by 1 - 1/e of the way from small to large.

It and the levels were chosen on the development categories."""


def defect_mask(
    heatmap: Float[np.ndarray, "h w"], floor: float, typical: float, input_pixels: float
) -> Bool[np.ndarray, "h w"]:
    """Return the mask of a heatmap; no pixel below the floor is in it.

    Args:
        heatmap: At the size of the image, or a part of it outside of which no pixel exceeds the floor.
        floor: Score that few good images reach anywhere.
        typical: Median score of good pixels.
        input_pixels: Area of a pixel of the image, in pixels of the input.

    Examples:
        >>> heatmap = np.zeros((64, 64))
        >>> heatmap[:8, :8], heatmap[8:10, :8] = 10.0, 3.0
        >>> defect_mask(heatmap, floor=2.0, typical=0.0, input_pixels=1.0).sum()
        np.int64(64)

    """
    peak = float(heatmap.max())
    mask: Bool[np.ndarray, "h w"] = heatmap > max(floor, typical + LEVEL * (peak - typical))
    if not mask.any():
        return mask
    runs = connected_runs(mask)
    lengths = runs.stops - runs.starts
    areas = np.bincount(runs.parts, lengths) * input_pixels
    levels = LEVEL + (SMALL_LEVEL - LEVEL) * np.exp(-areas / SMALL_AREA)
    thresholds = np.maximum(floor, typical + levels * (maxima(heatmap, mask, runs) - typical))
    for rows, mine in run_blocks(mask, runs):
        block = mask[rows]
        block[block] = heatmap[rows][block] > np.repeat(thresholds[runs.parts[mine]], lengths[mine])
    return mask
