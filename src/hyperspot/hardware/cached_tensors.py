"""Tensors that follow from sizes and settings alone: made once for each device, then shared.

The recorded work of a GPU (see `cuda`) reads them where they lay when it was recorded. Whoever records is therefore
told of each one that is used, and keeps it for as long as the record.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")

KEPT = 32
"""Of each kind; what has not been used for longest goes first."""

_told: ContextVar[list[Tensor] | None] = ContextVar("told", default=None)


def cached_tensor(build: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Make a function that builds a tensor from hashable arguments, its device among them, build it only once."""

    @lru_cache(maxsize=KEPT)
    def built(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        # First used while judging, it may be used in training later.
        with torch.inference_mode(False):
            return build(*args, **kwargs)

    @wraps(build)
    def shared(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        tensor: Tensor = built(*args, **kwargs)  # type: ignore[arg-type]
        told = _told.get()
        if told is not None:
            told.append(tensor)
        return tensor

    return shared


@contextlib.contextmanager
def used() -> Iterator[list[Tensor]]:
    """Give a list to which every constant is added that is used meanwhile in this thread."""
    told: list[Tensor] = []
    token = _told.set(told)
    try:
        yield told
    finally:
        _told.reset(token)
