"""Confidence intervals of rates."""

import math
from statistics import NormalDist


def wilson_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the interval of Wilson (JASA 22, 1927) of a rate observed as `count` of `total`, in 0..1.

    Args:
        count: From 0 to `total`.
        total: None is returned for 0.
        confidence: In (0, 1).

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> low, high = wilson_interval(1, 25)
        >>> f"{low:.3f} to {high:.3f}"
        '0.007 to 0.195'

    """
    if not (0 <= count <= total and 0 < confidence < 1):
        raise ValueError(f"{count} of {total} with confidence {confidence} is no rate")
    if total == 0:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, extra = count / total, z * z / total
    center = (rate + extra / 2) / (1 + extra)
    half = z * math.sqrt(rate * (1 - rate) / total + extra / (4 * total)) / (1 + extra)
    # The ends are exact where nothing or everything was observed; rounding would miss them.
    return 0.0 if count == 0 else center - half, 1.0 if count == total else center + half
