"""Brightness, focus and position of images, compared with the training images.

They tell why scores change: a lamp that ages, a lens that moved, a part that lies elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

CHECKS = ("brightness", "focus", "position_x", "position_y")
GRID = 96
"""Rows and columns that brightness and position are computed from."""
PATCHES, PATCH = 4, 48
"""Focus is computed from PATCHES x PATCHES windows of PATCH pixels at full resolution, where a small defocus shows."""
CHANCE = 1e-3
"""Chance that one check of an image like the training images is unusual, if the check is normally distributed."""
MEASURABLE = {"brightness": 0.5, "focus": 0.002, "position_x": 0.002, "position_y": 0.002}
"""Spreads below these are rounding: 8-bit values, and whole pixels of the grid."""
EFFICIENCY = 0.37
"""Of the median absolute deviation: n images give the precision of a standard deviation of 0.37 n."""


def checks_of(pixels: UInt8[np.ndarray, "h w 3"]) -> dict[str, float]:
    """Return brightness, focus and position of an image.

    Args:
        pixels: 8-bit RGB.

    Returns:
        `brightness`: mean of all channels, in 0..255. `focus`: energy of the Laplacian over the variance, at full
        resolution, at least 0; higher is sharper. `position_x`, `position_y`: center of what differs from the typical
        brightness, as shares of width and height, in 0..1.

    Examples:
        >>> import numpy as np
        >>> from hyperspot.service.monitoring.image_checks import checks_of
        >>> image = np.full((480, 640, 3), 20, np.uint8)
        >>> image[120:360, 320:640] = 220
        >>> checks = checks_of(image)
        >>> round(checks["brightness"]), round(checks["position_x"], 2), round(checks["position_y"], 2)
        (70, 0.75, 0.5)

    """
    height, width = pixels.shape[:2]
    rows, columns = _spread(height, GRID), _spread(width, GRID)
    sample = pixels[np.ix_(rows, columns)]
    gray = sample.mean(axis=2, dtype=np.float32)
    weights = np.abs(gray - np.median(gray))
    total = float(weights.sum())
    x = float(weights.sum(axis=0) @ (columns + 0.5)) / (total * width) if total > 0 else 0.5
    y = float(weights.sum(axis=1) @ (rows + 0.5)) / (total * height) if total > 0 else 0.5
    return {"brightness": float(gray.mean()), "focus": _focus(pixels), "position_x": x, "position_y": y}


def _focus(pixels: UInt8[np.ndarray, "h w 3"]) -> float:
    height, width = pixels.shape[:2]
    if min(height, width) < 3:
        return 0.0
    tops, lefts = (_spread(max(1, side - PATCH + 1), PATCHES) for side in (height, width))
    patches = np.stack(
        [pixels[top : top + PATCH, left : left + PATCH, 1] for top in tops for left in lefts], dtype=np.float32
    )
    laplacian = 4 * patches[:, 1:-1, 1:-1] - patches[:, :-2, 1:-1] - patches[:, 2:, 1:-1]
    laplacian -= patches[:, 1:-1, :-2] + patches[:, 1:-1, 2:]
    variance = float(patches.var(axis=(1, 2)).sum())
    return float(np.square(laplacian).mean(axis=(1, 2)).sum()) / variance if variance > 0 else 0.0


def _spread(length: int, count: int) -> np.ndarray:
    """Return at most `count` indices, evenly over a length."""
    count = min(count, length)
    return ((np.arange(count) + 0.5) * length / count).astype(np.intp)


def training_statistics(checks: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return median, spread and range of each check of the training images, as JSON values.

    The spread is the median absolute deviation, scaled to the standard deviation of normal values: a few odd images do
    not move it.

    Args:
        checks: Of each image, by `checks_of`.

    Returns:
        `images` and, by the name of the check, `median`, `spread`, `lowest` and `highest`; empty without images.

    Examples:
        >>> from hyperspot.service.monitoring.image_checks import training_statistics
        >>> training_statistics([{"brightness": 100.0}, {"brightness": 104.0}, {"brightness": 102.0}])["brightness"]
        {'median': 102.0, 'spread': 2.9652, 'lowest': 100.0, 'highest': 104.0}

    """
    if not checks:
        return {}
    statistics: dict[str, Any] = {"images": len(checks)}
    for name in CHECKS:
        values: Float[np.ndarray, "_images"] = np.array([one[name] for one in checks if name in one], dtype=np.float64)
        if len(values):
            median = float(np.median(values))
            statistics[name] = {
                "median": median,
                "spread": 1.4826 * float(np.median(np.abs(values - median))),
                "lowest": float(values.min()),
                "highest": float(values.max()),
            }
    return statistics


def limits_of(name: str, statistics: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the range of a check that is usual; None if it is unknown.

    A check of an image like the training images is outside with a chance of at most `CHANCE`, if it is normally
    distributed. All training images are inside.

    Examples:
        >>> from hyperspot.service.monitoring.image_checks import limits_of
        >>> values = {"median": 100.0, "spread": 2.0, "lowest": 95.0, "highest": 104.0}
        >>> low, high = limits_of("brightness", {"images": 200, "brightness": values})
        >>> round(low, 1), round(high, 1)
        (93.1, 106.9)

    """
    values = statistics.get(name)
    if values is None:
        return None
    images = int(statistics["images"])
    spread = max(values["spread"], MEASURABLE[name])
    # The median of n images has itself a spread; its variance is pi / 2n of that of an image.
    reach = (
        _quantile(1 - CHANCE / 2, max(1.0, EFFICIENCY * (images - 1))) * spread * math.sqrt(1 + math.pi / 2 / images)
    )
    return min(values["median"] - reach, values["lowest"]), max(values["median"] + reach, values["highest"])


def unusual(checks: Mapping[str, float], statistics: Mapping[str, Any]) -> list[str]:
    """Return the names of the checks that are outside the limits of the training images.

    Examples:
        >>> from hyperspot.service.monitoring.image_checks import unusual
        >>> values = {"median": 100.0, "spread": 2.0, "lowest": 95.0, "highest": 104.0}
        >>> unusual({"brightness": 60.0}, {"images": 200, "brightness": values})
        ['brightness']

    """
    found = []
    for name in CHECKS:
        limits = limits_of(name, statistics)
        if limits is not None and name in checks and not limits[0] <= checks[name] <= limits[1]:
            found.append(name)
    return found


def _quantile(share: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution (Cornish-Fisher; Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(share)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
