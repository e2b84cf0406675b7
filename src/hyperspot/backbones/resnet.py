"""ResNets up to their third stage (He et al., 2016; wide: Zagoruyko and Komodakis, 2016)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hyperspot.backbones.base import WeightsSource
from hyperspot.backbones.folding import FoldedBackbone


class Basic(nn.Module):
    """Two 3x3 convolutions and the shortcut around them; returns the sum before the activation."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1)
        self.downsample = _shortcut(entering, leaving, stride)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d k l"]:
        """Return the sum of branch and shortcut."""
        inner = functional.relu(self.conv1(features), inplace=True)
        summed: Tensor = self.conv2(inner) + self.downsample(features)
        return summed


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1; returns the sum with the shortcut before the activation.

    The stride is on the 3x3 convolution, as in torchvision (not on the first 1x1, as in the paper).
    """

    def __init__(self, entering: int, inner: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1)
        self.conv3 = nn.Conv2d(inner, leaving, 1)
        self.downsample = _shortcut(entering, leaving, stride)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d k l"]:
        """Return the sum of branch and shortcut."""
        inner = functional.relu(self.conv1(features), inplace=True)
        inner = functional.relu(self.conv2(inner), inplace=True)
        summed: Tensor = self.conv3(inner) + self.downsample(features)
        return summed


class ResNet(FoldedBackbone):
    """Stem and stages 1 to 3 of a ResNet.

    Args:
        name: Of the backbone.
        depths: Blocks of stages 1, 2 and 3.
        expansion: Channels of a stage per 64, 128, 256: 1 with basic blocks, 4 with bottlenecks.
        width: Inner channels of a bottleneck per 64, 128, 256: 1, or 2 in the wide one.
        weights: See `Backbone`.
        output_negative_slope: See `Backbone`.

    """

    def __init__(
        self,
        name: str,
        depths: tuple[int, int, int],
        expansion: int,
        width: int,
        *,
        weights: WeightsSource | None = None,
        output_negative_slope: float = 0.0,
    ) -> None:
        channels = (64 * expansion, 128 * expansion, 256 * expansion)
        super().__init__(name, channels, weights=weights, output_negative_slope=output_negative_slope)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        entering = 64
        for number, (depth, leaving) in enumerate(zip(depths, channels, strict=True), start=1):
            blocks = nn.Sequential()
            for place in range(depth):
                stride = 2 if number > 1 and place == 0 else 1
                if expansion == 1:
                    blocks.append(Basic(entering, leaving, stride))
                else:
                    blocks.append(Bottleneck(entering, leaving // expansion * width, leaving, stride))
                entering = leaving
            self.add_module(f"layer{number}", blocks)

    def pyramid(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return [C2, C3, C4], the outputs of the three stages."""
        features = functional.relu(self.conv1(images), inplace=True)
        features = functional.max_pool2d(features, 3, stride=2, padding=1)
        levels = []
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:  # type: ignore[union-attr]
                summed = block(features)
                features = functional.relu(summed)
            levels.append(features if self.output_negative_slope == 0.0 else self.activate(summed))
        return levels

    def norms(self) -> dict[str, str]:
        """Return `bn1` for `conv1` and so on, and `downsample.1` for `downsample.0`."""
        return {name: _norm(name) for name, module in self.named_modules() if isinstance(module, nn.Conv2d)}

    def residual_branches(self) -> dict[str, int]:
        """Return the last convolution of each block, with the depth of its stage, and the shortcuts.

        A shortcut has no activation that halves its variance, so it gets half of He's.
        """
        ends = {}
        for number in (1, 2, 3):
            blocks = self.get_submodule(f"layer{number}")
            for place, block in blocks.named_children():
                last = "conv2" if isinstance(block, Basic) else "conv3"
                ends[f"layer{number}.{place}.{last}"] = len(list(blocks.children()))
                if not isinstance(block.downsample, nn.Identity):
                    ends[f"layer{number}.{place}.downsample.0"] = 2
        return ends


def _norm(convolution: str) -> str:
    if convolution.endswith("downsample.0"):
        return convolution.removesuffix("0") + "1"
    path, dot, leaf = convolution.rpartition(".")
    return f"{path}{dot}{leaf.replace('conv', 'bn')}"


def _shortcut(entering: int, leaving: int, stride: int) -> nn.Module:
    if stride == 1 and entering == leaving:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(entering, leaving, 1, stride))
