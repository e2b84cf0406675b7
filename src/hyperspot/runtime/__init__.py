"""Exported detectors and the engines that run them: OpenVINO and ONNX Runtime. Nothing here imports torch."""

from hyperspot.runtime.engines import Engine, available, open_engine
from hyperspot.runtime.exported_detector import ExportedDetector
from hyperspot.runtime.exported_file import is_exported

__all__ = ["Engine", "ExportedDetector", "available", "is_exported", "open_engine"]
