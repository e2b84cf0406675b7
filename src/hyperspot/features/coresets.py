"""Few points that cover many: the greedy k-center coreset (Sener and Savarese, ICLR 2018), as PatchCore chooses it."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hyperspot.features.neighbors import CHUNK_ELEMENTS

STARTING_POINTS = 10
"""Random points that the greedy choice measures from at first; they do not enter the coreset as such."""
CANDIDATES = 1024
"""Farthest points looked at together: more of them mean fewer passes over all points and a dearer pass."""


def k_centers(points: Float[Tensor, "n d"], count: int, generator: torch.Generator) -> Iterator[int]:
    """Yield the numbers of `count` points chosen greedily: each is the farthest from all chosen before.

    At first each point counts as far away as its mean distance to a few random points (released code).
    Distances only ever shrink. So while the farthest among some candidates, the points that were farthest when
    all points were last looked at, is no nearer than the nearest candidate was then, it is the farthest of all.
    One pass over all points, as a matrix product, thus serves many choices, and they are the same as with one
    pass each.

    Raises ValueError where there are fewer points than asked for.
    """
    if len(points) < count:
        raise ValueError(f"asked for {count} of {len(points)} points")
    points = points - points.mean(0)
    squares = points.square().sum(1)
    starts = torch.randperm(len(points), generator=generator)[:STARTING_POINTS].to(points.device)
    # Squares order points as distances do; only a mean of distances must be taken of the roots.
    far = torch.cat([part.sqrt_().mean(1) for part in _distances(points, squares, starts)]).square_()
    while count > 0:
        candidates = torch.topk(far, min(CANDIDATES, len(points)))
        numbers = candidates.indices
        picked = _farthest_first(points[numbers], squares[numbers], candidates.values)[:count]
        yield from numbers[picked].tolist()
        count -= len(picked)
        nearest = [part.amin(1) for part in _distances(points, squares, numbers[picked])]
        torch.minimum(far, torch.cat(nearest), out=far)
        # Where all points left are twins of chosen ones, none is to be chosen twice.
        far[numbers[picked]] = -torch.inf


def _farthest_first(points: Float[Tensor, "n d"], squares: Float[Tensor, "n"], far: Float[Tensor, "n"]) -> list[int]:
    """Return the greedy choices that are certain: those no nearer than the last of `far`, which descends."""
    floor = far[-1].item()
    everyone = torch.arange(len(points), device=points.device)
    between = torch.cat(list(_distances(points, squares, everyone))).cpu().numpy()
    left = far.cpu().numpy().copy()
    picked: list[int] = []
    best = 0
    while not picked or (left[best] >= floor and left[best] > -np.inf):
        picked.append(best)
        np.minimum(left, between[best], out=left)
        left[best] = -np.inf
        best = int(left.argmax())
    return picked


def _distances(
    points: Float[Tensor, "n d"], squares: Float[Tensor, "n"], chosen: Int[Tensor, "m"]
) -> Iterator[Float[Tensor, "_k m"]]:
    """Yield the squared distances of all points to the chosen ones, some rows at a time."""
    others, rows = points[chosen].T, max(16, CHUNK_ELEMENTS // len(chosen))
    for part, own in zip(points.split(rows), squares.split(rows), strict=True):
        yield torch.addmm(squares[chosen], part, others, alpha=-2).add_(own[:, None]).clamp_(min=0)
