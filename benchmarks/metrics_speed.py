"""Time and memory of the pixel metrics of 100 images of 1024 x 1024.

OMP_NUM_THREADS=1 python benchmarks/metrics_speed.py [--images 100] [--side 1024]
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from hyperspot.metrics import PixelStatistics


def images(count: int, side: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield smooth maps and masks; every fourth image is good, the others have 1 to 6 blobs."""
    random = np.random.default_rng(seed)
    rows, columns = np.ogrid[:side, :side]
    noise = ndimage.gaussian_filter(random.standard_normal((side, side), dtype=np.float32), 4)
    noise /= noise.std()
    for number in range(count):
        mask = np.zeros((side, side), dtype=bool)
        for _ in range(random.integers(1, 7) if number % 4 else 0):
            row, column = random.integers(0, side, 2)
            mask |= (rows - row) ** 2 + (columns - column) ** 2 < random.integers(4, side // 10) ** 2
        jitter = random.random((side, side), dtype=np.float32)
        yield np.roll(noise, random.integers(0, side, 2), (0, 1)) + jitter + 2 * mask.astype(np.float32), mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--side", type=int, default=1024)
    options = parser.parse_args()
    statistics = PixelStatistics()
    adding, defective = 0.0, 0
    for heatmap, mask in images(options.images, options.side):
        started = time.perf_counter()
        statistics.update(heatmap, mask)
        adding += time.perf_counter() - started
        defective += int(mask.sum())
    started = time.perf_counter()
    figures = {
        "pixel AUROC": statistics.pixel_auroc,
        "pixel AP": statistics.pixel_ap,
        "pixel F1-max": statistics.pixel_f1_max,
        "AUPRO(0.30)": statistics.aupro(0.30),
        "AUPRO(0.05)": statistics.aupro(0.05),
        "AUPIMO": statistics.aupimo(),
    }
    computing = time.perf_counter() - started
    for name, value in figures.items():
        print(f"{name:14}", "undefined" if value is None else f"{value:.6f}")
    pixels = options.images * options.side**2
    print(f"{pixels / 1e6:.1f} million pixels, {defective / pixels:.1%} defective")
    print(f"adding {adding:.1f} s, computing {computing:.1f} s, together {adding + computing:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"peak memory of the process {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
