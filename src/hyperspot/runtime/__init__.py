"""Detectors outside torch: exported files, the engines that run them, and the predictor that judges with them.

Nothing here imports torch but `export`, and the engine that wraps a `Scorer`.
"""

from hyperspot.runtime.engines import Engine, available, open_engine
from hyperspot.runtime.predictor import ExportedDetector
from hyperspot.runtime.sealed import is_exported

__all__ = ["Engine", "ExportedDetector", "available", "is_exported", "open_engine"]
