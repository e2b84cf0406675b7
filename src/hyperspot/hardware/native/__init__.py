"""The compiled nearest-neighbor search, optional.

`kernels.c` is compiled when the package is built, if the machine has a C compiler, and loaded with ctypes. It selects
the instruction set at run time: AVX-512 with bf16 products, AVX-512 or AVX2. Without the library or such a CPU
`level()` is 0 and `features.neighbors` uses matrix products.
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

SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
"""Of a compiled library; hatch_build.py has the same table."""
LIBRARY = Path(__file__).with_name(f"_kernels{SUFFIX}")
LEVELS = ("none", "avx2", "avx512", "avx512_bf16")
MOST_NEIGHBORS = 3
"""Largest k: each lane keeps more candidates than this (four, with AVX2 six)."""
PREFIX_STEP = 32
CANDIDATES, CANDIDATES_OF_MANY, MANY = 16, 24, 2048
"""Candidates per query that are reranked by their exact distance; the second number for banks of at least `MANY`."""
TRUNCATION, ROUNDING = 0.03, 0.01
"""Largest standard error of an approximate distance by truncation to the prefix and by bf16, as a share of the margin
between the squared distances of the third neighbor and of the last candidate. With these no neighbor is missed on the
development categories."""
CROWDED = 0.05
"""Quantile of that margin over a sample of the bank, so that it suffices where the vectors are dense."""
BF16_ERROR = 2.0**-8
SAMPLE = 256
SWITCH = "HYPERSPOT_NATIVE"
"""Environment variable with the highest instruction set to use: one of `LEVELS`."""


Neighbors = tuple[Float32[np.ndarray, "n k"], Int64[np.ndarray, "n k"]]
"""Squared distances, ascending, and the indices of the vectors."""


class _Level(ctypes.Structure):
    """`struct level` of kernels.c."""

    _fields_ = (("tokens", ctypes.c_void_p), ("height", ctypes.c_int64), ("width", ctypes.c_int64))


@cache
def _library() -> ctypes.CDLL | None:
    if "torch" not in sys.modules:
        # Threads that spin while they wait take the cores from the inference engine; torch's own threads need to spin.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        library = ctypes.CDLL(str(LIBRARY))
        library.hs_level.argtypes, library.hs_level.restype = [], ctypes.c_int
        if library.hs_level():
            pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
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
    """Return the instruction set of the compiled search as an index into `LEVELS`; 0: no compiled search."""
    library = _library()
    found = 0 if library is None else int(library.hs_level())
    allowed = os.environ.get(SWITCH)
    return min(found, LEVELS.index(allowed)) if allowed in LEVELS else found


class PackedBank:
    """A memory bank packed for the compiled search.

    Args:
        bank: Centered vectors, channels in descending order of variance.
        prefix: Number of leading channels that select candidates, 1 to d.
        split: Number of leading channels that bf16 represents by two numbers, 0 to `prefix`.
        candidates: Number of candidates that are reranked by their exact distance.

    """

    def __init__(self, bank: Float32[np.ndarray, "m d"], *, prefix: int, split: int, candidates: int) -> None:
        library = _library()
        if library is None:
            raise RuntimeError("the compiled search was not built")
        self.prefix, self.split = prefix, split if LEVELS[level()].endswith("bf16") else 0
        self.candidates = candidates
        self._library = library
        # The library keeps pointers to these two arrays until hs_close.
        self._bank = np.ascontiguousarray(bank)
        self._order = np.random.default_rng(0).permutation(len(bank)).astype(np.int64)
        norms = np.einsum("ij,ij->i", self._bank, self._bank)
        opened = library.hs_open(
            *(self._bank.ctypes.data, norms.ctypes.data, self._order.ctypes.data, *self._bank.shape),
            *(prefix, self.split, level()),
        )
        if not opened:
            raise MemoryError(f"not enough memory to pack {len(bank)} vectors")
        self._memory = ctypes.c_void_p(opened)
        weakref.finalize(self, library.hs_close, self._memory)

    def nearest(self, queries: Float32[np.ndarray, "n d"], k: int, threads: int) -> Neighbors:
        """Return the k nearest vectors of each query, k from 1 to 3; distances of NaN queries are NaN.

        Raises ValueError if k is out of range, exceeds the size of the bank, or the channels differ.
        """
        return self._search([queries[None]], None, k, threads)

    def nearest_in_pyramid(
        self,
        levels: Sequence[Float32[np.ndarray, "_h _w d"]],
        affine: Float32[np.ndarray, "3 d"],
        k: int,
        threads: int,
    ) -> Neighbors:
        """Return the k nearest vectors of each position of the finest level, without materializing the queries.

        The query of a position is the sum of all levels, upsampled bilinearly to the first, and of
        affine[0] + row * affine[1] + column * affine[2], row and column from -1 to 1.

        Raises ValueError as `nearest` does.
        """
        return self._search(levels, affine, k, threads)

    def _search(
        self, levels: Sequence[np.ndarray], affine: Float32[np.ndarray, "3 d"] | None, k: int, threads: int
    ) -> Neighbors:
        if not 1 <= k <= min(MOST_NEIGHBORS, len(self._bank)):
            raise ValueError(f"{k} neighbors requested; the bank allows 1 to {min(MOST_NEIGHBORS, len(self._bank))}")
        kept = [np.ascontiguousarray(level, np.float32) for level in levels]
        base = None if affine is None else np.ascontiguousarray(affine, np.float32)
        # The library does not check bounds.
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
            raise MemoryError(f"not enough memory to search for {count} vectors")
        return distances, columns


def pack(bank: Float32[np.ndarray, "m d"]) -> PackedBank:
    """Pack a centered bank with as many prefix channels as exact neighbors need.

    A product over independent channels of variances λ_i has the standard deviation sqrt(Σ λ_i²). That of the channels
    beyond the prefix, and that of the rounding to bf16, must be small against the margin that keeps the three nearest
    vectors among the candidates.
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
    margin = float(np.quantile(ordered[:, candidates - 1] - ordered[:, MOST_NEIGHBORS - 1], CROWDED))
    variances = np.einsum("ij,ij->j", bank, bank, dtype=np.float64) / size
    residual = np.sqrt(np.cumsum(variances[::-1] ** 2)[::-1])
    needed = int((2 * residual > TRUNCATION * margin).sum())
    prefix = min(channels, max(1, -(-needed // PREFIX_STEP)) * PREFIX_STEP)
    split = min(prefix, int((BF16_ERROR * residual > ROUNDING * margin).sum()))
    return PackedBank(bank, prefix=prefix, split=split, candidates=candidates)
