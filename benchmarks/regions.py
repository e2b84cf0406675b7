"""What a region of interest and rules on regions change on images with distractors on the background.

    python -m benchmarks.regions DATA --images 120

For data such as the category screw of MVTec AD: a dark part, in any position, on a bright background. The test images
are evaluated as they are, and with a strip, a hair and a speck pasted at random outside of the part; training images
stay as they are. The region of interest is the outline of the part in the first good image, widened by `MARGIN`, and
images are registered to it. Prints one line per setting.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from hyperspot import Detector, InspectionPlan, RegionRules, read_image
from hyperspot.data import open_dataset
from hyperspot.images.inspected_area import InspectedArea
from hyperspot.images.masks import connected_runs, erode
from hyperspot.metrics.intervals import wilson_interval
from hyperspot.predictor import Predictor

MARGIN = 0.01
"""Around the part, relative to the width of the image, that counts too."""
CLEAR = 0.05
"""Around the part, likewise, that stays free of distractors: parts differ from the first one, and registration errs."""
DARKER = 30
"""Gray levels below the background from which a pixel is part of the part."""
DISTRACTORS = 3
"""Of each image."""
SMALLEST = "500px2"
"""Smallest area that counts, in the row with a rule."""


def outline(image: UInt8[np.ndarray, "h w 3"], margin: float) -> Bool[np.ndarray, "h w"]:
    """Return the part: the largest dark component, widened by a share of the width of the image."""
    gray = image.mean(axis=2)
    runs = connected_runs(gray < np.median(gray) - DARKER)
    areas = np.bincount(runs.parts, runs.stops - runs.starts)
    part = np.zeros(gray.shape, dtype=bool)
    for row, start, stop, number in zip(*runs, strict=True):
        if number == areas.argmax():
            part[row, start:stop] = True
    widened: Bool[np.ndarray, "h w"] = ~erode(~part, round(margin * image.shape[1]))
    return widened


def with_distractors(image: UInt8[np.ndarray, "h w 3"], seed: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return the image with a strip, a hair and a speck at random places outside of the part."""
    random = np.random.default_rng(seed)
    free = ~outline(image, CLEAR)
    height, width = free.shape
    changed = image.copy()
    for number in range(DISTRACTORS):
        for _ in range(1000):
            layer = Image.new("L", (width, height))
            draw = ImageDraw.Draw(layer)
            x, y = random.uniform(0, width), random.uniform(0, height)
            size = random.uniform(0.03, 0.08) * width
            if number == 0:
                draw.rectangle((x, y, x + size, y + size / 2), fill=255)
            elif number == 1:
                ends = [(x + random.uniform(-2, 2) * size, y + random.uniform(-2, 2) * size) for _ in range(2)]
                draw.line([ends[0], (x, y), ends[1]], fill=255, width=max(1, width // 200))
            else:
                draw.ellipse((x, y, x + size / 2, y + size / 2), fill=255)
            drawn = np.asarray(layer) > 0
            if drawn.any() and not (drawn & ~free).any():
                changed[drawn] = random.integers(20, 90)
                break
        else:
            raise SystemExit("an image has no room for distractors beside the part; give images with a background")
    return changed


def measure(name: str, predictor: Predictor, images: list[UInt8[np.ndarray, "h w 3"]], labels: np.ndarray) -> None:
    """Print detections and false alarms of one setting."""
    started = time.perf_counter()
    verdicts = list(predictor.predict_many(images))
    called = np.array([verdict.is_anomalous is True for verdict in verdicts])
    found, alarms = int(called[labels == 1].sum()), int(called[labels == 0].sum())
    defective, good = int((labels == 1).sum()), int((labels == 0).sum())
    line = {
        "setting": name,
        "detected": found,
        "defective": defective,
        "detection_rate": round(found / defective, 3),
        "false_alarms": alarms,
        "good": good,
        "observed_false_alarm_rate": round(alarms / good, 3),
        "interval": [round(end, 3) for end in wilson_interval(alarms, good) or ()],
        "lost": sum(verdict.part_found is False for verdict in verdicts),
        "promised": round(predictor.decision_rule.calibration.false_alarm_rate, 4),
        "ms": round(1000 * (time.perf_counter() - started) / len(images), 1),
    }
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--false-alarm-rate", type=float, default=0.05)
    parser.add_argument("--images", type=int, help="good training images, evenly spread; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="file for a test image with distractors and its overlays")
    given = parser.parse_args()
    dataset = open_dataset(given.data)
    good = [sample.path for sample in dataset.train]
    if given.images is not None:
        good = [good[place] for place in np.linspace(0, len(good) - 1, given.images).round().astype(int)]
    clean = [read_image(sample.path) for sample in dataset.test]
    disturbed = [with_distractors(image, (1000 * given.seed) + number) for number, image in enumerate(clean)]
    labels = np.array([sample.label for sample in dataset.test])
    plan = InspectionPlan(InspectedArea.from_mask(outline(read_image(good[0]), MARGIN)))
    options = {"false_alarm_rate": given.false_alarm_rate, "seed": given.seed}
    whole = Detector.fit(good, **options)
    region = Detector.fit(good, inspection=plan, register=True, **options)
    rules = RegionRules(min_area=SMALLEST)
    settings = {
        "whole image": whole,
        "region of interest": region,
        "region of interest, rule": region.with_rules(rules),
    }
    for name, predictor in settings.items():
        measure(f"{name}, clean", predictor, clean, labels)
        measure(f"{name}, distractors", predictor, disturbed, labels)
    if given.picture is not None:
        number = int(np.flatnonzero(labels == 1)[0])
        shown = [predictor.predict(disturbed[number]).overlay() for predictor in (whole, region)]
        wide = Image.new("RGB", (sum(one.width for one in shown), max(one.height for one in shown)))
        for place, one in enumerate(shown):
            wide.paste(one, (place * shown[0].width, 0))
        wide.save(given.picture)


if __name__ == "__main__":
    main()
