"""CPU features: the number of usable cores and the fastest precision."""

import os
from functools import cache
from pathlib import Path
from typing import Literal

Precision = Literal["f32", "bf16", "f16"]
"""Number format of the backbone; f16 only on GPUs."""
SWITCH = "HYPERSPOT_PRECISION"
"""Environment variable that overrides the precision: `f32` or `bf16`, on a GPU (see `devices`) also `f16`."""


@cache
def native_precision() -> Precision:
    """Return the fastest precision of convolutions on this CPU: bf16 or f32.

    bf16 is faster with AMX, and with AVX-512 BF16 on AMD (measured: 1.6 times in torch, 1.9 times in OpenVINO). Intel
    CPUs with AVX-512 BF16 but without AMX gain nothing. The features are read from /proc/cpuinfo; on systems without
    it (Windows, macOS) the result is f32 unless HYPERSPOT_PRECISION is set.
    """
    requested = os.environ.get(SWITCH)
    if requested in ("f32", "bf16"):
        return "bf16" if requested == "bf16" else "f32"
    try:
        features = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "f32"
    fast = " amx_bf16" in features or ("AuthenticAMD" in features and " avx512_bf16" in features)
    return "bf16" if fast else "f32"


def cores() -> int:
    """Return the number of CPU cores this process may use.

    This is the CPU affinity on Linux and, from Python 3.13 on, `PYTHON_CPU_COUNT` if set; elsewhere all cores.

    Examples:
        >>> 1 <= cores() <= os.cpu_count()
        True

    """
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
