"""CFLOW-AD (Gudovskiy, Ishizaka and Kozuka, WACV 2022, arXiv 2107.12571).

For each level of the frozen pyramid a normalizing flow models the likelihood of a feature vector at its position:
coupling blocks, conditioned on a sinusoidal position encoding, map it to a standard Gaussian. Improbable features are
anomalous. Memory does not grow with the number of images; only the flows are stored.

Levels: the paper uses the outputs of stages 2 to 4 of its network. The paper's networks end at stage 3 here, so the
default is C3 and C4, without the coarsest one. C2 contributes least on transistor.

Scores: the paper divides the likelihoods of a level by their maximum over the test set. Here it is the maximum over the
good training images, so that a score depends on no other test image; higher likelihoods count as fully normal.
"""

import copy
import math
from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from hyperspot.backbones import Backbone
from hyperspot.features.patches import PatchCache, align
from hyperspot.methods.base import Level, Method, MethodSettings
from hyperspot.methods.training import steps_with_rates, without_storage
from hyperspot.utils.progress import SILENT, Progress

CLAMP = 1.9
"""Bound of the log scale of a coupling, as released."""
DAMPING = 0.1
"""Factor of the output of a coupling's network, so that training starts near the identity (FrEIA)."""
SOFTNESS = 0.5
"""β of the softplus of a block's scales, as released."""
LEAST_SHARE, SMALLEST_DEVIATION = 0.1, 1e-3
"""Minimum standard deviation of a channel, relative to the mean of its level and absolute; features are near 1."""
WARM_UP, FLOOR = 2 / 25, 1e-3
"""Warm-up of two of 25 epochs from a tenth of the learning rate, then cosine decay to a thousandth, as released."""
PERIOD = 10_000.0
"""Longest period of the position encoding, in 2π positions of the level (Vaswani et al. 2017)."""


class CFlowSettings(MethodSettings):
    """The settings of CFLOW.

    Attributes:
        levels: Pyramid levels of the backbone; each has its own flow.
        blocks: Coupling blocks per flow; 8 in the paper.
        condition: Length of the position encoding, a multiple of 4; 128 in the paper.
        steps: Training steps, each with positions of every level. Released: 25 x 8 epochs over all positions of all
            images in batches of 256: for 200 images of 256 pixels, 160 000 steps at C3 alone.
        places_per_step: Positions per level and step, drawn from all images; 256 as released. It affects time, not
            accuracy.
        learning_rate: Maximum learning rate of Adam; 2e-4 as released, with a hundred times the steps.

    """

    levels: tuple[Level, ...] = Field(default=(3, 4), min_length=1)
    blocks: int = Field(default=8, ge=1)
    condition: int = Field(default=128, ge=4, multiple_of=4)
    steps: int = Field(default=1500, ge=1)
    places_per_step: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)


class Coupling(nn.Module):
    """A conditional affine coupling block, then a scale and shift per channel, then a fixed rotation.

    The first half of the channels and the condition determine the scale and shift of the second half (Dinh et al., ICLR
    2017). The rotation, a random orthogonal matrix, mixes both halves for the next block.
    """

    rotation: Tensor

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.changed = channels // 2
        entering = channels - self.changed + condition
        self.widen = nn.Linear(entering, 2 * entering)
        self.narrow = nn.Linear(2 * entering, 2 * self.changed)
        self.scale = nn.Parameter(torch.empty(channels))
        self.shift = nn.Parameter(torch.empty(channels))
        self.register_buffer("rotation", torch.empty(channels, channels))

    def forward(
        self, values: Float[Tensor, "n c"], condition: Float[Tensor, "n p"]
    ) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n"]]:
        """Return the transformed vectors and the log determinant of the Jacobian of each."""
        kept, changed = values.split([values.shape[1] - self.changed, self.changed], dim=1)
        logarithm, offset = self._coupled(kept, condition)
        joined = torch.cat([kept, changed * logarithm.exp() + offset], dim=1)
        scales = self._scales()
        return (joined * scales + self.shift) @ self.rotation, logarithm.sum(1) + scales.log().sum()

    def inverse(self, values: Float[Tensor, "n c"], condition: Float[Tensor, "n p"]) -> Float[Tensor, "n c"]:
        """Return the vectors that `forward` maps to these."""
        joined = (values @ self.rotation.T - self.shift) / self._scales()
        kept, changed = joined.split([joined.shape[1] - self.changed, self.changed], dim=1)
        logarithm, offset = self._coupled(kept, condition)
        return torch.cat([kept, (changed - offset) * (-logarithm).exp()], dim=1)

    def _coupled(
        self, kept: Float[Tensor, "n k"], condition: Float[Tensor, "n p"]
    ) -> tuple[Float[Tensor, "n _m"], Float[Tensor, "n _m"]]:
        given = self.narrow(F.relu(self.widen(torch.cat([kept, condition], dim=1)))) * DAMPING
        logarithm, offset = given.chunk(2, dim=1)
        return CLAMP * torch.tanh(logarithm), offset

    def _scales(self) -> Float[Tensor, "c"]:
        return DAMPING * F.softplus(self.scale, beta=SOFTNESS)


