"""The contract of an anomaly detection method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hyperspot.backbones import Backbone
from hyperspot.utils.progress import Progress

Finalize = Callable[[], None]
"""Makes `forward` usable during training, without touching training state or random numbers."""
StepCallback = Callable[[int, int, Finalize | None], None]
"""Called after each training step with the step (from 1), the number of steps, and `finalize` if it is needed."""
LeftOut = tuple[Float[Tensor, "h w"], Float[Tensor, ""] | None]
"""Raw anomaly map and image score of a training image, by the method without this image."""
OLD = -1
"""Group of what an update keeps of the images before it. They stay when an image is left out."""


Level = Annotated[int, Field(ge=1, le=6)]
"""Number of a pyramid level of the backbone: level n has the stride 2^n."""


class MethodSettings(BaseModel):
    """The settings of a method: frozen, validated, stored in the model file. Unknown names are refused.

    Examples:
        >>> from hyperspot import MethodSettings
        >>> from pydantic import Field
        >>> class MySettings(MethodSettings):
        ...     neighbors: int = Field(default=3, ge=1)
        >>> MySettings(neighbors=5)
        MySettings(neighbors=5)

    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class Method(nn.Module, ABC):
    """Trains on images of good parts and scores each position of a new image.

    Rules, which `hyperspot.testing.check_method` checks:

    - `fit` may be called again and starts over. The same seed gives the same result.
    - `forward` changes no state, takes images that are not square, and scores an image alike in every batch.
    - Everything that `fit` learns is a parameter or buffer, so that `fitted_state` and `load_fitted_state` carry it
      through a model file.

    A method may also score its training images as if each had not been trained on (`leave_one_out`,
    `fit_leave_one_out`). The threshold then comes from all images, without further training. And it may learn more
    images later, without those before (`can_update`, `update`).

    A method that trains its own network sets `uses_backbone` to False: its backbone is then `NoBackbone`, no weights
    are loaded, and images are pixels in 0..1.

    Attributes:
        name: Under which the method is registered.
        Settings: Class of its settings.
        uses_backbone: Whether it takes features from a frozen backbone.
        step_callback: Called after each training step (see `StepCallback`); set it before `fit`.

    Examples:
        >>> import torch
        >>> from hyperspot import Method, MethodSettings
        >>> from hyperspot.backbones import create
        >>> from hyperspot.utils.progress import SILENT
        >>> class Brightness(Method):
        ...     name = "brightness"
        ...     Settings = MethodSettings
        ...
        ...     def __init__(self, backbone, settings=None):
        ...         super().__init__(backbone, settings)
        ...         self.register_empty_buffers("mean")
        ...
        ...     def fit(self, images, *, seed, progress):
        ...         self.mean = torch.cat(list(progress.track(images, "reading images"))).mean((0, 2, 3))
        ...         self.step_done(1, 1)
        ...
        ...     def forward(self, images):
        ...         return (images - self.mean[:, None, None]).square().sum(1), None
        >>> method = Brightness(create("compact"))
        >>> method.fit([torch.zeros(4, 3, 8, 8)], seed=0, progress=SILENT)
        >>> anomaly_map, score = method(torch.ones(1, 3, 8, 8))
        >>> anomaly_map.shape, float(anomaly_map.max())
        (torch.Size([1, 8, 8]), 3.0)
        >>> other = Brightness(create("compact"))
        >>> other.load_fitted_state(method.fitted_state())
        >>> other.fitted_state()["mean"].tolist(), Brightness.backbone_options(other.settings)
        ([0.0, 0.0, 0.0], {})
        >>> Brightness.leave_one_out(other.settings) is None, Brightness.can_update(other.settings)
        (True, False)
        >>> sorted(Brightness.unused_settings(other.settings))
        []

    """

    name: ClassVar[str]
    Settings: ClassVar[type[MethodSettings]]
    uses_backbone: ClassVar[bool] = True
    step_callback: StepCallback | None = None

    def __init__(self, backbone: Backbone, settings: Any = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.settings = self.Settings() if settings is None else settings

    @classmethod
    def backbone_options(cls, settings: Any) -> dict[str, float]:  # noqa: ARG003
        """Return the options that its backbone is created with (`output_negative_slope`) under these settings."""
        return {}

    @classmethod
    def unused_settings(cls, settings: Any) -> frozenset[str]:  # noqa: ARG003
        """Return the settings that have no effect beside the others, for example those of a training that is off."""
        return frozenset()

    @abstractmethod
    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Train on batches of good images.

        Args:
            images: b x 3 x H x W, normalized for the backbone, all of one size; may be iterated more than once.
            seed: Of every random choice.
            progress: Reports stages and steps.

        """

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the raw anomaly map on the method's own grid, and the image score if the method has one.

        Without an image score the maximum of the smoothed map minus a share of its median is used, see
        `decision.good_images.image_score`. Scores are finite; higher is more anomalous.
        """

    @classmethod
    def leave_one_out(cls, settings: Any) -> Literal["exact", "approximate"] | None:  # noqa: ARG003
        """Return how near `fit_leave_one_out` comes to fitting without an image under these settings.

        `exact`: equal within rounding. `approximate`: nothing of the image is left in the memory, but the rest of it
        was chosen beside the image. None: not supported.
        """
        return None

    def fit_leave_one_out(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], groups: Int[Tensor, "n"], *, seed: int, progress: Progress
    ) -> Iterator[LeftOut]:
        """Fit as `fit` does, then yield the result of each training image without this image and its group.

        What the results need beyond the fitted state, for example cached features, belongs to the iterator and is
        freed with it.

        Args:
            images: As for `fit`.
            groups: Group of each image; all images of a group are left out together. There are at least two groups.
            seed: As for `fit`.
            progress: As for `fit`.

        Returns:
            An iterator over the images in order. The method is fitted when it is returned.

        Raises:
            NotImplementedError: If `leave_one_out` returns None.

        Examples:
            >>> import torch
            >>> from hyperspot.backbones import create
            >>> from hyperspot.methods import PaDiM, PaDiMSettings
            >>> from hyperspot.utils.progress import SILENT
            >>> images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
            >>> method = PaDiM(create("compact"), PaDiMSettings(channels=8))
            >>> left_out = method.fit_leave_one_out([images], torch.arange(4), seed=0, progress=SILENT)
            >>> others = PaDiM(create("compact"), PaDiMSettings(channels=8))
            >>> others.fit([images[1:]], seed=0, progress=SILENT)
            >>> torch.allclose(next(left_out)[0], others(images[:1])[0][0], rtol=1e-3)
            True

        """
        raise NotImplementedError(f"{type(self).__name__} cannot leave a training image out")

    @classmethod
    def can_update(cls, settings: Any) -> bool:  # noqa: ARG003
        """Return whether a fitted method can learn more images under these settings, without those before."""
        return False

    def update(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], groups: Int[Tensor, "n"], *, seed: int, progress: Progress
    ) -> Iterator[LeftOut]:
        """Learn more images, then yield the result of each new image without this image and its group.

        The fitted state grows no larger than `fit` makes it from all images. Tensors of the state are replaced and not
        changed in place, so that other instances that share them stay as they are.

        Args:
            images: New images, as for `fit`.
            groups: Group of each new image, from 0, as for `fit_leave_one_out`; one group is enough.
            seed: Of every random choice.
            progress: Reports stages and steps.

        Returns:
            An iterator over the new images in order. The method is updated when it is returned.

        Raises:
            NotImplementedError: If `can_update` returns False.

        Examples:
            >>> import torch
            >>> from hyperspot.backbones import create
            >>> from hyperspot.methods import PaDiM, PaDiMSettings
            >>> from hyperspot.utils.progress import SILENT
            >>> images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
            >>> method, everything = (PaDiM(create("compact"), PaDiMSettings(channels=8)) for _ in range(2))
            >>> method.fit([images[:5]], seed=0, progress=SILENT)
            >>> left_out = method.update([images[5:]], torch.arange(3), seed=0, progress=SILENT)
            >>> everything.fit([images], seed=0, progress=SILENT)
            >>> torch.allclose(method(images)[0], everything(images)[0], rtol=1e-3), len(list(left_out))
            (True, 3)

        """
        raise NotImplementedError(f"{type(self).__name__} cannot learn more images; fit it again on all of them")

    def step_done(self, step: int, steps: int, finalize: Finalize | None = None) -> None:
        """Report a finished training step to `step_callback`; `fit` calls it after each step.

        Args:
            step: From 1.
            steps: Number of steps of this training.
            finalize: Makes `forward` usable with the state at this step, and changes nothing about the training or its
                random numbers. Default: `forward` is usable as it is.

        """
        if self.step_callback is not None:
            with torch.no_grad():
                self.step_callback(step, steps, finalize)

    def fitted_state(self) -> dict[str, Tensor]:
        """Return all tensors that `fit` made, without those of the backbone."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}

    def load_fitted_state(self, fitted_state: dict[str, Tensor]) -> None:
        """Load the `fitted_state` of another instance; raises KeyError for an unknown name."""
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
        """Register buffers that are empty until `fit` fills them."""
        for name in names:
            self.register_buffer(name, torch.empty(0))
