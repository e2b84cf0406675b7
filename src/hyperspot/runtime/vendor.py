"""OpenVINO as it should be in a plant: imported without its telemetry.

Left to itself `import openvino` reports its use to the vendor's analytics service. It brings a stub for where
the reporting package is not installed; hiding that package while OpenVINO is imported makes it take the stub.
"""

import sys
from types import ModuleType

REPORTING = "openvino_telemetry"


def import_openvino() -> ModuleType:
    """Return the module `openvino`; raises ImportError where it is not installed."""
    hidden = REPORTING not in sys.modules and "openvino" not in sys.modules
    if hidden:
        sys.modules[REPORTING] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if hidden:
            del sys.modules[REPORTING]
    return openvino  # type: ignore[no-any-return]
