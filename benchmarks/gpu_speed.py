"""Input to heatmap and score on a GPU: eager in f32 and in half precision, and by CUDA graph.

    python -m benchmarks.gpu_speed [DATA --weights FILE] [--backbone wide_resnet50_2] [--batch 1 --batch 8]

Without DATA on the synthetic product with untrained features, which does not change the time of a pass. Each map is
first compared with the CPU in f32, within the tolerance of its precision. Then all are timed in turn in one process,
from pixels in CPU memory to results there; milliseconds are medians, ratios are to `eager f32`.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperspot import Detector
from hyperspot.data import open_dataset
from hyperspot.data.demo_product.product_set import make_product_set
from hyperspot.errors import DeviceError
from hyperspot.hardware.cpu import Precision
from hyperspot.hardware.devices import BF16_SINCE, computing_on, resolve
from hyperspot.images import read_image

CROPPED = {"aspect": "square", "crops": "center"}
RECIPES: dict[str, dict[str, Any]] = {
    "cfa default": {},
    "cfa released": {**CROPPED, "method_settings": {"variant": "released", "steps": 60}},
    "patchcore": {"method": "patchcore", **CROPPED},
    "padim": {"method": "padim", **CROPPED},
}
IMAGES = 100
TOLERANCE: dict[Precision, float] = {"f32": 2e-3, "bf16": 0.15, "f16": 0.15}
"""Of the largest value of the map."""
WARM_UPS = 5


@torch.inference_mode()
def eager(detector: Detector, frames: np.ndarray) -> np.ndarray:
    """Return the maps without a CUDA graph."""
    anomaly_model = detector.anomaly_model
    with computing_on(anomaly_model.device):
        maps, own = anomaly_model(torch.from_numpy(frames).to(anomaly_model.device))
        if own is not None:
            own.cpu()
        return maps.cpu().numpy()


def recorded(detector: Detector, frames: np.ndarray) -> np.ndarray:
    """Return the maps as in use, with a CUDA graph."""
    return detector.anomaly_model.run(frames)[0]


def seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(saved: Path, frames: np.ndarray, half: Precision, repetitions: int) -> dict[str, float]:
    """Return the median milliseconds of each way to run a batch; raises RuntimeError if the maps of one differ."""
    expected = Detector.load(saved, device="cpu", precision="f32").anomaly_model.run(frames)[0]
    formats: tuple[Precision, ...] = ("f32", half)
    there = {one: Detector.load(saved, device="cuda", precision=one) for one in formats}
    ways = {f"eager {one}": (one, partial(eager, there[one], frames)) for one in formats}
    ways |= {f"recorded {one}": (one, partial(recorded, there[one], frames)) for one in formats}
    for name, (precision, way) in ways.items():
        # The third call of a shape is a replay.
        found = [way() for _ in range(3)][-1]
        deviation = float(np.abs(found - expected).max() / np.abs(expected).max())
        if deviation > TOLERANCE[precision]:
            raise RuntimeError(f"{name} deviates from the CPU by {deviation:.3g} of the largest value")
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(WARM_UPS + repetitions):
        for name, (_, way) in ways.items():
            found_in = seconds(way)
            if repetition >= WARM_UPS:
                taken[name].append(1000 * found_in)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, action="append", help="batch size; may be repeated")
    parser.add_argument("--half", choices=("bf16", "f16"), help="default: what suits the GPU")
    parser.add_argument("--repetitions", type=int, default=31)
    given = parser.parse_args()
    try:
        device = resolve("cuda")
    except DeviceError as error:
        sys.exit(f"this measures a GPU: {error}")
    capability = torch.cuda.get_device_capability(device)
    half: Precision = given.half or ("bf16" if capability >= BF16_SINCE else "f16")
    name_of_it = torch.cuda.get_device_name(device)
    print(f"{name_of_it}, compute capability {capability}, torch {torch.__version__}, {given.backbone}\n")
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        data = given.data or make_product_set(Path(folder) / "product", train=IMAGES, good=1, defective=8)
        dataset = open_dataset(data)
        images = [read_image(sample.path) for sample in dataset.test]
        for name, changes in RECIPES.items():
            sources = [sample.path for sample in dataset.train[:IMAGES]]
            started = time.perf_counter()
            detector = Detector.fit(
                sources,
                weights=given.weights,
                backbone=given.backbone,
                calibration="none",
                device="cuda",
                **changes,
            )
            trained_in = time.perf_counter() - started
            saved = detector.save(Path(folder) / "part.safetensors")
            for batch in given.batch or (1, 8):
                chosen = [images[number % len(images)] for number in range(batch)]
                frames = np.stack([detector.preprocess(image).pixels for image in chosen])
                taken = measure(saved, frames, half, given.repetitions)
                if not rows:
                    titles = ["recipe", "batch", "trained in, s", *taken]
                    rows += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
                base = taken["eager f32"]
                cells = [f"{value:.2f} ({base / value:.2f} x)" for value in taken.values()]
                rows.append("| " + " | ".join([name, str(batch), f"{trained_in:.1f}", *cells]) + " |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
