"""What this machine has to run detectors with."""

import importlib.metadata
from typing import Any

from hyperspot.hardware import native
from hyperspot.hardware.cpu import cores, native_precision
from hyperspot.runtime.engines import available

SEARCH = {
    "none": "matrix products (no compiled search here)",
    "avx2": "compiled, AVX2",
    "avx512": "compiled, AVX-512",
    "avx512_bf16": "compiled, AVX-512 with bf16 products",
}


def describe_machine() -> dict[str, Any]:
    """Return the engines that are installed, with their versions and the format each would choose, and the rest."""
    quick = native_precision()
    formats = {"onnxruntime": "f32"}
    described: dict[str, Any] = {
        "engines": {
            name: {"version": importlib.metadata.version(name), "precision": formats.get(name, quick)}
            for name in available()
        },
        "neighbor_search": SEARCH[native.LEVELS[native.level()]],
        "cores": cores(),
    }
    if "torch" in available():
        from hyperspot.hardware import devices

        described["device"] = devices.describe()
    return described
