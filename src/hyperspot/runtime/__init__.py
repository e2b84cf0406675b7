"""Detectors outside torch: exported files, the engines that run them, and the predictor that judges with them.

Nothing here imports torch but `export`, and the engine that wraps a `AnomalyModel`.
"""

from hyperspot.runtime.checksum import is_exported
from hyperspot.runtime.engines import Engine, available, open_engine
from hyperspot.runtime.exported_detector import ExportedDetector

__all__ = ["Engine", "ExportedDetector", "available", "is_exported", "open_engine"]
