"""PatchCore (Roth, Pemula, Zepeda, Schölkopf, Brox and Gehler, CVPR 2022, arXiv 2106.08265).

Every patch of the good photos is a candidate for the memory; a greedy k-center coreset keeps few of them that
cover all. A patch scores by its squared distance to the nearest one kept. Nothing is trained.

What is done here is what the released code does, which differs from the text in places: neighborhoods are
pooled along the flattened channel x 3 x 3 axis and not over space, the coreset is chosen in a random
projection from the mean distance to ten random patches, and the image score is the plain maximum.
"""

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from hyperspot.backbones import Backbone
from hyperspot.features.coresets import k_centers
from hyperspot.features.neighbors import Prepared, nearest_centered
from hyperspot.features.patches import concatenate
from hyperspot.methods.base import Method, MethodSettings
from hyperspot.utils.progress import Progress

NEIGHBORHOOD = 3
"""Side of the neighborhood that a patch feature is pooled from, in places of its level."""
PROJECTED = 128
"""Dimensions that the coreset is chosen in."""
KEPT_BYTES = 1_000_000_000
"""Patch features kept between the two passes over the photos; what exceeds it is computed again."""


class PatchCoreSettings(MethodSettings):
    """The settings of PatchCore.

    Attributes:
        levels: Levels of the pyramid, 2 to 4.
        dimensions: Length of a patch feature, per level and after joining the levels.
        ratio: Share of the patches that is kept; 0.25, 0.1 and 0.01 in the paper.
        neighbors: Patches kept that the distance is averaged over.
        image_score: `maximum` of the patch scores as released, or `reweighted` by how unusual the nearest
            patch kept is (eq. 7), which the released code does not have.
        reweight_neighbors: The paper's b: patches around the nearest one that eq. 7 compares with.

    """

    levels: tuple[Literal[2, 3, 4], ...] = Field(default=(3, 4), min_length=1)
    dimensions: int = Field(default=1024, ge=1)
    ratio: float = Field(default=0.1, gt=0, le=1)
    neighbors: int = Field(default=1, ge=1)
    image_score: Literal["maximum", "reweighted"] = "maximum"
    reweight_neighbors: int = Field(default=9, ge=2)