class Flow(nn.Module):
    """A sequence of coupling blocks on features standardized per channel over the good images.

    The standardization replaces some ten thousand steps of training the scales (data-dependent initialization: Kingma
    and Dhariwal, NeurIPS 2018, section 3.1). Likelihoods are those of the standardized features.
    """

    center: Tensor
    deviation: Tensor

    def __init__(self, channels: int, condition: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.empty(channels))
        self.register_buffer("deviation", torch.empty(channels))
        self.blocks = nn.ModuleList(Coupling(channels, condition) for _ in range(blocks))

    def forward(self, values: Float[Tensor, "n c"], condition: Float[Tensor, "n p"]) -> Float[Tensor, "n"]:
        """Return the log-likelihood of each vector given its position, divided by the number of channels."""
        values = (values - self.center) / self.deviation
        determinant = values.new_zeros(values.shape[0])
        for block in self.blocks:
            values, added = block(values, condition)
            determinant = determinant + added
        channels = values.shape[1]
        gaussian = -0.5 * values.square().sum(1) - channels / 2 * math.log(2 * math.pi)
        return (gaussian + determinant) / channels


class CFlow(Method):
    """A conditional flow per level, and the maximum likelihood over the good images."""

    name: ClassVar[str] = "cflow"
    Settings: ClassVar[type[MethodSettings]] = CFlowSettings
    settings: CFlowSettings
    highest: Tensor
    flows: nn.ModuleList

    def __init__(self, backbone: Backbone, settings: CFlowSettings | None = None) -> None:
        super().__init__(backbone, settings)
        self._positions = backbone.positions(self.settings.levels)
        self.add_module("flows", self._fresh())
        self.register_empty_buffers("highest")

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Cache the frozen features, train the flows on random positions, then find the maximum likelihoods."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            cache = PatchCache.collect(self._levels(batch) for batch in progress.track(images, "reading features"))
        codes = [position_codes(self.settings.condition, *size, device=cache.device) for size in cache.sizes]
        flows = self._fresh()
        for flow, level in zip(flows, cache.levels, strict=True):
            for block in flow.blocks:  # type: ignore[union-attr]
                _initialize(block, generator)
            flow.center, flow.deviation = _moments(level)
        flows.to(cache.device).train().requires_grad_(True)
        optimizer = torch.optim.Adam(flows.parameters(), lr=self.settings.learning_rate)

        def finalize() -> None:
            self._use(copy.deepcopy(flows), cache, codes, SILENT)

        steps = self.settings.steps
        for step in steps_with_rates(steps, optimizer, progress, "training", warm_up=WARM_UP, floor=FLOOR):
            loss = torch.zeros((), device=cache.device)
            for number, (flow, code) in enumerate(zip(flows, codes, strict=True)):
                chosen = torch.randint(cache.images, (self.settings.places_per_step,), generator=generator)
                places = torch.randint(len(code), chosen.shape, generator=generator)
                features, code = cache.take(number, chosen, places), code[places.to(cache.device)]
                loss = loss - F.logsigmoid(flow(features, code)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress.note(loss=float(loss.detach()))
            self.step_done(step + 1, steps, finalize)
        self._use(flows, cache, codes, progress)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return Σ_levels (1 - p / max p over the good images) at each position of the finest level used."""
        levels = self._levels(images)
        height, width = levels[0].shape[-2:]
        total = levels[0].new_zeros(levels[0].shape[0], 1, height, width)
        for flow, level, highest in zip(self.flows, levels, self.highest.unbind(), strict=True):
            code = position_codes(self.settings.condition, *level.shape[-2:], device=level.device)
            vectors = level.flatten(2).transpose(1, 2)
            conditions = code.expand(vectors.shape[0], -1, -1)
            likelihood = flow(vectors.flatten(0, 1), conditions.flatten(0, 1)).reshape(-1, 1, *level.shape[-2:])
            total = total + align(1 - (likelihood - highest).clamp(max=0).exp(), height, width)
        return total[:, 0], None

    def _use(self, flows: nn.ModuleList, cache: PatchCache, codes: list[Tensor], progress: Progress) -> None:
        """Freeze these flows and use them in `forward`."""
        for parameter in flows.parameters():
            parameter.grad = None
        self.add_module("flows", flows.eval().requires_grad_(False))
        self.highest = self._max_likelihoods(cache, codes, progress)

    def _fresh(self) -> nn.ModuleList:
        channels = [self.backbone.channels[position] for position in self._positions]
        return nn.ModuleList(
            without_storage(Flow, one, self.settings.condition, self.settings.blocks) for one in channels
        )

    def _levels(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        return self.backbone.select(images, self.settings.levels)

    @torch.no_grad()
    def _max_likelihoods(self, cache: PatchCache, codes: list[Tensor], progress: Progress) -> Float[Tensor, "levels"]:
        """Return the maximum likelihood of each level, image by image."""
        highest = torch.full((len(codes),), -torch.inf, device=cache.device)
        for image in progress.track(range(cache.images), "scoring good images", cache.images):
            for number, (flow, code) in enumerate(zip(self.flows, codes, strict=True)):
                highest[number] = torch.maximum(highest[number], flow(cache.take(number, image), code).max())
        return highest


def position_codes(
    length: int, height: int, width: int, *, device: torch.device | None = None
) -> Float[Tensor, "n length"]:
    """Return the encoding of each position, row by row: interleaved sines and cosines of the column, then of the row.

    Frequencies fall geometrically from 1 toward 1 / `PERIOD`; each axis has a quarter of the length (two-dimensional
    form of Vaswani et al. 2017, section 3.5).
    """
    frequencies = PERIOD ** (-torch.arange(0, length // 2, 2, dtype=torch.double, device=device) / (length // 2))
    axes = []
    for side in (width, height):
        angles = torch.arange(side, dtype=torch.double, device=device)[:, None] * frequencies
        axes.append(torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1))
    across, down = axes
    grid = [across.expand(height, -1, -1), down[:, None].expand(-1, width, -1)]
    return torch.cat(grid, dim=2).flatten(0, 1).float()


def _moments(level: Float[Tensor, "b n c"]) -> tuple[Float[Tensor, "c"], Float[Tensor, "c"]]:
    """Return mean and standard deviation of each channel, accumulated image by image in float64.

    The deviation is clamped to a share of its mean, so that a channel that hardly varies is not amplified.
    """
    count = level.shape[0] * level.shape[1]
    nothing = torch.zeros((), device=level.device)
    mean = sum((image.sum(0, dtype=torch.double) for image in level), nothing) / count
    squares = sum(((image.double() - mean).square().sum(0) for image in level), nothing) / count
    deviation = squares.sqrt()
    least = max(SMALLEST_DEVIATION, LEAST_SHARE * float(deviation.mean()))
    return mean.float(), deviation.clamp(min=least).float()


def _initialize(block: Coupling, generator: torch.Generator) -> None:
    """Initialize a block without storage: scales of 1, shifts of 0, a uniformly random rotation."""
    block.to_empty(device="cpu")
    for layer in (block.widen, block.narrow):
        bound = layer.in_features**-0.5
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    nn.init.constant_(block.scale, math.log(math.expm1(SOFTNESS / DAMPING)) / SOFTNESS)
    nn.init.zeros_(block.shift)
    rotation, triangle = torch.linalg.qr(torch.randn(block.rotation.shape, dtype=torch.double, generator=generator))
    # The signs make the factorization unique; otherwise the rotation is not uniform (Mezzadri 2007).
    block.rotation.copy_(rotation * triangle.diagonal().sign())
