"""Mean and spread of the teacher's channels over the training views."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tools.distill.cache import SLOPE, Cache


@dataclass(frozen=True)
class Statistics:
    """Per level: means and deviations before the activation, and the variances after leaky ones."""

    means: list[Tensor]
    deviations: list[Tensor]
    leaky: dict[float, list[Tensor]]

    def variances(self, slope: float) -> list[Tensor]:
        """Return the variances of the channels after a leaky ReLU of one of `SLOPES`."""
        return self.leaky[slope]


SLOPES = (0.0, SLOPE, 1.0)


def measure(cache: Cache, views: int = 2048) -> Statistics:
    """Measure over some views, spread evenly over the cache."""
    rows = np.unique(np.linspace(0, cache.plan.rows - 1, min(views, cache.plan.rows)).astype(int))
    totals: dict[float, list[tuple[Tensor, Tensor]]] = {slope: [] for slope in SLOPES}
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        share = len(part) / len(rows)
        for place, level in enumerate(cache.levels(part)):
            for slope, sums in totals.items():
                seen = functional.leaky_relu(level.float(), slope / SLOPE)
                mean = seen.mean((0, 2, 3)).double() * share
                square = seen.square().mean((0, 2, 3)).double() * share
                if place == len(sums):
                    sums.append((mean, square))
                else:
                    sums[place] = (sums[place][0] + mean, sums[place][1] + square)
    leaky = {
        slope: [(square - mean.square()).clamp(min=1e-6).float() for mean, square in sums]
        for slope, sums in totals.items()
    }
    means = [mean.float() for mean, _ in totals[1.0]]
    return Statistics(means, [torch.sqrt(variance) for variance in leaky[1.0]], leaky)
