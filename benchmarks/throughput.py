"""Images per second of `predict_many` at batch 1 and batch 8, per engine, interleaved in one process.

    python -m benchmarks.throughput DATA [--weights FILE] [--rounds 7]

Measures decoded images in memory to verdicts, with all cores, for ResNet-18 (if --weights names its file) and
`compact`. Prints medians and the ratio of the pairs of rounds. The last column is the most that any batching could gain
for the model itself: the rate of one image on one thread, times the cores, over the rate of one image on all threads.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from hyperspot import Detector, ExportedDetector
from hyperspot.data import open_dataset
from hyperspot.hardware import native
from hyperspot.hardware.cpu import cores, native_precision
from hyperspot.images import read_image
from hyperspot.predictor import Predictor
from hyperspot.runtime import available

IMAGES = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, help="of ResNet-18")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    dataset = open_dataset(given.data)
    images = [read_image(sample.path) for sample in dataset.test[:IMAGES]]
    print(f"{cores()} cores, search {native.LEVELS[native.level()]}, backbone {native_precision()}, {dataset.name}")
    print("| backbone | engine | batch 1, images/s | batch 8, images/s | ratio | bound |\n|---|---|---|---|---|---|")
    for backbone, weights in {"compact": None, "resnet18": given.weights}.items():
        if backbone == "resnet18" and weights is None:
            continue
        detector = Detector.fit(dataset, backbone=backbone, weights=weights)
        for engine, (predictor, alone) in _predictors(detector).items():
            one, eight = _rates(predictor, images, given.rounds)
            ratio = statistics.median(b / a for a, b in zip(one, eight, strict=True))
            medians = f"{statistics.median(one):.1f} | {statistics.median(eight):.1f}"
            bound = _bound(predictor, alone, images, given.rounds)
            print(f"| {backbone} | {engine} | {medians} | {ratio:.2f} | {bound:.2f} |", flush=True)


def _predictors(detector: Detector) -> dict[str, tuple[Predictor, Predictor]]:
    """Return by engine the detector on all threads, and on one thread."""
    from hyperspot.export import export

    found: dict[str, tuple[Predictor, Predictor]] = {"torch": (detector, detector)}
    with tempfile.TemporaryDirectory() as folder:
        path = export(detector, Path(folder) / "part.onnx")
        for engine in available():
            if engine != "torch":
                loaded = (ExportedDetector.load(path, engine=engine, threads=threads) for threads in (None, 1))
                found[engine] = next(loaded), next(loaded)
    return found


def _bound(predictor: Predictor, alone: Predictor, images: list, rounds: int) -> float:
    batch = predictor.preprocess(images[0]).pixels[None]
    ratios = []
    for number in range(rounds + 1):
        seconds = []
        for one, threads in ((predictor, cores()), (alone, 1)):
            torch.set_num_threads(threads)
            one.run(batch)
            started = time.perf_counter()
            for _ in range(20):
                one.run(batch)
            seconds.append(time.perf_counter() - started)
        torch.set_num_threads(cores())
        if number:
            ratios.append(cores() * seconds[0] / seconds[1])
    return statistics.median(ratios)


def _rates(predictor: Predictor, images: list, rounds: int) -> tuple[list[float], list[float]]:
    rates: dict[int, list[float]] = {1: [], 8: []}
    for number in range(rounds + 1):
        for batch_size, found in rates.items():
            started = time.perf_counter()
            count = sum(1 for _ in predictor.predict_many(images, batch_size=batch_size))
            if number:  # The first round warms up.
                found.append(count / (time.perf_counter() - started))
    return rates[1], rates[8]


if __name__ == "__main__":
    main()
