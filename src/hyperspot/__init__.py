"""Visual inspection from images of good parts only: fit, predict, evaluate.

Everything in `__all__` is public, and so are `hyperspot.export.export` and `hyperspot.testing`; everything else may
change without notice. A name is imported when it is first used, so that `import hyperspot` is fast and needs no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperspot.backbones import Backbone, register_backbone
    from hyperspot.data import Dataset, Sample, open_dataset
    from hyperspot.data.demo_product.product_set import make_product_set
    from hyperspot.data.part_sets import Part, PartSet, open_part_set
    from hyperspot.decision.calibration import Calibration
    from hyperspot.decision.operating_points import OperatingPoint
    from hyperspot.decision.rule import DecisionRule
    from hyperspot.detector.detector import Detector
    from hyperspot.detector.power import PowerEstimate
    from hyperspot.detector.settings import Settings
    from hyperspot.errors import (
        CalibrationError,
        CalibrationWarning,
        DataError,
        DeviceError,
        DeviceWarning,
        ExifWarning,
        HyperspotError,
        ImageError,
        ImageWarning,
        MissingPackageError,
        ModelFileError,
        PluginWarning,
        SettingsError,
        WeightsError,
    )
    from hyperspot.evaluation import Evaluation
    from hyperspot.images import read_image
    from hyperspot.methods import Method, MethodSettings, register_method
    from hyperspot.metrics import Metric, register_metric
    from hyperspot.model_loading import load_model
    from hyperspot.parts import PartCalibration, PartEvaluation, PartInspector, PartVerdict
    from hyperspot.predictor import Predictor
    from hyperspot.report import write_report
    from hyperspot.results import Region, Verdict
    from hyperspot.results.conversions import CocoBuilder, to_supervision, to_yolo
    from hyperspot.runtime import ExportedDetector

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "backbones",
    "Calibration": "decision.calibration",
    "CalibrationError": "errors",
    "CalibrationWarning": "errors",
    "CocoBuilder": "results.conversions",
    "DataError": "errors",
    "Dataset": "data",
    "DecisionRule": "decision.rule",
    "Detector": "detector.detector",
    "DeviceError": "errors",
    "DeviceWarning": "errors",
    "Evaluation": "evaluation",
    "ExifWarning": "errors",
    "ExportedDetector": "runtime",
    "HyperspotError": "errors",
    "ImageError": "errors",
    "ImageWarning": "errors",
    "Method": "methods",
    "MethodSettings": "methods",
    "Metric": "metrics",
    "MissingPackageError": "errors",
    "ModelFileError": "errors",
    "OperatingPoint": "decision.operating_points",
    "Part": "data.part_sets",
    "PartCalibration": "parts",
    "PartEvaluation": "parts",
    "PartInspector": "parts",
    "PartSet": "data.part_sets",
    "PartVerdict": "parts",
    "PluginWarning": "errors",
    "PowerEstimate": "detector.power",
    "Predictor": "predictor",
    "Region": "results",
    "Sample": "data",
    "Settings": "detector.settings",
    "SettingsError": "errors",
    "Verdict": "results",
    "WeightsError": "errors",
    "load_model": "model_loading",
    "make_product_set": "data.demo_product.product_set",
    "open_dataset": "data",
    "open_part_set": "data.part_sets",
    "read_image": "images",
    "register_backbone": "backbones",
    "register_method": "methods",
    "register_metric": "metrics",
    "to_supervision": "results.conversions",
    "to_yolo": "results.conversions",
    "write_report": "report",
}

__all__ = [
    "Backbone",
    "Calibration",
    "CalibrationError",
    "CalibrationWarning",
    "CocoBuilder",
    "DataError",
    "Dataset",
    "DecisionRule",
    "Detector",
    "DeviceError",
    "DeviceWarning",
    "Evaluation",
    "ExifWarning",
    "ExportedDetector",
    "HyperspotError",
    "ImageError",
    "ImageWarning",
    "Method",
    "MethodSettings",
    "Metric",
    "MissingPackageError",
    "ModelFileError",
    "OperatingPoint",
    "Part",
    "PartCalibration",
    "PartEvaluation",
    "PartInspector",
    "PartSet",
    "PartVerdict",
    "PluginWarning",
    "PowerEstimate",
    "Predictor",
    "Region",
    "Sample",
    "Settings",
    "SettingsError",
    "Verdict",
    "WeightsError",
    "__version__",
    "load_model",
    "make_product_set",
    "open_dataset",
    "open_part_set",
    "read_image",
    "register_backbone",
    "register_method",
    "register_metric",
    "to_supervision",
    "to_yolo",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hyperspot' has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(f"hyperspot.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        from hyperspot.utils.optional_packages import explain

        raise explain(error, f"hyperspot.{name}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
