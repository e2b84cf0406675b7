"""Few vectors that stand for many: K-means by matrix products."""

import torch
from jaxtyping import Float
from torch import Tensor

from hyperspot.features.neighbors import nearest


def k_means(
    points: Float[Tensor, "n d"], count: int, *, generator: torch.Generator, iterations: int = 20
) -> Float[Tensor, "count d"]:
    """Return `count` cluster centers (Lloyd's algorithm from a random subset of the points).

    A cluster that loses all its points is moved to the point that is farthest from its center, so no center is
    wasted. Raises ValueError where there are fewer points than clusters.
    """
    if len(points) < count:
        raise ValueError(f"asked for {count} clusters of {len(points)} points")
    centers = points[torch.randperm(len(points), generator=generator)[:count].to(points.device)].clone()
    assigned = torch.full((len(points),), -1, device=points.device)
    for _ in range(iterations):
        distances, columns = nearest(points, centers, 1)
        if torch.equal(columns[:, 0], assigned):
            break
        assigned = columns[:, 0]
        sizes = torch.bincount(assigned, minlength=count)
        sums = torch.zeros_like(centers).index_add_(0, assigned, points)
        occupied = sizes > 0
        centers[occupied] = sums[occupied] / sizes[occupied, None]
        empty = int((~occupied).sum())
        if empty:
            farthest = torch.topk(distances[:, 0], empty).indices
            centers[~occupied] = points[farthest]
    return centers
