"""Cost against work: photos a second against the size of the frame, training time against the number of photos.

    python -m benchmarks.scaling DATA --weights FILE --plots docs/images

The data's photos are taken as often as it takes: the time does not depend on what they show. All cores, one process;
inference is the median of interleaved repetitions from a photo in memory to its verdict, in torch, batch 1.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from hyperspot import Detector
from hyperspot.benchmark.plots import Series, chart
from hyperspot.data import open_dataset
from hyperspot.images import read_image

SIDES = (128, 256, 512, 1024)
PHOTOS = (50, 100, 200, 400, 800)
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "released": {"variant": "released"},
}
FEW = 12
"""Photos to train on where only the speed of inference counts: the size of the bank follows from the frame."""


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
    good = [photo.path for photo in open_dataset(given.data).train]
    image = read_image(good[0])

    detectors = {}
    for name, method in VARIANTS.items():
        for side in SIDES:
            few = {**method, "steps": 2}
            enough = FEW if name == "released" else max(FEW, len(good))
            detectors[name, side], _ = train(
                good[: min(enough, 60)], given, short_side=side, method_settings=few if name == "released" else method
            )
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in detectors}
    for repetition in range(given.repetitions + 1):
        for key, detector in detectors.items():
            started = time.perf_counter()
            detector.predict(image)
            if repetition:
                taken[key].append(time.perf_counter() - started)
    print("| frame | " + " | ".join(f"{name}: ms, photos a second, memory vectors" for name in VARIANTS) + " |")
    print("|---" * (len(VARIANTS) + 1) + "|")
    for side in SIDES:
        cells = []
        for name in VARIANTS:
            seconds = statistics.median(taken[name, side])
            method: Any = detectors[name, side].anomaly_model.methods[0]
            cells.append(f"{seconds * 1000:.1f}, {1 / seconds:.1f}, {len(method.bank)}")
        print(f"| {side} x {side} | " + " | ".join(cells) + " |")
    speed = [
        Series(name, tuple((float(side), 1 / statistics.median(taken[name, side])) for side in SIDES), line=True)
        for name in VARIANTS
    ]

    print("\n| photos | " + " | ".join(f"training {name}, s" for name in VARIANTS) + " |")
    print("|---" * (len(VARIANTS) + 1) + "|", flush=True)
    seconds_of: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    for count in PHOTOS:
        sources = [good[number % len(good)] for number in range(count)]
        for name, method in VARIANTS.items():
            _, seconds = train(sources, given, method_settings=method)
            seconds_of[name].append((float(count), seconds))
        print(f"| {count} | " + " | ".join(f"{seconds_of[name][-1][1]:.1f}" for name in VARIANTS) + " |", flush=True)
    if given.plots:
        training = [Series(name, tuple(points), line=True) for name, points in seconds_of.items()]
        given.plots.mkdir(parents=True, exist_ok=True)
        side, photos = "side of the frame, pixels", "training photos"
        picture = chart("Photos a second", side, "photos / s", speed, log_x=True, log_y=True)
        (given.plots / "inference-scaling.svg").write_text(picture, encoding="utf-8")
        picture = chart("Training time", photos, "training, s", training, log_x=True, log_y=True)
        (given.plots / "training-scaling.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
