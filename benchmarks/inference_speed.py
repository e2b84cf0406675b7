"""Photo in memory to heatmap and score: ours against the straightforward formulation, interleaved in one run.

    python -m benchmarks.inference_speed DATA --weights FILE

The reference is CFA as one would first write it in torch, float32: pool, upsample, concatenate, append coordinates,
1 x 1 convolution, the full matrix of distances, sort, softmin, upsample, SciPy's Gaussian. It uses the same weights,
bank and descriptor, and both must agree before anything is timed. Medians of interleaved repetitions are given.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from hyperspot import Detector
from hyperspot.images import open_dataset, read_image
from hyperspot.intake import crop, normalise
from hyperspot.methods import CFA

RECIPES: dict[str, dict[str, Any]] = {
    "released": {"variant": "released", "steps": 20},
    "released, gamma (1/4, 1/4)": {"variant": "released", "steps": 20, "gamma_c": 4, "gamma_d": 4},
    "default": {},
}


class Straightforward:
    """CFA's forward pass without any rewrite."""

    def __init__(self, detector: Detector) -> None:
        scorer = detector.scorer
        method: Any = scorer.methods[0]
        assert isinstance(method, CFA)
        self.view, self.sigma, self.method = scorer.views[0], scorer.sigma, method
        self.bank = method.bank + method.centre
        self.weight = method.weight[:, :, None, None]

    def __call__(self, frames: torch.Tensor) -> tuple[torch.Tensor, float]:
        method = self.method
        images = normalise(crop(frames, self.view), method.backbone.mean, method.backbone.std).contiguous()
        levels = [method.backbone(images)[level - 2] for level in sorted(method.settings.levels)]
        pooled = [F.avg_pool2d(level, 3, 1, 1) for level in levels]
        height, width = pooled[0].shape[-2:]
        grid = [F.interpolate(level, size=(height, width), mode="bilinear", align_corners=False) for level in pooled]
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        joined = torch.cat([*grid, rows.expand(1, 1, -1, -1), columns.expand(1, 1, -1, -1)], dim=1)
        described = F.conv2d(joined, self.weight, method.bias).flatten(2).transpose(1, 2)[0]
        squares = described.square().sum(1, keepdim=True) + self.bank.square().sum(1) - 2 * described @ self.bank.T
        roots = squares.clamp(min=0).sqrt().topk(3, largest=False).values
        scores = roots[:, 0] * torch.softmax(-roots, dim=1)[:, 0]
        shape = (self.view.height, self.view.width)
        map_ = F.interpolate(scores.view(1, 1, height, width), size=shape, mode="bilinear", align_corners=False)
        smoothed = gaussian_filter(map_[0, 0].numpy(), self.sigma)
        return torch.from_numpy(smoothed), float(smoothed.max())


def timed(runs: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """Return the median milliseconds of each, taken in turn so that a busy machine is busy for all."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 3):
        for name, call in runs.items():
            started = time.perf_counter()
            call()
            if repetition >= 3:
                taken[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(values) for name, values in taken.items()}


@torch.inference_mode()
def measure(detector: Detector, photo: Path, repetitions: int) -> dict[str, float]:
    image = read_image(photo)
    placed = detector.scorer.frame.place(*image.shape[:2]).to_frame(image)
    frames = torch.from_numpy(placed[None])
    reference = Straightforward(detector)
    expected = reference(frames)[0].numpy()
    view = detector.scorer.views[0]
    found = detector.scorer(frames)[0][0].numpy()
    inside = found[view.top : view.top + view.height, view.left : view.left + view.width]
    np.testing.assert_allclose(inside, expected, rtol=1e-3, atol=1e-5)
    return timed(
        {
            "straightforward": lambda: reference(frames),
            "ours": lambda: detector.scorer(frames),
            "ours, to the verdict": lambda: detector.predict(image),
            "backbone alone": lambda: reference.method.backbone(
                normalise(crop(frames, view), reference.method.backbone.mean, reference.method.backbone.std)
            ),
        },
        repetitions,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=40)
    given = parser.parse_args()
    dataset = open_dataset(given.data)
    photo = dataset.test[0].path
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch 1, 224 x 224, ResNet-18")
    print("| recipe | straightforward, ms | ours, ms | ratio | ours to the verdict, ms | backbone alone, ms |")
    print("|---|---|---|---|---|---|")
    for name, changes in RECIPES.items():
        sources = [one.path for one in dataset.train[:50]]
        detector = Detector.fit(
            sources,
            weights=given.weights,
            aspect="square",
            views="crop",
            calibration="none",
            method_settings=changes,
        )
        found = measure(detector, photo, given.repetitions)
        plain, ours = found["straightforward"], found["ours"]
        print(
            f"| {name} | {plain:.1f} | {ours:.1f} | {plain / ours:.2f} "
            f"| {found['ours, to the verdict']:.1f} | {found['backbone alone']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
