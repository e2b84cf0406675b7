"""The compiled search for nearest memory vectors, where one was built; nothing needs it.

`kernels.c` is compiled when the package is built, if the machine has a C compiler, and is loaded with ctypes. It
chooses by what the CPU has: bf16 products (AVX-512 BF16), AVX-512 or AVX2. Where the library or such a CPU is
missing, `level()` is 0 and `neighbors` takes matrix products instead.
"""

import ctypes
import os
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

LIBRARY = Path(__file__).with_name("_kernels.so")
LEVELS = ("none", "avx2", "avx512", "avx512_bf16")
MOST_NEIGHBORS = 3
"""The search is exact in what it ranks up to this many neighbors: each lane keeps more (four, or six with AVX2)."""
PREFIX_STEP = 32
CANDIDATES, CANDIDATES_OF_MANY, MANY = 16, 24, 2048
"""Vectors whose true distance is computed for each query, and how many in a bank of at least `MANY`."""
TRUNCATION, ROUNDING = 0.03, 0.01
"""Standard error of a nominating distance for want of the other channels, and by bf16, at most; as a share of what
lies between the squared distances of the third neighbor and of the last candidate. On the development categories no
neighbor is missed then."""
CROWDED = 0.05
"""Quantile of that room over a sample of the bank: it must be enough where the vectors lie dense, too."""
BF16_ERROR = 2.0**-8
SAMPLE = 256
SWITCH = "HYPERSPOT_NATIVE"
"""Environment variable that names the level to use at most: one of `LEVELS`."""


Neighbors = tuple[Float32[np.ndarray, "n k"], Int64[np.ndarray, "n k"]]
"""Squared distances, ascending, and which vectors they lead to."""


class _Level(ctypes.Structure):
    """`struct level` of kernels.c."""

    _fields_ = (("tokens", ctypes.c_void_p), ("height", ctypes.c_long), ("width", ctypes.c_long))


@cache
def _library() -> ctypes.CDLL | None:
    if "torch" not in sys.modules:
        # Threads that wait by spinning would take the cores from an inference engine's; torch's own need to spin.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        library = ctypes.CDLL(str(LIBRARY))
        library.hs_level.argtypes, library.hs_level.restype = [], ctypes.c_int
        if library.hs_level():
            pointer, size, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
            library.hs_open.argtypes = [pointer, pointer, pointer, size, size, size, size, number]
            library.hs_open.restype = pointer
            library.hs_close.argtypes, library.hs_close.restype = [pointer], None
            library.hs_nearest.argtypes = [
                *(pointer, ctypes.POINTER(_Level), number, pointer, number, number, number, pointer, pointer),
            ]
            library.hs_nearest.restype = number
    except (OSError, AttributeError):
        return None
    return library


@cache
def level() -> int:
    """Return what the compiled search may use: an index into `LEVELS`, 0 where there is none."""
    library = _library()
    found = 0 if library is None else int(library.hs_level())
    allowed = os.environ.get(SWITCH)
    return min(found, LEVELS.index(allowed)) if allowed in LEVELS else found


