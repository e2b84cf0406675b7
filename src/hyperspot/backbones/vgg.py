"""VGG-19 with batch norm (Simonyan and Zisserman, 2015) up to its last convolution."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hyperspot.backbones.base import WeightsSource
from hyperspot.backbones.folding import FoldedBackbone

_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""Convolutions and channels of each block; all but the first begin with 2x2 max pooling."""


class VGG(FoldedBackbone):
    """The convolutions of VGG-19; C2, C3 and C4 are the outputs of blocks 3, 4 and 5 before pooling.

    Args:
        name: Of the backbone.
        weights: See `Backbone`.
        output_negative_slope: See `Backbone`.

    """

    def __init__(self, name: str, *, weights: WeightsSource | None = None, output_negative_slope: float = 0.0) -> None:
        super().__init__(name, (256, 512, 512), weights=weights, output_negative_slope=output_negative_slope)
        # torchvision numbers convolutions, norms, activations and poolings consecutively, hence the gaps.
        self.features = nn.ModuleDict()
        self._rows: list[list[str]] = []
        number, entering = 0, 3
        for depth, leaving in _BLOCKS:
            row = []
            for _ in range(depth):
                self.features[str(number)] = nn.Conv2d(entering, leaving, 3, padding=1)
                row.append(str(number))
                number, entering = number + 3, leaving
            self._rows.append(row)
            number += 1

    def pyramid(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return [C2, C3, C4]."""
        features: Tensor = images
        levels = []
        for place, row in enumerate(self._rows):
            if place > 0:
                features = functional.max_pool2d(features, 2)
            for number in row:
                summed = self.features[number](features)
                features = functional.relu(summed)
            if place >= 2:
                levels.append(features if self.output_negative_slope == 0.0 else self.activate(summed))
        return levels

    def norms(self) -> dict[str, str]:
        """Return `features.1` for `features.0` and so on."""
        return {f"features.{number}": f"features.{int(number) + 1}" for number in self.features}

    def residual_branches(self) -> dict[str, int]:
        """Return nothing: there are no residual branches."""
        return {}
