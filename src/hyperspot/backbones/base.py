"""What every backbone is: a frozen pyramid of three feature maps, its batch norms folded away."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hyperspot.errors import SettingsError, WeightsError
from hyperspot.hardware.cpu import Precision

HALVES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "f16": torch.float16}


class Backbone(nn.Module, ABC):
    """A frozen feature extractor: RGB images, normalized, to the levels C2, C3 and C4.

    It is always in evaluation mode, whatever `train` is told, and none of its tensors asks for a gradient.
    Parameters bear torchvision's names; each batch norm is folded into the convolution before it, which
    therefore has a bias. Only what C2 to C4 need is built.

    Attributes:
        name: The name it was asked for by, for example "resnet18".
        channels: Channels of C2, C3 and C4.
        strides: Pixels of the image per place of C2, C3 and C4.
        mean: What to subtract from pixels in 0..1, per color.
        std: What to divide by then, per color.
        tap_slope: Slope below zero of the activation of what is returned. 0 returns the ReLU outputs;
            the released CFA has 0.01 (Lee et al., 2022, code). What feeds the next stage is not affected.
        weights_source: Where the weights came from: a file name, a hub address or "random:SEED".
        weights_sha256: SHA-256 of the file they were read from, or None where there was none.
        number_format: What the convolutions compute in: `f32`, or `bf16` (on a GPU `f16` too) for a faster pyramid
            whose values deviate by about a hundredth of their spread.

    """

    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    strides: ClassVar[tuple[int, int, int]] = (4, 8, 16)
    norm_epsilon: ClassVar[float] = 1e-5

    def __init__(self, name: str, channels: tuple[int, int, int], *, output_negative_slope: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= output_negative_slope < 1.0:
            raise SettingsError(
                f"output_negative_slope is {output_negative_slope}; choose a number from 0 (plain ReLU) to below 1"
            )
        self.name = name
        self.channels = channels
        self.output_negative_slope = output_negative_slope
        self.weights_source = ""
        self.weights_sha256: str | None = None
        self.precision: Precision = "f32"
        self._halved: dict[Precision, Backbone] = {}

    @abstractmethod
    def pyramid(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return [C2, C3, C4], fine to coarse: shapes b, channels[i], H / strides[i], W / strides[i]."""

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return the pyramid as 32-bit floats, whatever it is computed in."""
        if self.precision == "f32" or torch.compiler.is_exporting():
            return self.pyramid(images)
        dtype = HALVES[self.precision]
        if self.precision not in self._halved:
            # In a dictionary, so that it is no part of the module and of its state.
            self._halved[self.precision] = copy.deepcopy(self).to(dtype)
        return [level.float() for level in self._halved[self.precision].pyramid(images.to(dtype))]

    @abstractmethod
    def norms(self) -> dict[str, str]:
        """Return by the name of a convolution the name of the batch norm that torchvision has after it."""

    @abstractmethod
    def residual_branches(self) -> dict[str, int]:
        """Return the convolutions that are added to others, and what to divide their random variance by."""

    def train(self, mode: bool = True) -> "Backbone":  # noqa: ARG002
        """Stay in evaluation mode: a backbone is frozen."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Backbone":
        """Change or move all tensors; the copies in half precision are made anew of what they become."""
        self._halved = {}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def tap(self, summed: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return what the outside sees of a stage that ended, before its activation, in `summed`."""
        if self.output_negative_slope == 0.0:
            return functional.relu(summed)
        return functional.leaky_relu(summed, self.output_negative_slope)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by its name."""
        return {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}

    def fill(self, state: Mapping[str, Tensor], source: str, sha256: str | None) -> "Backbone":
        """Take folded weights, exactly those that are needed, and freeze.

        Args:
            state: Tensors by name. They are copied.
            source: Where they came from; named in errors and kept as `weights_source`.
            sha256: Kept as `weights_sha256`.

        Raises:
            WeightsError: Where a tensor is missing, foreign, of the wrong shape or kind, or not finite.

        """
        shapes = self.shapes()
        foreign = sorted(set(state) - set(shapes))
        if foreign:
            raise self.misfit(source, f"{foreign[0]} has no place in it")
        for name, shape in shapes.items():
            if name not in state:
                raise self.misfit(source, f"{name} is missing")
            self.check(source, name, state[name], shape)
        self.load_state_dict({name: _copy(state[name]) for name in shapes}, strict=True, assign=True)
        self.requires_grad_(False)
        self.weights_source = source
        self.weights_sha256 = sha256
        return self.eval()

    def check(self, source: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
        """Raise WeightsError unless the tensor is finite, of a floating type and of this shape."""
        if tuple(tensor.shape) != shape:
            raise self.misfit(source, f"{name} has the shape {tuple(tensor.shape)} instead of {shape}")
        if not tensor.is_floating_point():
            raise self.misfit(source, f"{name} holds {tensor.dtype} instead of floating-point numbers")
        if not bool(torch.isfinite(tensor).all()):
            raise self.misfit(source, f"{name} holds numbers that are not finite")

    def misfit(self, source: str, reason: str) -> WeightsError:
        """Return the error of weights that are not this backbone's."""
        return WeightsError(f"{source} does not hold the weights of {self.name}: {reason}; choose another file")


def _copy(tensor: Tensor) -> Tensor:
    copied = tensor.detach().to("cpu", torch.float32, copy=True)
    # Channels last runs up to a quarter faster on CPUs.
    return copied.contiguous(memory_format=torch.channels_last) if copied.ndim == 4 else copied.contiguous()
