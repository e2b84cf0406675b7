"""The contract of a backbone: a frozen network from images to a pyramid of feature maps, fine to coarse."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from hyperspot.errors import SettingsError, WeightsError
from hyperspot.hardware.cpu import Precision

HALVES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "f16": torch.float16}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightsSource:
    """Where a backbone's weights come from by default.

    Attributes:
        path: A safetensors file inside the installed package.
        repository: A Hugging Face repository that holds `model.safetensors`; used if there is no `path`.
        sha256: SHA-256 of the file at `path`, in hexadecimal; checked before it is read.

    """

    path: Path | None = None
    repository: str | None = None
    sha256: str | None = None


class Backbone(nn.Module, ABC):
    """A frozen feature extractor. A subclass builds its network and implements `pyramid`.

    It is always in evaluation mode, and no tensor requires a gradient. Feature maps are selected by level: level n
    has the stride 2^n, so that C2, C3 and C4 are the maps of strides 4, 8 and 16.

    Args:
        name: Of the backbone; `create` sets the name that it is registered under.
        channels: Channels of each feature map, fine to coarse.
        strides: Image pixels per position of each feature map.
        levels: Level number of each feature map, ascending. Default: the base-2 logarithms of the strides, rounded.
        mean: Subtracted from pixels in 0..1, per color.
        std: Divides them afterwards, per color.
        weights: Default source of the weights.
        output_negative_slope: Slope below zero of the activation of the returned maps; 0 returns ReLU outputs. The
            released CFA has 0.01 (Lee et al., 2022, code). The input of the next stage is not affected.

    Attributes:
        weights_source: File name, or `random:SEED`.
        weights_sha256: SHA-256 of the weights file, or None.
        precision: Of the computation: `f32`, or `bf16` (on a GPU also `f16`), whose features deviate by about one
            hundredth of their standard deviation.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from hyperspot import Backbone
        >>> class Edges(Backbone):
        ...     def __init__(self):
        ...         super().__init__("edges", channels=(8,), strides=(4,))
        ...         self.conv = nn.Conv2d(3, 8, 7, stride=4, padding=3)
        ...
        ...     def pyramid(self, images):
        ...         return [self.conv(images).relu()]
        >>> backbone = Edges()
        >>> backbone.levels
        (2,)
        >>> backbone(torch.zeros(1, 3, 64, 96))[0].shape
        torch.Size([1, 8, 16, 24])
        >>> backbone.select(torch.zeros(1, 3, 64, 96), [2])[0].shape
        torch.Size([1, 8, 16, 24])
        >>> backbone.positions([2]), backbone.activate(torch.tensor([[[[-1.0, 2.0]]]])).tolist()
        ([0], [[[[0.0, 2.0]]]])

        Weights are checked before they are loaded:

        >>> backbone.shapes()["conv.weight"]
        (8, 3, 7, 7)
        >>> backbone.fill(backbone.random_state(seed=0), "random:0", sha256=None).weights_source
        'random:0'
        >>> backbone.fill({"conv.weight": torch.zeros(8, 3, 7, 7)}, "edges.safetensors", sha256=None)
        Traceback (most recent call last):
        ...
        hyperspot.errors.WeightsError: edges.safetensors does not hold the weights of edges: conv.bias is missing; ...

    """

    def __init__(
        self,
        name: str,
        channels: Sequence[int],
        strides: Sequence[int] = (4, 8, 16),
        *,
        levels: Sequence[int] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        weights: WeightsSource | None = None,
        output_negative_slope: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= output_negative_slope < 1.0:
            raise SettingsError(f"output_negative_slope is {output_negative_slope}; choose a number in [0, 1)")
        self.name = name
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.levels = tuple(round(math.log2(stride)) for stride in strides) if levels is None else tuple(levels)
        if not len(self.channels) == len(self.strides) == len(self.levels):
            raise ValueError(f"{name} declares {self.channels}, {self.strides}, {self.levels}: lengths differ")
        if sorted(set(self.levels)) != list(self.levels):
            raise ValueError(f"{name} declares the levels {self.levels}: they must ascend, fine to coarse")
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.default_weights = weights or WeightsSource()
        self.output_negative_slope = output_negative_slope
        self.weights_source = ""
        self.weights_sha256: str | None = None
        self.precision: Precision = "f32"
        self._halved: dict[Precision, Backbone] = {}

    @abstractmethod
    def pyramid(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return the feature maps, fine to coarse: b x channels[i] x H / strides[i] x W / strides[i]."""

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return the feature maps in f32, computed in `precision`."""
        if self.precision == "f32" or torch.compiler.is_exporting():
            return self.pyramid(images)
        dtype = HALVES[self.precision]
        if self.precision not in self._halved:
            # In a dictionary, so that the copy is no submodule and not in the state.
            self._halved[self.precision] = copy.deepcopy(self).to(dtype)
        return [level.float() for level in self._halved[self.precision].pyramid(images.to(dtype))]

    def positions(self, levels: Iterable[int]) -> list[int]:
        """Return the positions of levels in the pyramid, fine to coarse; raises SettingsError if one is missing."""
        for level in levels:
            if level not in self.levels:
                known = ", ".join(map(str, self.levels))
                raise SettingsError(
                    f"the backbone '{self.name}' has no level {level} (stride {2**level}); choose levels among {known}"
                )
        return [self.levels.index(level) for level in sorted(levels)]

    def select(self, images: Float[Tensor, "b 3 H W"], levels: Iterable[int]) -> list[Tensor]:
        """Return the feature maps of some levels, fine to coarse."""
        pyramid = self(images)
        return [pyramid[position] for position in self.positions(levels)]

    def train(self, mode: bool = True) -> "Backbone":  # noqa: ARG002
        """Stay in evaluation mode: a backbone is frozen."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Backbone":
        """Change or move all tensors; copies in half precision are dropped."""
        self._halved = {}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def activate(self, summed: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return a feature map from the end of a stage before its activation."""
        if self.output_negative_slope == 0.0:
            return functional.relu(summed)
        return functional.leaky_relu(summed, self.output_negative_slope)

    def random_state(self, seed: int) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Return random weights; here those that the constructor drew, from torch's generator seeded with `seed`."""
        return self.state_dict()

    def read_state(self, path: Path) -> Mapping[str, Tensor]:
        """Return the weights in a safetensors file; other tensors in the file are ignored.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from hyperspot.backbones import create
            >>> from safetensors.torch import save_file
            >>> backbone = create("compact")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = Path(folder, "compact.safetensors")
            ...     save_file({name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}, path)
            ...     len(backbone.read_state(path)) == len(backbone.state_dict())
            True

        """
        with safe_open(path, framework="pt") as opened:
            names = set(opened.keys())
            return {name: opened.get_tensor(name) for name in self.state_dict() if name in names}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by name."""
        return {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}

    def fill(self, state: Mapping[str, Tensor], source: str, sha256: str | None) -> "Backbone":
        """Load weights, exactly those of `state_dict()`, and freeze.

        Args:
            state: Tensors by name. They are copied.
            source: Named in errors and stored as `weights_source`.
            sha256: Stored as `weights_sha256`.

        Raises:
            WeightsError: If a tensor is missing, unknown, not finite, or of another shape or type.

        """
        own = self.state_dict()
        unknown = sorted(set(state) - set(own))
        if unknown:
            raise self.misfit(source, f"{unknown[0]} has no place in it")
        for name, tensor in own.items():
            if name not in state:
                raise self.misfit(source, f"{name} is missing")
            self.check(source, name, state[name], tuple(tensor.shape), floating=tensor.is_floating_point())
        self.load_state_dict({name: _copy(state[name]) for name in own}, strict=True, assign=True)
        self.requires_grad_(False)
        self.weights_source = source
        self.weights_sha256 = sha256
        return self.eval()

    def check(self, source: str, name: str, tensor: Tensor, shape: tuple[int, ...], *, floating: bool = True) -> None:
        """Raise WeightsError unless the tensor is finite, of this shape and, as asked, floating point or integer.

        Examples:
            >>> import torch
            >>> from hyperspot.backbones import create
            >>> create("compact").check("w.safetensors", "stem", torch.zeros(3), (4,))
            Traceback (most recent call last):
            ...
            hyperspot.errors.WeightsError: w.safetensors does not hold ...: stem has the shape (3,) instead of (4,); ...

        """
        if tuple(tensor.shape) != shape:
            raise self.misfit(source, f"{name} has the shape {tuple(tensor.shape)} instead of {shape}")
        if tensor.is_floating_point() != floating:
            wanted = "floating-point numbers" if floating else "integers"
            raise self.misfit(source, f"{name} holds {tensor.dtype} instead of {wanted}")
        if not bool(torch.isfinite(tensor).all()):
            raise self.misfit(source, f"{name} holds numbers that are not finite")

    def misfit(self, source: str, reason: str) -> WeightsError:
        """Return the error for weights that are not those of this backbone.

        Examples:
            >>> from hyperspot.backbones import create
            >>> print(create("compact").misfit("w.safetensors", "stem is missing"))
            w.safetensors does not hold the weights of compact: stem is missing; choose another file

        """
        return WeightsError(f"{source} does not hold the weights of {self.name}: {reason}; choose another file")


def _copy(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    copied = tensor.detach().to("cpu", dtype, copy=True)
    # Channels last runs up to a quarter faster on CPUs.
    return copied.contiguous(memory_format=torch.channels_last) if copied.ndim == 4 else copied.contiguous()
