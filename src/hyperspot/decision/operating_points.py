"""The trade-off on labeled images: detection rate and false alarms at several promised false-alarm rates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from hyperspot.decision.calibration import Calibration
from hyperspot.metrics.intervals import wilson_interval

RATES = (0.01, 0.02, 0.05, 0.1)
"""Promised false-alarm rates of the table, beside that of the detector."""


@dataclass(frozen=True)
class OperatingPoint:
    """What a promised false-alarm rate costs and finds on labeled images.

    Attributes:
        false_alarm_rate: Promised, in (0, 1).
        threshold: Image scores above it are anomalous.
        detected: Number of defective images above the threshold.
        defective: Number of defective images.
        false_alarms: Number of good images above the threshold.
        good: Number of good images.

    Examples:
        >>> from hyperspot import OperatingPoint
        >>> point = OperatingPoint(0.05, threshold=0.31, detected=18, defective=20, false_alarms=1, good=25)
        >>> point.detection_rate, point.observed_false_alarm_rate
        (0.9, 0.04)
        >>> point.to_dict()["observed_false_alarm_interval"]
        [0.007, 0.195]

    """

    false_alarm_rate: float
    threshold: float
    detected: int
    defective: int
    false_alarms: int
    good: int

    @property
    def detection_rate(self) -> float | None:
        """Share of defective images called anomalous, in 0..1; None without a defective image."""
        return self.detected / self.defective if self.defective else None

    @property
    def observed_false_alarm_rate(self) -> float | None:
        """Share of good images called anomalous, in 0..1; None without a good image."""
        return self.false_alarms / self.good if self.good else None

    @property
    def detection_interval(self) -> tuple[float, float] | None:
        """95 % confidence interval (Wilson) of the detection rate; None without a defective image."""
        return wilson_interval(self.detected, self.defective)

    @property
    def observed_false_alarm_interval(self) -> tuple[float, float] | None:
        """95 % confidence interval (Wilson) of the observed false-alarm rate; None without a good image."""
        return wilson_interval(self.false_alarms, self.good)

    def to_dict(self) -> dict[str, Any]:
        """Return fields, rates and intervals as JSON values."""
        detection, observed = self.detection_interval, self.observed_false_alarm_interval
        return {
            "false_alarm_rate": self.false_alarm_rate,
            "threshold": self.threshold,
            "detection_rate": self.detection_rate,
            "detection_interval": None if detection is None else [round(end, 3) for end in detection],
            "detected": self.detected,
            "defective": self.defective,
            "observed_false_alarm_rate": self.observed_false_alarm_rate,
            "observed_false_alarm_interval": None if observed is None else [round(end, 3) for end in observed],
            "false_alarms": self.false_alarms,
            "good": self.good,
        }


def operating_points(
    calibration: Calibration, scores: Float[np.ndarray, "n"], labels: Int[np.ndarray, "n"]
) -> tuple[OperatingPoint, ...]:
    """Return the results at the promised rate and at 1, 2, 5 and 10 %, those that the calibration supports, ascending.

    Args:
        calibration: Its kind is not `none`.
        scores: Image scores of the labeled images.
        labels: 0 is good, 1 is defective.

    Examples:
        >>> calibration = Calibration.from_scores("split", 0.05, np.arange(30.0))
        >>> points = operating_points(calibration, np.array([3.0, 28.0, 28.5, 40.0]), np.array([0, 0, 1, 1]))
        >>> [(one.false_alarm_rate, one.threshold, one.detected, one.false_alarms) for one in points]
        [(0.05, 29.0, 1, 0), (0.1, 27.0, 2, 1)]

    """
    lowest = 1 / (len(calibration.scores) + 1)
    rates = sorted({calibration.false_alarm_rate, *(rate for rate in RATES if rate >= lowest)})
    return tuple(operating_point(calibration, rate, scores, labels) for rate in rates)


def operating_point(
    calibration: Calibration, rate: float, scores: Float[np.ndarray, "n"], labels: Int[np.ndarray, "n"]
) -> OperatingPoint:
    """Return the results at one rate; raises CalibrationError if the calibration does not support it."""
    threshold = calibration.at_rate(rate).threshold
    if threshold is None:
        raise ValueError("without calibration there is no threshold")
    above = scores > threshold
    return OperatingPoint(
        false_alarm_rate=rate,
        threshold=threshold,
        detected=int(above[labels == 1].sum()),
        defective=int((labels == 1).sum()),
        false_alarms=int(above[labels == 0].sum()),
        good=int((labels == 0).sum()),
    )


def at_rate(points: Sequence[OperatingPoint], rate: float) -> OperatingPoint:
    """Return the operating point of a rate; raises StopIteration if there is none."""
    return next(point for point in points if point.false_alarm_rate == rate)
