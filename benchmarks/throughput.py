"""Images per second of `predict_many` at batch 1 and batch 8, per engine, interleaved in one process.

    python -m benchmarks.throughput DATA [--weights FILE] [--rounds 7]

Measures decoded images in memory to verdicts, with all cores, for ResNet-18 (if --weights names its file) and
`compact`. Prints medians and the ratio of the pairs of rounds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

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
    print("| backbone | engine | batch 1, images/s | batch 8, images/s | ratio |\n|---|---|---|---|---|")
    for backbone, weights in {"compact": None, "resnet18": given.weights}.items():
        if backbone == "resnet18" and weights is None:
            continue
        detector = Detector.fit(dataset, backbone=backbone, weights=weights)
        for engine, predictor in _predictors(detector).items():
            one, eight = _rates(predictor, images, given.rounds)
            ratio = statistics.median(b / a for a, b in zip(one, eight, strict=True))
            medians = f"{statistics.median(one):.1f} | {statistics.median(eight):.1f}"
            print(f"| {backbone} | {engine} | {medians} | {ratio:.2f} |", flush=True)


def _predictors(detector: Detector) -> dict[str, Predictor]:
    from hyperspot.export.exporting import export

    found: dict[str, Predictor] = {"torch": detector}
    with tempfile.TemporaryDirectory() as folder:
        path = export(detector, Path(folder) / "part.onnx")
        for engine in available():
            if engine != "torch":
                found[engine] = ExportedDetector.load(path, engine=engine)
    return found


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
