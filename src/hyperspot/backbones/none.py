"""The placeholder backbone of methods that train their own network."""

from jaxtyping import Float
from torch import Tensor

from hyperspot.backbones.base import Backbone


class NoBackbone(Backbone):
    """No network, no weights and no normalization: pixels stay in 0..1."""

    def __init__(self, name: str, *, output_negative_slope: float = 0.0) -> None:
        super().__init__(
            name, (), (), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), output_negative_slope=output_negative_slope
        )

    def pyramid(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:  # noqa: ARG002
        """Raise RuntimeError: a method that needs features must set `uses_backbone`."""
        raise RuntimeError("there is no backbone: set uses_backbone on the method")
