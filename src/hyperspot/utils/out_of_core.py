"""Out-of-core arrays: above a memory budget they are kept in temporary files.

The files are nameless where the system allows it, so that none is left however the process ends. They are created in
the folder TMPDIR, otherwise in /var/tmp if there is one, since /tmp often lies in memory.
"""

import errno
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

BUDGET = 2**26
"""Bytes of one SpooledArray, or of one array of `zeros`, kept in memory: 64 MiB."""


class SpooledArray:
    """A sequence of flat arrays of one dtype, appended and read again in the same order.

    Examples:
        >>> import numpy as np
        >>> spooled = SpooledArray(np.float32)
        >>> spooled.put(np.zeros(3, np.float32))
        >>> spooled.put(np.ones(2, np.float32))
        >>> [block.tolist() for block in spooled.blocks(4)]
        [[0.0, 0.0, 0.0, 1.0], [1.0]]

    """

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype = np.dtype(dtype)
        self.sizes: list[int] = []
        self._held: list[Shaped[np.ndarray, "_n"]] = []
        self._held_bytes = 0
        self._file: Any = None

    @property
    def total(self) -> int:
        """Number of values in all arrays together."""
        return sum(self.sizes)

    def put(self, values: Shaped[np.ndarray, " n"]) -> None:
        """Append a copy of a flat array; raises OSError if the disk is full."""
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
        """Return the number of arrays."""
        return len(self.sizes)

    def __iter__(self) -> Iterator[Shaped[np.ndarray, "_n"]]:
        """Yield each array, which must not be changed."""
        yield from self._held
        start = 0
        for size in self.sizes[len(self._held) :]:
            values = np.empty(size, dtype=self.dtype)
            self._read(start, values)
            start += values.nbytes
            yield values

    def blocks(self, size: int) -> Iterator[Shaped[np.ndarray, "_n"]]:
        """Yield all values in order as new arrays of `size` values, the last one shorter."""
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
                raise OSError(0, "a temporary file was truncated")
            unread = unread[count:]


def zeros(size: int, dtype: type[np.generic]) -> Shaped[np.ndarray, " n"]:
    """Return a flat array of zeros, mapped to a temporary file if it exceeds the budget.

    The mapped pages count as memory of the process until the system needs them. Raises OSError if the disk is full.
    """
    needed = size * np.dtype(dtype).itemsize
    if needed <= BUDGET:
        return np.zeros(size, dtype=dtype)
    with _temporary_file() as opened:
        _reserve(opened.fileno(), needed)
        return np.asarray(np.memmap(opened, dtype=dtype, mode="w+", shape=size))


def pieces(size: int, length: int) -> Iterator[slice]:
    """Yield slices of `length`, the last one shorter, that cover `size` values."""
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))


def _reserve(descriptor: int, size: int) -> None:
    """Reserve disk space: if the disk turned out to be full later, writing to the mapped array would end the process.

    Raises OSError if the disk is full; does nothing where the system or the file system cannot reserve space.
    """
    if not hasattr(os, "posix_fallocate"):  # Windows, macOS
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _temporary_file() -> Any:
    usual = Path("/var/tmp")  # noqa: S108 - a nameless file, which nobody else can open
    folder = None if os.environ.get("TMPDIR") or not os.access(usual, os.W_OK) else usual
    return tempfile.TemporaryFile(dir=folder)