class PatchCore(Method):
    """The coreset of good patches and the distance to it."""

    name: ClassVar[str] = "patchcore"
    Settings: ClassVar[type[MethodSettings]] = PatchCoreSettings
    settings: PatchCoreSettings
    bank: Tensor
    center: Tensor
    squares: Tensor

    def __init__(self, backbone: Backbone, settings: PatchCoreSettings | None = None) -> None:
        super().__init__(backbone, settings)
        self.register_empty_buffers("bank", "center", "squares")
        self._prepared = Prepared()

    @torch.no_grad()
    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Choose the coreset in the projection, then keep the features of what was chosen.

        Memory is bounded: all patches are held in their 128 projected dimensions alone, whole features up to
        a fixed budget. Past it the photos are read a second time.
        """
        generator = torch.Generator().manual_seed(seed)
        bound = self.settings.dimensions**-0.5
        projection = (torch.rand(self.settings.dimensions, PROJECTED, generator=generator) * 2 - 1) * bound
        kept: list[Tensor] = []
        projected, room = [], KEPT_BYTES
        for batch in progress.track(images, "reading features"):
            features = self.embed(batch).flatten(0, 2)
            projected.append(features @ projection.to(features))
            room -= features.nbytes
            if room >= 0:
                kept.append(features)
        points = torch.cat(projected)
        del projected
        count = max(1, int(len(points) * self.settings.ratio))
        numbers = list(progress.track(k_centers(points, count, generator), "choosing the coreset", count))
        chosen = torch.tensor(numbers, device=points.device).sort().values
        del points
        vectors = torch.cat(list(self._chosen_features(images, kept, chosen)))
        self.center = vectors.mean(0)
        self.bank = vectors.sub_(self.center)
        self.squares = self.bank.square().sum(1)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the squared distance of each patch to the nearest kept, and the image score from the patches."""
        features = self.embed(images) - self.center
        queries = features.flatten(0, 2)
        wanted = min(self.settings.neighbors, self.bank.shape[0])
        columns = self._nearest(queries, wanted)
        # Taken anew from the difference: the product that ranks them is inexact where a patch is near to a kept one.
        distances = (queries[:, None] - self.bank[columns]).square_().sum(2)
        scores = distances.mean(1).reshape(features.shape[:3])
        highest, where = scores.flatten(1).max(1)
        if self.settings.image_score == "reweighted":
            rows = where + torch.arange(images.shape[0], device=where.device) * scores[0].numel()
            highest = self._reweighted(queries[rows], columns[rows, 0], distances[rows, 0].sqrt())
        return scores, highest

    def _nearest(self, queries: Float[Tensor, "n d"], k: int) -> Int[Tensor, "n k"]:
        if torch.compiler.is_exporting():
            return nearest_centered(queries, self.bank, self.squares, k)[1]
        return self._prepared.memory(self.bank, self.squares).nearest(queries, k)[1]

    def embed(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b h w d"]:
        """Return one feature per place of the finest level used.

        Each level is pooled at its own resolution and then upsampled: both are linear and act on different
        axes, so the result is that of the released code, which upsamples the nine times larger neighborhoods.
        """
        pyramid = self.backbone(images)
        used = [pyramid[level - 2] for level in sorted(self.settings.levels)]
        pooled = [pool_neighborhoods(level, self.settings.dimensions) for level in used]
        joined = _pool_last(concatenate(pooled), self.settings.dimensions)
        return joined.reshape(joined.shape[0], *used[0].shape[-2:], -1)

    def _chosen_features(
        self, images: Iterable[Tensor], kept: list[Tensor], chosen: Int[Tensor, "k"]
    ) -> Iterator[Float[Tensor, "_k d"]]:
        """Yield the features of the chosen patches, whose numbers ascend, batch by batch."""
        first = 0
        for number, batch in enumerate(images):
            features = kept[number] if number < len(kept) else self.embed(batch).flatten(0, 2)
            inside = (chosen >= first) & (chosen < first + len(features))
            yield features[chosen[inside] - first]
            first += len(features)

    def _reweighted(
        self, patches: Float[Tensor, "b d"], nearest: Int[Tensor, "b"], distances: Float[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """Return s* (1 - softmax weight of the nearest patch kept among its own b nearest), eq. 7."""
        wanted = min(self.settings.reweight_neighbors, self.bank.shape[0])
        if wanted < 2:
            return distances
        _, around = nearest_centered(self.bank[nearest], self.bank, self.squares, wanted)
        others = (patches[:, None] - self.bank[around]).norm(dim=2)
        own = (patches - self.bank[nearest]).norm(dim=1)
        # Twins of the nearest patch may come first among its neighbors, so the softmax is over distances alone.
        return distances * (1 - torch.exp(own - torch.logsumexp(others, dim=1))).clamp(min=0)


def pool_neighborhoods(level: Float[Tensor, "b c h w"], dimensions: int) -> Float[Tensor, "b dimensions h w"]:
    """Pool each 3 x 3 neighborhood (zeros outside) along its flattened channel x row x column axis."""
    unfolded = F.unfold(level, NEIGHBORHOOD, padding=NEIGHBORHOOD // 2).transpose(1, 2)
    return _pool_last(unfolded, dimensions).transpose(1, 2).reshape(level.shape[0], dimensions, *level.shape[-2:])


def _pool_last(features: Float[Tensor, "b n c"], dimensions: int) -> Float[Tensor, "b n dimensions"]:
    if features.shape[2] == dimensions:
        return features
    pooled: Tensor = F.adaptive_avg_pool1d(features.contiguous(), dimensions)
    return pooled
