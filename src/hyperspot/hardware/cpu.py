"""What the processor is good at."""

import os
from functools import cache
from pathlib import Path
from typing import Literal

Precision = Literal["f32", "bf16", "f16"]
"""What a backbone computes in; f16 is for GPUs alone."""
SWITCH = "HYPERSPOT_PRECISION"
"""Environment variable that decides instead: `f32` or `bf16`; on a GPU (see `devices`) `f16` too."""


@cache
def native_precision() -> Precision:
    """Return the format that convolutions run fastest in: bf16 where the CPU multiplies it faster than f32.

    That is with AMX, and with AVX-512 BF16 on AMD's processors (measured: 1.6 times in torch, 1.9 times in OpenVINO).
    Without AMX, Intel's know the instruction and gain nothing by it.
    """
    asked = os.environ.get(SWITCH)
    if asked in ("f32", "bf16"):
        return "bf16" if asked == "bf16" else "f32"
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "f32"
    quick = " amx_bf16" in known or ("AuthenticAMD" in known and " avx512_bf16" in known)
    return "bf16" if quick else "f32"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
