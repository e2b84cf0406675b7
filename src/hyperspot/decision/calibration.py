"""Thresholds and p-values from good photos alone, by conformal prediction.

A new photo is ranked among good photos that its model did not see. If it is good too, its rank is uniform, so
that p = (1 + #{scores of held-out photos >= its own}) / (1 + number of held-out photos) is at most r with a
probability of at most r, whatever the scores mean (Vovk et al., Algorithmic Learning in a Random World, 2005).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float64, Int

from hyperspot.errors import CalibrationError

Mode = Literal["auto", "split", "cross", "none"]
Kind = Literal["split", "cross", "none"]

USUAL_RATE = 0.01
HELD_OUT_SHARE = 0.2
"""Share of the photos held out by a split at least: more than the rate needs, for a steadier threshold."""
FOLDS = 5
MOST_IMAGES = 10**12
"""Nobody has more, and beyond about it a rate's reciprocal is no whole number of photos any more."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What good photos score that the model did not see, and what follows from it for a new photo.

    Attributes:
        kind: `split`: the scores come from photos held out, and the promise is exact. `cross`: each comes from
            a model that did not see the photo, and the promise is approximate. `none`: there are none.
        false_alarm_rate: The promised share of good photos that are called anomalous, in (0, 1).
        scores: Scores of the held-out photos, ascending.
        threshold: A photo is anomalous exactly where its score is above it; none for the kind `none`.

    """

    kind: Kind
    false_alarm_rate: float
    scores: Float64[np.ndarray, "_held_out"]
    threshold: float | None

    @classmethod
    def from_scores(
        cls, kind: str, rate: float, scores: Sequence[float] | Float[np.ndarray, "_held_out"]
    ) -> "Calibration":
        """Calibrate by the scores of held-out good photos, in any order; the kind `none` takes none.

        Raises:
            CalibrationError: Where the scores are too few for the rate, or one of them is not a number.
            ValueError: Where the kind is unknown or the rate is not in (0, 1).

        """
        known: dict[str, Kind] = {one: one for one in get_args(Kind)}
        if kind not in known:
            raise ValueError(f"unknown kind of calibration: {kind!r}")
        _check_rate(rate)
        ordered = np.sort(np.asarray(scores, dtype=np.float64))
        ordered.flags.writeable = False
        if kind == "none":
            return cls(known[kind], rate, ordered[:0], None)
        if np.isnan(ordered).any():
            raise CalibrationError(
                "a held-out good photo has a score that is not a number; "
                "train again with other settings or without that photo"
            )
        n = len(ordered)
        if n < _needed(rate):
            raise CalibrationError(_too_few(rate, _needed(rate), n, "held-out good photos"))
        # The photos that may score at least as much as one that is still called anomalous.
        above = math.floor(rate * (n + 1))
        while (1 + above) / (n + 1) > rate:
            above -= 1
        return cls(known[kind], rate, ordered, float(ordered[n - 1 - above]))

    def p_value(self, score: float) -> float | None:
        """Return the share of good photos that score at least as much, in (0, 1]; none without calibration.

        Raises ValueError where the score is not a number.
        """
        if math.isnan(score):
            raise ValueError("the score is not a number")
        if self.threshold is None:
            return None
        n = len(self.scores)
        reached = n - int(np.searchsorted(self.scores, score, side="left"))
        return (1 + reached) / (n + 1)

    def is_anomalous(self, score: float) -> bool | None:
        """Return whether the p-value is at most the promised rate; none without calibration.

        Raises ValueError where the score is not a number.
        """
        p = self.p_value(score)
        return None if p is None else p <= self.false_alarm_rate


@dataclass(frozen=True)
class Plan:
    """How the good photos are shared between training and calibration.

    Attributes:
        kind: As in `Calibration`.
        held_out: Photos whose scores calibrate: those of the split, or all of them with folds.
        folds: Models to train on the way; 0 for the kind `none`.
        rate: The promised false-alarm rate, in (0, 1).

    """

    kind: Kind
    held_out: int
    folds: int
    rate: float

    def calibrate(self, scores: Sequence[float] | Float[np.ndarray, "_held_out"]) -> Calibration:
        """Return the calibration by the scores of the photos that were held out; raises CalibrationError."""
        return Calibration.from_scores(self.kind, self.rate, scores)


def plan(n: int, rate: float | None, mode: Mode = "auto") -> Plan:
    """Plan the calibration of a model from n good photos.

    Args:
        n: The number of good photos.
        rate: The false-alarm rate to promise, in (0, 1); none asks for 0.01, or for the smallest rate that the
            photos support.
        mode: `split` trains on at least half of the photos and calibrates with the others; `cross` judges
            every photo by a model trained on the other folds; `auto` splits where that leaves enough photos to
            train on, and crosses otherwise; `none` promises nothing.

    Raises:
        CalibrationError: Where the photos are too few for the rate.
        ValueError: Where the rate is not in (0, 1).

    """
    if rate is not None:
        _check_rate(rate)
    if mode == "none":
        return Plan("none", 0, 0, USUAL_RATE if rate is None else rate)
    if n < 2:
        raise CalibrationError(
            "calibration needs at least 2 good photos and there "
            f"{'is 1' if n == 1 else 'are none'}; add photos or train with `--calibration none`"
        )
    if rate is None:
        most = n // 2 if mode == "split" else n
        rate = max(USUAL_RATE, 1 / (most + 1))
    needed = _needed(rate)
    held_out = max(needed, math.ceil(HELD_OUT_SHARE * n))
    if mode != "cross" and held_out <= n / 2:
        return Plan("split", held_out, 1, rate)
    if mode == "split":
        raise CalibrationError(_too_few(rate, 2 * needed, n, "good photos to hold half of them out"))
    if n < needed:
        raise CalibrationError(_too_few(rate, needed, n, "good photos"))
    return Plan("cross", n, min(FOLDS, n), rate)


def split(n: int, plan: Plan, seed: int) -> list[Int[np.ndarray, "_held_out"]]:
    """Return the indices, ascending, of the photos that each model in turn does not see.

    One array for a split, one per fold (together all photos) for a cross plan, none without calibration.
    """
    shuffled = np.random.default_rng(seed).permutation(n)
    if plan.kind == "none":
        return []
    if plan.kind == "split":
        return [np.sort(shuffled[: plan.held_out])]
    return [np.sort(part) for part in np.array_split(shuffled, plan.folds)]


def pixel_threshold(values: Sequence[Float[np.ndarray, "_pixels"]], rate: float) -> float:
    """Return the smallest map value that at most a share `rate` of all held-out good pixels lies above.

    Args:
        values: Map values of each held-out good photo; every pixel counts once.
        rate: In (0, 1).

    Raises:
        ValueError: Where there is no pixel or the rate is not in (0, 1).

    """
    _check_rate(rate)
    pooled = np.concatenate(values)
    if pooled.size == 0:
        raise ValueError("no pixel to calibrate with")
    place = pooled.size - 1 - math.floor(rate * pooled.size)
    pooled.partition(place)
    return float(pooled[place])


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise ValueError(f"a false-alarm rate lies between 0 and 1, not at {rate}")


def _needed(rate: float) -> int:
    """Return the fewest scores whose smallest p-value, 1 / (n + 1), is at most the rate."""
    quotient = 1 / rate
    if quotient > MOST_IMAGES:
        return MOST_IMAGES
    n = max(1, math.floor(quotient) - 1)
    # The quotient may fall on either side of a whole number; the comparison of the p-value itself decides.
    return n if 1 / (n + 1) <= rate else n + 1


def _too_few(rate: float, needed: int, n: int, what: str) -> str:
    return (
        f"a false-alarm rate of {rate:g} needs at least {needed} {what} and there are {n}; "
        "add photos, allow a higher rate or train with `--calibration none`"
    )
