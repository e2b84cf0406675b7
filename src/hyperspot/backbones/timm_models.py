"""Any timm model that returns feature maps, as a backbone: `timm/NAME`."""

import contextlib
import importlib
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from hyperspot.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, WeightsSource
from hyperspot.backbones.weights import seeded
from hyperspot.errors import SettingsError
from hyperspot.utils.optional_packages import require

PREFIX = "timm/"
LEVELS = (2, 3, 4)
"""Level numbers that the methods select: strides 4, 8 and 16."""
FLEXIBLE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})
"""Options of timm that free a transformer from its input size, in the order they are tried."""


class TimmBackbone(Backbone):
    """A timm model with `features_only=True`. Channels, strides and normalization are read from timm.

    Of the model's feature maps those with strides nearest to 4, 8 and 16 serve as the levels 2, 3 and 4. The layers
    behind the coarsest of them are not built.

    Args:
        name: `timm/` and the name of the model in timm, with or without the tag of its weights.

    Raises:
        MissingPackageError: If timm is not installed.
        SettingsError: If timm has no such model, or the model returns no feature maps.

    """

    def __init__(self, name: str) -> None:
        self._model = name.removeprefix(PREFIX)
        whole, options, fixed_size = _flexible(name, self._model)
        chosen, levels = choose_levels(whole.feature_info.reduction())
        indices = [whole.feature_info.out_indices[position] for position in chosen]
        self._options: dict[str, Any] = {**options, "out_indices": tuple(indices)}
        network = _build(name, self._model, **self._options)
        config = network.pretrained_cfg
        repository = config.get("hf_hub_id")
        super().__init__(
            name,
            network.feature_info.channels(),
            network.feature_info.reduction(),
            levels=levels,
            mean=config.get("mean") or IMAGENET_MEAN,
            std=config.get("std") or IMAGENET_STD,
            weights=WeightsSource(repository=repository),
        )
        self._fixed_size = fixed_size
        self._channels_last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
        self.network = network

    def pyramid(self, images: Float[Tensor, "b 3 H W"]) -> list[Tensor]:
        """Return the chosen feature maps, fine to coarse.

        Raises SettingsError if the model is limited to one input size and the images have another.
        """
        if self._fixed_size is not None and images.shape[2:] != self._fixed_size:
            height, width = self._fixed_size
            raise SettingsError(
                f"{self.name} takes images of {height} x {width} pixels only; set the short side to "
                f"{min(height, width)} and the aspect to square"
            )
        levels: list[Tensor] = list(self.network(images))
        return [level.permute(0, 3, 1, 2) if self._channels_last else level for level in levels]

    def read_state(self, path: Path) -> Mapping[str, Tensor]:
        """Return the weights from a file as timm publishes it, or from one of this backbone's own tensors."""
        own = self.state_dict()
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if tensors.keys() >= own.keys():
            return {name: tensors[name] for name in own}
        # timm ignores missing tensors. One that does not follow a change of the file was not read from it.
        shifted = {name: value + 1 if value.is_floating_point() else value for name, value in tensors.items()}
        found, other = (self._loaded(state, path) for state in (tensors, shifted))
        return {
            name: value
            for name, value in found.items()
            if not value.is_floating_point() or not torch.equal(value, other[name])
        }

    def _loaded(self, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Return the state of a new network into which timm loaded these tensors."""
        overlay = {"state_dict": tensors, "custom_load": False}
        try:
            with seeded(0):
                network = _build(
                    self.name, self._model, pretrained=True, pretrained_cfg_overlay=overlay, **self._options
                )
        except (RuntimeError, KeyError, IndexError) as error:
            reason = " ".join(str(error).split())
            raise self.misfit(str(path), reason[:200]) from None
        return {f"network.{name}": tensor for name, tensor in network.state_dict().items()}


def choose_levels(strides: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the positions of the feature maps with strides nearest to 4, 8 and 16, and their level numbers.

    A model with fewer than three feature maps has the levels whose strides are nearest to its own.

    Examples:
        >>> choose_levels([2, 4, 8, 16, 32])
        ([1, 2, 3], [2, 3, 4])
        >>> choose_levels([16, 16, 16])
        ([0, 1, 2], [2, 3, 4])
        >>> choose_levels([8, 32])
        ([0, 1], [3, 4])

    """
    count = min(len(strides), len(LEVELS))
    pairs = itertools.product(itertools.combinations(range(len(strides)), count), itertools.combinations(LEVELS, count))

    def distance(pair: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[float, list[int]]:
        positions, levels = pair
        apart = sum(abs(math.log2(strides[at]) - level) for at, level in zip(positions, levels, strict=True))
        # Of equal strides the deeper map, which is the end of its stage.
        return apart, [-at for at in positions]

    positions, levels = min(pairs, key=distance)
    return list(positions), list(levels)


def _flexible(name: str, model: str) -> tuple[Any, dict[str, bool], tuple[int, int] | None]:
    """Return the network with all its feature maps, its option for other input sizes, and its size if it has none."""
    network = _build(name, model)
    config = network.pretrained_cfg
    if not config.get("fixed_input_size"):
        return network, {}, None
    for options in FLEXIBLE:
        with contextlib.suppress(TypeError):
            return _build(name, model, **options), options, None
    _, height, width = config["input_size"]
    return network, {}, (height, width)


def _build(name: str, model: str, **options: Any) -> Any:
    timm = import_timm(name)
    if "/" in model or ":" in model or not timm.is_model(model):
        raise SettingsError(f"timm has no model '{model}'; list its models with timm.list_models()")
    try:
        return timm.create_model(model, features_only=True, **{"pretrained": False, **options})
    except RuntimeError as error:
        if options.get("pretrained"):
            raise
        raise SettingsError(
            f"{name} cannot be a backbone ({error}); choose a model that supports features_only"
        ) from None


def import_timm(name: str) -> ModuleType:
    """Return timm for the backbone of some name; raises MissingPackageError if it is not installed."""
    with contextlib.suppress(ImportError):
        try:
            importlib.import_module("torchvision")
        except RuntimeError:
            # PyPI's torchvision is built with CUDA: beside a CPU build of torch its operators cannot be loaded, and its
            # import fails at the first one. timm uses none of them, so declaring the two is enough.
            for operator in ("nms", "qnms"):
                signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{operator}", signature)
    return require("timm", "timm", f"the backbone '{name}'")
