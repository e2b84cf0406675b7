"""Joint calibration of the views of a part, so that the false-alarm rate is promised for the part.

The image scores of a view are standardized by those of held-out good parts: 0 is their median, 1 their 90th percentile.
The score of a part is the largest standardized score of its views, and it is ranked among the scores of good parts, as
an image is among images (see `decision.calibration`). Location and scale of a calibration part come from the *other*
calibration parts, because a new part does not influence its own either: otherwise an extreme view of a calibration
part would enlarge its own scale, and the threshold would be too low.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from hyperspot.decision.calibration import Calibration
from hyperspot.errors import CalibrationError

UPPER = 0.9
"""Quantile of the good scores of a view that is standardized to 1."""
FEWEST = 3
"""Calibration parts without which the others have no scale."""
SMALLEST_SCALE = 1e-12


@dataclass(frozen=True, eq=False)
class PartCalibration:
    """Image scores of held-out good parts in every view, and the thresholds that follow from them.

    Attributes:
        views: Names of the views.
        scores: Image scores, a row per calibration part and a column per view.
        calibration: Of the part scores; its kind and rate are those of the promise.

    Examples:
        >>> import numpy as np
        >>> from hyperspot import PartCalibration
        >>> scores = np.random.default_rng(0).normal([5, 100], [1, 20], (99, 2))
        >>> calibration = PartCalibration.from_scores("split", 0.05, ["top", "side"], scores)
        >>> calibration.of_view("top").is_anomalous(9.0), calibration.of_view("side").is_anomalous(9.0)
        (True, False)

        One threshold of the part is a threshold of each view, in units of the view:

        >>> top, side = calibration.of_view("top"), calibration.of_view("side")
        >>> bool(np.isclose(calibration.standardize("top", top.threshold), calibration.calibration.threshold))
        True
        >>> bool(np.isclose(calibration.standardize("side", side.threshold), calibration.calibration.threshold))
        True
        >>> calibration.at_rate(0.1).of_view("top").threshold < top.threshold
        True

    """

    views: tuple[str, ...]
    scores: Float64[np.ndarray, "_parts _views"]
    calibration: Calibration

    @classmethod
    def from_scores(
        cls, kind: str, rate: float, views: Sequence[str], scores: Float[np.ndarray, "_parts _views"]
    ) -> "PartCalibration":
        """Calibrate with the image scores of good parts.

        Args:
            kind: As in `Calibration`; `none` is refused.
            rate: The promised false-alarm rate of parts, in (0, 1).
            views: Names of the columns.
            scores: Finite, of parts that the models were not trained on.

        Raises:
            CalibrationError: If there are too few parts for the rate, fewer than 3, or a score is not finite.
            ValueError: If the kind is unknown or `none`, or the rate is not in (0, 1).

        """
        if kind == "none":
            raise ValueError("the views of a part are compared by their calibration, so that `none` is not possible")
        rows = np.array(scores, dtype=np.float64)
        rows.flags.writeable = False
        if len(rows) < FEWEST:
            raise CalibrationError(
                f"several views need at least {FEWEST} good calibration parts and there are {len(rows)}; add parts"
            )
        if not np.isfinite(rows).all():
            raise CalibrationError(
                "a good calibration part has a score that is not a finite number; "
                "train again with other settings or without that part"
            )
        return cls(tuple(views), rows, Calibration.from_scores(kind, rate, _part_scores(rows).max(axis=1)))

    def at_rate(self, rate: float) -> "PartCalibration":
        """Return the calibration by the same scores for another rate; raises as `Calibration.at_rate` does."""
        return PartCalibration(self.views, self.scores, self.calibration.at_rate(rate))

    def standardize(self, view: str, score: float) -> float:
        """Return the score of a view in units of the part: 0 is the median of good parts, 1 their 90th percentile."""
        location, scale = self._scaling(view)
        return (score - location) / scale

    def of_view(self, view: str) -> Calibration:
        """Return the calibration of the part in units of the image scores of a view.

        Its p-values are those of the part if no other view is more anomalous, and an image above its threshold makes
        the part anomalous.
        """
        location, scale = self._scaling(view)
        calibration = self.calibration
        return Calibration.from_scores(
            calibration.kind, calibration.false_alarm_rate, location + scale * calibration.scores
        )

    def _scaling(self, view: str) -> tuple[float, float]:
        column = np.sort(self.scores[:, self.views.index(view)])
        low, high = _ranks(len(column))
        return float(column[low]), max(float(column[high] - column[low]), SMALLEST_SCALE)

    def to_dict(self) -> dict[str, Any]:
        """Return the scores, the kind and the rate as JSON values; `from_dict` reads them.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import PartCalibration
            >>> PartCalibration.from_scores("split", 0.25, ["top"], np.arange(4.0)[:, None]).to_dict()["scores"]
            [[0.0], [1.0], [2.0], [3.0]]

        """
        return {
            "kind": self.calibration.kind,
            "false_alarm_rate": self.calibration.false_alarm_rate,
            "threshold": self.calibration.threshold,
            "views": list(self.views),
            "scores": self.scores.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PartCalibration":
        """Return the calibration that `to_dict` described.

        Raises KeyError, TypeError, ValueError or CalibrationError if it did not.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import PartCalibration
            >>> calibration = PartCalibration.from_scores("split", 0.25, ["top"], np.arange(4.0)[:, None])
            >>> copied = PartCalibration.from_dict(calibration.to_dict())
            >>> copied.calibration.threshold == calibration.calibration.threshold
            True

        """
        scores = np.array(values["scores"], dtype=np.float64)
        if scores.ndim != 2 or scores.shape[1] != len(values["views"]):
            raise ValueError(f"{len(values['views'])} views have scores of the shape {scores.shape}")
        return cls.from_scores(values["kind"], float(values["false_alarm_rate"]), values["views"], scores)


def _ranks(n: int) -> tuple[int, int]:
    """Return the places of the median and of the upper quantile among n ascending values."""
    return (n - 1) // 2, int(np.ceil(UPPER * n)) - 1


def _part_scores(scores: Float64[np.ndarray, "parts views"]) -> Float64[np.ndarray, "parts views"]:
    """Return the scores standardized, each by those of the other parts.

    Examples:
        >>> _part_scores(np.array([[0.0], [1.0], [2.0], [9.0]])).ravel().round(3).tolist()
        [-0.286, -0.143, 0.125, 8.0]

    """
    ascending = np.sort(scores, axis=0)
    own = np.argsort(np.argsort(scores, axis=0, kind="stable"), axis=0)

    # Without a value at or before a place, the next one moves there.
    low, high = (np.where(own <= at, ascending[at + 1], ascending[at]) for at in _ranks(len(scores) - 1))
    standardized: Float64[np.ndarray, "parts views"] = (scores - low) / np.maximum(high - low, SMALLEST_SCALE)
    return standardized
