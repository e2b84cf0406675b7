"""Finds the good images whose held-out scores are far from those of the others."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

FAR = 4.0
"""Robust standard deviations above the median from which an image is odd."""


def robust_z(scores: Sequence[float] | Float[np.ndarray, "_n"]) -> Float[np.ndarray, "_n"]:
    """Return how many robust standard deviations each score lies above the median.

    The standard deviation is 1.4826 times the median absolute deviation. Logarithms of the scores are taken if all are
    positive: distances have a long tail on good images too.

    Examples:
        >>> robust_z([1.0, 1.1, 0.9, 1.05, 0.95, 3.0]).round(1).tolist()
        [-0.2, 0.7, -1.2, 0.2, -0.7, 9.9]

    """
    values = np.asarray(scores, dtype=np.float64)
    if not values.size:
        return values
    if (values > 0).all():
        values = np.log(values)
    distances = values - np.median(values)
    spread = 1.4826 * float(np.median(np.abs(distances)))
    # Half of the scores are equal: any other is odd.
    return distances / spread if spread > 0 else np.where(distances == 0, 0.0, np.copysign(np.inf, distances))
