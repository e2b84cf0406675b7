"""SPADE (Cohen and Hoshen 2020, arXiv 2005.02357).

First the good photos most like a new one are found, by one pooled feature per photo; their mean distance is
the image score. Then each place of each pyramid level is compared with all places of those photos. Nothing is
trained and every good photo is kept.

The paper finds photos by the pooled last stage of the network (2048 channels of WideResNet-50-2). Backbones
here end one stage earlier, so it is the pooled C4 instead: the image score differs from the published one. The
pixel map uses C2, C3 and C4 as the common implementation does: one map per level, upsampled and averaged.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from hyperspot.backbones import Backbone
from hyperspot.features.neighbors import nearest, smallest
from hyperspot.features.patches import PatchCache, align
from hyperspot.methods.base import Method, MethodSettings
from hyperspot.utils.progress import Progress


class SPADESettings(MethodSettings):
    """The settings of SPADE.

    Attributes:
        images: The paper's K: good photos that a new one is compared with, at most all there are.
        neighbors: The paper's κ: places of those photos that the distance of a place is averaged over.

    """

    images: int = Field(default=50, ge=1)
    neighbors: int = Field(default=1, ge=1)


class SPADE(Method):
    """The gallery of good photos and the distance to it.

    What is learned: `pooled` (photo x channel), and per level `gallery2` to `gallery4` (photo x place x
    channel), in half precision where single precision would exceed `patches.CACHE_BUDGET_BYTES`.
    """

    name: ClassVar[str] = "spade"
    Settings: ClassVar[type[MethodSettings]] = SPADESettings
    settings: SPADESettings
    pooled: Tensor
    gallery2: Tensor
    gallery3: Tensor
    gallery4: Tensor

    def __init__(self, backbone: Backbone, settings: SPADESettings | None = None) -> None:
        super().__init__(backbone, settings)
        self.register_empty_buffers("pooled", "gallery2", "gallery3", "gallery4")

    @torch.no_grad()
    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:  # noqa: ARG002
        """Keep the pyramid of every photo; nothing here is random."""
        cache = PatchCache.collect(self.backbone(batch) for batch in progress.track(images, "reading features"))
        self.gallery2, self.gallery3, self.gallery4 = cache.levels
        self.pooled = self.gallery4.mean(1, dtype=torch.float32)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the distance of each pixel, averaged over the levels, and the mean distance to K photos."""
        pyramid = self.backbone(images)
        wanted = min(self.settings.images, len(self.pooled))
        pooled = pyramid[-1].mean((2, 3))
        _, alike = nearest(pooled, self.pooled, wanted)
        scores = (pooled[:, None] - self.pooled[alike]).norm(dim=2).mean(1)
        total = images.new_zeros(len(images), 1, *images.shape[-2:])
        for level, gallery in zip(pyramid, (self.gallery2, self.gallery3, self.gallery4), strict=True):
            places = level.flatten(2).transpose(1, 2)
            maps = [self._unlike(own, gallery, photos) for own, photos in zip(places, alike, strict=True)]
            total += align(torch.stack(maps).reshape(-1, 1, *level.shape[-2:]), *images.shape[-2:])
        return total[:, 0] / len(pyramid), scores

    def _unlike(self, places: Float[Tensor, "n c"], gallery: Tensor, photos: Int[Tensor, "k"]) -> Float[Tensor, "n"]:
        """Return the mean distance of each place to the κ nearest of all places of some photos.

        They are among the κ nearest of each photo, so one photo at a time is looked at and stays in the cache.
        """
        wanted = min(self.settings.neighbors, gallery.shape[1])
        distances, columns = [], []
        for photo in photos.unbind():
            # By a number that may lie on a GPU: to learn it would mean to wait for all that was asked of it before.
            best, found = nearest(places, gallery.index_select(0, photo[None])[0].float(), wanted)
            distances.append(best)
            columns.append(found + photo * gallery.shape[1])
        _, among = smallest(torch.cat(distances, dim=1), wanted)
        closest = gallery.flatten(0, 1)[torch.cat(columns, dim=1).gather(1, among)].float()
        # Taken anew from the difference: the product that ranks them is inexact where two places are nearly alike.
        mean: Tensor = (places[:, None] - closest).norm(dim=2).mean(1)
        return mean
