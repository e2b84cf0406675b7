"""The one contract of every anomaly detection method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from hyperspot.backbones import Backbone
from hyperspot.utils.progress import Progress


class MethodSettings(BaseModel):
    """What decides the result of a method: frozen, validated, stored in the model file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Method(nn.Module, ABC):
    """Learns what good photos look like and gives every place of a new photo a score.

    `fit` may be called again and starts over; the same seed gives the same result. `forward` never changes
    state, takes inputs that are not square, and gives each image the same result in any batch. All that `fit`
    learns is held in tensors of the module, so that `fitted_state` and `restore` carry it through a model file.

    A method that learns a network of its own sets `uses_backbone` to False: it is then given `NoBackbone`, no
    weights are looked for, and images come as pixels in 0..1.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[MethodSettings]]
    uses_backbone: ClassVar[bool] = True
    finalize_for_inference: Callable[[], None] | None = None
    """Set during a `fit` whose `forward` is not usable all along: makes it usable with what was learned so far, and
    leaves the training as it is. It draws nothing from the training's generator."""

    def __init__(self, backbone: Backbone, settings: Any = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.settings = self.Settings() if settings is None else settings

    @classmethod
    def backbone_options(cls, settings: Any) -> dict[str, float]:  # noqa: ARG003
        """Return what the method asks of its backbone (`output_negative_slope`) under these settings."""
        return {}

    @abstractmethod
    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Learn from batches of good images, normalized for the backbone, all of one size; iterated once or more."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the raw anomaly map on the method's own grid, and its image score where it has one.

        Where the second is None, the image score is the maximum of the smoothed map. Scores are finite, and
        higher is more anomalous.
        """

    def fitted_state(self) -> dict[str, Tensor]:
        """Return all tensors that `fit` made, without those of the backbone."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}

    def load_fitted_state(self, fitted_state: dict[str, Tensor]) -> None:
        """Take what another `fit` learned; raises KeyError where a name has no place in this method."""
        for name, value in fitted_state.items():
            path, _, leaf = name.rpartition(".")
            owner = self.get_submodule(path)
            if leaf in dict(owner.named_parameters(recurse=False)):
                setattr(owner, leaf, nn.Parameter(value, requires_grad=False))
            elif leaf in dict(owner.named_buffers(recurse=False)):
                setattr(owner, leaf, value)
            else:
                raise KeyError(name)

    def register_empty_buffers(self, *names: str) -> None:
        """Name the buffers that `fit` fills, empty until then."""
        for name in names:
            self.register_buffer(name, torch.empty(0))
