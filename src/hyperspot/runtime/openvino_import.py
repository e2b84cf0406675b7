"""Intel's packages as they should be in a plant: imported without their telemetry.

Left to themselves `import openvino` and `import nncf` report their use to the vendor's analytics service. They bring a
stub for where the reporting package is not installed; hiding that package during the import makes them take the stub.
"""

import sys
from types import ModuleType

from hyperspot.utils.optional_packages import require

REPORTING = "openvino_telemetry"


def import_openvino() -> ModuleType:
    """Return the module `openvino`; raises MissingPackageError if it is not installed."""
    return _import_silently("openvino", "runtime", "the engine OpenVINO")


def import_nncf() -> ModuleType:
    """Return the module `nncf`; raises MissingPackageError if it is not installed."""
    import_openvino()
    return _import_silently("nncf", "int8", "quantization to int8")


def _import_silently(name: str, extra: str, doing: str) -> ModuleType:
    hidden = REPORTING not in sys.modules and name not in sys.modules
    if hidden:
        sys.modules[REPORTING] = None  # type: ignore[assignment]
    try:
        return require(name, extra, doing)
    finally:
        if hidden:
            del sys.modules[REPORTING]
