"""Learning images as they arrive against training on all of them: accuracy, threshold, time and size.

    python -m benchmarks.update DATA... --method cfa --arrivals 10

The good training images arrive in parts. The first is trained on, the others are learned by `Detector.update`, which
never sees an image again. Three orders: random, and sorted by the held-out score of a training on all images, the
lowest or the highest first, which are worst cases. Prints one JSON line per order beside one for the training on all
images.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from hyperspot import Dataset, Detector, open_dataset

ORDERS = ("random", "lowest score first", "highest score first")


def figures(detector: Detector, dataset: Dataset) -> dict[str, Any]:
    """Return accuracy in per cent, by promised rate [found, false alarms] in per cent, and the memory in MB."""
    evaluation = detector.evaluate(dataset)
    state = detector.anomaly_model.methods[0].fitted_state()
    return {
        "image_auroc": round(100 * evaluation.metrics["image_auroc"], 2),
        "at_rate": {
            f"{100 * point.false_alarm_rate:.3g} %": [
                round(100 * rate, 1) for rate in (point.detection_rate, point.observed_false_alarm_rate)
            ]
            for point in evaluation.operating_points
        },
        "calibration_images": len(detector.decision_rule.calibration.scores),
        "memory_mb": round(sum(tensor.nbytes for tensor in state.values()) / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--method", default="cfa")
    parser.add_argument("--arrivals", type=int, default=10)
    parser.add_argument("--images", type=int, help="good training images, evenly spread; default: all")
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=ORDERS)
    given = parser.parse_args()
    for path in given.data:
        dataset = open_dataset(path)
        good = [sample.path for sample in dataset.train]
        if given.images is not None:
            good = [good[place] for place in np.linspace(0, len(good) - 1, given.images).round().astype(int)]
        about = {"data": dataset.name, "method": given.method, "images": len(good)}
        started = time.perf_counter()
        everything = Detector.fit(good, method=given.method)
        seconds = round(time.perf_counter() - started, 1)
        print(
            json.dumps({**about, "order": "all at once", "seconds": seconds, **figures(everything, dataset)}),
            flush=True,
        )
        by_score = [one.index for one in sorted(everything.held_out, key=lambda one: one.score)]
        orders = {
            "random": [int(one) for one in np.random.default_rng(0).permutation(len(good))],
            "lowest score first": by_score,
            "highest score first": by_score[::-1],
        }
        for name in given.orders:
            first, *others = np.array_split(orders[name], given.arrivals)
            detector = Detector.fit([good[one] for one in first], method=given.method)
            seconds_each = []
            for part in others:
                started = time.perf_counter()
                detector = detector.update([good[one] for one in part])
                seconds_each.append(time.perf_counter() - started)
            seconds = round(float(np.mean(seconds_each)), 1)
            line = {**about, "order": name, "seconds": seconds, **figures(detector, dataset)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