class PackedBank:
    """A memory bank laid out for the compiled search.

    Args:
        bank: The vectors, their mean subtracted; the channels that tell them apart best come first.
        prefix: Channels that nominate candidates, 1 to d.
        split: The first of them, which bf16 takes with twice its digits, 0 to `prefix`.
        candidates: How many vectors are compared by their true distance.

    """

    def __init__(self, bank: Float32[np.ndarray, "m d"], *, prefix: int, split: int, candidates: int) -> None:
        library = _library()
        if library is None:
            raise RuntimeError("the compiled search was not built")
        self.prefix, self.split = prefix, split if LEVELS[level()].endswith("bf16") else 0
        self.candidates = candidates
        self._library = library
        # The library reads these two arrays as long as the memory is open.
        self._bank = np.ascontiguousarray(bank)
        self._order = np.random.default_rng(0).permutation(len(bank)).astype(np.int64)
        norms = np.einsum("ij,ij->i", self._bank, self._bank)
        opened = library.hs_open(
            *(self._bank.ctypes.data, norms.ctypes.data, self._order.ctypes.data, *self._bank.shape),
            *(prefix, self.split, level()),
        )
        if not opened:
            raise MemoryError(f"no memory to search {len(bank)} vectors")
        self._memory = ctypes.c_void_p(opened)
        weakref.finalize(self, library.hs_close, self._memory)

    def nearest(self, queries: Float32[np.ndarray, "n d"], k: int, threads: int) -> Neighbors:
        """Return the k nearest vectors of each query, for k of 1 to 3; NaN for a query that is no number.

        Raises ValueError where k is another number, there are fewer vectors, or the channels are others.
        """
        return self._search([queries[None]], None, k, threads)

    def nearest_in_pyramid(
        self,
        levels: Sequence[Float32[np.ndarray, "_h _w d"]],
        affine: Float32[np.ndarray, "3 d"],
        k: int,
        threads: int,
    ) -> Neighbors:
        """Return the k nearest vectors of each place of the first level, whose vectors are never written out.

        The vector of a place is the sum of all levels, the coarser ones taken bilinearly, and of base + row * change
        per row + column * change per column (`affine`), row and column running from -1 to 1.

        Raises ValueError as `nearest` does.
        """
        return self._search(levels, affine, k, threads)

    def _search(
        self, levels: Sequence[np.ndarray], affine: Float32[np.ndarray, "3 d"] | None, k: int, threads: int
    ) -> Neighbors:
        if not 1 <= k <= min(MOST_NEIGHBORS, len(self._bank)):
            raise ValueError(f"asked for {k} neighbors in a bank of {len(self._bank)}, at most {MOST_NEIGHBORS}")
        kept = [np.ascontiguousarray(level, np.float32) for level in levels]
        base = None if affine is None else np.ascontiguousarray(affine, np.float32)
        # The library reads as far as it is told: what fits together only as a rule would be read beyond its end.
        channels = self._bank.shape[1]
        if any(level.shape[2] != channels for level in kept) or (base is not None and base.shape != (3, channels)):
            raise ValueError(f"the queries do not have the {channels} channels of the bank")
        if not all(level.size for level in kept[1:]):
            raise ValueError("a level of the pyramid is empty")
        described = (_Level * len(kept))(*(_Level(level.ctypes.data, *level.shape[:2]) for level in kept))
        count = kept[0].shape[0] * kept[0].shape[1]
        distances, columns = np.empty((count, k), np.float32), np.empty((count, k), np.int64)
        if self._library.hs_nearest(
            *(self._memory, described, len(kept), None if base is None else base.ctypes.data),
            *(k, self.candidates, max(1, threads), distances.ctypes.data, columns.ctypes.data),
        ):
            raise MemoryError(f"no memory to search for {count} vectors")
        return distances, columns


def pack(bank: Float32[np.ndarray, "m d"]) -> PackedBank:
    """Return a bank laid out with as many channels as tell neighbors apart.

    A product over channels of variance λ_i, of vectors with nothing in common, deviates by the root of Σ λ_i². What
    is left out by the prefix, and what bf16 loses, must be small against what it takes to push one of the three
    nearest out of the candidates.
    """
    size, channels = bank.shape
    candidates = CANDIDATES if size < MANY else CANDIDATES_OF_MANY
    if size <= candidates + 1:
        return PackedBank(bank, prefix=channels, split=0, candidates=candidates)
    squares = np.einsum("ij,ij->i", bank, bank)
    sample = np.arange(0, size, max(1, size // SAMPLE))
    between = squares[sample, None] + squares - 2 * bank[sample] @ bank.T
    between[np.arange(len(sample)), sample] = np.inf
    ordered = np.partition(between, (MOST_NEIGHBORS - 1, candidates - 1), axis=1)
    room = float(np.quantile(ordered[:, candidates - 1] - ordered[:, MOST_NEIGHBORS - 1], CROWDED))
    variances = np.einsum("ij,ij->j", bank, bank, dtype=np.float64) / size
    left = np.sqrt(np.cumsum(variances[::-1] ** 2)[::-1])
    telling = int((2 * left > TRUNCATION * room).sum())
    prefix = min(channels, max(1, -(-telling // PREFIX_STEP)) * PREFIX_STEP)
    split = min(prefix, int((BF16_ERROR * left > ROUNDING * room).sum()))
    return PackedBank(bank, prefix=prefix, split=split, candidates=candidates)
