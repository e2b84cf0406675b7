"""Metrics of decisions at the detector's own thresholds, which come from good images alone."""

import numpy as np
from jaxtyping import Bool, Int

from hyperspot.metrics.registry import Metric, register_metric

Calls = Bool[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"]


def detection_rate(is_anomalous: Calls, labels: Labels) -> float | None:
    """Return the share of defective images called anomalous (recall), in 0..1; None without a defective image.

    Args:
        is_anomalous: The decisions.
        labels: 0 is good, 1 is defective.

    Examples:
        >>> import numpy as np
        >>> detection_rate(np.array([False, True, True, False]), np.array([0, 0, 1, 1]))
        0.5

    """
    calls = is_anomalous[labels == 1]
    return float(calls.mean()) if len(calls) else None


def false_alarm_rate(is_anomalous: Calls, labels: Labels) -> float | None:
    """Return the share of good images called anomalous, in 0..1; None without a good image.

    Args:
        is_anomalous: The decisions.
        labels: 0 is good, 1 is defective.

    Examples:
        >>> import numpy as np
        >>> false_alarm_rate(np.array([False, True, True, False]), np.array([0, 0, 0, 1]))
        0.6666666666666666

    """
    calls = is_anomalous[labels == 0]
    return float(calls.mean()) if len(calls) else None


class MaskCounts:
    """Counts pixels of predicted masks against ground-truth masks, one image after the other.

    Attributes:
        true_positives: Pixels in both masks.
        false_positives: Pixels in the predicted mask only.
        false_negatives: Pixels in the ground-truth mask only.
        area_ratios: Predicted to true area of each image with both masks.

    Examples:
        >>> import numpy as np
        >>> counts = MaskCounts()
        >>> counts.update(np.array([[True, True, False]]), np.array([[True, False, False]]))
        >>> counts.true_positives, counts.false_positives, counts.false_negatives
        (1, 1, 0)

    """

    def __init__(self) -> None:
        self.true_positives = self.false_positives = self.false_negatives = 0
        self.area_ratios: list[float] = []

    def update(self, predicted: Bool[np.ndarray, "_h _w"], mask: Bool[np.ndarray, "_h _w"]) -> None:
        """Add one image; raises ValueError if the masks differ in shape."""
        if predicted.shape != mask.shape:
            raise ValueError(f"the predicted mask has the shape {predicted.shape} and the true mask {mask.shape}")
        hits = int(np.count_nonzero(predicted & mask))
        predicted_area, true_area = int(np.count_nonzero(predicted)), int(np.count_nonzero(mask))
        self.true_positives += hits
        self.false_positives += predicted_area - hits
        self.false_negatives += true_area - hits
        if predicted_area and true_area:
            self.area_ratios.append(predicted_area / true_area)


def seg_f1(counts: MaskCounts) -> float | None:
    """Return the F1 of the predicted masks over the pixels of all images, in 0..1; None without a defective pixel.

    The metric of MVTec AD 2 (arXiv 2503.21622) for one product.

    Examples:
        >>> import numpy as np
        >>> counts = MaskCounts()
        >>> counts.update(np.array([[True, True, False]]), np.array([[True, False, False]]))
        >>> seg_f1(counts)
        0.6666666666666666

    """
    if counts.true_positives + counts.false_negatives == 0:
        return None
    doubled = 2 * counts.true_positives
    return doubled / (doubled + counts.false_positives + counts.false_negatives)


def mask_area_ratio(counts: MaskCounts) -> float | None:
    """Return the median ratio of predicted to true area over images with both masks; None if there is none.

    Examples:
        >>> import numpy as np
        >>> counts = MaskCounts()
        >>> counts.update(np.array([[True, True, False]]), np.array([[True, False, False]]))
        >>> mask_area_ratio(counts)
        2.0

    """
    return float(np.median(counts.area_ratios)) if counts.area_ratios else None


register_metric(
    Metric(
        name="detection_rate",
        title="Detection rate",
        short_title="detection rate",
        unit="percent",
        description="Share of defective images called anomalous at the promised false-alarm rate",
        level="decision",
        function=detection_rate,
    )
)
register_metric(
    Metric(
        name="observed_false_alarm_rate",
        title="Observed false-alarm rate",
        short_title="false alarms",
        unit="percent",
        description="Share of good images called anomalous",
        level="decision",
        function=false_alarm_rate,
    )
)
register_metric(
    Metric(
        name="seg_f1",
        title="Segmentation F1",
        short_title="Seg-F1",
        unit="percent",
        description="F1 of the predicted masks over the pixels of all images",
        level="mask",
        function=seg_f1,
    )
)
register_metric(
    Metric(
        name="mask_area_ratio",
        title="Outlined area, to the true area",
        short_title="area",
        unit="ratio",
        description="Median ratio of predicted to true area over the defective images with a predicted mask",
        level="mask",
        function=mask_area_ratio,
    )
)
