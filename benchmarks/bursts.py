"""What bursts do to the promised false-alarm rate: each part photographed several times, with and without groups.

    python -m benchmarks.bursts DATA...

Some good training images stand for parts. A burst is four copies of each with noise, another brightness and a small
shift. Prints the observed false-alarm rate on the good test images for one image per part, for bursts, and for bursts
grouped by part (`--group-by`), and how many bursts are named as near duplicates.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from hyperspot import Detector, Sample, open_dataset, read_image
from hyperspot.data.near_duplicates import find_near_duplicates

COPIES = 4


def copy(image: np.ndarray, rng: np.random.Generator) -> Image.Image:
    moved = np.roll(image, rng.integers(-1, 2, 2), axis=(0, 1))
    return Image.fromarray(
        np.clip(moved * rng.uniform(0.97, 1.03) + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--parts", type=int, default=40)
    parser.add_argument("--false-alarm-rate", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    for path in given.data:
        dataset = open_dataset(path)
        good = [sample.path for sample in dataset.test if sample.label == 0]
        rates: dict[str, list[float]] = {"single": [], "bursts": [], "grouped": []}
        named = 0
        for seed in range(given.seeds):
            rng = np.random.default_rng(seed)
            parts = [dataset.train[int(one)].path for one in rng.permutation(len(dataset.train))[: given.parts]]
            with tempfile.TemporaryDirectory() as folder:
                burst = []
                for part in parts:
                    for number in range(COPIES):
                        burst.append(Path(folder, f"{part.stem}_{number}.png"))
                        copy(read_image(part), rng).save(burst[-1])
                groups = [one.stem.rpartition("_")[0] for one in burst]
                named += len(find_near_duplicates(Sample(one, 0, "train", "good") for one in burst))
                rate = given.false_alarm_rate
                detectors = {
                    "single": Detector.fit(parts, false_alarm_rate=rate),
                    "bursts": Detector.fit(burst, false_alarm_rate=rate),
                    "grouped": Detector.fit(burst, groups=groups, false_alarm_rate=rate),
                }
                for name, detector in detectors.items():
                    rates[name].append(
                        float(np.mean([one.is_anomalous is True for one in detector.predict_many(good)]))
                    )
        line = {name: round(float(np.mean(some)), 3) for name, some in rates.items()}
        print(json.dumps({"data": dataset.name, "promised": rate, **line, "named": named / given.seeds}), flush=True)


if __name__ == "__main__":
    main()
