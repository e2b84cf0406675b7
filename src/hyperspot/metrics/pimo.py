"""AUPIMO: how much of each defect is found while the good images stay all but clean.

Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low Tolerance",
BMVC 2024 (arXiv 2401.01984). The horizontal axis is the mean over good images of each one's own
false-positive rate, on a logarithmic scale; the vertical axis is the recall over the whole mask of one
defective image. The paper samples 300 000 thresholds; here every score of a good pixel is one.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from hyperspot.utils.out_of_core import SpooledArray

LOWER, UPPER = 1e-5, 1e-4
"""The bounds of the false-positive rate over which the recall is averaged."""
WAITING = 2**22
"""Scores of good pixels gathered before those that no longer matter are dropped: 50 MB with their weights."""


class SharedRate:
    """The mean over good images of their own false-positive rates, exact up to `UPPER`."""

    def __init__(self, images: SpooledArray) -> None:
        n = len(images)
        distinct, weights = np.zeros(0, dtype=np.float32), np.zeros(0)
        floor = np.float32(-np.inf)
        tails, shares, waiting = [distinct], [weights], 0
        for number, pixels in enumerate(images, 1):
            # A score outside this tail is outranked by so many of its own image's pixels that the mean over
            # all images is past the upper bound, whatever the other images hold.
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
                    # The images still to come can only rank it lower, and all below it.
                    floor = distinct[past]
                    distinct, weights = distinct[: past + 1], weights[: past + 1]
                tails, shares, waiting = [distinct], [weights], 0
        rates = np.cumsum(weights)
        past = int(np.searchsorted(rates, UPPER, side="right"))
        if past < len(rates):
            # The tie that leads past the upper bound may reach below the tails: its end is counted in full.
            end = distinct[past]
            rates[past] = sum(int(np.count_nonzero(image >= end)) / len(image) for image in images) / n
        self._ascending = distinct[: past + 1][::-1]
        self._rates = np.concatenate([[0.0], rates[: past + 1]])

    def above(self, scores: Float32[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the shared rate of the pixels above each score; where past `UPPER`, some rate past it."""
        return self._rate(scores, "right")

    def reached(self, scores: Float32[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the shared rate of the pixels at or above each score; where `above` is past `UPPER`, so is it."""
        return self._rate(scores, "left")

    def _rate(self, scores: Float32[np.ndarray, " n"], side: Literal["left", "right"]) -> Float64[np.ndarray, " n"]:
        passed = len(self._ascending) - np.searchsorted(self._ascending, scores, side=side)
        return np.asarray(self._rates[passed], dtype=np.float64)


def _merged(
    values: Float32[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, " distinct"], Float64[np.ndarray, " distinct"]]:
    """Return the distinct values, descending, and the weight of each."""
    order = np.argsort(values)[::-1]
    values, weights = values[order], weights[order]
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return values[first], np.add.reduceat(weights, first)


def covered(before: Float64[np.ndarray, " n"], after: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return what a pixel found along the rates before..after adds to the AUPIMO of its mask, in 0..1.

    That is the mean over ln(rate), between the bounds, of the chance that it is found by then; the chance
    grows in proportion to the rate, as for an order drawn at random within a tie.
    """
    low, high = np.clip(before, LOWER, UPPER), np.clip(after, LOWER, UPPER)
    slope = np.divide(1.0, after - before, out=np.zeros_like(after), where=after > before)
    ramp = ((high - low) - before * np.log(high / low)) * slope
    return np.asarray((ramp + np.log(UPPER / high)) / math.log(UPPER / LOWER), dtype=np.float64)
