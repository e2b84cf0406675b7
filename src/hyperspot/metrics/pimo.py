"""AUPIMO: recall within each defective image at very low false-positive rates on good images.

Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low Tolerance",
BMVC 2024 (arXiv 2401.01984). The x-axis is the shared false-positive rate, the mean over good images of the
false-positive rate in each, on a logarithmic scale; the y-axis is the recall of the pixels of one defective image.
The paper samples 300 000 thresholds; here every score of a good pixel is a threshold.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from hyperspot.utils.out_of_core import SpooledArray

LOWER, UPPER = 1e-5, 1e-4
"""Bounds of the shared false-positive rate over which the recall is averaged."""
WAITING = 2**22
"""Scores of good pixels collected before irrelevant ones are dropped: 50 MB with their weights."""


class SharedRate:
    """The shared false-positive rate: the mean over good images of the rate in each, exact up to `UPPER`."""

    def __init__(self, images: SpooledArray) -> None:
        n = len(images)
        distinct, weights = np.zeros(0, dtype=np.float32), np.zeros(0)
        floor = np.float32(-np.inf)
        tails, shares, waiting = [distinct], [weights], 0
        for number, pixels in enumerate(images, 1):
            # At a score below this tail, the pixels of this image alone lift the mean over all images past
            # the upper bound.
            size = math.floor(n * UPPER * len(pixels)) + 2
            tail = pixels[pixels >= floor]
            if len(tail) > size:
                tail = np.partition(tail, len(tail) - size)[-size:].copy()
            tails.append(tail)
            shares.append(np.full(len(tail), 1 / (n * len(pixels))))
            waiting += len(tail)
            if waiting >= WAITING or number == n:
                distinct, weights = _merged(np.concatenate(tails), np.concatenate(shares))
                past = int(np.searchsorted(np.cumsum(weights), UPPER, side="right"))
                if past < len(distinct):
                    # Further images only increase the rate at this score and at lower ones.
                    floor = distinct[past]
                    distinct, weights = distinct[: past + 1], weights[: past + 1]
                tails, shares, waiting = [distinct], [weights], 0
        rates = np.cumsum(weights)
        past = int(np.searchsorted(rates, UPPER, side="right"))
        if past < len(rates):
            # The tie that crosses the upper bound may extend below the tails: count it in full.
            end = distinct[past]
            rates[past] = sum(int(np.count_nonzero(image >= end)) / len(image) for image in images) / n
        self._ascending = distinct[: past + 1][::-1]
        self._rates = np.concatenate([[0.0], rates[: past + 1]])

    def above(self, scores: Float32[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the shared rate of the pixels above each score; beyond `UPPER`, any rate beyond it."""
        return self._rate(scores, "right")

    def reached(self, scores: Float32[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the shared rate of the pixels at or above each score; beyond `UPPER` wherever `above` is."""
        return self._rate(scores, "left")

    def _rate(self, scores: Float32[np.ndarray, " n"], side: Literal["left", "right"]) -> Float64[np.ndarray, " n"]:
        passed = len(self._ascending) - np.searchsorted(self._ascending, scores, side=side)
        return np.asarray(self._rates[passed], dtype=np.float64)


def _merged(
    values: Float32[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, " distinct"], Float64[np.ndarray, " distinct"]]:
    """Return the distinct values, descending, and the total weight of each."""
    order = np.argsort(values)[::-1]
    values, weights = values[order], weights[order]
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return values[first], np.add.reduceat(weights, first)


def covered(before: Float64[np.ndarray, " n"], after: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return the contribution to AUPIMO, in 0..1, of a pixel detected between the rates before and after.

    It is the mean over ln(rate), between the bounds, of the probability that the pixel is detected at this rate. The
    probability grows linearly in the rate: the expectation over random orders within a tie.

    Examples:
        >>> import numpy as np
        >>> covered(np.array([0.0, 1e-4]), np.array([1e-5, 1e-3])).tolist()
        [1.0, 0.0]

    """
    low, high = np.clip(before, LOWER, UPPER), np.clip(after, LOWER, UPPER)
    slope = np.divide(1.0, after - before, out=np.zeros_like(after), where=after > before)
    ramp = ((high - low) - before * np.log(high / low)) * slope
    return np.asarray((ramp + np.log(UPPER / high)) / math.log(UPPER / LOWER), dtype=np.float64)
