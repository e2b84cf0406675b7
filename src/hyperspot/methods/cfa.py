"""CFA: coupled-hypersphere-based feature adaptation (Lee, Lee and Song, IEEE Access 2022, arXiv 2206.04325).

Patch features pass a learnable 1 x 1 CoordConv, the patch descriptor. It is trained so that each described
patch falls into the hyperspheres of its K nearest memory vectors (attraction) and outside those of the J next
ones (repulsion). The memory bank has a fixed size whatever the number of photos. A patch scores by its
distance to the nearest memory vector, weighted by how certain that neighbor is (softmin).

Everything before the distance is affine, so each pyramid level is projected at its own resolution and then
upsampled and added: the same result as upsample, concatenate, project, at a quarter of the work.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from hyperspot.backbones import Backbone
from hyperspot.features.clustering import k_means
from hyperspot.features.coresets import k_centers
from hyperspot.features.neighbors import Search, nearest_distances, principal_axes
from hyperspot.features.patches import PatchCache, coordinates, pool
from hyperspot.methods.base import Method, MethodSettings
from hyperspot.utils.progress import Progress

Variant = Literal["default", "released", "paper"]

VARIANTS: dict[Variant, dict[str, Any]] = {
    "released": {
        "levels": (2, 3, 4),
        "bank": "mean",
        "initialization": "torch",
        "radius": 1e-5,
        "learn_radius": True,
        "output_negative_slope": 0.01,
        "steps": 1500,
    },
    "paper": {
        "levels": (2, 3, 4),
        "bank": "algorithm1",
        "initialization": "he",
        "radius": 1e-5,
        "learn_radius": False,
        "output_negative_slope": 0.0,
        "steps": 1500,
    },
    "default": {
        "levels": (3, 4),
        "bank": "coreset",
        "bank_ratio": 4,
        "gamma_d": 4,
        "initialization": "torch",
        "radius": 1e-5,
        "learn_radius": True,
        "output_negative_slope": 0.0,
        "steps": 0,
    },
}
"""`released`: what the published code does. `paper`: what the text says. `default`: what we recommend."""

EXCEPTED = "efficientnet_b5"
"""The backbone for which the released code makes two exceptions: it divides each pooled level by its channels, and its
descriptor keeps twice the channels."""

LARGEST_PATCH_BANK = 16_384
"""Memory vectors of a bank of patches at most: neither fitting nor scoring then grows with the square of the pixels."""
SAMPLED_PATCHES = 131_072
"""Training patches that a bank of patches is chosen from, at most."""
PATCHES_PER_VECTOR = 8
"""With few photos no more than one memory vector for so many patches is kept, but one for each place."""
ITERATIONS = 3
"""Rounds of K-means: on the development categories eight changed no metric by more than 0.1 points."""

MOST_NEIGHBORS = 1024
"""Neighbors are sorted, so that more would cost more than all distances."""
LARGEST = 1_000_000
"""A bound on counts far beyond any use: over 300 times the longest training published. What exceeds it is a slip."""


class CFASettings(MethodSettings):
    """The settings of CFA. A variant sets all of them; any that is given besides wins.

    A number beyond what the photos and the backbone have is kept as given and counts as all there is: it says what is
    wanted, and how much there is depends on the photos.

    Attributes:
        variant: `default`, `released` or `paper`; see `VARIANTS`.
        levels: Levels of the pyramid, 2 to 4, each once; kept fine to coarse.
        bank: Where the memory vectors come from: the `mean` of each place, `algorithm1` of the paper, a `coreset` of
            training patches that covers the others, or `clusters` of them.
        bank_ratio: Memory vectors per place before γ_c divides them. A bank of `mean` or `algorithm1` has at most one
            per place; one of patches at most `LARGEST_PATCH_BANK`, and with few photos fewer.
        initialization: Of the descriptor: as `torch` does, or `he`.
        gamma_c: The paper's γ_c, which divides the memory vectors; at least one is left.
        gamma_d: The paper's γ_d, which divides the channels; at least one is left. `released` divides twice the
            channels of EfficientNet.
        neighbors: The paper's K, memory vectors that attract; at most all there are.
        hard_negatives: The paper's J, the next ones, which repel; at most all that are left.
        radius: The paper's r, or its first value where it is learned.
        learn_radius: Whether it is learned.
        alpha: The paper's α.
        beta: The paper's β of Algorithm 1 (given no value there; ours is a choice).
        loss_scale: The factor of the loss, 1/ν.
        losses: What is trained by; `none` trains nothing.
        output_negative_slope: Slope below zero of the activation of the levels.
        steps: Of training; 0 trains nothing.
        images_per_step: Photos that the patches of a step come from; at most all there are.
        patches_per_step: Patches of a step; 0 takes all of its photos.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.

    """

    variant: Variant = "default"
    levels: tuple[Literal[2, 3, 4], ...] = Field(min_length=1)
    bank: Literal["mean", "algorithm1", "coreset", "clusters"]
    bank_ratio: int = Field(default=1, ge=1, le=LARGEST_PATCH_BANK)
    initialization: Literal["torch", "he"]
    gamma_c: int = Field(default=1, ge=1, le=LARGEST)
    gamma_d: int = Field(default=1, ge=1, le=LARGEST)
    neighbors: int = Field(default=3, ge=1, le=MOST_NEIGHBORS)
    hard_negatives: int = Field(default=3, ge=1, le=MOST_NEIGHBORS)
    radius: float = Field(ge=0)
    learn_radius: bool
    alpha: float = Field(default=0.1, ge=0)
    beta: float = Field(default=0.1, gt=0, le=1)
    loss_scale: float = Field(default=1000.0, gt=0)
    losses: Literal["none", "attraction", "both"] = "both"
    output_negative_slope: float = Field(ge=0, lt=1)
    steps: int = Field(ge=0, le=LARGEST)
    images_per_step: int = Field(default=4, ge=1, le=LARGEST)
    patches_per_step: int = Field(default=512, ge=0, le=LARGEST)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)

    @field_validator("levels")
    @classmethod
    def _each_level_once(cls, levels: tuple[Literal[2, 3, 4], ...]) -> tuple[Literal[2, 3, 4], ...]:
        if len(set(levels)) < len(levels):
            raise PydanticCustomError("repeated", "each level can be named once")
        return tuple(sorted(levels))

    @model_validator(mode="before")
    @classmethod
    def _fill_from_variant(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {**VARIANTS.get(given.get("variant", "default"), {}), **given}


class CFA(Method):
    """The patch descriptor, its memory bank and the score."""

    name: ClassVar[str] = "cfa"
    Settings: ClassVar[type[MethodSettings]] = CFASettings
    settings: CFASettings
    bank: Tensor
    center: Tensor
    squares: Tensor

    def __init__(self, backbone: Backbone, settings: CFASettings | None = None) -> None:
        super().__init__(backbone, settings)
        self.weight = nn.Parameter(torch.empty(0), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(0), requires_grad=False)
        self.radius = nn.Parameter(torch.empty(0), requires_grad=False)
        self.register_empty_buffers("bank", "center", "squares")
        self.search = Search()

    @classmethod
    def backbone_options(cls, settings: Any) -> dict[str, float]:
        """Ask for the leaky activation at the taps where the variant has it."""
        return {"output_negative_slope": settings.output_negative_slope}

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Cache the frozen features, build the bank with the untrained descriptor, train the descriptor."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            cache = PatchCache.collect(
                self.pooled_levels(batch) for batch in progress.track(images, "reading features")
            )
            self._initialize(cache, generator)
            self._remember(cache, seed, generator, progress)
        if self.settings.losses != "none" and self.settings.steps:
            self._train_descriptor(cache, generator, progress)
        self._turn()

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return δ_1 · softmin weight of δ_1 for each position (eq. of the anomaly score), and no image score."""
        return self.score_levels(self.pooled_levels(images)), None

    @property
    def _is_excepted(self) -> bool:
        return self.settings.variant == "released" and self.backbone.name == EXCEPTED

    @property
    def _scored(self) -> int:
        return min(self.settings.neighbors, self.bank.shape[0])

    def score_levels(self, levels: list[Tensor]) -> Float[Tensor, "b h w"]:
        """Return the raw map from the pooled levels of the pyramid."""
        height, width = levels[0].shape[-2:]
        distances = self.search(self.project(levels), self.affine(), self.bank, self.squares, self._scored)
        return certainty_score(distances).reshape(-1, height, width)

    def pooled_levels(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return the pooled levels that this method uses, fine to coarse."""
        pyramid = self.backbone(images)
        pooled = [pool(pyramid[level - 2]) for level in sorted(self.settings.levels)]
        return [level / level.shape[1] for level in pooled] if self._is_excepted else pooled

    def project(self, levels: list[Tensor]) -> list[Tensor]:
        """Return each pooled level times its slice of the descriptor, b h w d: their sum describes a patch."""
        slices = self.weight[:, :-2].split([level.shape[1] for level in levels], dim=1)
        return [level.permute(0, 2, 3, 1) @ part.T for level, part in zip(levels, slices, strict=True)]

    def affine(self) -> Float[Tensor, "3 d"]:
        """Return what the place adds to a description (see `sum_levels`); the bank's center is taken off on the way."""
        return torch.cat([(self.bias - self.center)[None], self.weight[:, -2:].T])

    def _describe_patches(self, patches: Float[Tensor, "t c"], places: Float[Tensor, "t 2"]) -> Float[Tensor, "t d"]:
        return torch.cat([patches, places], dim=1) @ self.weight.T + self.bias

    def _initialize(self, cache: PatchCache, generator: torch.Generator) -> None:
        """Set the untrained descriptor.

        `torch`: U(±1/√fan_in), what the released code leaves in place. `he`: N(0, 2/fan_in), as the paper says.
        """
        fan_in = sum(cache.channels) + 2
        rows = max(1, sum(cache.channels) * (2 if self._is_excepted else 1) // self.settings.gamma_d)
        bound = fan_in**-0.5
        bias = (torch.rand(rows, generator=generator) * 2 - 1) * bound
        if self.settings.initialization == "torch":
            weight = (torch.rand(rows, fan_in, generator=generator) * 2 - 1) * bound
        else:
            weight = torch.randn(rows, fan_in, generator=generator) * (2 / fan_in) ** 0.5
        radius = torch.tensor(self.settings.radius)
        self.weight, self.bias, self.radius = (
            nn.Parameter(first.to(cache.device), requires_grad=False) for first in (weight, bias, radius)
        )

    def _remember(self, cache: PatchCache, seed: int, generator: torch.Generator, progress: Progress) -> None:
        """Build the memory bank with the untrained descriptor; it stays as it is from then on."""
        size = max(1, cache.positions * self.settings.bank_ratio // self.settings.gamma_c)
        places = coordinates(*cache.sizes[0], cache.device)
        if self.settings.bank == "mean":
            vectors = self._describe_patches(cache.mean(), places)
            if self.settings.gamma_c > 1:
                vectors = _reduce(vectors, size, seed)
        elif self.settings.bank == "algorithm1":
            described = (self._describe_patches(image, places) for image in cache.all_images())
            vectors = algorithm_1(described, size, self.settings.beta, seed)
        else:
            vectors = self._of_patches(cache, size, generator, progress)
        self.center = vectors.mean(0)
        self.bank = vectors - self.center
        self.squares = self.bank.square().sum(1)

    def _of_patches(
        self, cache: PatchCache, size: int, generator: torch.Generator, progress: Progress
    ) -> Float[Tensor, "m d"]:
        """Return memory vectors that stand for the described training patches, or a sample of them."""
        total = cache.images * cache.positions
        # With few photos a vector for every other patch would be a copy of the photos, at a high price.
        size = min(size, LARGEST_PATCH_BANK, max(total // PATCHES_PER_VECTOR, min(cache.positions, total)))
        places = coordinates(*cache.sizes[0], cache.device)
        described = []
        # Part by part: the features of all would take several times the room of what describes them.
        for part in torch.randperm(total, generator=generator)[:SAMPLED_PATCHES].split(LARGEST_PATCH_BANK):
            where = part % cache.positions
            features = cache.gather(part // cache.positions, where)
            described.append(self._describe_patches(features, places[where.to(cache.device)]))
        points = torch.cat(described)
        if self.settings.bank == "clusters":
            return k_means(points, size, generator=generator, iterations=ITERATIONS)
        chosen = list(progress.track(k_centers(points, size, generator), "choosing the memory", size))
        return points[torch.tensor(chosen, device=points.device)]

    def _turn(self) -> None:
        """Turn the described space to the principal axes of the bank, which changes no distance.

        The search for neighbors then needs few channels to find the candidates.
        """
        axes = principal_axes(self.bank)
        self.weight = nn.Parameter(axes.T @ self.weight, requires_grad=False)
        self.bias = nn.Parameter(axes.T @ self.bias, requires_grad=False)
        self.center = self.center @ axes
        self.bank = self.bank @ axes
        self.squares = self.bank.square().sum(1)

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
            progress.note(step=step + 1, **numbers)
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


def certainty_score(distances: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    """Return δ_1 · exp(-δ_1) / Σ_k exp(-δ_k), from ascending squared distances δ²."""
    roots = distances.sqrt()
    return roots[:, 0] * torch.softmax(-roots, dim=1)[:, 0]


def algorithm_1(
    described: Iterable[Float[Tensor, "_n d"]], size: int, beta: float, seed: int
) -> Float[Tensor, "size d"]:
    """Build the bank as the paper's Algorithm 1 says.

    K-means of the first image gives the centers; then, for each image, each center in turn takes the nearest
    patch that no earlier center has taken, and moves by the exponential moving average with weight β.
    """
    bank = torch.empty(0)
    for image in described:
        if not bank.numel():
            bank = _reduce(image, size, seed)
        # One after the other, which is nothing for a GPU.
        distances = torch.cdist(bank.double(), image.double()).cpu()
        taken = torch.zeros(image.shape[0], dtype=torch.double)
        matched = torch.empty(len(bank), dtype=torch.long)
        for center in range(len(bank)):
            matched[center] = (distances[center] + taken).argmin()
            taken[matched[center]] = torch.inf
        bank = (1 - beta) * bank + beta * image[matched.to(image.device)]
    return bank


def _reduce(vectors: Float[Tensor, "n d"], size: int, seed: int) -> Float[Tensor, "size d"]:
    """Return K-means centers, or the vectors themselves where there are no more of them than asked for."""
    if size >= len(vectors):
        return vectors
    # Here, since the import takes half a second and most detectors never need it.
    from sklearn.cluster import KMeans

    fitted = KMeans(size, n_init=1, max_iter=3000, random_state=seed).fit(vectors.cpu().numpy())
    return torch.from_numpy(fitted.cluster_centers_).to(vectors)


def _batches(images: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of image numbers for ever: shuffled anew each time round, the incomplete last one dropped."""
    size = min(size, images)
    while True:
        order = torch.randperm(images, generator=generator)
        yield from order.split(size)[: images // size]
