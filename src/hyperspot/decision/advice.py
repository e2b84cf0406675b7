"""Advice after an evaluation: what limits the detection rate, and the next step."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from hyperspot.decision.calibration import RANK, Calibration
from hyperspot.decision.operating_points import OperatingPoint, at_rate, operating_point

FEW_FOUND = 0.6
"""Detection rate below which a good ranking is worth more than it finds."""
GOOD_RANKING = 0.9
"""Image AUROC above which the scores separate most defective images from good ones."""
LARGE_GAIN = 0.2
"""Rise of the detection rate that makes a few calibration images worth a look."""
MOST_ODD = 0.05
"""Share of the calibration images that may be looked at one by one; at least three images."""
MULTIPLES, HIGHEST = (2, 3), 0.5
"""Rates shown in place of operating points above the promised rate, where there are none, and the highest of them."""


def advise(
    calibration: Calibration,
    points: Sequence[OperatingPoint],
    image_auroc: float | None,
    scores: Float[np.ndarray, "n"],
    labels: Int[np.ndarray, "n"],
) -> tuple[str, ...]:
    """Return what to do next, one or two sentences each; nothing where the verdicts are as good as the scores.

    Args:
        calibration: Its kind is not `none`.
        points: Of `operating_points`.
        image_auroc: Of the scores, in 0..1; None is undefined.
        scores: Image scores of the labeled images.
        labels: 0 is good, 1 is defective.

    """
    point = at_rate(points, calibration.false_alarm_rate)
    found = point.detection_rate
    advice = [*_too_many_false_alarms(point)]
    if found is not None and image_auroc is not None and found < FEW_FOUND and image_auroc > GOOD_RANKING:
        rate = point.false_alarm_rate
        # Rounded up: a rate rounded down may have another threshold.
        higher = [one for one in points if one.false_alarm_rate > rate] or [
            operating_point(calibration, math.ceil(1000 * multiple * rate - 1e-6) / 1000, scores, labels)
            for multiple in MULTIPLES
            if multiple * rate <= HIGHEST
        ]
        higher = [one for one in higher if one.detected > point.detected]
        advice.append(
            f"Only {_percent(found)} of the defective images are found although the scores rank them well (image AUROC "
            f"{100 * image_auroc:.1f} %): the threshold {point.threshold:.4g} lies above most of their scores."
        )
        if higher:
            advice.append(_higher_rates(higher))
        advice += _odd_calibration_images(calibration, point, scores[labels == 1])
        advice += _more_images(calibration)
    return tuple(advice)


def _higher_rates(points: Sequence[OperatingPoint]) -> str:
    trade = "; ".join(
        f"{_percent(one.detection_rate)} at a false-alarm rate of {_percent(one.false_alarm_rate)}"
        + (f" ({one.false_alarms} of {one.good} good images)" if one.good else "")
        for one in points
    )
    return (
        f"The same scores find {trade}. `--false-alarm-rate` of `predict` and `evaluate` changes the rate without "
        "training."
    )


def _odd_calibration_images(
    calibration: Calibration, point: OperatingPoint, defective: Float[np.ndarray, "d"]
) -> Iterator[str]:
    """Name the few calibration scores without which many more defective images would be found."""
    ordered, n = calibration.scores, len(calibration.scores)
    rank = calibration.above + 1
    for left_out in range(1, min(max(3, int(MOST_ODD * n)), n - rank) + 1):
        threshold = float(ordered[n - rank - left_out])
        detected = int(np.count_nonzero(defective > threshold))
        if detected - point.detected >= LARGE_GAIN * point.defective:
            sets, them = ("sets", "it") if left_out == 1 else ("set", "them")
            yield (
                f"{left_out} of the {n} good calibration images {sets} the threshold so high (highest score "
                f"{ordered[-1]:.4g}); without {them} the threshold would be {threshold:.4g} and find "
                f"{_percent(detected / point.defective)}. Check that the good images with the highest scores are good; "
                "if one is not, remove it and train again."
            )
            return


def _more_images(calibration: Calibration) -> Iterator[str]:
    """Say how many more good images would make the threshold steadier at the same rate."""
    n, rank = len(calibration.scores), calibration.above + 1
    missing = calibration.images_for(calibration.false_alarm_rate).default - n
    if rank < RANK and missing > 0:
        yield (
            f"The threshold is the {'second ' if rank == 2 else ''}highest of {n} calibration scores, so that one "
            f"unusual image moves it. With {missing} more good images it is the third highest at the same rate: "
            f"train with them, or recalibrate with {n + missing} new ones (`hyperspot recalibrate`)."
        )


def _too_many_false_alarms(point: OperatingPoint) -> Iterator[str]:
    """Say that good test images differ from the calibration images if chance does not explain their false alarms."""
    interval = point.observed_false_alarm_interval
    if interval is not None and interval[0] > point.false_alarm_rate:
        yield (
            f"{point.false_alarms} of {point.good} good images are called anomalous, more than the promised "
            f"{_percent(point.false_alarm_rate)} allows by chance: they differ from the calibration images. "
            "Recalibrate with good images of today (`hyperspot recalibrate`), or train with them."
        )


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.3g} %"
