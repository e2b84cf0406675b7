"""SPADE (Cohen and Hoshen 2020, arXiv 2005.02357).

The K good images nearest to a new image are found by one pooled feature per image; their mean distance is the image
score. Then each position of each pyramid level is compared with all positions of those K images. Nothing is trained,
and the features of all good images are stored.

The paper pools the last stage of the network (2048 channels of WideResNet-50-2). The paper's networks end one stage
earlier here, so the coarsest level is pooled instead, and the image score differs from the published one. As in the
common implementation, the pixel map uses all levels: one map per level, upsampled and averaged.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from hyperspot.backbones import Backbone
from hyperspot.features.neighbors import nearest, nearest_centered, smallest
from hyperspot.features.patches import PatchCache, align
from hyperspot.methods.base import LeftOut, Method, MethodSettings
from hyperspot.utils.progress import Progress


class SPADESettings(MethodSettings):
    """The settings of SPADE.

    Attributes:
        images: The paper's K, good images that a new one is compared with.
        neighbors: The paper's κ, nearest positions that the distance is averaged over.

    """

    images: int = Field(default=50, ge=1)
    neighbors: int = Field(default=1, ge=1)


class SPADE(Method):
    """A gallery of good images and the distance to it.

    Buffers: `pooled` (image x channel), and `galleryN` for each level N of the backbone (image x position x channel),
    in half precision if f32 would exceed `patches.CACHE_BUDGET_BYTES`.
    """

    name: ClassVar[str] = "spade"
    Settings: ClassVar[type[MethodSettings]] = SPADESettings
    settings: SPADESettings
    pooled: Tensor

    def __init__(self, backbone: Backbone, settings: SPADESettings | None = None) -> None:
        super().__init__(backbone, settings)
        self._names = [f"gallery{level}" for level in backbone.levels]
        self.register_empty_buffers("pooled", *self._names)

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:  # noqa: ARG002
        """Store the pyramid of every image; nothing is random."""
        self._fit(images, progress)

    @classmethod
    def leave_one_out(cls, settings: Any) -> Literal["exact", "approximate"] | None:  # noqa: ARG003
        """Return `exact`: the gallery holds each image by itself."""
        return "exact"

    def fit_leave_one_out(
        self,
        images: Iterable[Float[Tensor, "_b 3 _H _W"]],
        groups: Int[Tensor, "n"],
        *,
        seed: int,  # noqa: ARG002
        progress: Progress,
    ) -> Iterator[LeftOut]:
        """Store the pyramid of every image, then compare each with the images of other groups."""
        cache, height, width = self._fit(images, progress)
        return self._left_out(cache, height, width, groups)

    @torch.inference_mode()
    def _left_out(self, cache: PatchCache, height: int, width: int, groups: Int[Tensor, "n"]) -> Iterator[LeftOut]:
        for index, group in enumerate(groups):
            maps, scores = self._score(cache.pyramid(index), height, width, (groups == group).to(cache.device))
            yield maps[0], scores[0]

    @torch.no_grad()
    def _fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], progress: Progress) -> tuple[PatchCache, int, int]:
        """Fit, and return the cached features, and height and width of the images."""
        size = (0, 0)

        def pyramids() -> Iterator[list[Tensor]]:
            nonlocal size
            for batch in progress.track(images, "reading features"):
                size = (batch.shape[2], batch.shape[3])
                yield self.backbone(batch)

        cache = PatchCache.collect(pyramids())
        for name, level in zip(self._names, cache.levels, strict=True):
            setattr(self, name, level)
        self.pooled = cache.levels[-1].mean(1, dtype=torch.float32)
        return cache, *size

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the distance of each pixel, averaged over the levels, and the mean distance to K images."""
        return self._score(self.backbone(images), images.shape[2], images.shape[3])

    def _score(
        self, pyramid: list[Tensor], height: int, width: int, excluded: Bool[Tensor, "n"] | None = None
    ) -> tuple[Float[Tensor, "b height width"], Float[Tensor, "b"]]:
        """Return map and image score by the gallery without the images that are excluded."""
        wanted = min(self.settings.images, len(self.pooled) if excluded is None else int((~excluded).sum()))
        pooled = pyramid[-1].mean((2, 3))
        center = self.pooled.mean(0)
        centered = self.pooled - center
        squares = centered.square().sum(1)
        if excluded is not None:
            squares = squares.masked_fill(excluded, torch.inf)
        _, nearest_images = nearest_centered(pooled - center, centered, squares, wanted)
        scores = (pooled[:, None] - self.pooled[nearest_images]).norm(dim=2).mean(1)
        total = pooled.new_zeros(len(pooled), 1, height, width)
        for level, name in zip(pyramid, self._names, strict=True):
            gallery: Tensor = getattr(self, name)
            vectors = level.flatten(2).transpose(1, 2)
            maps = [self._distances(own, gallery, chosen) for own, chosen in zip(vectors, nearest_images, strict=True)]
            total += align(torch.stack(maps).reshape(-1, 1, *level.shape[-2:]), height, width)
        return total[:, 0] / len(pyramid), scores

    def _distances(
        self, vectors: Float[Tensor, "n c"], gallery: Tensor, images: Int[Tensor, "k"]
    ) -> Float[Tensor, "n"]:
        """Return the mean distance of each vector to its κ nearest positions in some images of the gallery.

        They are among the κ nearest of each image, so the images are searched one by one, which fits the CPU's cache.
        """
        wanted = min(self.settings.neighbors, gallery.shape[1])
        distances, columns = [], []
        for image in images.unbind():
            # The index stays a tensor: converting it to a number would synchronize with the GPU.
            best, found = nearest(vectors, gallery.index_select(0, image[None])[0].float(), wanted)
            distances.append(best)
            columns.append(found + image * gallery.shape[1])
        _, among = smallest(torch.cat(distances, dim=1), wanted)
        closest = gallery.flatten(0, 1)[torch.cat(columns, dim=1).gather(1, among)].float()
        # Recomputed from the difference: the matrix product that ranks them is inexact for nearly equal vectors.
        mean: Tensor = (vectors[:, None] - closest).norm(dim=2).mean(1)
        return mean
