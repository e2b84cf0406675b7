"""The networks that were tried, and how one is made to learn: each convolution with a batch norm of its own."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hyperspot.backbones.compact import Compact
from hyperspot.backbones.folding import fold_all


class Plain(nn.Module):
    """One 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the features after their activation."""
        return functional.relu(self.conv1(features), inplace=True)


class Depthwise(nn.Module):
    """A depthwise 3x3 convolution and two 1x1 with twice the channels between, added to what entered."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.conv2 = nn.Conv2d(width, 2 * width, 1)
        self.conv3 = nn.Conv2d(2 * width, width, 1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the sum; no activation follows."""
        inner = functional.relu(self.conv2(self.conv1(features)), inplace=True)
        summed: Tensor = self.conv3(inner) + features
        return summed


STUDENTS: dict[str, Callable[[], Compact]] = {
    "residual": partial(Compact, "residual", 24, (48, 80, 160), (1, 1, 1)),
    "residual-late": partial(Compact, "residual-late", 16, (32, 96, 192), (1, 1, 1)),
    "residual-deep": partial(Compact, "residual-deep", 24, (48, 64, 128), (1, 2, 2)),
    "plain": partial(Compact, "plain", 24, (48, 96, 192), (1, 1, 2), block=Plain),
    "depthwise": partial(Compact, "depthwise", 24, (48, 96, 192), (2, 2, 2), block=Depthwise),
}
"""All cost about a third of ResNet-18 or less; `python -m tools.distill latency` measures it."""


class Normed(nn.Conv2d):
    """A convolution without bias, and what normalizes its result."""

    def __init__(self, like: nn.Conv2d, norm: nn.Module) -> None:
        super().__init__(
            like.in_channels,
            like.out_channels,
            like.kernel_size,  # type: ignore[arg-type]
            like.stride,  # type: ignore[arg-type]
            like.padding,  # type: ignore[arg-type]
            groups=like.groups,
            bias=False,
        )
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        """Return the normalized result."""
        normed: Tensor = self.norm(super().forward(features))
        return normed


class Fixed(nn.Module):
    """Gives a head the teacher's mean and deviation in each channel, under the names of a batch norm."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, mean: Float[Tensor, "c"], deviation: Float[Tensor, "c"], epsilon: float) -> None:
        super().__init__()
        self.register_buffer("weight", deviation.clone())
        self.register_buffer("bias", mean.clone())
        self.register_buffer("running_mean", torch.zeros_like(mean))
        self.register_buffer("running_var", torch.full_like(mean, 1 - epsilon))

    def forward(self, features: Tensor) -> Tensor:
        """Return `features * deviation + mean`, per channel, in 32 bits."""
        return features.float() * self.weight[:, None, None] + self.bias[:, None, None]


def learner(name: str, means: list[Tensor], deviations: list[Tensor], seed: int) -> Compact:
    """Return a student with random weights, ready to learn.

    Args:
        name: One of `STUDENTS`.
        means: Per level, the teacher's mean in each channel before the activation.
        deviations: Per level, its deviation.
        seed: Decides the weights.

    """
    torch.manual_seed(seed)
    network = STUDENTS[name]()
    for path, convolution in list(network.named_modules()):
        if not isinstance(convolution, nn.Conv2d):
            continue
        if path.startswith("head"):
            level = int(path.removeprefix("head")) - 1
            norm: nn.Module = Fixed(means[level], deviations[level], network.norm_epsilon)
        else:
            norm = nn.BatchNorm2d(convolution.out_channels, eps=network.norm_epsilon)
        network.set_submodule(path, Normed(convolution, norm))
    network.requires_grad_(True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def folded(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the plain network from those of the one that learned."""
    return fold_all(plain(name), state, state.__getitem__, name)


def plain(name: str) -> Compact:
    """Return the network as it is used, without storage for its weights."""
    with torch.device("meta"):
        return STUDENTS[name]()
