"""What stands where a backbone would, for methods that learn a network of their own."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from hyperspot.backbones.base import Backbone


class NoBackbone(Backbone):
    """No network and no weights; pixels are left in 0..1, as nothing was trained on a normalization."""

    mean: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)
    std: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 1.0)

    def __init__(self, name: str, *, output_negative_slope: float = 0.0) -> None:
        super().__init__(name, (0, 0, 0), output_negative_slope=output_negative_slope)

    def pyramid(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:  # noqa: ARG002
        """Raise RuntimeError: a method that asks for features has to say that it uses a backbone."""
        raise RuntimeError("there is no backbone here: set uses_backbone on the method")

    def norms(self) -> dict[str, str]:
        """Return nothing: there is no convolution."""
        return {}

    def residual_branches(self) -> dict[str, int]:
        """Return nothing: nothing is added up."""
        return {}
