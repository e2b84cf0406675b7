"""Predict live frames with the lowest latency: late frames are dropped, none waits in a queue."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hyperspot import Detector, make_product_set, read_image

folder = Path("hyperspot-examples")
product = make_product_set(folder / "product", train=30, good=6, defective=6, size=192)
detector = Detector.fit(product / "train" / "good", short_side=192, false_alarm_rate=0.1)


def camera(frames: int, per_second: float) -> Iterator[np.ndarray]:
    """Yield frames as OpenCV delivers them: uint8, height x width x 3, BGR."""
    images = [read_image(path)[..., ::-1] for path in sorted((product / "test").rglob("*.png"))]
    for number in range(frames):
        time.sleep(1 / per_second)
        frame = images[number % len(images)].copy()
        frame[0, 0] = number  # for this example: the number of the frame
        yield frame


# With a real camera: `def camera(): ... while True: yield capture.read()[1]`.
for verdict in detector.stream(camera(frames=40, per_second=100), latest_only=True, channel_order="BGR"):
    number = verdict.image[0, 0, 0]
    print(f"frame {number:>3}  {'ANOMALOUS' if verdict.is_anomalous else 'good':<10}{verdict.milliseconds:5.1f} ms")
