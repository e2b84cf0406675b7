"""Time and memory of a verdict from 1 to 100 megapixels with tiles, and whether defects of 12 pixels are found.

    python -m benchmarks.large_images [--sizes 1,4,16,36,64,100]

Trains on 24 synthetic sheets of 1 megapixel in tiles of 512 pixels at full resolution, calibrated for a false-alarm
rate of 10 %. The tiles do not depend on the size of the image, so the same models then inspect larger sheets with five
defects each, one process per size. Prints the defects under a region, milliseconds per megapixel, and the peak memory
of the process and of one that only decodes the file. The threshold is that of sheets of 1 megapixel, so that larger
sheets have regions elsewhere, too. --plot FILE draws the time against a straight line through the smallest size.
"""

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter

from hyperspot import Detector
from hyperspot.hardware import native
from hyperspot.hardware.cpu import cores, native_precision
from hyperspot.images import InputSize, read_image

TRAINED, SIDE, TILE = 24, 1024, 512
DEFECTS, DEFECT = 5, 12
RATE = 0.1


def sheet(side: int, seed: int, defects: int = 0) -> tuple[UInt8[np.ndarray, "h w 3"], list[tuple[int, int]]]:
    """Return a brushed sheet, and the centers of its dark spots."""
    random = np.random.default_rng(seed)
    texture = np.empty((side, side), np.uint8)
    for top in range(0, side, SIDE):
        rows = min(SIDE, side - top)
        noise = gaussian_filter(random.standard_normal((rows, side), np.float32), (1, 6), mode="wrap")
        texture[top : top + rows] = np.clip(140 + 60 * noise, 0, 255)
    centers = [tuple(map(int, random.integers(DEFECT, side - DEFECT, 2))) for _ in range(defects)]
    inside = np.hypot(*np.mgrid[-DEFECT : DEFECT + 1, -DEFECT : DEFECT + 1]) <= DEFECT / 2
    for row, column in centers:
        spot = texture[row - DEFECT : row + DEFECT + 1, column - DEFECT : column + DEFECT + 1]
        spot[inside] = spot[inside] // 3
    return np.repeat(texture[..., None], 3, axis=2), centers


def inspect(model: Path, image: Path) -> None:
    """Predict one image in this process and print the result as JSON."""
    if model.name == "none":
        read_image(image)
        print(json.dumps({"megabytes": peak_megabytes()}))
        return
    detector = Detector.load(model, device="cpu")
    height, width = read_size(image)
    tiled = detector.anomaly_model
    tiled.tiling = dataclasses.replace(tiled.tiling, input_size=InputSize(height, width, "stretch"))
    detector.input_size, detector.crops = tiled.input_size, tiled.crops
    detector.predict(np.full((TILE, TILE, 3), 140, np.uint8)) if height <= SIDE else None
    started = time.perf_counter()
    verdict = detector.predict(image)
    regions = [one.xyxy for one in verdict.regions]
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes(), "regions": regions, "score": verdict.score}))


def peak_megabytes() -> float:
    """Return the peak memory of this process on Linux; `getrusage` would count that of the parent, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def read_size(image: Path) -> tuple[int, int]:
    """Return height and width."""
    with Image.open(image) as opened:
        return opened.height, opened.width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,4,16,36,64,100", help="megapixels")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--inspect", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inspect:
        inspect(*given.inspect)
        return
    print(f"{cores()} cores, search {native.LEVELS[native.level()]}, backbone {native_precision()}, compact, torch")
    print("| megapixels | defects found | regions elsewhere | ms per megapixel | peak MB | MB to decode alone |")
    print("|---|---|---|---|---|---|")
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        good = [sheet(SIDE, seed)[0] for seed in range(TRAINED)]
        detector = Detector.fit(good, tile=TILE, false_alarm_rate=RATE, device="cpu")
        model = detector.save(Path(folder) / "sheet.safetensors")
        for number, megapixels in enumerate(map(float, given.sizes.split(","))):
            side = round(math.sqrt(megapixels * 1e6))
            pixels, centers = sheet(side, 1000 + number, DEFECTS)
            image = Path(folder) / "sheet.tif"
            Image.fromarray(pixels).save(image)
            found = _child(model, image)
            alone = _child(Path("none"), image)
            hit = [any(_inside(box, center) for box in found["regions"]) for center in centers]
            elsewhere = sum(not any(_inside(box, center) for center in centers) for box in found["regions"])
            per = 1000 * found["seconds"] / megapixels
            measured.append((megapixels, found["seconds"]))
            print(
                f"| {megapixels:g} | {sum(hit)} of {DEFECTS} | {elsewhere} | {per:.0f} | {found['megabytes']:.0f} | "
                f"{alone['megabytes']:.0f} |",
                flush=True,
            )
    if given.plot:
        _draw(measured, given.plot)


def _child(model: Path, image: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.large_images", "--inspect", str(model), str(image)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _inside(box: tuple[int, int, int, int], center: tuple[int, int]) -> bool:
    left, top, right, bottom = box
    row, column = center
    return top - DEFECT <= row <= bottom + DEFECT and left - DEFECT <= column <= right + DEFECT


def _draw(measured: list[tuple[float, float]], target: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    sizes, seconds = zip(*measured, strict=True)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(sizes, seconds, "o-", label="measured")
    axes.plot(sizes, [size * seconds[0] / sizes[0] for size in sizes], "--", label="proportional to the pixels")
    axes.set(xlabel="megapixels", ylabel="seconds to the verdict", xscale="log", yscale="log")
    axes.legend()
    figure.savefig(target)


if __name__ == "__main__":
    main()
