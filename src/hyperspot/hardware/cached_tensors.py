"""Tensors that depend only on sizes and settings: built once per device, then shared.

A CUDA graph reads them from the addresses they had during capture, so whoever captures collects the cached tensors in
use and keeps them as long as the graph.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")

CACHE_SIZE = 32
"""Tensors per decorated function; the least recently used one is evicted first."""

_collected: ContextVar[list[Tensor] | None] = ContextVar("collected", default=None)


def cached_tensor(build: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Cache a function that builds a tensor from hashable arguments, one of which is the device.

    Examples:
        >>> @cached_tensor
        ... def ramp(length: int, device: torch.device) -> Tensor:
        ...     return torch.arange(length, device=device)
        >>> cpu = torch.device("cpu")
        >>> ramp(3, cpu)
        tensor([0, 1, 2])
        >>> ramp(3, cpu) is ramp(3, cpu)
        True

    """

    @lru_cache(maxsize=CACHE_SIZE)
    def built(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        # First used for prediction, it may be used in training later.
        with torch.inference_mode(False):
            return build(*args, **kwargs)

    @wraps(build)
    def cached(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        tensor: Tensor = built(*args, **kwargs)  # type: ignore[arg-type]
        collected = _collected.get()
        if collected is not None:
            collected.append(tensor)
        return tensor

    return cached


@contextlib.contextmanager
def collecting() -> Iterator[list[Tensor]]:
    """Yield a list that receives every cached tensor used in this thread inside the block."""
    collected: list[Tensor] = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)
