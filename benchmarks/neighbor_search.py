"""The compiled nearest-neighbor search against faiss `IndexFlatL2`, interleaved in one process.

    python -m benchmarks.neighbor_search [--repetitions 7]

Both search the same bank, already packed or added. Two spectra: in `decaying` the variance of channel i falls as
1 / i, similar to features turned to their principal axes, where few channels select the candidates; in `flat` all
channels have the same variance, the worst case of the compiled search. Errors are relative to float64 distances.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

# Threads that spin while they wait would slow the other library down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import faiss
import numpy as np

from hyperspot.hardware import native

BANKS = [(3136, 448), (20000, 1024), (1000, 128)]
"""Vectors and channels: CFA's bank, a large coreset of PatchCore, a compressed CFA bank."""
QUERIES = [3136, 4096]
NEIGHBORS = [1, 3]
THREADS = [1, 2]

Search = Callable[[], tuple[np.ndarray, np.ndarray]]


def features(bank: int, channels: int, queries: int, decaying: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a centered bank of clusters and queries near its vectors."""
    random = np.random.default_rng(0)
    deviations = np.arange(1, channels + 1) ** -0.5 if decaying else np.ones(channels)
    centers = random.standard_normal((max(1, bank // 20), channels))
    vectors = centers[random.integers(0, len(centers), bank)] + 0.5 * random.standard_normal((bank, channels))
    near = vectors[random.integers(0, bank, queries)] + 0.3 * random.standard_normal((queries, channels))
    mean = vectors.mean(0)
    return tuple(((part - mean) * deviations).astype(np.float32) for part in (vectors, near))


def exact_distances(bank: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return the squared distances of the k nearest vectors in float64, ascending."""
    wide, asked = bank.astype(np.float64), queries.astype(np.float64)
    norms = (wide**2).sum(1)
    blocks = []
    for start in range(0, len(asked), 256):
        part = asked[start : start + 256]
        columns = np.argpartition(norms - 2 * part @ wide.T, k - 1, axis=1)[:, :k]
        blocks.append(((part[:, None] - wide[columns]) ** 2).sum(2))
    return np.sort(np.concatenate(blocks), axis=1)


def accuracy(found: tuple[np.ndarray, np.ndarray], bank: np.ndarray, queries: np.ndarray, exact: np.ndarray) -> str:
    """Return the largest relative error of the distances, and the number of queries with a wrong neighbor."""
    distances, columns = found
    # The true distances of the returned vectors: a tie may be resolved either way.
    chosen = ((queries.astype(np.float64)[:, None] - bank.astype(np.float64)[columns]) ** 2).sum(2)
    wrong = (np.sort(chosen, axis=1) > exact * (1 + 1e-9)).any(axis=1).sum()
    return f"{np.abs(distances / exact - 1).max():.0e} ({wrong})"


def medians(searches: list[Search], repetitions: int) -> list[float]:
    """Time the searches in turn; return the median milliseconds of each."""
    times: list[list[float]] = [[] for _ in searches]
    for _ in range(repetitions):
        for search, kept in zip(searches, times, strict=True):
            started = time.perf_counter()
            search()
            kept.append(1000 * (time.perf_counter() - started))
    return [statistics.median(kept) for kept in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    repetitions = parser.parse_args().repetitions
    if not native.level():
        raise SystemExit("there is no compiled search here; install gcc or clang and install hyperspot again")
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"hyperspot: {native.LEVELS[native.level()]}; faiss {faiss.__version__}: {faiss.get_compile_options()}", end=""
    )
    print(f"{os.cpu_count()} cores{load}, median of {repetitions} interleaved runs\n")
    print(
        "| bank | spectrum | queries | k | threads | hyperspot ms | faiss ms | ratio | hyperspot error | faiss error |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for size, channels in BANKS:
        for decaying in (True, False):
            bank, every = features(size, channels, max(QUERIES), decaying)
            packed = native.pack(bank)
            index = faiss.IndexFlatL2(channels)
            index.add(bank)
            exact = exact_distances(bank, every, max(NEIGHBORS))
            for count in QUERIES:
                queries = every[:count]
                for k in NEIGHBORS:
                    for threads in THREADS:
                        faiss.omp_set_num_threads(threads)
                        ours = partial(packed.nearest, queries, k, threads)
                        theirs = partial(index.search, queries, k)
                        errors = [accuracy(search(), bank, queries, exact[:count, :k]) for search in (ours, theirs)]
                        mine, other = medians([ours, theirs], repetitions)
                        spectrum = "decaying" if decaying else "flat"
                        print(
                            f"| {size} x {channels} | {spectrum} | {count} | {k} | {threads} "
                            f"| {mine:.1f} | {other:.1f} | {other / mine:.1f} | {errors[0]} | {errors[1]} |",
                            flush=True,
                        )
    print("\nError: largest relative error of a squared distance; in parentheses queries with a wrong neighbor.")


if __name__ == "__main__":
    main()
