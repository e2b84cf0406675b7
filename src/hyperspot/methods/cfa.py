"""CFA: coupled-hypersphere-based feature adaptation (Lee, Lee and Song, IEEE Access 2022, arXiv 2206.04325).

Patch features pass a trainable 1 x 1 CoordConv, the patch descriptor. Training pulls each described patch into the
hyperspheres of its K nearest memory vectors (attraction) and pushes it out of those of the next J (repulsion). The size
of the memory bank does not depend on the number of images. The score of a patch is its distance to the nearest memory
vector, weighted by the certainty of that neighbor (softmin) if there are several. The default whitens the levels
instead of training the descriptor, and takes the distance alone.

Everything before the distance is affine. Each pyramid level is therefore projected at its own resolution, upsampled and
added: the same result as upsample, concatenate, project, at a quarter of the cost.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hyperspot.backbones import Backbone
from hyperspot.features.clustering import k_means
from hyperspot.features.coresets import k_centers, substitutes
from hyperspot.features.neighbors import Exchange, Search, nearest_centered, nearest_distances, principal_axes
from hyperspot.features.patches import PatchCache, coordinates, pool, pool_to_grid, sum_levels
from hyperspot.features.whitening import partial_whitening
from hyperspot.methods.base import OLD, LeftOut, Method, MethodSettings
from hyperspot.methods.cfa_settings import LARGEST_PATCH_BANK, TRAINING_SETTINGS, CFASettings
from hyperspot.utils.progress import Progress

EXCEPTED = "efficientnet_b5"
"""The released code makes two exceptions for this backbone: it divides each pooled level by its number of channels, and
its descriptor keeps twice the channels."""

WHITENING_PATCHES = 40_000
"""Training patches of each level that the whitened descriptor is computed from."""
SAMPLED_PATCHES = 131_072
"""Maximum number of training patches that a bank is chosen from."""
PATCHES_PER_VECTOR = 8
"""With few images, at most one memory vector per so many patches, but at least one per position."""
ITERATIONS = 3
"""Of K-means: eight changed no metric on the development categories by more than 0.1 points."""
SELECTION_CHANNELS = 64
"""Principal axes of the patches in which a coreset is chosen."""
NEAREST = 3
"""Memory vectors found for each training patch, from which those of its own image leave."""


class CFA(Method):
    """Patch descriptor, memory bank and score."""

    name: ClassVar[str] = "cfa"
    Settings: ClassVar[type[MethodSettings]] = CFASettings
    settings: CFASettings
    bank: Tensor
    center: Tensor
    squares: Tensor
    images_seen: Tensor

    def __init__(self, backbone: Backbone, settings: CFASettings | None = None) -> None:
        super().__init__(backbone, settings)
        backbone.positions(self.settings.levels)
        self.weight = nn.Parameter(torch.empty(0), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(0), requires_grad=False)
        self.radius = nn.Parameter(torch.empty(0), requires_grad=False)
        self.register_empty_buffers("bank", "center", "squares", "images_seen")
        self.search = Search()

    @classmethod
    def backbone_options(cls, settings: Any) -> dict[str, float]:
        """Return the output slope of the variant."""
        return {"output_negative_slope": settings.output_negative_slope}

    @classmethod
    def unused_settings(cls, settings: Any) -> frozenset[str]:
        """Return the settings of the training if there is none, and those of other losses and memory banks."""
        unused = set() if settings.bank == "algorithm1" else {"beta"}
        if settings.bank == "mean" and settings.gamma_c == 1:
            unused.add("bank_ratio")
        if settings.initialization != "whitened":
            unused |= {"level_weights", "whitening", "whitened_channels"}
        if settings.losses == "none" or settings.steps == 0:
            unused |= TRAINING_SETTINGS
        elif settings.losses == "attraction":
            unused |= {"hard_negatives", "alpha"}
        return frozenset(unused)

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Cache the frozen features, build the bank with the untrained descriptor, then train the descriptor."""
        self._fit(images, seed, progress)

    @classmethod
    def leave_one_out(cls, settings: Any) -> Literal["exact", "approximate"] | None:
        """Return `approximate` for a coreset without training: its vectors are patches, each of one image."""
        return "approximate" if _is_untrained_coreset(settings) else None

    def fit_leave_one_out(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], groups: Int[Tensor, "n"], *, seed: int, progress: Progress
    ) -> Iterator[LeftOut]:
        """Fit, then score each image from its cached features without the vectors of its group.

        The vectors that the greedy selection would have chosen in their place are added (see `substitutes`).
        """
        if self.leave_one_out(self.settings) is None:
            raise NotImplementedError("only CFA with a coreset and without training can leave an image out")
        cache, sampled, chosen = self._fit(images, seed, progress)
        return self._left_out(cache, self.bank[:0], sampled, chosen, groups, progress)

    @classmethod
    def can_update(cls, settings: Any) -> bool:
        """Return whether the bank is a coreset and nothing is trained: a coreset of coresets covers all images."""
        return _is_untrained_coreset(settings)

    @torch.no_grad()
    def update(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], groups: Int[Tensor, "n"], *, seed: int, progress: Progress
    ) -> Iterator[LeftOut]:
        """Choose the bank anew from its vectors and the patches of new images (merge and reduce).

        The descriptor stays that of `fit`: the vectors could not be described anew.
        """
        if not self.can_update(self.settings):
            raise NotImplementedError("only CFA with a coreset and without training can learn more images")
        generator = torch.Generator().manual_seed(seed)
        cache = PatchCache.collect(self.pooled_levels(batch) for batch in progress.track(images, "reading features"))
        self.images_seen = self.images_seen + cache.images
        old = self.bank + self.center
        vectors, sampled, chosen = self._bank_of_patches(cache, old, self._bank_size(cache), generator, progress)
        self._set_bank(vectors)
        axes = self._rotate()
        return self._left_out(cache, old @ axes, sampled, chosen, groups, progress)

    @torch.no_grad()
    def _left_out(
        self,
        cache: PatchCache,
        old: Float[Tensor, "_o d"],
        sampled: Int[Tensor, "s"],
        chosen: Int[Tensor, "m"],
        groups: Int[Tensor, "n"],
        progress: Progress,
    ) -> Iterator[LeftOut]:
        """Return the map of each image without its group.

        `sampled` and `chosen` are numbers of candidates: first the vectors `old` of the bank before, then the patches.
        """

        def describe(candidates: Int[Tensor, "_r"]) -> Float[Tensor, "_r d"]:
            return self._describe_candidates(cache, old, candidates) - self.center

        def group_of(candidates: Int[Tensor, "_r"]) -> Int[Tensor, "_r"]:
            images = (candidates - len(old)).clamp(min=0) // cache.positions
            return torch.where(candidates < len(old), OLD, groups[images]).to(cache.device)

        affine, wanted = self.affine(), min(max(NEAREST, self.settings.neighbors), len(self.bank))
        found = [
            self.search.nearest(self.project(cache.pyramid(index)), affine, self.bank, self.squares, wanted)
            for index in progress.track(range(cache.images), "searching neighbors", cache.images)
        ]
        found_old = nearest_centered(old - self.center, self.bank, self.squares, wanted)
        distances, columns = (torch.cat(one) for one in zip(found_old, *found, strict=True))
        numbers, owners = sampled.to(cache.device), group_of(chosen)
        added = substitutes(
            (distances[numbers], columns[numbers]),
            group_of(sampled),
            self.bank,
            owners,
            lambda rows: describe(sampled[rows.cpu()]),
        )

        def left_out(index: int) -> LeftOut:
            group = int(groups[index])
            rows = added.get(group, sampled[:0]).cpu()
            exchange = Exchange(owners == group, describe(sampled[rows]))
            queries = sum_levels(self.project(cache.pyramid(index)), affine)[0]
            left, _ = exchange.nearest(found[index], queries, self.bank, self.squares, min(self._scored, exchange.size))
            return self._map(left, *cache.sizes[0])[0], None

        return map(torch.no_grad()(left_out), range(cache.images))

    def _fit(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], seed: int, progress: Progress
    ) -> tuple[PatchCache, Int[Tensor, "_s"], Int[Tensor, "_m"]]:
        """Fit, and return the cached features, and the numbers of the sampled patches and of those in the bank.

        Patches are numbered image by image. A bank that is no coreset has no patches.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            cache = PatchCache.collect(
                self.pooled_levels(batch) for batch in progress.track(images, "reading features")
            )
            self.images_seen = torch.tensor(cache.images, device=cache.device)
            self._initialize(cache, generator)
            sampled, chosen = self._build_bank(cache, seed, generator, progress)
        if self.settings.losses != "none" and self.settings.steps:
            self._train_descriptor(cache, generator, progress)
        self._rotate()
        return cache, sampled, chosen

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return δ_1 · softmin weight of δ_1 for each position (eq. of the anomaly score), and no image score."""
        return self.score_levels(self.pooled_levels(images)), None

    def _cells(self) -> list[int]:
        """Return the positions of each level along a cell of the grid, by strides: several levels may share one."""
        strides = [self.backbone.strides[position] for position in self.backbone.positions(self.settings.levels)]
        level = self.settings.grid_level
        if level is None:
            return [1] * len(strides)
        known = dict(zip(self.backbone.levels, self.backbone.strides, strict=True))
        grid = min(known.get(level, 2**level), strides[-1])
        return [max(1, grid // stride) for stride in strides]

    @property
    def _is_excepted(self) -> bool:
        return self.settings.variant == "released" and self.backbone.name == EXCEPTED

    @property
    def _scored(self) -> int:
        return min(self.settings.neighbors, self.bank.shape[0])

    def score_levels(self, levels: list[Tensor]) -> Float[Tensor, "b h w"]:
        """Return the raw anomaly map from the pooled levels."""
        height, width = levels[0].shape[-2:]
        distances = self.search(self.project(levels), self.affine(), self.bank, self.squares, self._scored)
        return self._map(distances, height, width)

    @staticmethod
    def _map(distances: Float[Tensor, "n k"], height: int, width: int) -> Float[Tensor, "_b height width"]:
        return certainty_score(distances).reshape(-1, height, width)

    def pooled_levels(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return the pooled levels that this method uses, fine to coarse, none finer than the grid."""
        used = self.backbone.select(images, self.settings.levels)
        pooled = [pool_to_grid(pool(level), cell) for level, cell in zip(used, self._cells(), strict=True)]
        return [level / level.shape[1] for level in pooled] if self._is_excepted else pooled

    def project(self, levels: list[Tensor]) -> list[Tensor]:
        """Return each pooled level times its slice of the descriptor, b x h x w x d; their sum describes a patch."""
        slices = self.weight[:, :-2].split([level.shape[1] for level in levels], dim=1)
        return [level.permute(0, 2, 3, 1) @ part.T for level, part in zip(levels, slices, strict=True)]

    def affine(self) -> Float[Tensor, "3 d"]:
        """Return the contribution of the position to a description (see `sum_levels`), minus the bank's center."""
        return torch.cat([(self.bias - self.center)[None], self.weight[:, -2:].T])

    def _describe_patches(self, patches: Float[Tensor, "t c"], places: Float[Tensor, "t 2"]) -> Float[Tensor, "t d"]:
        return torch.cat([patches, places], dim=1) @ self.weight.T + self.bias

    def _initialize(self, cache: PatchCache, generator: torch.Generator) -> None:
        """Initialize the descriptor.

        `torch`: U(±1/√fan_in), the default that the released code keeps. `he`: N(0, 2/fan_in), as in the paper.
        `whitened`: from the patches of each level, without the position.
        """
        fan_in = sum(cache.channels) + 2
        rows = max(1, sum(cache.channels) * (2 if self._is_excepted else 1) // self.settings.gamma_d)
        bound = fan_in**-0.5
        bias = (torch.rand(rows, generator=generator) * 2 - 1) * bound
        if self.settings.initialization == "whitened":
            weight = self._whitened(cache, generator)
            bias = torch.zeros(len(weight))
        elif self.settings.initialization == "torch":
            weight = (torch.rand(rows, fan_in, generator=generator) * 2 - 1) * bound
        else:
            weight = torch.randn(rows, fan_in, generator=generator) * (2 / fan_in) ** 0.5
        radius = torch.tensor(self.settings.radius)
        self.weight, self.bias, self.radius = (
            nn.Parameter(first.to(cache.device), requires_grad=False) for first in (weight, bias, radius)
        )

    def _whitened(self, cache: PatchCache, generator: torch.Generator) -> Float[Tensor, "_d _c"]:
        """Return the weights of a whitened descriptor: blocks of the levels on the diagonal, zero for the position."""
        blocks = []
        weights = self.settings.level_weights or (1.0,) * len(cache.channels)
        for number, (channels, factor) in enumerate(zip(cache.channels, weights, strict=True)):
            positions = cache.levels[number].shape[1]
            chosen = torch.randperm(cache.images * positions, generator=generator)[:WHITENING_PATCHES]
            patches = cache.take(number, chosen // positions, chosen % positions)
            kept = min(self.settings.whitened_channels, max(1, channels // self.settings.gamma_d))
            blocks.append(partial_whitening(patches, kept, self.settings.whitening) * factor)
        return F.pad(torch.block_diag(*blocks), (0, 2))

    def _build_bank(
        self, cache: PatchCache, seed: int, generator: torch.Generator, progress: Progress
    ) -> tuple[Int[Tensor, "_s"], Int[Tensor, "_m"]]:
        """Build the memory bank with the untrained descriptor, and return patches as `_fit` does.

        Training does not change the bank.
        """
        sampled = chosen = torch.empty(0, dtype=torch.long)
        size = self._bank_size(cache)
        places = coordinates(*cache.sizes[0], cache.device)
        if self.settings.bank == "mean":
            vectors = self._describe_patches(cache.mean(), places)
            if self.settings.gamma_c > 1:
                vectors = k_means(vectors, size, seed=seed)
        elif self.settings.bank == "algorithm1":
            described = (self._describe_patches(image, places) for image in cache.all_images())
            vectors = algorithm_1(described, size, self.settings.beta, seed)
        else:
            none = self.weight.new_empty(0, len(self.weight))
            vectors, sampled, chosen = self._bank_of_patches(cache, none, size, generator, progress)
        self._set_bank(vectors)
        return sampled, chosen

    def _set_bank(self, vectors: Float[Tensor, "m d"]) -> None:
        self.center = vectors.mean(0)
        self.bank = vectors - self.center
        self.squares = self.bank.square().sum(1)

    def _bank_size(self, cache: PatchCache) -> int:
        """Return the number of memory vectors for all images seen."""
        size = max(1, cache.positions * self.settings.bank_ratio // self.settings.gamma_c)
        if self.settings.bank in ("mean", "algorithm1"):
            return size
        total = int(self.images_seen) * cache.positions
        # With few images, a vector per second patch would copy the images at high cost.
        return min(size, LARGEST_PATCH_BANK, max(total // PATCHES_PER_VECTOR, min(cache.positions, total)))

    def _bank_of_patches(
        self,
        cache: PatchCache,
        old: Float[Tensor, "_o d"],
        size: int,
        generator: torch.Generator,
        progress: Progress,
    ) -> tuple[Float[Tensor, "m d"], Int[Tensor, "_s"], Int[Tensor, "_m"]]:
        """Return memory vectors chosen from those of the bank before and from described patches, or a sample of them.

        And the numbers of the sampled candidates, and of those chosen (see `_left_out`); none are chosen as clusters.
        """
        # Ascending, so that neighbors in memory are read together.
        patches = torch.randperm(cache.images * cache.positions, generator=generator)[:SAMPLED_PATCHES].sort().values
        sampled = torch.cat([torch.arange(len(old)), len(old) + patches])
        points = self._describe_candidates(cache, old, sampled)
        if self.settings.bank == "clusters":
            start = points[torch.randperm(len(points), generator=generator)[:size].to(points.device)]
            return k_means(points, size, start=start, iterations=ITERATIONS), sampled, sampled[:0]
        # Few principal axes hold almost all of the distances, at a fraction of the cost.
        centered = points - points.mean(0)
        few = centered @ principal_axes(centered)[:, :SELECTION_CHANNELS]
        chosen = torch.tensor(list(progress.track(k_centers(few, size, generator), "choosing the coreset", size)))
        return points[chosen.to(points.device)], sampled, sampled[chosen]

    def _describe_candidates(
        self, cache: PatchCache, old: Float[Tensor, "_o d"], candidates: Int[Tensor, "r"]
    ) -> Float[Tensor, "r d"]:
        """Return the vectors of candidates: some of the bank before, then, ascending or not, described patches."""
        places = coordinates(*cache.sizes[0], cache.device)
        is_old = candidates < len(old)
        described = torch.empty(len(candidates), len(self.weight), device=cache.device)
        described[is_old] = old[candidates[is_old].to(old.device)]
        # In parts: all features would take several times the memory of the descriptions.
        for rows in (~is_old).nonzero()[:, 0].split(LARGEST_PATCH_BANK):
            patches = candidates[rows] - len(old)
            where = patches % cache.positions
            features = cache.gather(patches // cache.positions, where)
            described[rows.to(cache.device)] = self._describe_patches(features, places[where.to(cache.device)])
        return described

    def _rotate(self) -> Float[Tensor, "d d"]:
        """Rotate the described space to the principal axes of the bank, which keeps all distances; return the axes.

        The neighbor search then finds its candidates in few channels.
        """
        axes = principal_axes(self.bank)
        self.weight = nn.Parameter(axes.T @ self.weight, requires_grad=False)
        self.bias = nn.Parameter(axes.T @ self.bias, requires_grad=False)
        self.center = self.center @ axes
        self.bank = self.bank @ axes
        self.squares = self.bank.square().sum(1)
        return axes

    def _train_descriptor(self, cache: PatchCache, generator: torch.Generator, progress: Progress) -> None:
        parameters = [self.weight, self.bias] + ([self.radius] if self.settings.learn_radius else [])
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(
            parameters,
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            amsgrad=True,
        )
        places = coordinates(*cache.sizes[0], cache.device)
        batches = _batches(cache.images, self.settings.images_per_step, generator)
        for step in progress.track(range(self.settings.steps), "training", self.settings.steps):
            chosen = next(batches)
            patches = torch.randperm(len(chosen) * cache.positions, generator=generator)
            if self.settings.patches_per_step:
                patches = patches[: self.settings.patches_per_step]
            where = patches % cache.positions
            features = cache.gather(chosen[patches // cache.positions], where)
            loss, numbers = self._loss(features, places[where.to(cache.device)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress.note(**numbers)
            self.step_done(step + 1, self.settings.steps)
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None

    def _loss(
        self, features: Float[Tensor, "t c"], places: Float[Tensor, "t 2"]
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        settings = self.settings
        described = self._describe_patches(features, places) - self.center
        wanted = min(settings.neighbors + settings.hard_negatives, self.bank.shape[0])
        distances = nearest_distances(described, self.bank, self.squares, wanted)
        near, hard = distances[:, : settings.neighbors], distances[:, settings.neighbors :]
        loss = attraction = (near - self.radius**2).clamp(min=0).mean()
        repelled = 0.0
        if settings.losses == "both" and hard.numel():
            pushed = (self.radius**2 - hard - settings.alpha).clamp(min=0)
            loss = attraction + pushed.mean()
            repelled = float((pushed > 0).float().mean())
        attracted = float((near > self.radius**2).float().mean())
        numbers = {"loss": float(loss.detach()), "radius": float(self.radius.detach())}
        return loss * settings.loss_scale, {**numbers, "attracted": attracted, "repelled": repelled}


def _is_untrained_coreset(settings: CFASettings) -> bool:
    """Return whether each memory vector is the description of a patch, and the descriptor is not trained."""
    return settings.bank == "coreset" and (settings.losses == "none" or settings.steps == 0)


def certainty_score(distances: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    """Return δ_1 · exp(-δ_1) / Σ_k exp(-δ_k), from ascending squared distances δ²."""
    roots = distances.sqrt()
    return roots[:, 0] * torch.softmax(-roots, dim=1)[:, 0]


def algorithm_1(
    described: Iterable[Float[Tensor, "_n d"]], size: int, beta: float, seed: int
) -> Float[Tensor, "size d"]:
    """Return the bank of the paper's Algorithm 1.

    K-means of the first image gives the centers. Then, for each image, each center in turn takes the nearest patch that
    no earlier center has taken, and moves by the exponential moving average with weight β.
    """
    bank = torch.empty(0)
    for image in described:
        if not bank.numel():
            bank = k_means(image, size, seed=seed)
        # Sequential, hence on the CPU.
        distances = torch.cdist(bank.double(), image.double()).cpu()
        taken = torch.zeros(image.shape[0], dtype=torch.double)
        matched = torch.empty(len(bank), dtype=torch.long)
        for center in range(len(bank)):
            matched[center] = (distances[center] + taken).argmin()
            taken[matched[center]] = torch.inf
        bank = (1 - beta) * bank + beta * image[matched.to(image.device)]
    return bank


def _batches(images: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of image indices forever: reshuffled each epoch, the incomplete last batch dropped."""
    size = min(size, images)
    while True:
        order = torch.randperm(images, generator=generator)
        yield from order.split(size)[: images // size]
