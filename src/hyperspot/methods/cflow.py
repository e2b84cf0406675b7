"""CFLOW-AD (Gudovskiy, Ishizaka and Kozuka, WACV 2022, arXiv 2107.12571).

For each level of the frozen pyramid a normalizing flow learns how likely a feature vector is at its place: coupling
blocks turn it into a standard Gaussian, and are told the place by a sinusoidal code. What is improbable is anomalous.
Memory does not grow with the photos; only flows are kept.

Levels: the paper takes the outputs of stages 2 to 4 of its network. Backbones here end at stage 3, so it is C3 and C4:
the most abstract one is missing. C2 can be had; on transistor it tells least of all.

Scores: the paper divides the likelihoods of a level by the largest one in the whole test set. Here it is the largest
one in the good training photos, so a score depends on no other photo; what is likelier still counts as fully normal.
"""

import copy
import math
from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from hyperspot.backbones import Backbone
from hyperspot.features.patches import PatchCache, align
from hyperspot.methods.base import Method, MethodSettings
from hyperspot.methods.training import steps_with_rates, without_storage
from hyperspot.utils.progress import SILENT, Progress

CLAMP = 1.9
"""Bound of the logarithm of a coupling's scale, as released."""
DAMPING = 0.1
"""Of what the network of a coupling gives, so that training starts near to the identity (FrEIA)."""
SOFTNESS = 0.5
"""β of the softplus of the scales of a whole block, as released."""
LEAST_SHARE, SMALLEST_DEVIATION = 0.1, 1e-3
"""Of a channel, by the mean deviation of its level and in absolute terms; features are of the order of 1."""
WARM_UP, FLOOR = 2 / 25, 1e-3
"""Two of 25 epochs from a tenth of the learning rate, then a cosine to a thousandth, as released."""
PERIOD = 10_000.0
"""Longest period of the code of places, by 2π pixels of the level (Vaswani et al. 2017)."""


class CFlowSettings(MethodSettings):
    """The settings of CFLOW.

    Attributes:
        levels: Levels of the pyramid, 2 to 4, each with a flow of its own.
        blocks: Coupling blocks of a flow; 8 in the paper.
        condition: Length of the code of a place, a multiple of 4; 128 in the paper.
        steps: Steps of training, each with places of every level. Released: 25 x 8 epochs over all places of all
            photos, 256 at a time: for 200 photos of 256 pixels, 160 000 steps at C3 alone.
        places_per_step: Places drawn of all photos, for each level and step; 256 as released, where this number
            was found to decide nothing but the time.
        learning_rate: Of Adam, the highest it gets; 2e-4 as released, whose budget is a hundred times ours.

    """

    levels: tuple[Literal[2, 3, 4], ...] = Field(default=(3, 4), min_length=1)
    blocks: int = Field(default=8, ge=1)
    condition: int = Field(default=128, ge=4, multiple_of=4)
    steps: int = Field(default=1500, ge=1)
    places_per_step: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)


