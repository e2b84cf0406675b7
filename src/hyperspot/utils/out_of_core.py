"""Arrays that may outgrow the memory: what is above a stated budget lies in temporary files.

The files have no name, so that nothing is left of them whatever ends the process, and lie on a disk: in the folder
that TMPDIR names, or else in /var/tmp, since /tmp is a part of the memory on many machines.
"""

import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

BUDGET = 2**26
"""Bytes of one shelf, or of one array by `zeros`, that are held in memory: 64 MiB."""


class SpooledArray:
    """Flat arrays of one type, put one after the other and read again in the same order."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype = np.dtype(dtype)
        self.sizes: list[int] = []
        self._held: list[Shaped[np.ndarray, "_n"]] = []
        self._held_bytes = 0
        self._file: Any = None

    @property
    def total(self) -> int:
        """How many values there are in all arrays together."""
        return sum(self.sizes)

    def put(self, values: Shaped[np.ndarray, " n"]) -> None:
        """Keep a copy of a flat array; raises OSError where the disk is full."""
        if self._file is None and self._held_bytes + values.nbytes > BUDGET:
            self._file = _temporary_file()
            weakref.finalize(self, self._file.close)
        if self._file is None:
            self._held.append(values.copy())
            self._held_bytes += values.nbytes
        else:
            self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(values).view(np.uint8))
        self.sizes.append(len(values))

    def __len__(self) -> int:
        """Return how many arrays were put."""
        return len(self.sizes)

    def __iter__(self) -> Iterator[Shaped[np.ndarray, "_n"]]:
        """Yield each array; it must not be changed."""
        yield from self._held
        start = 0
        for size in self.sizes[len(self._held) :]:
            values = np.empty(size, dtype=self.dtype)
            self._read(start, values)
            start += values.nbytes
            yield values

    def blocks(self, size: int) -> Iterator[Shaped[np.ndarray, "_n"]]:
        """Yield all values in new arrays of `size`, the last one shorter, whatever arrays they came in."""
        left = self.total
        block = np.empty(min(size, left), dtype=self.dtype)
        filled = 0
        for values in self:
            taken = 0
            while taken < len(values):
                count = min(len(values) - taken, len(block) - filled)
                block[filled : filled + count] = values[taken : taken + count]
                taken, filled, left = taken + count, filled + count, left - count
                if filled == len(block):
                    yield block
                    block, filled = np.empty(min(size, left), dtype=self.dtype), 0

    def _read(self, start: int, into: Shaped[np.ndarray, " n"]) -> None:
        self._file.seek(start)
        unread = into.view(np.uint8)
        while len(unread):
            count = self._file.readinto(unread)
            if not count:
                raise OSError(0, "a temporary file lost its end")
            unread = unread[count:]


def zeros(size: int, dtype: type[np.generic]) -> Shaped[np.ndarray, " n"]:
    """Return a flat array of zeros, mapped to a temporary file where it is above the budget.

    The system counts the mapped pages as memory of the process as long as nothing else needs the room.

    Raises OSError where the disk is full.
    """
    needed = size * np.dtype(dtype).itemsize
    if needed <= BUDGET:
        return np.zeros(size, dtype=dtype)
    with _temporary_file() as opened:
        # Reserved at once: a disk that turns out to be full while the array is filled would end the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(opened.fileno(), 0, needed)
        return np.asarray(np.memmap(opened, dtype=dtype, mode="w+", shape=size))


def pieces(size: int, length: int) -> Iterator[slice]:
    """Yield the slices that cut `size` values into pieces of `length`."""
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))


def _temporary_file() -> Any:
    usual = Path("/var/tmp")  # noqa: S108 - a nameless file, which nobody else can open
    folder = None if os.environ.get("TMPDIR") or not os.access(usual, os.W_OK) else usual
    return tempfile.TemporaryFile(dir=folder)
