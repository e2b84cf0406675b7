"""Thresholds and p-values from good images only, by conformal prediction.

A new image is ranked among good images that the model was not trained on. If it is good, its rank is uniform:
p = (1 + #{calibration scores >= its score}) / (1 + n) is at most r with probability at most r, for any distribution of
scores and any finite n (Vovk et al., Algorithmic Learning in a Random World, 2005).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Float64

from hyperspot.errors import CalibrationError
from hyperspot.metrics.intervals import beta_quantile

Kind = Literal["split", "cross", "leave-one-out", "none"]

DEFAULT_RATE = 0.01
LARGEST_DEFAULT = 0.5
"""Default rate of the smallest sets of images, whose third highest score may be the lowest."""
RANK = 3
"""By default the third highest score of the calibration images is the threshold, so that no single one decides it."""
FEW = 20
"""With fewer calibration images the default rate is above 14 %, and its threshold is unsteady."""
ESTIMATE_NEEDS = 100
"""Fewest scores of an estimated tail; with fewer its bandwidth depends on chance."""
SMALLEST_ESTIMATE = 0.1
"""Smallest estimated p-value, in units of 1 / (n + 1)."""
MOST_IMAGES = 10**12
"""Above it the reciprocal of a rate loses its integer digits."""


class ImagesNeeded(NamedTuple):
    """Numbers of calibration images for a false-alarm rate; with groups, numbers of groups.

    Attributes:
        default: For a steady threshold, the third highest score.
        limit: For any promise of the rate: the highest score is the threshold.

    """

    default: int
    limit: int


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration scores, and the threshold that follows from them.

    Attributes:
        kind: `split`: the scores come from held-out images, and the promise is exact. `cross`: each comes from the
            model of the folds without its image. `leave-one-out`: each comes from the model without its image. The
            promise of both is approximate. `none`: there are no scores.
        false_alarm_rate: The promised share of good images called anomalous, in (0, 1).
        scores: Image scores of good images, ascending; with groups, of one image per group.
        threshold: Images with a higher score are anomalous; None for the kind `none`.

    Examples:
        >>> from hyperspot import Calibration
        >>> calibration = Calibration.from_scores("split", 0.2, [3.0, 1.0, 2.0, 4.0])
        >>> calibration.threshold, calibration.p_value(9.0), calibration.is_anomalous(3.5)
        (4.0, 0.2, False)
        >>> calibration.at_rate(0.4).threshold
        3.0

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
        check_rate(rate)
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
        if n < images_needed(rate):
            raise CalibrationError(too_few(rate, images_needed(rate), n, "good calibration images"))
        return cls(known[kind], rate, ordered, float(ordered[n - 1 - _above(rate, n)]))

    def at_rate(self, rate: float) -> "Calibration":
        """Return the calibration by the same scores for another rate, in (0, 1).

        Raises CalibrationError if there are too few scores for the rate, ValueError if the rate is not in (0, 1).
        """
        return Calibration.from_scores(self.kind, rate, self.scores)

    @property
    def above(self) -> int:
        """Number of calibration images above the threshold if no scores are equal; 0 without calibration."""
        return 0 if self.threshold is None else _above(self.false_alarm_rate, len(self.scores))

    def rate_interval(self, confidence: float = 0.9) -> tuple[float, float]:
        """Return an interval of the true false-alarm rate of this threshold, in 0..1.

        The threshold is an order statistic of the n scores. With k scores above it, the share of all good images
        above it varies from one set of calibration images to another by the distribution Beta(k + 1, n - k). Ties make
        the true rate lower. The interval holds for calibration images that are independent of each other, and, as the
        promise, approximately for the kinds `cross` and `leave-one-out`.

        Args:
            confidence: Share of the distribution inside the interval, in (0, 1); half of the rest lies on either side.

        Raises:
            CalibrationError: If there is no calibration.
            ValueError: If the confidence is not in (0, 1).

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Calibration
            >>> low, high = Calibration.from_scores("split", 0.0121, np.arange(248.0)).rate_interval()
            >>> f"{low:.1%} to {high:.1%}"
            '0.3% to 2.5%'

        """
        if not 0 < confidence < 1:
            raise ValueError(f"a confidence lies between 0 and 1, not at {confidence}")
        if self.threshold is None:
            raise CalibrationError("this model has no calibration, so its false-alarm rate is unknown; recalibrate it")
        n, k = len(self.scores), self.above
        tail = (1 - confidence) / 2
        return beta_quantile(tail, k + 1, n), beta_quantile(1 - tail, k + 1, n)

    @staticmethod
    def images_for(rate: float) -> ImagesNeeded:
        """Return the number of calibration images for a rate in (0, 1); raises ValueError for another one.

        Examples:
            >>> from hyperspot import Calibration
            >>> Calibration.images_for(0.01)
            ImagesNeeded(default=299, limit=99)

        """
        check_rate(rate)
        return ImagesNeeded(default=images_needed(rate, RANK), limit=images_needed(rate))

    def steadiness(self) -> str:
        """Return one sentence: how steady the threshold is, and which rate more images would allow.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Calibration
            >>> Calibration.from_scores("split", 0.05, np.arange(59.0)).steadiness().split("; ")[1]
            '119 images would allow 2.5 %'

        """
        n = len(self.scores)
        if self.threshold is None:
            return "no calibration: scores without decisions"
        low, high = self.rate_interval()
        wanted = min(self.false_alarm_rate, RANK / (n + 1)) / 2
        more = self.images_for(wanted).default
        return (
            f"threshold from {n} good images: true false-alarm rate {100 * low:.1f} to {100 * high:.1f} % "
            f"with 90 % confidence; {more} images would allow {100 * wanted:.2g} %"
        )

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

    def estimated_p_value(self, score: float) -> float | None:
        """Return an estimate of the share of good images with a higher score, also below 1 / (n + 1).

        A Gaussian kernel smooths the logarithms of the calibration scores. It is an estimate: it extrapolates beyond
        the highest score, and neither the threshold nor the promise uses it. It is at least 0.1 / (n + 1), since n
        scores say nothing about rarer images.

        Returns:
            None without calibration, with fewer than 100 scores, or if scores are not positive.

        Raises:
            ValueError: If the score is NaN.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Calibration
            >>> scores = np.random.default_rng(0).lognormal(size=200)
            >>> calibration = Calibration.from_scores("split", 0.01, scores)
            >>> f"{calibration.p_value(10.0):.4f} {calibration.estimated_p_value(10.0):.4f}"
            '0.0050 0.0028'

        """
        if math.isnan(score):
            raise ValueError("the score is not a number")
        n = len(self.scores)
        if self.threshold is None or n < ESTIMATE_NEEDS or self.scores[0] <= 0:
            return None
        if score <= 0:
            return 1.0
        from scipy.special import ndtr

        logs = np.log(self.scores)
        low, high = np.quantile(logs, (0.25, 0.75))
        # Silverman's rule of thumb (Density Estimation, 1986, eq. 3.31).
        spread = min(float(logs.std(ddof=1)), float(high - low) / 1.34)
        bandwidth = max(0.9 * spread * n**-0.2, 1e-12)
        estimate = float(ndtr((logs - math.log(score)) / bandwidth).mean())
        return max(estimate, SMALLEST_ESTIMATE / (n + 1))


def default_rate(n: int) -> float:
    """Return the default false-alarm rate of n calibration images: the third highest score is the threshold.

    It is max(0.01, 3 / (n + 1)), and at most 0.5.

    Examples:
        >>> default_rate(59), default_rate(400), default_rate(3)
        (0.05, 0.01, 0.5)

    """
    return min(LARGEST_DEFAULT, max(DEFAULT_RATE, RANK / (n + 1)))


def decimal_rate(rate: float, n: int) -> float:
    """Return the shortest decimal number that has the same threshold among n scores, rounded up to at least two digits.

    A rate that is rounded down may have another threshold.

    Examples:
        >>> decimal_rate(3 / 247, 246), decimal_rate(0.05, 59)
        (0.013, 0.05)

    """
    for digits in range(2, 13):
        rounded = math.ceil(rate * 10.0**digits - 1e-9) / 10.0**digits
        if rounded < 1 and _above(rounded, n) == _above(rate, n):
            return rounded
    return rate


def check_rate(rate: float) -> None:
    """Raise ValueError unless a false-alarm rate lies in (0, 1)."""
    if not 0 < rate < 1:
        raise ValueError(f"a false-alarm rate lies between 0 and 1, not at {rate}")


def _above(rate: float, n: int) -> int:
    """Return how many of n scores may reach the score of an anomalous image, at least 0 if the rate can be promised."""
    above = math.floor(rate * (n + 1))
    while (1 + above) / (n + 1) > rate:
        above -= 1
    return above


def images_needed(rate: float, rank: int = 1) -> int:
    """Return the fewest scores n whose score of this rank from above is a threshold for the rate."""
    quotient = rank / rate
    if quotient > MOST_IMAGES:
        return MOST_IMAGES
    n = max(1, math.floor(quotient) - 1)
    # The quotient may fall on either side of a whole number; the comparison with the rate itself decides.
    return n if rank / (n + 1) <= rate else n + 1


def too_few(rate: float, needed: int, n: int, what: str) -> str:
    """Return the message of the CalibrationError for too few images."""
    return (
        f"a false-alarm rate of {rate:g} needs at least {needed} {what} and there are {n}; "
        "add images, allow a higher rate or train with `--calibration none`"
    )
