"""PatchCore (Roth, Pemula, Zepeda, Schölkopf, Brox and Gehler, CVPR 2022, arXiv 2106.08265).

Every patch of the good images is a candidate for the memory bank; a greedy k-center coreset keeps a few that cover all.
The score of a patch is its squared distance to the nearest one in the bank. Nothing is trained.

As in the released code, which differs from the text: neighborhoods are pooled along the flattened channel x 3 x 3 axis
and not over space, the coreset is chosen in a random projection starting from the mean distance to ten random patches,
and the image score is the maximum without reweighting.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from hyperspot.backbones import Backbone
from hyperspot.features.coresets import k_centers, substitutes
from hyperspot.features.neighbors import Exchange, Prepared, nearest, nearest_centered
from hyperspot.features.patches import concatenate
from hyperspot.methods.base import OLD, LeftOut, Level, Method, MethodSettings
from hyperspot.utils.progress import Progress

NEIGHBORHOOD = 3
"""Side of the neighborhood of a patch feature, in positions of its level."""
PROJECTED = 128
"""Dimensions of the projection in which the coreset is chosen."""
NEAREST = 3
"""Vectors of the bank found for each training patch, from which those of its own image leave."""
KEPT_BYTES = 1_000_000_000
"""Patch features cached between the two passes over the images; beyond it they are recomputed."""


class PatchCoreSettings(MethodSettings):
    """The settings of PatchCore.

    Attributes:
        levels: Pyramid levels of the backbone.
        dimensions: Length of a patch feature, per level and after joining the levels.
        ratio: Share of the patches in the bank; 0.25, 0.1 and 0.01 in the paper.
        neighbors: Nearest patches that the distance is averaged over.
        image_score: `maximum` of the patch scores, as released, or `reweighted` (eq. 7), which the released code lacks.
        reweight_neighbors: The paper's b, neighbors of the nearest patch in eq. 7.

    """

    levels: tuple[Level, ...] = Field(default=(3, 4), min_length=1)
    dimensions: int = Field(default=1024, ge=1)
    ratio: float = Field(default=0.1, gt=0, le=1)
    neighbors: int = Field(default=1, ge=1)
    image_score: Literal["maximum", "reweighted"] = "maximum"
    reweight_neighbors: int = Field(default=9, ge=2)


class PatchCore(Method):
    """A coreset of good patches and the distance to it."""

    name: ClassVar[str] = "patchcore"
    Settings: ClassVar[type[MethodSettings]] = PatchCoreSettings
    settings: PatchCoreSettings
    bank: Tensor
    center: Tensor
    squares: Tensor
    images_seen: Tensor

    def __init__(self, backbone: Backbone, settings: PatchCoreSettings | None = None) -> None:
        super().__init__(backbone, settings)
        backbone.positions(self.settings.levels)
        self.register_empty_buffers("bank", "center", "squares", "images_seen")
        self._prepared = Prepared()

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Choose the coreset in the projection, then store the features of the chosen patches.

        Memory is bounded: all patches are held in their 128 projected dimensions, full features up to a budget. Beyond
        it the images are read a second time.
        """
        self._start()
        self._learn(images, seed, progress)

    @classmethod
    def leave_one_out(cls, settings: Any) -> Literal["exact", "approximate"] | None:  # noqa: ARG003
        """Return `approximate`: the coreset was chosen beside the image that is left out."""
        return "approximate"

    def fit_leave_one_out(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], groups: Int[Tensor, "n"], *, seed: int, progress: Progress
    ) -> Iterator[LeftOut]:
        """Fit, then score each image without the vectors of its group.

        The vectors that the greedy selection would have chosen in their place are added (see `substitutes`).
        """
        self._start()
        return self._learn_leave_one_out(images, groups, seed, progress)

    @classmethod
    def can_update(cls, settings: Any) -> bool:  # noqa: ARG003
        """Return True: a coreset of coresets covers all images."""
        return True

    def update(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], groups: Int[Tensor, "n"], *, seed: int, progress: Progress
    ) -> Iterator[LeftOut]:
        """Choose the bank anew from its vectors and the patches of new images (merge and reduce)."""
        return self._learn_leave_one_out(images, groups, seed, progress)

    def _start(self) -> None:
        self.bank, self.center = torch.empty(0, self.settings.dimensions), torch.zeros(self.settings.dimensions)
        self.images_seen = torch.tensor(0)

    def _learn_leave_one_out(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], groups: Int[Tensor, "n"], seed: int, progress: Progress
    ) -> Iterator[LeftOut]:
        kept, owners, (numbers, vectors), added = self._learn(images, seed, progress, groups)
        places = {group: torch.searchsorted(numbers, own) for group, own in added.items()}
        return self._left_out(images, kept, owners, vectors, places, groups)

    @torch.inference_mode()
    def _left_out(
        self,
        images: Iterable[Tensor],
        kept: list[Tensor],
        owners: Int[Tensor, "m"],
        vectors: Float[Tensor, "v d"],
        places: dict[int, Int[Tensor, "_e"]],
        groups: Int[Tensor, "n"],
    ) -> Iterator[LeftOut]:
        each = (one for features in self._features(images, kept) for one in features)
        for group, one in zip(groups.tolist(), each, strict=True):
            added = vectors[places[group]] if group in places else vectors[:0]
            scores, highest = self._score(one[None], Exchange(owners == group, added))
            yield scores[0], highest[0]

    @torch.no_grad()
    def _learn(
        self,
        images: Iterable[Float[Tensor, "_b 3 _H _W"]],
        seed: int,
        progress: Progress,
        groups: Int[Tensor, "n"] | None = None,
    ) -> tuple[
        list[Float[Tensor, "_b _h _w d"]],
        Int[Tensor, "_m"],
        tuple[Int[Tensor, "_v"], Float[Tensor, "_v d"]],
        dict[int, Int[Tensor, "_e"]],
    ]:
        """Choose the bank from its vectors and the patches of images, and return the features that were kept.

        With groups, also the group of each vector, all substitutes (numbers, ascending, and vectors), and the numbers
        of those of each group. Candidates are numbered: first the vectors of the bank before, then the patches, image
        by image.
        """
        generator = torch.Generator().manual_seed(seed)
        bound = self.settings.dimensions**-0.5
        projection = (torch.rand(self.settings.dimensions, PROJECTED, generator=generator) * 2 - 1) * bound
        old = self.bank + self.center
        kept: list[Tensor] = []
        projected, room, learned = [old @ projection.to(old)], KEPT_BYTES, 0
        for batch in progress.track(images, "reading features"):
            features = self.embed(batch)
            projected.append(features.flatten(0, 2) @ projection.to(features))
            learned += len(features)
            room -= features.nbytes
            if room >= 0:
                kept.append(features)
        points = torch.cat([part.to(projected[-1].device) for part in projected])
        positions = (len(points) - len(old)) // learned
        del projected
        self.images_seen = self.images_seen + learned
        count = max(1, int(int(self.images_seen) * positions * self.settings.ratio))
        numbers = list(progress.track(k_centers(points, count, generator), "choosing the coreset", count))
        chosen = torch.tensor(numbers, device=points.device).sort().values
        owners, added = chosen[:0], {}
        if groups is not None:
            of_patches = groups.to(points.device).repeat_interleave(positions)
            group_of_points = torch.cat([of_patches.new_full((len(old),), OLD), of_patches])
            owners = group_of_points[chosen]
            points -= points[chosen].mean(0)
            found = nearest(points, points[chosen], min(NEAREST, count))
            added = substitutes(found, group_of_points, points[chosen], owners, points.__getitem__)
        del points
        instead = torch.cat([chosen[:0], *added.values()]).sort().values
        vectors = torch.cat(list(self._chosen_features(images, kept, old, chosen)))
        self.center = vectors.mean(0)
        self.bank = vectors.sub_(self.center)
        self.squares = self.bank.square().sum(1)
        substituted = vectors[:0]
        if len(instead):
            substituted = torch.cat(list(self._chosen_features(images, kept, old, instead))) - self.center
        return kept, owners, (instead, substituted), added

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the squared distance of each patch to the nearest in the bank, and the image score."""
        return self._score(self.embed(images))

    def _score(
        self, features: Float[Tensor, "b h w d"], exchange: Exchange | None = None
    ) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"]]:
        """Return map and image score from the features, after an exchange of memory vectors."""
        queries = (features - self.center).flatten(0, 2)
        bank = self.bank if exchange is None else torch.cat([self.bank, exchange.added])
        size = bank.shape[0] if exchange is None else exchange.size
        columns = self._nearest(queries, min(self.settings.neighbors, size), exchange)
        # Recomputed from the difference: the matrix product that ranks them is inexact for nearly equal patches.
        distances = (queries[:, None] - bank[columns]).square_().sum(2)
        scores = distances.mean(1).reshape(features.shape[:3])
        highest, where = scores.flatten(1).max(1)
        if self.settings.image_score == "reweighted":
            rows = where + torch.arange(features.shape[0], device=where.device) * scores[0].numel()
            squares = bank.square().sum(1)
            if exchange is not None:
                squares[: len(exchange.excluded)].masked_fill_(exchange.excluded, torch.inf)
            highest = self._reweighted(queries[rows], bank, squares, columns[rows, 0], distances[rows, 0].sqrt(), size)
        return scores, highest

    def _nearest(self, queries: Float[Tensor, "n d"], k: int, exchange: Exchange | None) -> Int[Tensor, "n k"]:
        if torch.compiler.is_exporting():
            return nearest_centered(queries, self.bank, self.squares, k)[1]
        memory = self._prepared.memory(self.bank, self.squares)
        if exchange is None:
            return memory.nearest(queries, k)[1]
        found = memory.nearest(queries, min(max(NEAREST, k), len(self.bank)))
        return exchange.nearest(found, queries, self.bank, self.squares, k)[1]

    def embed(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b h w d"]:
        """Return one feature per position of the finest level used.

        Each level is pooled at its own resolution and then upsampled. Both are linear and act on different axes, so the
        result equals that of the released code, which upsamples neighborhoods nine times as large.
        """
        used = self.backbone.select(images, self.settings.levels)
        pooled = [pool_neighborhoods(level, self.settings.dimensions) for level in used]
        joined = _pool_last(concatenate(pooled), self.settings.dimensions)
        return joined.reshape(joined.shape[0], *used[0].shape[-2:], -1)

    def _chosen_features(
        self, images: Iterable[Tensor], kept: list[Tensor], old: Float[Tensor, "o d"], chosen: Int[Tensor, "k"]
    ) -> Iterator[Float[Tensor, "_k d"]]:
        """Yield the features of the chosen candidates, in ascending order of number, batch by batch."""
        yield old[chosen[chosen < len(old)].to(old.device)].to(chosen.device)
        first = len(old)
        for batch in self._features(images, kept):
            features = batch.flatten(0, 2)
            inside = (chosen >= first) & (chosen < first + len(features))
            yield features[chosen[inside] - first]
            first += len(features)

    def _features(self, images: Iterable[Tensor], kept: list[Tensor]) -> Iterator[Float[Tensor, "b h w d"]]:
        """Yield the features of each batch: those that were kept, and the others computed again."""
        for number, batch in enumerate(images):
            yield kept[number] if number < len(kept) else self.embed(batch)

    def _reweighted(
        self,
        patches: Float[Tensor, "b d"],
        bank: Float[Tensor, "m d"],
        squares: Float[Tensor, "m"],
        nearest: Int[Tensor, "b"],
        distances: Float[Tensor, "b"],
        size: int,
    ) -> Float[Tensor, "b"]:
        """Return s* (1 - softmax weight of the nearest patch among its b neighbors in the bank), eq. 7.

        `size` is the number of vectors that count; the squares of the others are infinite.
        """
        wanted = min(self.settings.reweight_neighbors, size)
        if wanted < 2:
            return distances
        _, around = nearest_centered(bank[nearest], bank, squares, wanted)
        others = (patches[:, None] - bank[around]).norm(dim=2)
        own = (patches - bank[nearest]).norm(dim=1)
        # Duplicates of the nearest patch may precede it among its neighbors, so the softmax uses distances only.
        return distances * (1 - torch.exp(own - torch.logsumexp(others, dim=1))).clamp(min=0)


def pool_neighborhoods(level: Float[Tensor, "b c h w"], dimensions: int) -> Float[Tensor, "b dimensions h w"]:
    """Pool each 3 x 3 neighborhood, zero-padded, along its flattened channel x row x column axis."""
    unfolded = F.unfold(level, NEIGHBORHOOD, padding=NEIGHBORHOOD // 2).transpose(1, 2)
    return _pool_last(unfolded, dimensions).transpose(1, 2).reshape(level.shape[0], dimensions, *level.shape[-2:])


def _pool_last(features: Float[Tensor, "b n c"], dimensions: int) -> Float[Tensor, "b n dimensions"]:
    if features.shape[2] == dimensions:
        return features
    pooled: Tensor = F.adaptive_avg_pool1d(features.contiguous(), dimensions)
    return pooled
