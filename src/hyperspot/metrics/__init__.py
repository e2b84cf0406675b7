"""Exact metrics of anomaly detection, over image scores and over pixels."""

from hyperspot.metrics.pixels import PixelStatistics, aupimo, aupro, pro_curve, seg_f1
from hyperspot.metrics.ranking import auroc, average_precision, f1_max, roc_curve

__all__ = [
    "PixelStatistics",
    "aupimo",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "pro_curve",
    "roc_curve",
    "seg_f1",
]
