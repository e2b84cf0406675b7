"""Does the estimate from synthetic defects rank settings as real defects do?

    python -m benchmarks.power DATA... --weights FILE

Trains each setting on the good images, estimates the detection rate on synthetic defects (`Detector.estimate_power`),
measures it on the test images, both at the same promised rate, and prints one line per setting and Spearman's rank
correlation per data set. The test images choose nothing.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from hyperspot import Detector
from hyperspot.data import open_dataset

SETTINGS: dict[str, dict[str, Any]] = {
    "compact, 256": {},
    "compact, 256, sigma 1": {"sigma": 1.0},
    "compact, 256, sigma 8": {"sigma": 8.0},
    "compact, 192": {"short_side": 192},
    "compact, 128": {"short_side": 128},
    "compact, 96, sigma 8": {"short_side": 96, "sigma": 8.0},
    "resnet18, 128": {"backbone": "resnet18", "short_side": 128},
    "resnet18, 192": {"backbone": "resnet18", "short_side": 192},
    "resnet18, 192, sigma 8": {"backbone": "resnet18", "short_side": 192, "sigma": 8.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--weights", help="a file of ResNet-18 weights; without it those settings are left out")
    parser.add_argument("--false-alarm-rate", type=float, default=0.02)
    parser.add_argument("--images", type=int, help="good training images, evenly spread; default: all")
    given = parser.parse_args()
    for path in given.data:
        dataset = open_dataset(path)
        good = [sample.path for sample in dataset.train]
        if given.images is not None:
            good = [good[place] for place in np.linspace(0, len(good) - 1, given.images).round().astype(int)]
        estimated, measured = [], []
        for name, changes in SETTINGS.items():
            weights = given.weights if "backbone" in changes else None
            if "backbone" in changes and weights is None:
                continue
            started = time.perf_counter()
            detector = Detector.fit(good, weights=weights, false_alarm_rate=given.false_alarm_rate, **changes)
            trained = time.perf_counter()
            estimate = detector.estimate_power([good[one.index] for one in detector.held_out])
            ended = time.perf_counter()
            verdicts = detector.predict_many([sample.path for sample in dataset.test])
            found = [
                verdict.is_anomalous for verdict, one in zip(verdicts, dataset.test, strict=True) if one.label == 1
            ]
            estimated.append(estimate.detection_rate)
            measured.append(float(np.mean(found)))
            line = {
                "data": dataset.name,
                "setting": name,
                "estimated": round(estimated[-1], 3),
                "measured": round(measured[-1], 3),
                "by_size": estimate.by_size(),
                "seconds_training": round(trained - started, 1),
                "seconds_estimate": round(ended - trained, 1),
            }
            print(json.dumps(line), flush=True)
        print(f"{dataset.name}: Spearman {spearmanr(estimated, measured).statistic:.2f}", flush=True)


if __name__ == "__main__":
    main()
