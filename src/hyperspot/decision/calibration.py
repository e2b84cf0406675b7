"""Thresholds and p-values from good images only, by conformal prediction.

A new image is ranked among good images that the model was not trained on. If it is good, its rank is uniform:
p = (1 + #{calibration scores >= its score}) / (1 + n) is at most r with probability at most r, for any distribution of
scores and any finite n (Vovk et al., Algorithmic Learning in a Random World, 2005).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float64, Int

from hyperspot.choices import CalibrationMode
from hyperspot.errors import CalibrationError

Kind = Literal["split", "cross", "none"]

DEFAULT_RATE = 0.01
HELD_OUT_SHARE = 0.2
"""Smallest share of the images that a split holds out: more than the rate needs, for a steadier threshold."""
FOLDS = 5
MOST_IMAGES = 10**12
"""Above it the reciprocal of a rate loses its integer digits."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration scores, and the threshold that follows from them.

    Attributes:
        kind: `split`: the scores come from held-out images, and the promise is exact. `cross`: each comes from the
            model of the folds without its image, and the promise is approximate. `none`: there are no scores.
        false_alarm_rate: The promised share of good images called anomalous, in (0, 1).
        scores: Image scores of good images, ascending.
        threshold: Images with a higher score are anomalous; None for the kind `none`.

    Examples:
        >>> from hyperspot import Calibration
        >>> calibration = Calibration.from_scores("split", 0.2, [3.0, 1.0, 2.0, 4.0])
        >>> calibration.threshold, calibration.p_value(9.0), calibration.is_anomalous(3.5)
        (4.0, 0.2, False)

    """

    kind: Kind
    false_alarm_rate: float
    scores: Float64[np.ndarray, "_held_out"]
    threshold: float | None

    @classmethod
    def from_scores(
        cls, kind: str, rate: float, scores: Sequence[float] | Float[np.ndarray, "_held_out"]
    ) -> "Calibration":
        """Calibrate with the scores of good images, in any order; the kind `none` ignores them.

        Raises:
            CalibrationError: If there are too few scores for the rate, or one is NaN or infinite.
            ValueError: If the kind is unknown or the rate is not in (0, 1).

        """
        known: dict[str, Kind] = {one: one for one in get_args(Kind)}
        if kind not in known:
            raise ValueError(f"unknown kind of calibration: {kind!r}")
        _check_rate(rate)
        ordered = np.sort(np.asarray(scores, dtype=np.float64))
        ordered.flags.writeable = False
        if kind == "none":
            return cls(known[kind], rate, ordered[:0], None)
        if not np.isfinite(ordered).all():
            raise CalibrationError(
                "a good calibration image has a score that is not a finite number; "
                "train again with other settings or without that image"
            )
        n = len(ordered)
        if n < _needed(rate):
            raise CalibrationError(_too_few(rate, _needed(rate), n, "good calibration images"))
        # Calibration images that may reach the score of an anomalous image.
        above = math.floor(rate * (n + 1))
        while (1 + above) / (n + 1) > rate:
            above -= 1
        return cls(known[kind], rate, ordered, float(ordered[n - 1 - above]))

    def p_value(self, score: float) -> float | None:
        """Return the conformal p-value of a score, in (0, 1]; None without calibration.

        Raises ValueError if the score is NaN.
        """
        if math.isnan(score):
            raise ValueError("the score is not a number")
        if self.threshold is None:
            return None
        n = len(self.scores)
        reached = n - int(np.searchsorted(self.scores, score, side="left"))
        return (1 + reached) / (n + 1)

    def is_anomalous(self, score: float) -> bool | None:
        """Return whether the score exceeds the threshold: exactly if the p-value is at most the promised rate.

        None without calibration.

        Raises ValueError if the score is NaN.
        """
        if math.isnan(score):
            raise ValueError("the score is not a number")
        return None if self.threshold is None else bool(score > self.threshold)


@dataclass(frozen=True)
class Plan:
    """How the good images are divided between training and calibration.

    Attributes:
        kind: As in `Calibration`.
        held_out: Number of calibration images: those of the split, or all of them with folds.
        folds: Models trained for calibration; 0 for the kind `none`.
        rate: The promised false-alarm rate, in (0, 1).

    """

    kind: Kind
    held_out: int
    folds: int
    rate: float

    def calibrate(self, scores: Sequence[float] | Float[np.ndarray, "_held_out"]) -> Calibration:
        """Return the calibration by the scores of the held-out images; raises CalibrationError."""
        return Calibration.from_scores(self.kind, self.rate, scores)


def plan(n: int, rate: float | None, mode: CalibrationMode = "auto") -> Plan:
    """Plan the calibration of a model with n good images.

    Args:
        n: Number of good images.
        rate: The false-alarm rate to promise, in (0, 1); None asks for 0.01, or for the smallest rate that the
            images support.
        mode: `split` trains on at least half of the images and calibrates with the others; `cross` scores
            every image with a model trained on the other folds; `auto` splits if that leaves enough images to
            train on, and cross-fits otherwise; `none` promises nothing.

    Raises:
        CalibrationError: If there are too few images for the rate.
        ValueError: If the rate is not in (0, 1).

    """
    if rate is not None:
        _check_rate(rate)
    if mode == "none":
        return Plan("none", 0, 0, DEFAULT_RATE if rate is None else rate)
    if n < 2:
        raise CalibrationError(
            "calibration needs at least 2 good images and there "
            f"{'is 1' if n == 1 else 'are none'}; add images or train with `--calibration none`"
        )
    if rate is None:
        most = n // 2 if mode == "split" else n
        rate = smallest_promise(most)
    needed = _needed(rate)
    held_out = max(needed, math.ceil(HELD_OUT_SHARE * n))
    if mode != "cross" and held_out <= n / 2:
        return Plan("split", held_out, 1, rate)
    if mode == "split":
        raise CalibrationError(_too_few(rate, 2 * needed, n, "good images to hold half of them out"))
    if n < needed:
        raise CalibrationError(_too_few(rate, needed, n, "good images"))
    return Plan("cross", n, min(FOLDS, n), rate)


def smallest_promise(n: int) -> float:
    """Return the default false-alarm rate of n calibration images: 0.01, or the smallest that they support.

    Examples:
        >>> smallest_promise(19), smallest_promise(400)
        (0.05, 0.01)

    """
    return max(DEFAULT_RATE, 1 / (n + 1))


def split(n: int, plan: Plan, seed: int) -> list[Int[np.ndarray, "_held_out"]]:
    """Return the indices, ascending, that each model in turn is not trained on.

    One array for a split, one per fold (together all images) for a cross plan, none without calibration.
    """
    shuffled = np.random.default_rng(seed).permutation(n)
    if plan.kind == "none":
        return []
    if plan.kind == "split":
        return [np.sort(shuffled[: plan.held_out])]
    return [np.sort(part) for part in np.array_split(shuffled, plan.folds)]


def pixel_threshold(values: Sequence[Float[np.ndarray, "_pixels"]], rate: float) -> float:
    """Return the smallest map value with at most a share `rate` of all good pixels above it.

    Args:
        values: Map values of each good image; all pixels count the same.
        rate: In (0, 1).

    Raises:
        ValueError: If there is no pixel or the rate is not in (0, 1).

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
        "add images, allow a higher rate or train with `--calibration none`"
    )
