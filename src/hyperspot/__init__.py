"""Visual inspection from photos of good parts only: fit, predict, evaluate.

The public names are loaded when first asked for, so that importing hyperspot costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperspot.backbones import Backbone, register_backbone
    from hyperspot.data import Dataset, open_dataset
    from hyperspot.detector.detector import Detector
    from hyperspot.detector.settings import Settings
    from hyperspot.errors import HyperspotError
    from hyperspot.evaluation import Evaluation
    from hyperspot.methods import Method, MethodSettings, register_method
    from hyperspot.metrics import Metric, register_metric
    from hyperspot.report import write_report
    from hyperspot.results import Region, Verdict
    from hyperspot.runtime import ExportedDetector

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "backbones",
    "Dataset": "data",
    "Detector": "detector.detector",
    "Evaluation": "evaluation",
    "ExportedDetector": "runtime",
    "HyperspotError": "errors",
    "Method": "methods",
    "MethodSettings": "methods",
    "Metric": "metrics",
    "Region": "results",
    "Settings": "detector.settings",
    "Verdict": "results",
    "open_dataset": "data",
    "register_backbone": "backbones",
    "register_method": "methods",
    "register_metric": "metrics",
    "write_report": "report",
}

__all__ = [
    "Backbone",
    "Dataset",
    "Detector",
    "Evaluation",
    "ExportedDetector",
    "HyperspotError",
    "Method",
    "MethodSettings",
    "Metric",
    "Region",
    "Settings",
    "Verdict",
    "__version__",
    "open_dataset",
    "register_backbone",
    "register_method",
    "register_metric",
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
