"""Cost against work: images per second against the input size, training time against the number of images.

    python -m benchmarks.scaling DATA --weights FILE --plots docs/images

Images of the data are repeated as needed. All cores, one process; inference is the median of interleaved repetitions
from a decoded image to its verdict, in torch, batch 1.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from hyperspot import Detector
from hyperspot.benchmark.plots import Series, draw
from hyperspot.data import open_dataset
from hyperspot.images import read_image

SIDES = (128, 256, 512, 1024)
IMAGES = (50, 100, 200, 400, 800)
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "released": {"variant": "released"},
}
FEW = 12
"""Training images for the speed of inference: the size of the bank follows from the input size."""


def train(sources: list[Path], given: argparse.Namespace, **changes: Any) -> tuple[Detector, float]:
    started = time.perf_counter()
    detector = Detector.fit(
        sources, weights=given.weights, backbone=given.backbone, calibration="none", aspect="square", **changes
    )
    return detector, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--plots", type=Path, help="a folder for two SVG files")
    given = parser.parse_args()
    good = [sample.path for sample in open_dataset(given.data).train]
    image = read_image(good[0])

    detectors = {}
    for name, changes in VARIANTS.items():
        for side in SIDES:
            few = {**changes, "steps": 2}
            enough = FEW if name == "released" else max(FEW, len(good))
            detectors[name, side], _ = train(
                good[: min(enough, 60)], given, short_side=side, method_settings=few if name == "released" else changes
            )
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in detectors}
    for repetition in range(given.repetitions + 1):
        for key, detector in detectors.items():
            started = time.perf_counter()
            detector.predict(image)
            if repetition:
                taken[key].append(time.perf_counter() - started)
    print("| input size | " + " | ".join(f"{name}: ms, images per second, memory vectors" for name in VARIANTS) + " |")
    print("|---" * (len(VARIANTS) + 1) + "|")
    for side in SIDES:
        cells = []
        for name in VARIANTS:
            seconds = statistics.median(taken[name, side])
            method: Any = detectors[name, side].anomaly_model.methods[0]
            cells.append(f"{seconds * 1000:.1f}, {1 / seconds:.1f}, {len(method.bank)}")
        print(f"| {side} x {side} | " + " | ".join(cells) + " |")
    speed = [
        Series(name, tuple((float(side), 1 / statistics.median(taken[name, side])) for side in SIDES))
        for name in VARIANTS
    ]

    print("\n| images | " + " | ".join(f"training {name}, s" for name in VARIANTS) + " |")
    print("|---" * (len(VARIANTS) + 1) + "|", flush=True)
    seconds_of: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    for count in IMAGES:
        sources = [good[number % len(good)] for number in range(count)]
        for name, changes in VARIANTS.items():
            _, taken_for = train(sources, given, method_settings=changes)
            seconds_of[name].append((float(count), taken_for))
        print(f"| {count} | " + " | ".join(f"{seconds_of[name][-1][1]:.1f}" for name in VARIANTS) + " |", flush=True)
    if given.plots:
        training = [Series(name, tuple(points)) for name, points in seconds_of.items()]
        across, images = "side of the input, pixels", "training images"
        inference, fitting = given.plots / "inference-scaling.svg", given.plots / "training-scaling.svg"
        draw("Images per second", across, "images / s", speed, inference, log_y=True)
        draw("Training time", images, "training, s", training, fitting, log_y=True)


if __name__ == "__main__":
    main()
