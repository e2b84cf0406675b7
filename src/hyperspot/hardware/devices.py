"""Where detectors compute: the CPU, or a GPU by CUDA. All that is particular to a GPU stands here and in `cuda`."""

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
"""Environment variable that says what `auto` means: `cpu`, `cuda` or `cuda:N`."""
BF16_SINCE = (8, 0)
"""The compute capability from which GPUs multiply bf16 in hardware (NVIDIA Ampere); older ones have fp16 alone."""


def resolve(named: str = "auto") -> torch.device:
    """Return the device that a person means.

    Args:
        named: `cpu`, `cuda` (the current GPU), `cuda:N`, or `auto`: what HYPERSPOT_DEVICE names or, without it, `cuda`
            where there is a GPU that torch can use and `cpu` elsewhere.

    Raises DeviceError where there is no such device.
    """
    if named == "auto":
        named = os.environ.get(SWITCH) or "auto"
    if named == "auto":
        named = "cuda" if torch.cuda.is_available() else "cpu"
    if named == "cpu":
        return CPU
    kind, colon, number = named.partition(":")
    if kind != "cuda" or (colon and not (number.isascii() and number.isdigit())):
        raise DeviceError(f"there is no device '{named}'; choose auto, cpu, cuda or, by its number, cuda:0")
    if not torch.cuda.is_available():
        lacks = "torch finds no GPU it can use; see what `nvidia-smi` says"
        if torch.version.cuda is None:
            lacks = "this torch was built without CUDA; install one that was built with it"
        raise DeviceError(f"'{named}' was asked for and {lacks}, or choose --device cpu")
    count = torch.cuda.device_count()
    index = int(number) if colon else torch.cuda.current_device()
    if index >= count:
        raise DeviceError(f"there is no {named}: the GPUs here are cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", index)


def choose_precision(device: torch.device, asked: Precision | None = None) -> Precision:
    """Return what a backbone computes in on a device: what is asked for or, without it, what suits the device.

    On a GPU that is bf16, or f16 where the GPU lacks bf16; HYPERSPOT_PRECISION decides otherwise.

    Raises DeviceError where the CPU is asked for f16, which it multiplies slower than f32.
    """
    if device.type == "cpu":
        if asked == "f16":
            raise DeviceError("f16 is for GPUs; on the CPU choose f32 or bf16")
        return asked or native_precision()
    wished = os.environ.get(PRECISION_SWITCH)
    for known in get_args(Precision):
        if known == (asked or wished):
            chosen: Precision = known
            return chosen
    return "bf16" if torch.cuda.get_device_capability(device) >= BF16_SINCE else "f16"


@contextlib.contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Compute as exactly on a GPU as on the CPU, and say in one sentence where its memory is too small.

    Left to itself torch rounds what enters a convolution, and where a program allows it a matrix product too, to the
    11 binary digits of TF32: a distance is a difference of nearly equal numbers and would lose its own.
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
            f"the memory of {device} is too small for this; use smaller photos, a smaller --short-side or --device cpu"
        ) from None
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _switches() -> list[tuple[Any, str, Any]]:
    """Return the settings of torch that decide exactness, and their values here."""
    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    deterministic = (convolutions, "deterministic", True)
    if hasattr(products, "fp32_precision"):
        # Since torch 2.9; the older names may not be mixed with these.
        return [(products, "fp32_precision", "ieee"), (convolutions.conv, "fp32_precision", "ieee"), deterministic]
    return [(products, "allow_tf32", False), (convolutions, "allow_tf32", False), deterministic]


def describe() -> dict[str, Any]:
    """Return the device that `auto` means here, with its name where it is a GPU, and the format it would choose."""
    device = resolve()
    described: dict[str, Any] = {"chosen": str(device)}
    if device.type == "cuda":
        described["name"] = torch.cuda.get_device_name(device)
        described["compute_capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return {**described, "precision": choose_precision(device)}
