"""One image score from the scores of several zones, each with its part of the promised false-alarm rate.

The score of a zone is scaled so that 0 is typical and 1 is exceeded by as large a share of the good images as its rate;
the image score is the highest of them. One calibration of these scores promises the whole rate. The score of a
calibration image is scaled by the other images, as that of a new image is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from hyperspot.decision.calibration import images_needed, too_few
from hyperspot.errors import CalibrationError

SMALLEST = 1e-12
"""Smallest difference of the levels, for zones whose score never changes."""


@dataclass(frozen=True)
class ZoneLevels:
    """Levels of a zone's score.

    Attributes:
        name: Of the zone.
        typical: Median of good images.
        alarm: Exceeded by a share of the good images, the rate of the zone.
        mask_floor: Only pixels above it are in a mask; None without calibration.

    """

    name: str
    typical: float
    alarm: float
    mask_floor: float | None = None

    def scaled(self, score: float) -> float:
        """Return a score on the scale of the zone: 0 is typical, 1 is the level of an alarm."""
        return (score - self.typical) / max(self.alarm - self.typical, SMALLEST)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(self.__dict__)


def shares(own_rates: Sequence[float], rate: float) -> tuple[float, ...]:
    """Return the rates of the zones and what they leave of the promised rate for everything else.

    Raises CalibrationError if they leave nothing.
    """
    left = rate - sum(own_rates)
    if own_rates and left <= 0:
        raise CalibrationError(
            f"the zones have rates of {sum(own_rates):g} together and the promised false-alarm rate is {rate:g}, so "
            "that nothing is left for the rest of the image; promise more with `--false-alarm-rate`"
        )
    return (*own_rates, left)


def check_rates(names: Sequence[str], rates: Sequence[float], n: int) -> None:
    """Raise CalibrationError if n calibration images are too few for the rate of a zone, the last one left out."""
    for name, rate in zip(names[:-1], rates[:-1], strict=True):
        if n < images_needed(rate):
            raise CalibrationError(f"the zone '{name}': {too_few(rate, images_needed(rate), n, 'calibration images')}")


def find_levels(
    scores: Float64[np.ndarray, "n zones"], names: Sequence[str], rates: Sequence[float]
) -> tuple[ZoneLevels, ...]:
    """Return the levels of the zones by the scores of good images; raises CalibrationError if there are too few.

    Examples:
        >>> find_levels(np.arange(100.0)[:, None], ["rim"], [0.1])
        (ZoneLevels(name='rim', typical=49.5, alarm=90.0, mask_floor=None),)

    """
    check_rates(names, rates, len(scores))
    return tuple(
        ZoneLevels(name, float(np.median(scores[:, number])), _alarm(scores[:, number], rate))
        for number, (name, rate) in enumerate(zip(names, rates, strict=True))
    )


def scores_of_calibration(
    scores: Float64[np.ndarray, "n zones"], levels: Sequence[ZoneLevels], rates: Sequence[float]
) -> Float64[np.ndarray, "n"]:
    """Return the image scores of the calibration images: the alarm level of each is that of the other images."""
    scaled = np.empty_like(scores)
    for number, (zone, rate) in enumerate(zip(levels, rates, strict=True)):
        column = scores[:, number]
        for index, score in enumerate(column):
            alarm = _alarm(np.delete(column, index), rate) if len(column) > 1 else zone.alarm
            scaled[index, number] = ZoneLevels(zone.name, zone.typical, alarm).scaled(float(score))
    best: Float64[np.ndarray, "n"] = scaled.max(axis=1)
    return best


def _alarm(scores: Float64[np.ndarray, "n"], rate: float) -> float:
    return float(np.quantile(scores, 1 - rate, method="higher"))
