"""Image to heatmap and verdict: ours against the straightforward formulation, interleaved in one process.

    python -m benchmarks.inference_speed DATA --weights FILE [--backbone wide_resnet50_2]

The reference is a direct formulation of CFA in torch, float32: pool, upsample, concatenate, append coordinates,
1 x 1 convolution, the full matrix of distances, sort, softmin, upsample, SciPy's Gaussian. It has the same weights,
bank and descriptor, and all must agree before anything is timed. OpenVINO runs in its own process, as in use.
Milliseconds are medians of interleaved repetitions, batch 1, all cores; ratios are to the reference of the first row,
at gamma 1. `compact` is the bundled backbone (accuracy: RESULTS.md), not that of the first row.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from benchmarks.subprocess_timer import Apart
from hyperspot import Detector
from hyperspot.data import Dataset, open_dataset
from hyperspot.detector.loading import crop_images, normalize
from hyperspot.export.exporting import export
from hyperspot.hardware.cpu import Precision
from hyperspot.images import read_image
from hyperspot.methods import CFA
from hyperspot.runtime.machine import describe_machine

CROPPED = {"aspect": "square", "crops": "center"}
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "released": (CROPPED, {"variant": "released", "steps": 60}),
    "released, gamma (1/4, 1/4)": (CROPPED, {"variant": "released", "steps": 60, "gamma_c": 4, "gamma_d": 4}),
    "default, 224": (CROPPED, {}),
    "default": ({}, {}),
    "default, compact, 224": ({**CROPPED, "backbone": "compact"}, {}),
    "default, compact": ({"backbone": "compact"}, {}),
}
FORMATS: tuple[Precision, ...] = ("f32", "bf16")
IMAGES = 100
TOLERANCE = {"f32": 1e-4, "bf16": 0.15, "int8": 0.5}
"""Of the largest value of the map, against the reference with distances in float64. bf16 and int8 change the features;
`engine_accuracy` measures the effect on accuracy."""


class Straightforward:
    """CFA's forward pass without any rewrite."""

    def __init__(self, detector: Detector) -> None:
        anomaly_model = detector.anomaly_model
        method: Any = anomaly_model.methods[0]
        assert isinstance(method, CFA)
        self.crop, self.sigma, self.method = anomaly_model.crops[0], anomaly_model.sigma, method
        self.bank = method.bank + method.center
        self.weight = method.weight[:, :, None, None]

    def __call__(self, frames: torch.Tensor, distances: torch.dtype = torch.float32) -> tuple[np.ndarray, float]:
        method = self.method
        images = normalize(crop_images(frames, self.crop), method.backbone.mean, method.backbone.std).contiguous()
        pyramid = method.backbone.pyramid(images)
        pooled = [F.avg_pool2d(pyramid[level - 2], 3, 1, 1) for level in sorted(method.settings.levels)]
        height, width = pooled[0].shape[-2:]
        grid = [F.interpolate(level, size=(height, width), mode="bilinear", align_corners=False) for level in pooled]
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        joined = torch.cat([*grid, rows.expand(1, 1, -1, -1), columns.expand(1, 1, -1, -1)], dim=1)
        described = F.conv2d(joined.to(distances), self.weight.to(distances), method.bias.to(distances))
        tokens, bank = described.flatten(2).transpose(1, 2)[0], self.bank.to(distances)
        squares = tokens.square().sum(1, keepdim=True) + bank.square().sum(1) - 2 * tokens @ bank.T
        roots = squares.clamp(min=0).sqrt().topk(3, largest=False).values
        scores = roots[:, 0] * torch.softmax(-roots, dim=1)[:, 0]
        shape = (self.crop.height, self.crop.width)
        map_ = F.interpolate(scores.view(1, 1, height, width), size=shape, mode="bilinear", align_corners=False)
        smoothed = gaussian_filter(map_[0, 0].numpy(), self.sigma)
        return smoothed, float(smoothed.max())


def timed(runs: dict[str, Callable[[], float]], repetitions: int) -> dict[str, float]:
    """Return the median milliseconds of each, in interleaved repetitions."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 3):
        for name, seconds in runs.items():
            found = seconds()
            if repetition >= 3:
                taken[name].append(found * 1000)
    return {name: statistics.median(values) for name, values in taken.items()}


def here(call: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that times the second of two calls: the first follows the work of others."""

    def seconds() -> float:
        call()
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return seconds


