"""EfficientNet-B5 (Tan and Le, 2019) up to its fifth stage."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hyperspot.backbones.base import WeightsSource
from hyperspot.backbones.folding import FoldedBackbone


@dataclass(frozen=True)
class _Stage:
    depth: int
    leaving: int
    expansion: int
    kernel: int
    stride: int
    tapped: int


_STEM = 48
_STAGES = (
    _Stage(depth=3, leaving=24, expansion=1, kernel=3, stride=1, tapped=0),
    _Stage(depth=5, leaving=40, expansion=6, kernel=3, stride=2, tapped=5),
    _Stage(depth=5, leaving=64, expansion=6, kernel=5, stride=2, tapped=3),
    _Stage(depth=7, leaving=128, expansion=6, kernel=3, stride=2, tapped=0),
    _Stage(depth=7, leaving=176, expansion=6, kernel=5, stride=1, tapped=1),
)
"""B5 is B0 with 1.6 times the channels and 2.2 times the blocks. `tapped`: how many of the stage's last blocks
are returned; released CFA joins several blocks of one scale (5 of 40, 3 of 64 and 1 of 176 channels)."""


class Squeeze(nn.Module):
    """Squeeze and excitation: weights channels by their global means (Hu et al., 2018)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the features, each channel multiplied by a weight in 0..1."""
        means = functional.adaptive_avg_pool2d(features, 1)
        weights = torch.sigmoid(self.fc2(functional.silu(self.fc1(means))))
        weighed: Tensor = weights * features
        return weighed


class Inverted(nn.Module):
    """Inverted bottleneck: expansion, depthwise convolution, squeeze, linear projection; shortcut if shapes match."""

    def __init__(self, entering: int, leaving: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = entering * expansion
        parts: list[nn.Module] = []
        if expansion > 1:
            parts.append(_convolution(entering, inner, 1))
        parts.append(_convolution(inner, inner, kernel, stride, groups=inner))
        parts.append(Squeeze(inner, max(1, entering // 4)))
        parts.append(_convolution(inner, leaving, 1))
        self.block = nn.Sequential(*parts)
        self.has_shortcut = stride == 1 and entering == leaving

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d k l"]:
        """Return the projection, plus the input if there is a shortcut; no activation follows."""
        inner = features
        *before, projection = self.block
        for part in before:
            inner = part(inner)
            if not isinstance(part, Squeeze):
                inner = functional.silu(inner, inplace=True)
        projected: Tensor = projection(inner)
        return projected + features if self.has_shortcut else projected


class EfficientNet(FoldedBackbone):
    """Stem and stages 1 to 5 of EfficientNet-B5; each level joins the outputs of several blocks of its scale.

    Convolutions are padded evenly, as in torchvision (TensorFlow, and with it released CFA, pads more at the end).
    The blocks end without an activation, so `output_negative_slope` changes nothing.

    Args:
        name: Of the backbone.
        weights: See `Backbone`.
        output_negative_slope: See `Backbone`.

    """

    norm_epsilon: ClassVar[float] = 1e-3

    def __init__(self, name: str, *, weights: WeightsSource | None = None, output_negative_slope: float = 0.0) -> None:
        channels = [stage.tapped * stage.leaving for stage in _STAGES if stage.tapped]
        super().__init__(name, channels, weights=weights, output_negative_slope=output_negative_slope)
        self.features = nn.Sequential(_convolution(3, _STEM, 3, stride=2))
        entering = _STEM
        for stage in _STAGES:
            blocks = nn.Sequential()
            for place in range(stage.depth):
                stride = stage.stride if place == 0 else 1
                blocks.append(Inverted(entering, stage.leaving, stage.expansion, stage.kernel, stride))
                entering = stage.leaving
            self.features.append(blocks)

    def pyramid(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return [C2, C3, C4]."""
        stem, *stages = self.features
        features = functional.silu(stem(images), inplace=True)
        levels = []
        for stage, blocks in zip(_STAGES, stages, strict=True):
            outputs = []
            for block in blocks:  # type: ignore[attr-defined]
                features = block(features)
                outputs.append(features)
            if stage.tapped:
                levels.append(torch.cat(outputs[-stage.tapped :], dim=1))
        return levels

    def norms(self) -> dict[str, str]:
        """Return `features.0.1` for `features.0.0` and so on; the squeeze layers have none."""
        return {
            name: name.removesuffix("0") + "1"
            for name, module in self.named_modules()
            if isinstance(module, nn.Conv2d) and name.endswith(".0")
        }

    def residual_branches(self) -> dict[str, int]:
        """Return the projection of each block with a shortcut, with the depth of its stage."""
        ends = {}
        for number, stage in enumerate(_STAGES, start=1):
            blocks = self.get_submodule(f"features.{number}")
            for place, block in blocks.named_children():
                if isinstance(block, Inverted) and block.has_shortcut:
                    ends[f"features.{number}.{place}.block.{len(block.block) - 1}.0"] = stage.depth
        return ends


def _convolution(entering: int, leaving: int, kernel: int, stride: int = 1, *, groups: int = 1) -> nn.Sequential:
    # Wrapped, because in torchvision the convolution is the first of three: "0", before its norm, "1".
    return nn.Sequential(nn.Conv2d(entering, leaving, kernel, stride, padding=(kernel - 1) // 2, groups=groups))
