"""Confidence intervals of rates."""

import math
from statistics import NormalDist

import numpy as np


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
    _check(count, total, confidence)
    if total == 0:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, extra = count / total, z * z / total
    center = (rate + extra / 2) / (1 + extra)
    half = z * math.sqrt(rate * (1 - rate) / total + extra / (4 * total)) / (1 + extra)
    # The ends are exact where nothing or everything was observed; rounding would miss them.
    return 0.0 if count == 0 else center - half, 1.0 if count == total else center + half


def exact_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the interval of Clopper and Pearson (Biometrika 26, 1934) of a rate, in 0..1.

    It holds the true rate with at least this confidence for any total; the interval of Wilson does so on average.

    Args:
        count: From 0 to `total`.
        total: None is returned for 0.
        confidence: In (0, 1).

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> low, high = exact_interval(1, 25)
        >>> f"{low:.3f} to {high:.3f}"
        '0.001 to 0.204'

    """
    _check(count, total, confidence)
    if total == 0:
        return None
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else beta_quantile(tail, count, total)
    return low, 1.0 if count == total else beta_quantile(1 - tail, count + 1, total)


def _check(count: int, total: int, confidence: float) -> None:
    if not (0 <= count <= total and 0 < confidence < 1):
        raise ValueError(f"{count} of {total} with confidence {confidence} is no rate")


def beta_quantile(share: float, a: int, n: int) -> float:
    """Return a quantile of Beta(a, n + 1 - a), by bisection: exported files are evaluated without scipy.

    Its distribution function at x is the probability of at least a successes of n with the chance x.
    """
    counts = np.arange(a)
    ways = np.array([math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1) for j in range(a)])
    low, high = 0.0, 1.0
    for _ in range(60):
        x = (low + high) / 2
        fewer = float(np.exp(ways + counts * math.log(x) + (n - counts) * math.log1p(-x)).sum())
        low, high = (x, high) if 1 - fewer < share else (low, x)
    return (low + high) / 2
