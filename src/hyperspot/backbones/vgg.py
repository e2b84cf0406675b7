"""VGG-19 with batch norm (Simonyan and Zisserman, 2015) up to its last convolution."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hyperspot.backbones.base import Backbone

_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""Convolutions and channels of each block; all but the first begin with a 2x2 maximum."""


class VGG(Backbone):
    """The convolutions of VGG-19; C2, C3 and C4 are the outputs of blocks 3, 4 and 5 before they are pooled.

    Args:
        name: What it is called.
        tap_slope: See `Backbone`.

    """

    def __init__(self, name: str, *, output_negative_slope: float = 0.0) -> None:
        super().__init__(name, (256, 512, 512), output_negative_slope=output_negative_slope)
        # torchvision counts convolutions, norms, activations and poolings in one row; the gaps are those.
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
                levels.append(features if self.output_negative_slope == 0.0 else self.tap(summed))
        return levels

    def norms(self) -> dict[str, str]:
        """Return `features.1` for `features.0` and so on."""
        return {f"features.{number}": f"features.{int(number) + 1}" for number in self.features}

    def residual_branches(self) -> dict[str, int]:
        """Return nothing: nothing is added up."""
        return {}
