"""Exact metrics of anomaly detection, and the registry that gives each its names, unit and description.

Metrics are registered in the order of these imports: decisions, images, pixels.
"""

from hyperspot.metrics.decisions import MaskCounts, detection_rate, false_alarm_rate, seg_f1
from hyperspot.metrics.pixels import PixelStatistics
from hyperspot.metrics.ranking import auroc, average_precision, f1_max, roc_curve
from hyperspot.metrics.registry import (
    Level,
    Metric,
    Unit,
    compute,
    get,
    register_metric,
    registered,
    unregister_metric,
)

__all__ = [
    "Level",
    "MaskCounts",
    "Metric",
    "PixelStatistics",
    "Unit",
    "auroc",
    "average_precision",
    "compute",
    "detection_rate",
    "f1_max",
    "false_alarm_rate",
    "get",
    "register_metric",
    "registered",
    "roc_curve",
    "seg_f1",
    "unregister_metric",
]