@torch.inference_mode()
def measure(
    detector: Detector, path: Path, folder: Path, repetitions: int, int8: Dataset | None
) -> tuple[dict[str, float], list[str]]:
    """Return milliseconds by engine, and those of the parts of the fastest one."""
    image = read_image(path)
    placed = detector.preprocess(image).pixels[None]
    frames = torch.from_numpy(placed)
    reference = Straightforward(detector)
    expected, _ = reference(frames, torch.float64)
    crop = detector.anomaly_model.crops[0]
    saved, exported = detector.save(folder / "part.safetensors"), export(detector, folder / "part.onnx")
    ours = {f: Detector.load(saved, precision=f) for f in FORMATS}
    apart: dict[str, Apart] = {}
    for f in FORMATS:
        (folder / f).mkdir()
        apart[f] = Apart(Path(shutil.copy(exported, folder / f)), "openvino", f, image, placed)
    if int8 is not None:
        (folder / "int8").mkdir()
        with torch.inference_mode(False):
            quantized = export(detector, folder / "int8" / "part.xml", int8=int8)
        apart["int8"] = Apart(quantized, "openvino", None, image, placed)
    maps = {f"torch {f}": one.anomaly_model(frames)[0][0].numpy() for f, one in ours.items()}
    maps |= {f"openvino {f}": one.map for f, one in apart.items()}
    for name, found in maps.items():
        inside = found[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        error = float(np.abs(inside - expected).max() / expected.max())
        assert error <= TOLERANCE[name.split()[1]], f"{name} differs from the reference by {error:.1e}"
    runs = {"straightforward": here(lambda: reference(frames))}
    runs |= {f"torch {f}": here(partial(one.anomaly_model, frames)) for f, one in ours.items()}
    runs |= {f"openvino {f}": partial(one.seconds, "map") for f, one in apart.items()}
    runs["torch bf16 to the verdict"] = here(partial(ours["bf16"].predict, image))
    runs |= {f"openvino {f} to the verdict": partial(one.seconds, "verdict") for f, one in apart.items() if f != "f32"}
    taken = timed(runs, repetitions)
    costly = apart["bf16"]
    names = [name for name in costly.names if name not in ("map", "verdict")]
    costs = timed({name: partial(costly.seconds, name) for name in names}, repetitions)
    for one in apart.values():
        one.close()
    return taken, [f"{name} {costs[name]:.2f} ms" for name in sorted(costs, key=lambda name: -costs[name])]


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Return the rate in GFLOP/s at which torch multiplies two square matrices on all cores, the best of 10."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best = min(here(lambda: a @ b)() for _ in range(10))
    return 2 * size**3 / best / 1e9


def work(detector: Detector) -> float:
    """Return the multiply-adds, in 10^9, of the straightforward formulation for one input, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    size = detector.input_size
    frames = torch.zeros(1, size.height, size.width, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Straightforward(detector)(frames)
    return counter.get_total_flops() / 2e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", required=True, help="a file, or random:SEED")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--int8", action="store_true", help="also a quantized backbone; needs hyperspot[int8]")
    given = parser.parse_args()
    dataset = open_dataset(given.data)
    path = dataset.test[0].path
    rates = {"f32": matrix_rate(torch.float32), "bf16": matrix_rate(torch.bfloat16)}
    print(f"{given.backbone}, batch 1; {describe_machine()}")
    print(f"square matrix products: {rates['f32']:.0f} GFLOP/s in f32, {rates['bf16']:.0f} in bf16\n")
    titles: list[str] = []
    notes = []
    base = None
    for name, (place, method) in RECIPES.items():
        sources = [one.path for one in dataset.train[:IMAGES]]
        seen = {"backbone": given.backbone, **place}
        weights = given.weights if seen["backbone"] == given.backbone else None
        detector = Detector.fit(sources, weights=weights, calibration="none", method_settings=method, **seen)
        with tempfile.TemporaryDirectory() as folder:
            taken, costs = measure(detector, path, Path(folder), given.repetitions, dataset if given.int8 else None)
        base = base or taken["straightforward"]
        if not titles:
            titles = list(taken)
            print("| recipe | " + " | ".join(titles) + " |\n|" + "---|" * (len(titles) + 1))
        cells = [f"{value:.1f} ({base / value:.1f} x)" for value in taken.values()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        quickest = min(milliseconds for name, milliseconds in taken.items() if "verdict" not in name)
        macs = work(detector)
        reached = 2 * macs / quickest * 1000
        notes.append(
            f"- {name}: {macs:.2f} GMAC as written; in {quickest:.1f} ms that is {reached:.0f} GFLOP/s, "
            f"{100 * reached / rates['bf16']:.0f} % of the bf16 rate. Most expensive parts: {'; '.join(costs[:4])}"
        )
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    os.environ.setdefault("HYPERSPOT_PRECISION", "f32")
    main()
