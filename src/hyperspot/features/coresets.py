"""The greedy k-center coreset (Sener and Savarese, ICLR 2018), as in PatchCore."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hyperspot.features.neighbors import CHUNK_ELEMENTS, nearest_centered

STARTING_POINTS = 10
"""Random points for the initial distances; they are not part of the coreset."""
CANDIDATES = 1024
"""Farthest points per pass: more candidates mean fewer but more expensive passes over all points."""


def k_centers(points: Float[Tensor, "n d"], count: int, generator: torch.Generator) -> Iterator[int]:
    """Yield the indices of `count` points chosen greedily: each is the farthest from all chosen before.

    The initial distance of a point is its mean distance to a few random points (released code). Distances only shrink.
    The candidates are the points that were farthest in the last pass over all points. While the farthest candidate is
    no nearer than the nearest candidate was in that pass, it is the farthest of all points. One pass, as a matrix
    product, thus serves many choices, which equal those of one pass per choice.

    Raises ValueError if there are fewer points than `count`.

    Examples:
        >>> points = torch.tensor([[0.0], [0.1], [5.0], [9.0], [9.1]])
        >>> sorted(k_centers(points, 3, torch.Generator().manual_seed(0)))
        [0, 2, 4]

    """
    if len(points) < count:
        raise ValueError(f"asked for {count} of {len(points)} points")
    points = points - points.mean(0)
    squares = points.square().sum(1)
    starts = torch.randperm(len(points), generator=generator)[:STARTING_POINTS].to(points.device)
    # Squared distances give the same order; only the mean needs the roots.
    far = torch.cat([part.sqrt_().mean(1) for part in _distances(points, squares, starts)]).square_()
    while count > 0:
        candidates = torch.topk(far, min(CANDIDATES, len(points)))
        numbers = candidates.indices
        picked = _farthest_first(points[numbers], squares[numbers], candidates.values)[:count]
        yield from numbers[picked].tolist()
        count -= len(picked)
        nearest = [part.amin(1) for part in _distances(points, squares, numbers[picked])]
        torch.minimum(far, torch.cat(nearest), out=far)
        # If all remaining points are duplicates of chosen ones, none is chosen twice.
        far[numbers[picked]] = -torch.inf


def substitutes(
    found: tuple[Float[Tensor, "n w"], Int[Tensor, "n w"]],
    owners: Int[Tensor, "n"],
    bank: Float[Tensor, "m d"],
    bank_owners: Int[Tensor, "m"],
    vectors: Callable[[Int[Tensor, "_r"]], Float[Tensor, "_r d"]],
) -> dict[int, Int[Tensor, "_e"]]:
    """Return, for each owner, the points that the greedy selection would have chosen in place of its points.

    The covering radius of a coreset is the largest distance of a point to it. Without the points of an owner, those of
    the others that were covered by them alone lie farther away. The farthest is chosen until all are covered again or
    as many are chosen as the owner had.

    Args:
        found: Squared distances and indices of the w nearest vectors of the coreset, for each point.
        owners: The owner of each point, for example its image. Negative ones are no owners: their points stay.
        bank: The coreset, centered.
        bank_owners: The owner of each of its vectors.
        vectors: Returns some of the points, minus the center of the coreset.

    Examples:
        >>> points = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [9.0]])
        >>> owners, chosen = torch.tensor([1, 2, 2, 1, 2, 3]), torch.tensor([0, 3, 5])
        >>> found = nearest_centered(points, points[chosen], points[chosen].square().sum(1), 2)
        >>> substitutes(found, owners, points[chosen], owners[chosen], points.__getitem__)
        {1: tensor([1, 4]), 3: tensor([], dtype=torch.int64)}

    """
    distances, columns = found
    nearest_owners = bank_owners[columns]
    covered_by = nearest_owners[:, 0]
    # The distance to the nearest vector of another owner; infinite if it is not among those found.
    far = torch.where(nearest_owners != covered_by[:, None], distances, torch.inf).amin(1)
    radius = distances[:, 0].max()
    squares = bank.square().sum(1)
    replaced = {}
    for owner in bank_owners[bank_owners >= 0].unique():
        own = bank_owners == owner
        rows = ((covered_by == owner) & (owners != owner) & (far > radius)).nonzero()[:, 0]
        if not len(rows):
            replaced[int(owner)] = rows
            continue
        points = vectors(rows)
        distance = far[rows]
        unknown = torch.isinf(distance)
        if unknown.any() and not own.all():
            masked = squares.masked_fill(own, torch.inf)
            distance[unknown] = nearest_centered(points[unknown], bank, masked, 1)[0][:, 0]
        replaced[int(owner)] = rows[_cover(points, distance, radius, int(own.sum()))]
    return replaced


def _cover(
    points: Float[Tensor, "n d"], far: Float[Tensor, "n"], radius: Float[Tensor, ""], most: int
) -> Int[Tensor, "_e"]:
    """Return at most `most` indices, ascending, chosen greedily until no point is farther than the radius, squared."""
    picked: list[int] = []
    left = far.clone()
    while len(left) and len(picked) < most and left.max() > radius:
        best = int(left.argmax())
        picked.append(best)
        torch.minimum(left, (points - points[best]).square().sum(1), out=left)
        left[best] = -torch.inf
    return torch.tensor(sorted(picked), dtype=torch.long, device=points.device)


def _farthest_first(points: Float[Tensor, "n d"], squares: Float[Tensor, "n"], far: Float[Tensor, "n"]) -> list[int]:
    """Return the greedy choices that are certain: no nearer than the last of `far`, which is sorted descending."""
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
    """Yield the squared distances of all points to the chosen ones, in chunks of rows."""
    others, rows = points[chosen].T, max(16, CHUNK_ELEMENTS // len(chosen))
    for part, own in zip(points.split(rows), squares.split(rows), strict=True):
        yield torch.addmm(squares[chosen], part, others, alpha=-2).add_(own[:, None]).clamp_(min=0)
