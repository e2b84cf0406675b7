"""What methods share that train a network of their own on the good photos.

Such a network is built without storage; `fit` puts a batch norm after each convolution, draws first weights from a
generator of its own, trains, and folds the norms into the convolutions. So no statistic of a batch can enter a
score, and what is kept is what runs.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hyperspot.backbones.resnet import Basic
from hyperspot.hardware.cpu import native_precision
from hyperspot.utils.progress import Progress

N = TypeVar("N", bound=nn.Module)

CACHE_BYTES = 1_000_000_000
"""Photos kept for training at most; of more a random choice is trained on."""
SETTLING = 16
"""Batches that the statistics of batch norms are taken over in the end."""
STAGES = (64, 128, 256, 512)
"""Channels of the four stages of a ResNet-18, each of two blocks."""


@dataclass(frozen=True)
class ImageCache:
    """Good photos in half precision: of pixels in 0..1 an eighth of an 8-bit step at most is lost.

    They are kept where they come from, and a network that learns from them is put there too.
    """

    pixels: Tensor

    @classmethod
    def collect(cls, batches: Iterable[Float[Tensor, "_b 3 _H _W"]], generator: torch.Generator) -> "ImageCache":
        """Keep all photos, or as many as `CACHE_BYTES` holds, each with the same chance (Vitter 1985, algorithm R).

        Raises ValueError where there is none.
        """
        kept: list[Tensor] = []
        seen = 0
        for batch in batches:
            room = max(1, CACHE_BYTES // (2 * batch[0].numel()))
            for photo in batch.half().contiguous():
                seen += 1
                if len(kept) < room:
                    kept.append(photo.clone())
                elif (place := int(torch.randint(seen, (), generator=generator))) < room:
                    kept[place] = photo.clone()
        if not kept:
            raise ValueError("no image to learn from")
        return cls(torch.stack(kept))

    def __len__(self) -> int:
        """Return how many photos are kept."""
        return len(self.pixels)

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 3 H W"]:
        """Return photos drawn at random, each draw by itself."""
        chosen = torch.randint(len(self), (count,), generator=generator)
        return self.pixels[chosen.to(self.pixels.device)].float()

    def each(self) -> Iterator[Float[Tensor, "1 3 H W"]]:
        """Yield one photo after the other, as a batch of its own."""
        for photo in self.pixels:
            yield photo[None].float()


class ResNet18(nn.Module):
    """A whole ResNet-18 without its classifier (He et al., 2016): images to features at a 32nd of their sides.

    Unlike the frozen one of `backbones` it has all four stages. In a folded network each convolution has a bias.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STAGES[0], 7, stride=2, padding=3)
        self.stages = nn.ModuleList()
        entering = STAGES[0]
        for number, leaving in enumerate(STAGES):
            blocks = nn.ModuleList([Basic(entering, leaving, 2 if number else 1), Basic(leaving, leaving, 1)])
            self.stages.append(blocks)
            entering = leaving

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 512 h w"]:
        """Return the activated features of the last stage; h and w are H / 32 and W / 32, rounded up."""
        # About zero, as the border of zeros is then neither black nor white.
        features = F.relu(self.conv1(2 * images - 1), inplace=True)
        features = F.max_pool2d(features, 3, stride=2, padding=1)
        for blocks in self.stages:
            for block in blocks:  # type: ignore[attr-defined]
                features = F.relu(block(features))
        return features


class Normed(nn.Module):
    """A convolution and the batch norm after it, while a network is trained."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = norm

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d k l"]:
        """Return the normalized features."""
        normalized: Tensor = self.norm(self.convolution(features))
        return normalized


def autocast_precision(device: torch.device) -> torch.autocast:
    """Return the context that a network of convolutions is trained in: bf16 on a CPU that multiplies it faster.

    Weights, their gradients and the optimizer stay in single precision. What leaves the network is to be made single
    before a loss is taken of it.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=device.type == "cpu" and native_precision() == "bf16")


def clone_generator(generator: torch.Generator) -> torch.Generator:
    """Return a generator that draws what this one would draw next, and leaves it where it is."""
    return torch.Generator().set_state(generator.get_state())


def without_storage(build: Callable[..., N], *arguments: Any) -> N:
    """Return a network that is yet to be filled; building it touches no random state."""
    with torch.device("meta"):
        return build(*arguments).eval().requires_grad_(False)


def with_norms(network: N, *, but: tuple[str, ...] = ()) -> N:
    """Put a batch norm after each convolution of a network without storage, in place, but for those named."""
    for name, convolution in list(network.named_modules()):
        if not isinstance(convolution, nn.Conv2d) or name in but:
            continue
        path, _, leaf = name.rpartition(".")
        # Its mean is subtracted anyway, so a bias would be one that no gradient reaches.
        convolution.bias = None
        with torch.device("meta"):
            norm = nn.BatchNorm2d(convolution.out_channels)
        setattr(network.get_submodule(path), leaf, Normed(convolution, norm))
    return network


@torch.no_grad()
def recompute_bn_stats(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the statistics of all batch norms to their mean over some batches, with the weights as they are now.

    The running ones lag behind the weights, which in a short training move fast.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    for batch in batches:
        network(batch)


def fold_norms(network: N) -> N:
    """Replace each convolution and its batch norm by one convolution with a bias, in place, and freeze."""
    network.eval()
    for name, pair in list(network.named_modules()):
        if isinstance(pair, Normed):
            path, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(path), leaf, fuse_conv_bn_eval(pair.convolution, pair.norm))
    for parameter in network.parameters():
        parameter.grad = None
    return network.requires_grad_(False)


def initialize(network: N, generator: torch.Generator, device: torch.device | None = None, *, slope: float = 0.0) -> N:
    """Give a network without storage its first weights, in place, and make them trainable, on a device.

    Convolutions: N(0, 2 / ((1 + slope²) fan_in)) (He et al. 2015; `slope` below zero of the activation). Linear
    layers: U(±1/√fan_in). Biases: 0.
    """
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=slope, generator=generator)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    # Drawn on the CPU, so that they are the same for every device.
    return network.to(device).train().requires_grad_(True)


def steps_with_rates(
    steps: int,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    stage: str,
    *,
    warm_up: float = 0.0,
    floor: float = 0.0,
) -> Iterator[int]:
    """Yield the numbers of the steps, with the learning rate set for each.

    From a tenth it rises evenly to the optimizer's own during the share `warm_up` of the steps, then falls by half a
    cosine to the share `floor` of it (Loshchilov and Hutter 2017, without restarts).
    """
    full = [group["lr"] for group in optimizer.param_groups]
    rising = round(warm_up * steps)
    for step in progress.track(range(steps), stage, steps):
        if step < rising:
            share = 0.1 + 0.9 * step / rising
        else:
            done = (step - rising) / max(1, steps - rising)
            share = floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2
        for group, rate in zip(optimizer.param_groups, full, strict=True):
            group["lr"] = rate * share
        yield step
