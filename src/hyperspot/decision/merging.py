"""Merges new good images into a decision rule without the images before."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, Int64

from hyperspot.decision.calibration import FEW, Calibration, default_rate
from hyperspot.decision.drift import FALSE_WARNINGS, Drift, detect_drift
from hyperspot.decision.rule import DecisionRule

KNOWN = 1 / 3
"""Share of the images that the model of a calibration score knew at least. Of ten arrivals of screw, on which it was
chosen, the scores of the first three reach up to 1.5, and those of the others to 1.0."""


@dataclass(frozen=True)
class NewImages:
    """What a model says about new good images before it learns them.

    Attributes:
        kept: Indices of the images to learn.
        known: Indices of those that the model has learned before, or that are given twice; they are left out.
        scores: Image score of each kept image.
        p_values: Conformal p-value of each kept image; empty without calibration.
        odd: Indices of the kept images that the model calls anomalous, the highest score first.
        drift: Comparison with the calibration images; None without calibration, with groups or with few images.
        is_shifted: Whether the images score significantly higher than the calibration images. Lower scores mean
            nothing: those of calibration images are slightly too high.

    Examples:
        >>> from hyperspot import Calibration
        >>> calibration = Calibration.from_scores("split", 0.2, [3.0, 1.0, 2.0, 4.0])
        >>> new = NewImages.compare(calibration, [0, 2], [1], [2.5, 9.0])
        >>> new.p_values, new.odd, new.is_shifted
        ((0.6, 0.2), (2,), False)

    """

    kept: tuple[int, ...]
    known: tuple[int, ...]
    scores: tuple[float, ...]
    p_values: tuple[float, ...]
    odd: tuple[int, ...]
    drift: Drift | None
    is_shifted: bool

    @classmethod
    def compare(
        cls,
        calibration: Calibration,
        kept: Sequence[int],
        known: Sequence[int],
        scores: Sequence[float],
        *,
        grouped: bool = False,
    ) -> "NewImages":
        """Compare the scores of new images with those of the calibration images.

        Args:
            calibration: Of the model.
            kept: See the attributes.
            known: See the attributes.
            scores: Of the kept images, by the model before it learns them.
            grouped: Whether images share groups, so that they are not independent: then no shift is tested.

        """
        p_values = [p for p in map(calibration.p_value, scores) if p is not None]
        found = [(score, index) for score, index in zip(scores, kept, strict=True) if calibration.is_anomalous(score)]
        drift = detect_drift(calibration, scores, passed=False, grouped=grouped)
        too_many = not grouped and chance_of_alarms(calibration, len(found), len(scores)) < FALSE_WARNINGS
        return cls(
            kept=tuple(kept),
            known=tuple(known),
            scores=tuple(scores),
            p_values=tuple(p_values),
            odd=tuple(index for _, index in sorted(found, key=lambda one: -one[0])),
            drift=drift,
            is_shifted=too_many or (drift is not None and drift.is_significant and drift.is_higher),
        )

    def renumbered(self, numbers: Sequence[int]) -> "NewImages":
        """Return the same with another number for each index.

        Examples:
            >>> from hyperspot import Calibration
            >>> calibration = Calibration.from_scores("none", 0.1, [])
            >>> NewImages.compare(calibration, [0, 2], [1], [2.5, 9.0]).renumbered([5, 6, 7]).kept
            (5, 7)

        """
        kept, known, odd = (tuple(numbers[index] for index in some) for some in (self.kept, self.known, self.odd))
        return replace(self, kept=kept, known=known, odd=odd)


def chance_of_alarms(calibration: Calibration, alarms: int, images: int) -> float:
    """Return the chance of at least so many alarms among good images like the calibration images.

    With k of n calibration scores above the threshold, the number of new ones above it is beta-binomial: the chance of
    one is distributed as Beta(k + 1, n - k). It is 1 without calibration.

    Examples:
        >>> from hyperspot import Calibration
        >>> calibration = Calibration.from_scores("split", 0.05, np.arange(59.0))
        >>> [round(chance_of_alarms(calibration, alarms, 20), 4) for alarms in (0, 1, 3, 8)]
        [1.0, 0.5889, 0.0999, 0.0002]

    """
    if calibration.threshold is None:
        return 1.0
    n, k = len(calibration.scores), calibration.above
    a, b = k + 1, n - k

    def chance(j: int) -> float:
        ways = math.lgamma(images + 1) - math.lgamma(j + 1) - math.lgamma(images - j + 1)
        return math.exp(ways + _log_beta(a + j, b + images - j) - _log_beta(a, b))

    return min(1.0, max(0.0, 1 - sum(chance(j) for j in range(alarms))))


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def merge_good_images(
    rule: DecisionRule,
    images_known: Int[np.ndarray, "_before"],
    images: int,
    scores: Sequence[float],
    maps: Sequence[Float[np.ndarray, "_pixels"]],
    calibrating: Int[np.ndarray, "_new"],
    rate: float | None,
    *,
    alike: bool = False,
) -> tuple[DecisionRule, Int64[np.ndarray, "_merged"]]:
    """Return a decision rule that new good images calibrate beside those before, and `images_known` of its scores.

    Scores of a model that knew few images are higher than those of the updated model, the high ones by far. Scores of a
    model that knew less than a third of the images are therefore left out, by their age and not by their value, as long
    as enough others calibrate. The rest are as good as all of them if the images arrive in random order, so that new
    images score like those before.

    No score comes from a model that was trained on its image: the kind is `leave-one-out`.

    The floor of masks is the quantile of the merged scores, plus the mean distance of an image's highest map value from
    its score: that of the images before follows from the rule. The heat range is the mean over all images.

    Args:
        rule: Before.
        images_known: For each of its calibration scores, the number of images that the model knew.
        images: Number of images learned before.
        scores: Of the new images, each by the updated model without it.
        maps: Map values of the new images, as for `DecisionRule.from_good_images`.
        calibrating: Indices of the new images whose scores calibrate.
        rate: To promise; None for the default rate of the scores.
        alike: Whether the new images score like those before, so that old scores may be left out.

    Examples:
        >>> from hyperspot import Calibration
        >>> calibration = Calibration.from_scores("split", 0.5, [1.0, 2.0, 3.0])
        >>> maps = [np.array([0.5, score + 1]) for score in (1.0, 2.0, 3.0)]
        >>> rule = DecisionRule.from_good_images(calibration, maps, mask_false_alarm_rate=0.1)
        >>> merged, known = merge_good_images(rule, np.full(3, 3), 3, [4.0], [np.array([0.5, 5.0])], np.array([0]), 0.2)
        >>> merged.calibration.scores.tolist(), merged.calibration.threshold, merged.mask_floor, known.tolist()
        ([1.0, 2.0, 3.0, 4.0], 4.0, 5.0, [3, 3, 3, 4])

    """
    cold, hot = rule.heat_range
    peak = (cold + hot) / 2
    total = images + len(scores)
    share = len(scores) / total
    values = np.concatenate(maps)
    cold += share * (float(np.median(values)) - cold)
    if rule.calibration.threshold is None or rule.mask_floor is None:
        return replace(rule, heat_range=_heat_range(cold, max(peak, float(values.max())))), images_known[:0]
    before = rule.calibration.scores
    merged = np.concatenate([before, np.asarray(scores, dtype=np.float64)[calibrating]])
    known = np.concatenate([images_known, np.full(len(calibrating), total)])
    distance = rule.mask_floor - _high(before, rule.mask_false_alarm_rate)
    new = float(np.mean([float(one.max()) - score for one, score in zip(maps, scores, strict=True)]))
    needed = FEW if rate is None else Calibration.images_for(rate).default
    kept = np.flatnonzero(known >= _oldest(known, total, needed)) if alike else np.arange(len(merged))
    kept = kept[np.argsort(merged[kept], kind="stable")]
    merged, known = merged[kept], known[kept]
    floor = _high(merged, rule.mask_false_alarm_rate) + distance + share * (new - distance)
    calibration = Calibration.from_scores("leave-one-out", default_rate(len(merged)) if rate is None else rate, merged)
    return replace(rule, calibration=calibration, mask_floor=floor, heat_range=_heat_range(cold, floor)), known


def _oldest(known: Int64[np.ndarray, "_n"], total: int, needed: int) -> int:
    """Return the fewest images that the model of a score may have known: a third, or fewer if scores are few."""
    ages, counts = np.unique(known, return_counts=True)
    # Scores of one age stay or leave together: to choose among them would be to choose by their value.
    newer = np.cumsum(counts[::-1])[::-1] - counts
    return int(ages[(ages >= KNOWN * total) | (newer < needed)].min())


def _high(scores: Float[np.ndarray, "_n"], share: float) -> float:
    return float(np.quantile(scores, 1 - share, method="higher"))


def _heat_range(cold: float, peak: float) -> tuple[float, float]:
    """Return the scores drawn as cold and as hot: the highest ones of good images lie in the middle."""
    hot = 2 * peak - cold
    return cold, hot if hot > cold else cold + 1.0
