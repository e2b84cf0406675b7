"""Tells whether current images differ from the calibration images, from the ranks of their scores.

If current good images come from the same process as the calibration images, any order of all their scores is equally
likely, so the Mann-Whitney statistic has a known distribution, whatever that of the scores (Mann and Whitney, 1947).
Images of one lot are alike, so that this does not hold for a model trained with groups: nothing is tested then.
Where labels are unknown, only images that passed are taken, and only calibration images below the threshold: given the
threshold, both are samples of the same distribution, so the test stays valid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hyperspot.decision.calibration import Calibration

FEWEST = 20
"""Images below which nothing is tested."""
MOST_RECENT = 50
"""Images that are tested at most: the last ones."""
FALSE_WARNINGS = 1e-3
"""Chance of a warning, in one test of images like the calibration images."""
BIAS = 0.06
"""Tolerated where calibration scores come from other models than the final one, and are slightly biased.

Excess over 1/2 of the chance that a new score is above a calibration score: that of normal scores shifted by a fifth of
their standard deviation.
"""


@dataclass(frozen=True)
class Drift:
    """How current images compare with the calibration images.

    Attributes:
        p_value: Chance of scores at least that different if the images are like the calibration images, in (0, 1].
        images: Current images that were tested.
        is_higher: Whether they score higher than the calibration images, or lower.

    Examples:
        >>> Drift(1e-5, images=50, is_higher=True).is_significant
        True

    """

    p_value: float
    images: int
    is_higher: bool

    @property
    def is_significant(self) -> bool:
        """Whether to warn: the p-value is below `FALSE_WARNINGS`."""
        return self.p_value < FALSE_WARNINGS

    def describe(self, images: str) -> str:
        """Return the warning, one sentence, with a name for the images, for example `passed images`."""
        if self.is_higher:
            return (
                f"{images} score higher than the calibration images (p = {self.p_value:.1g}): light, focus or position "
                "may have changed; recalibrate with current good images"
            )
        return (
            f"{images} score lower than the calibration images (p = {self.p_value:.1g}): they may be training images, "
            "or blurred or dark, and hide defects; check focus and light, then recalibrate with current good images"
        )


def detect_drift(
    calibration: Calibration,
    scores: Sequence[float] | Float[np.ndarray, "_n"],
    *,
    passed: bool = True,
    grouped: bool = False,
) -> Drift | None:
    """Compare the scores of the most recent images with those of the calibration images.

    None without calibration, with groups, or with fewer than `FEWEST` images. Scores of a cross-fitted calibration are
    higher than those of new images, so lower ones mean nothing there: the p-value is then 1.

    Args:
        calibration: Of the model.
        scores: Image scores, the most recent last.
        passed: Whether to take only images that passed; False for images that are known to be good.
        grouped: Whether the model was trained with groups, so that images of one group are alike.

    Examples:
        >>> import numpy as np
        >>> from hyperspot import Calibration
        >>> rng = np.random.default_rng(0)
        >>> calibration = Calibration.from_scores("split", 0.05, rng.normal(10, 1, 100))
        >>> detect_drift(calibration, rng.normal(10, 1, 50)).is_significant
        False
        >>> detect_drift(calibration, rng.normal(11, 1, 50)).is_significant
        True

    """
    if calibration.threshold is None or grouped:
        return None
    current, usual = np.asarray(scores, dtype=np.float64), calibration.scores
    if passed:
        # The threshold is itself a calibration score: those below it are, given it, like the images that passed.
        current, usual = current[current <= calibration.threshold], usual[usual < calibration.threshold]
    current = current[-MOST_RECENT:]
    n, m = len(current), len(usual)
    if n < FEWEST or m == 0:
        return None
    below = np.searchsorted(usual, current, side="left") + np.searchsorted(usual, current, side="right")
    excess = float(below.sum()) / 2 - n * m / 2
    tolerated = 0.5 if calibration.kind == "split" else BIAS * n * m
    spread = math.sqrt(n * m * (n + m + 1) / 12)
    # At least half a step: the statistic is discrete, the normal distribution is not.
    p_value = min(1.0, math.erfc(max(0.0, abs(excess) - tolerated) / spread / math.sqrt(2)))
    if excess < 0 and calibration.kind == "cross":
        p_value = 1.0
    return Drift(p_value, n, excess > 0)
