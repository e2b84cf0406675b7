"""Shared parts of the methods that train their own network.

The network is built without storage. `fit` adds a batch norm after each convolution, initializes the weights from its
own generator, trains, and folds the norms into the convolutions, so that no batch statistics enter a score.
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
"""Maximum size of the training images in memory; beyond it, a random sample is trained on."""
BN_BATCHES = 16
"""Batches that the final statistics of batch norms are computed over."""
STAGES = (64, 128, 256, 512)
"""Channels of the four stages of a ResNet-18, each of two blocks."""


@dataclass(frozen=True)
class ImageCache:
    """Good images in half precision, which loses at most an eighth of an 8-bit step of pixels in 0..1.

    They stay on the device that they come from.
    """

    pixels: Tensor

    @classmethod
    def collect(cls, batches: Iterable[Float[Tensor, "_b 3 _H _W"]], generator: torch.Generator) -> "ImageCache":
        """Keep all images, or a uniform sample of at most `CACHE_BYTES` (Vitter 1985, algorithm R).

        Raises ValueError if there is none.
        """
        kept: list[Tensor] = []
        seen = 0
        for batch in batches:
            room = max(1, CACHE_BYTES // (2 * batch[0].numel()))
            for image in batch.half().contiguous():
                seen += 1
                if len(kept) < room:
                    kept.append(image.clone())
                elif (place := int(torch.randint(seen, (), generator=generator))) < room:
                    kept[place] = image.clone()
        if not kept:
            raise ValueError("no image to train on")
        return cls(torch.stack(kept))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pixels)

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 3 H W"]:
        """Return images drawn at random with replacement."""
        chosen = torch.randint(len(self), (count,), generator=generator)
        return self.pixels[chosen.to(self.pixels.device)].float()

    def each(self) -> Iterator[Float[Tensor, "1 3 H W"]]:
        """Yield the images one by one, as batches of one."""
        for image in self.pixels:
            yield image[None].float()


class ResNet18(nn.Module):
    """A ResNet-18 without its classifier (He et al., 2016): all four stages, features of stride 32.

    In a folded network each convolution has a bias.
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
        # Centered at zero, so that zero padding is neither black nor white.
        features = F.relu(self.conv1(2 * images - 1), inplace=True)
        features = F.max_pool2d(features, 3, stride=2, padding=1)
        for blocks in self.stages:
            for block in blocks:  # type: ignore[attr-defined]
                features = F.relu(block(features))
        return features


class Normed(nn.Module):
    """A convolution and the batch norm after it, during training."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = norm

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d k l"]:
        """Return the normalized features."""
        normalized: Tensor = self.norm(self.convolution(features))
        return normalized


def autocast_precision(device: torch.device) -> torch.autocast:
    """Return the autocast context for training: bf16 on a CPU that computes faster in it.

    Weights, gradients and the optimizer stay in f32. Cast the output of the network to f32 before computing a loss.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=device.type == "cpu" and native_precision() == "bf16")


def clone_generator(generator: torch.Generator) -> torch.Generator:
    """Return a copy of a generator in its present state."""
    return torch.Generator().set_state(generator.get_state())


def without_storage(build: Callable[..., N], *arguments: Any) -> N:
    """Return a network on the meta device; building it draws no random numbers."""
    with torch.device("meta"):
        return build(*arguments).eval().requires_grad_(False)


def with_norms(network: N, *, exclude: tuple[str, ...] = ()) -> N:
    """Add a batch norm after each convolution of a network without storage, in place, except the excluded ones."""
    for name, convolution in list(network.named_modules()):
        if not isinstance(convolution, nn.Conv2d) or name in exclude:
            continue
        path, _, leaf = name.rpartition(".")
        # The batch norm subtracts the mean, so a bias would get no gradient.
        convolution.bias = None
        with torch.device("meta"):
            norm = nn.BatchNorm2d(convolution.out_channels)
        setattr(network.get_submodule(path), leaf, Normed(convolution, norm))
    return network


@torch.no_grad()
def recompute_bn_stats(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the statistics of all batch norms to their means over some batches, with the present weights.

    Running statistics lag behind the weights, which change fast in a short training.
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
    """Initialize a network without storage in place, trainable and on a device.

    Convolutions: N(0, 2 / ((1 + slope²) fan_in)) (He et al. 2015; `slope` below zero of the activation). Linear layers:
    U(±1/√fan_in). Biases: 0.
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
    # Drawn on the CPU, so that all devices get the same weights.
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
    """Yield the step indices from 0, with the learning rate set for each.

    The rate rises linearly from a tenth to the optimizer's rate during the share `warm_up` of the steps, then decays by
    half a cosine to the share `floor` (Loshchilov and Hutter 2017, without restarts).
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
