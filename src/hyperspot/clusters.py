"""Few vectors that stand for many: K-means by matrix products."""

import torch
from jaxtyping import Float
from torch import Tensor

from hyperspot.neighbors import nearest


def k_means(
    points: Float[Tensor, "n d"], count: int, *, generator: torch.Generator, iterations: int = 20
) -> Float[Tensor, "count d"]:
    """Return `count` cluster centres (Lloyd's algorithm from a random subset of the points).

    A cluster that loses all its points is moved to the point that is farthest from its centre, so no centre is
    wasted. Raises ValueError where there are fewer points than clusters.
    """
    if len(points) < count:
        raise ValueError(f"asked for {count} clusters of {len(points)} points")
    centres = points[torch.randperm(len(points), generator=generator)[:count].to(points.device)].clone()
    assigned = torch.full((len(points),), -1, device=points.device)
    for _ in range(iterations):
        distances, columns = nearest(points, centres, 1)
        if torch.equal(columns[:, 0], assigned):
            break
        assigned = columns[:, 0]
        sizes = torch.bincount(assigned, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, assigned, points)
        occupied = sizes > 0
        centres[occupied] = sums[occupied] / sizes[occupied, None]
        empty = int((~occupied).sum())
        if empty:
            farthest = torch.topk(distances[:, 0], empty).indices
            centres[~occupied] = points[farthest]
    return centres
