"""Compact: a small network distilled from ResNet-18, with its weights in the package."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hyperspot.backbones.base import WeightsSource
from hyperspot.backbones.folding import FoldedBackbone


class Residual(nn.Module):
    """Two 3x3 convolutions, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the sum after the activation."""
        inner = functional.relu(self.conv1(features), inplace=True)
        return functional.relu(self.conv2(inner) + features, inplace=True)


class Compact(FoldedBackbone):
    """A stem of two strided convolutions, three stages of a few blocks, and a 1x1 head for each level.

    The heads have ResNet-18's channels and scale: they are trained to regress its C2, C3 and C4 (see
    `docs/backbones/compact.md`), so that it can replace ResNet-18 in every method.

    Args:
        name: Of the backbone.
        stem: Channels between the strided convolutions.
        widths: Channels of the stages.
        depths: Blocks of the stages.
        block: Builds a block, given its width.
        weights: See `Backbone`.
        output_negative_slope: See `Backbone`.

    """

    heads: ClassVar[tuple[int, int, int]] = (64, 128, 256)

    def __init__(
        self,
        name: str,
        stem: int = 24,
        widths: tuple[int, int, int] = (48, 80, 160),
        depths: tuple[int, int, int] = (1, 1, 1),
        *,
        block: Callable[[int], nn.Module] = Residual,
        weights: WeightsSource | None = None,
        output_negative_slope: float = 0.0,
    ) -> None:
        super().__init__(name, self.heads, weights=weights, output_negative_slope=output_negative_slope)
        self.stem = nn.Conv2d(3, stem, 3, stride=2, padding=1)
        entering = stem
        for number, (width, depth, channels) in enumerate(zip(widths, depths, self.heads, strict=True), start=1):
            self.add_module(f"down{number}", nn.Conv2d(entering, width, 3, stride=2, padding=1))
            self.add_module(f"stage{number}", nn.Sequential(*(block(width) for _ in range(depth))))
            self.add_module(f"head{number}", nn.Conv2d(width, channels, 1))
            entering = width

    def pyramid(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return [C2, C3, C4]."""
        return [self.activate(level) for level in self.sums(images)]

    def sums(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return the levels before the activation."""
        features = functional.relu(self.stem(images), inplace=True)
        levels = []
        for number in (1, 2, 3):
            features = functional.relu(self.get_submodule(f"down{number}")(features), inplace=True)
            features = self.get_submodule(f"stage{number}")(features)
            levels.append(self.get_submodule(f"head{number}")(features))
        return levels

    def norms(self) -> dict[str, str]:
        """Return `stem.norm` for `stem` and so on, their names in distillation."""
        return {name: f"{name}.norm" for name, module in self.named_modules() if isinstance(module, nn.Conv2d)}

    def residual_branches(self) -> dict[str, int]:
        """Return the last convolution of each block, with the depth of its stage."""
        depths = {number: len(list(self.get_submodule(f"stage{number}").children())) for number in (1, 2, 3)}
        return {f"stage{number}.{place}.conv2": depth for number, depth in depths.items() for place in range(depth)}


SHIPPED = WeightsSource(
    path=Path(__file__).with_name("compact.safetensors"),
    sha256="b831d27b6cb17be4b93ed3f24f832cddcf1adecee0ff272834d8ba6e45dc54ce",
)
