"""Backbones whose batch norms are folded into the convolutions before them."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from hyperspot.backbones.base import Backbone


class FoldedBackbone(Backbone):
    """A convolutional network without batch norms: each is folded into its convolution, which then has a bias.

    Parameters have torchvision's names. Only the layers that the feature maps need are built, and the network is built
    without storage; `fill` brings the tensors.
    """

    norm_epsilon: ClassVar[float] = 1e-5

    @abstractmethod
    def norms(self) -> dict[str, str]:
        """Return the name of the batch norm that follows each convolution in torchvision, by convolution."""

    @abstractmethod
    def residual_branches(self) -> dict[str, int]:
        """Return the convolutions whose output is added to another, with the divisor of their random variance."""

    def random_state(self, seed: int) -> dict[str, Tensor]:
        """Return He-initialized weights (He et al., 2015), the same on every machine.

        Convolutions of residual branches get less variance, so that features grow little from block to block despite
        the missing batch norms.
        """
        # NumPy guarantees its streams across versions and processors; torch does not.
        generator = np.random.default_rng(seed)
        divisors = self.residual_branches()
        state: dict[str, Tensor] = {}
        for name, shape in self.shapes().items():
            if name.endswith(".bias"):
                state[name] = torch.zeros(shape)
                continue
            deviation = np.sqrt(2.0 / np.prod(shape[1:]) / divisors.get(name.removesuffix(".weight"), 1))
            drawn = generator.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
            state[name] = torch.from_numpy(drawn)
        return state

    def read_state(self, path: Path) -> Mapping[str, Tensor]:
        """Return the folded weights from a file with torchvision's names, folded or not."""
        with safe_open(path, framework="pt") as opened:
            return fold_all(self, set(opened.keys()), opened.get_tensor, str(path))


def fold(
    weight: Float[Tensor, "o i kh kw"],
    bias: Float[Tensor, "o"] | None,
    scale: Float[Tensor, "o"],
    shift: Float[Tensor, "o"],
    mean: Float[Tensor, "o"],
    variance: Float[Tensor, "o"],
    epsilon: float,
) -> tuple[Float[Tensor, "o i kh kw"], Float[Tensor, "o"]]:
    """Return weight and bias, in f32, of the convolution that equals a convolution and a batch norm.

    Computed in float64, because weights are divided by standard deviations that may be small.
    """
    gain = scale.double() / torch.sqrt(variance.double() + epsilon)
    start = torch.zeros_like(gain) if bias is None else bias.double()
    folded = weight.double() * gain[:, None, None, None]
    return folded.float(), (shift.double() + (start - mean.double()) * gain).float()


def fold_all(
    backbone: FoldedBackbone, names: Collection[str], get: Callable[[str], Tensor], source: str
) -> dict[str, Tensor]:
    """Return the folded weights of a backbone from tensors with torchvision's names, folded or not.

    Args:
        backbone: Declares its tensors and batch norms.
        names: Of all available tensors; those that the backbone does not need are ignored.
        get: Returns one of them by name.
        source: Named in errors.

    Raises:
        WeightsError: If a tensor is missing, not finite, or of another shape or type.

    """
    shapes = backbone.shapes()
    norms = backbone.norms()

    def take(name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in names:
            raise backbone.misfit(source, f"{name} is missing")
        tensor = get(name)
        backbone.check(source, name, tensor, shape)
        return tensor

    state = {}
    for name in (full.removesuffix(".weight") for full in shapes if full.endswith(".weight")):
        width = shapes[f"{name}.bias"]
        weight = take(f"{name}.weight", shapes[f"{name}.weight"])
        norm = norms.get(name)
        if norm is None or f"{norm}.running_mean" not in names:
            state[f"{name}.weight"], state[f"{name}.bias"] = weight, take(f"{name}.bias", width)
            continue
        bias = take(f"{name}.bias", width) if f"{name}.bias" in names else None
        scale, shift = take(f"{norm}.weight", width), take(f"{norm}.bias", width)
        mean, variance = take(f"{norm}.running_mean", width), take(f"{norm}.running_var", width)
        folded = fold(weight, bias, scale, shift, mean, variance, backbone.norm_epsilon)
        state[f"{name}.weight"], state[f"{name}.bias"] = folded
    return state