class Coupling(nn.Module):
    """One conditional affine coupling block, then a scale and shift of each channel, then a fixed rotation.

    The first half of the channels and the condition say how the second is scaled and shifted (Dinh et al., ICLR
    2017). The rotation, a random orthogonal matrix, mixes both for the next block.
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
        """Return the transformed vectors, and the logarithm of the determinant of the Jacobian of each."""
        kept, changed = values.split([values.shape[1] - self.changed, self.changed], dim=1)
        logarithm, offset = self._coupled(kept, condition)
        joined = torch.cat([kept, changed * logarithm.exp() + offset], dim=1)
        scales = self._scales()
        return (joined * scales + self.shift) @ self.rotation, logarithm.sum(1) + scales.log().sum()

    def inverse(self, values: Float[Tensor, "n c"], condition: Float[Tensor, "n p"]) -> Float[Tensor, "n c"]:
        """Return the vectors that `forward` turns into these."""
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
    """Coupling blocks in a row, on features each channel of which is standardized over the good photos.

    The scales of the blocks could learn as much, in some ten thousand steps (a start from the data: Kingma and
    Dhariwal, NeurIPS 2018, section 3.1). Likelihoods are those of standardized features.
    """

    center: Tensor
    deviation: Tensor

    def __init__(self, channels: int, condition: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.empty(channels))
        self.register_buffer("deviation", torch.empty(channels))
        self.blocks = nn.ModuleList(Coupling(channels, condition) for _ in range(blocks))

    def forward(self, values: Float[Tensor, "n c"], condition: Float[Tensor, "n p"]) -> Float[Tensor, "n"]:
        """Return the logarithm of the likelihood of each vector by its number of channels, given its place."""
        values = (values - self.center) / self.deviation
        determinant = values.new_zeros(values.shape[0])
        for block in self.blocks:
            values, added = block(values, condition)
            determinant = determinant + added
        channels = values.shape[1]
        gaussian = -0.5 * values.square().sum(1) - channels / 2 * math.log(2 * math.pi)
        return (gaussian + determinant) / channels


class CFlow(Method):
    """A conditional flow per level, and the largest likelihood in the good photos."""

    name: ClassVar[str] = "cflow"
    Settings: ClassVar[type[MethodSettings]] = CFlowSettings
    settings: CFlowSettings
    highest: Tensor
    flows: nn.ModuleList

    def __init__(self, backbone: Backbone, settings: CFlowSettings | None = None) -> None:
        super().__init__(backbone, settings)
        self.add_module("flows", self._fresh())
        self.register_empty_buffers("highest")

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Cache the frozen features, train the flows on random places, then look for the largest likelihoods."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            cache = PatchCache.collect(self._used(batch) for batch in progress.track(images, "reading features"))
        codes = [place_codes(self.settings.condition, *size, device=cache.device) for size in cache.sizes]
        flows = self._fresh()
        for flow, level in zip(flows, cache.levels, strict=True):
            for block in flow.blocks:  # type: ignore[union-attr]
                _initialize(block, generator)
            flow.center, flow.deviation = _moments(level)
        flows.to(cache.device).train().requires_grad_(True)
        optimizer = torch.optim.Adam(flows.parameters(), lr=self.settings.learning_rate)
        self.finalize_for_inference = lambda: self._take(copy.deepcopy(flows), cache, codes, SILENT)
        for step in steps_with_rates(
            self.settings.steps, optimizer, progress, "training", warm_up=WARM_UP, floor=FLOOR
        ):
            loss = torch.zeros((), device=cache.device)
            for number, (flow, code) in enumerate(zip(flows, codes, strict=True)):
                photos = torch.randint(cache.images, (self.settings.places_per_step,), generator=generator)
                places = torch.randint(len(code), photos.shape, generator=generator)
                features, code = cache.take(number, photos, places), code[places.to(cache.device)]
                loss = loss - F.logsigmoid(flow(features, code)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress.note(step=step + 1, loss=float(loss.detach()))
        self.finalize_for_inference = None
        self._take(flows, cache, codes, progress)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return Σ_levels (1 - p / the largest p in the good photos) at each place of the finest level used."""
        levels = self._used(images)
        height, width = levels[0].shape[-2:]
        total = levels[0].new_zeros(levels[0].shape[0], 1, height, width)
        for flow, level, highest in zip(self.flows, levels, self.highest.unbind(), strict=True):
            code = place_codes(self.settings.condition, *level.shape[-2:], device=level.device)
            vectors = level.flatten(2).transpose(1, 2)
            conditions = code.expand(vectors.shape[0], -1, -1)
            likelihood = flow(vectors.flatten(0, 1), conditions.flatten(0, 1)).reshape(-1, 1, *level.shape[-2:])
            total = total + align(1 - (likelihood - highest).clamp(max=0).exp(), height, width)
        return total[:, 0], None

    def _take(self, flows: nn.ModuleList, cache: PatchCache, codes: list[Tensor], progress: Progress) -> None:
        """Judge with these flows from now on, which are not trained further."""
        for parameter in flows.parameters():
            parameter.grad = None
        self.add_module("flows", flows.eval().requires_grad_(False))
        self.highest = self._largest(cache, codes, progress)

    def _fresh(self) -> nn.ModuleList:
        channels = [self.backbone.channels[level - 2] for level in sorted(self.settings.levels)]
        return nn.ModuleList(
            without_storage(Flow, one, self.settings.condition, self.settings.blocks) for one in channels
        )

    def _used(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        pyramid = self.backbone(images)
        return [pyramid[level - 2] for level in sorted(self.settings.levels)]

    @torch.no_grad()
    def _largest(self, cache: PatchCache, codes: list[Tensor], progress: Progress) -> Float[Tensor, "levels"]:
        """Return the largest likelihood of each level, photo by photo."""
        highest = torch.full((len(codes),), -torch.inf, device=cache.device)
        for photo in progress.track(range(cache.images), "judging good photos", cache.images):
            for number, (flow, code) in enumerate(zip(self.flows, codes, strict=True)):
                highest[number] = torch.maximum(highest[number], flow(cache.take(number, photo), code).max())
        return highest


def place_codes(
    length: int, height: int, width: int, *, device: torch.device | None = None
) -> Float[Tensor, "n length"]:
    """Return the code of each place, row by row: sines and cosines in turn, first of the column, then of the row.

    Frequencies fall geometrically from 1 toward 1 / `PERIOD`, a quarter of the length of them for each axis
    (two-dimensional form of Vaswani et al. 2017, section 3.5).
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
    """Return mean and deviation of each channel, photo by photo in double precision.

    A channel that hardly varies in good photos is not blown up: no deviation counts as less than a share of the mean.
    """
    count = level.shape[0] * level.shape[1]
    nothing = torch.zeros((), device=level.device)
    mean = sum((photo.sum(0, dtype=torch.double) for photo in level), nothing) / count
    squares = sum(((photo.double() - mean).square().sum(0) for photo in level), nothing) / count
    deviation = squares.sqrt()
    least = max(SMALLEST_DEVIATION, LEAST_SHARE * float(deviation.mean()))
    return mean.float(), deviation.clamp(min=least).float()


def _initialize(block: Coupling, generator: torch.Generator) -> None:
    """Give a block without storage its first values: scales of 1, shifts of 0, a rotation drawn uniformly."""
    block.to_empty(device="cpu")
    for layer in (block.widen, block.narrow):
        bound = layer.in_features**-0.5
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    nn.init.constant_(block.scale, math.log(math.expm1(SOFTNESS / DAMPING)) / SOFTNESS)
    nn.init.zeros_(block.shift)
    rotation, triangle = torch.linalg.qr(torch.randn(block.rotation.shape, dtype=torch.double, generator=generator))
    # The signs make the factorization unique, without which the draw would not be uniform (Mezzadri 2007).
    block.rotation.copy_(rotation * triangle.diagonal().sign())
