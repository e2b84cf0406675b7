"""Devices: the CPU or an NVIDIA GPU. All GPU-specific code is here and in `cuda_graphs`."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, get_args

import torch

from hyperspot.errors import DeviceError
from hyperspot.hardware.cpu import SWITCH as PRECISION_SWITCH
from hyperspot.hardware.cpu import Precision, native_precision

CPU = torch.device("cpu")
SWITCH = "HYPERSPOT_DEVICE"
"""Environment variable that overrides `auto`: `cpu`, `cuda` or `cuda:N`."""
BF16_SINCE = (8, 0)
"""Lowest compute capability with bf16 in hardware (NVIDIA Ampere); older GPUs have f16 only."""


def resolve(named: str = "auto") -> torch.device:
    """Return the torch device of a name.

    Args:
        named: `cpu`, `cuda` (the current GPU), `cuda:N`, or `auto`: HYPERSPOT_DEVICE if set, else `cuda` if torch finds
            a GPU, else `cpu`.

    Raises:
        DeviceError: If there is no such device.

    Examples:
        >>> resolve("cpu")
        device(type='cpu')

    """
    if named == "auto":
        named = os.environ.get(SWITCH) or "auto"
    if named == "auto":
        named = "cuda" if torch.cuda.is_available() else "cpu"
    if named == "cpu":
        return CPU
    kind, colon, number = named.partition(":")
    if kind != "cuda" or (colon and not (number.isascii() and number.isdigit())):
        raise DeviceError(f"'{named}' is not a device; choose auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        reason = "torch finds no usable GPU; check `nvidia-smi`"
        if torch.version.cuda is None:
            reason = "this torch was built without CUDA; install a CUDA build"
        raise DeviceError(f"device '{named}' is not available: {reason}, or choose --device cpu")
    count = torch.cuda.device_count()
    index = int(number) if colon else torch.cuda.current_device()
    if index >= count:
        raise DeviceError(f"device '{named}' is not available; choose one of cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", index)


def choose_precision(device: torch.device, requested: Precision | None = None) -> Precision:
    """Return the precision of the backbone on a device: `requested`, else HYPERSPOT_PRECISION, else the fastest.

    The fastest is bf16 on GPUs that have it and f16 on older ones; on the CPU see `native_precision`.

    Raises:
        DeviceError: If f16 is requested on the CPU, where it is slower than f32.

    Examples:
        >>> choose_precision(CPU, "f32")
        'f32'

    """
    if device.type == "cpu":
        if requested == "f16":
            raise DeviceError("f16 is for GPUs; on the CPU choose f32 or bf16")
        return requested or native_precision()
    override = os.environ.get(PRECISION_SWITCH)
    for known in get_args(Precision):
        if known == (requested or override):
            chosen: Precision = known
            return chosen
    return "bf16" if torch.cuda.get_device_capability(device) >= BF16_SINCE else "f16"


@contextlib.contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Run a block on a device with full f32 precision; turn its out-of-memory error into a DeviceError.

    By default torch rounds the inputs of convolutions, and optionally of matrix products, to TF32 with 11 bits. A
    distance is a difference of nearly equal numbers and would lose its digits.
    """
    if device.type != "cuda":
        yield
        return
    switches = _switches()
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in switches]
    try:
        with torch.cuda.device(device):
            for owner, name, value in switches:
                setattr(owner, name, value)
            yield
    except torch.OutOfMemoryError:
        raise DeviceError(
            f"{device} is out of memory; use smaller images, a smaller --short-side or --device cpu"
        ) from None
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _switches() -> list[tuple[Any, str, Any]]:
    """Return the torch settings that control numerical precision, and the values to set."""
    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    deterministic = (convolutions, "deterministic", True)
    if hasattr(products, "fp32_precision"):
        # From torch 2.9 on; torch forbids mixing these with the older names.
        return [(products, "fp32_precision", "ieee"), (convolutions.conv, "fp32_precision", "ieee"), deterministic]
    return [(products, "allow_tf32", False), (convolutions, "allow_tf32", False), deterministic]


def describe() -> dict[str, Any]:
    """Return the device that `auto` selects, the name and compute capability of a GPU, and the default precision."""
    device = resolve()
    described: dict[str, Any] = {"chosen": str(device)}
    if device.type == "cuda":
        described["name"] = torch.cuda.get_device_name(device)
        described["compute_capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return {**described, "precision": choose_precision(device)}
