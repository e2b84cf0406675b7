"""Frozen feature extractors, and where their weights come from."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hyperspot.backbones import weights as _weights
from hyperspot.backbones.base import Backbone
from hyperspot.backbones.compact import SHIPPED, Compact
from hyperspot.backbones.efficientnet import EfficientNet
from hyperspot.backbones.hub import fetch
from hyperspot.backbones.none import NoBackbone
from hyperspot.backbones.resnet import ResNet
from hyperspot.backbones.vgg import VGG
from hyperspot.errors import SettingsError, WeightsError

__all__ = ["DEFAULT", "NONE", "Backbone", "create", "names", "restore"]

DEFAULT = "compact"
"""The name of the backbone that is used where none is asked for; its weights lie in the package."""
NONE = "none"
"""The name of no backbone at all, for methods that learn a network of their own (`Method.uses_backbone`)."""

_BUILDERS: dict[str, Callable[..., Backbone]] = {
    DEFAULT: partial(Compact, DEFAULT),
    "resnet18": partial(ResNet, "resnet18", (2, 2, 2), expansion=1, width=1),
    "resnet34": partial(ResNet, "resnet34", (3, 4, 6), expansion=1, width=1),
    "resnet50": partial(ResNet, "resnet50", (3, 4, 6), expansion=4, width=1),
    "wide_resnet50_2": partial(ResNet, "wide_resnet50_2", (3, 4, 6), expansion=4, width=2),
    "vgg19_bn": partial(VGG, "vgg19_bn"),
    "efficientnet_b5": partial(EfficientNet, "efficientnet_b5"),
    NONE: partial(NoBackbone, NONE),
}


def names() -> tuple[str, ...]:
    """Return what backbones there are."""
    return tuple(name for name in _BUILDERS if name != NONE)


def create(name: str, weights: Path | str | None = None, *, output_negative_slope: float = 0.0) -> Backbone:
    """Return a frozen backbone with its weights.

    Args:
        name: One of `names()`, or `NONE`, which has no weights.
        weights: A safetensors file, a folder that holds one named after the backbone, or "random:SEED". None
            looks in the folder that HYPERSPOT_WEIGHTS names, then in the cache, and then downloads. `compact` has
            its weights in the package: it takes those where None, or a folder without others, is given.
        tap_slope: See `Backbone`.

    Raises:
        SettingsError: Where the name or the slope is none of those that can be had.
        WeightsError: Where weights are missing, unsafe, damaged or another network's, or given where none are used.

    """
    backbone = _build(name, output_negative_slope)
    if name == NONE:
        if weights is not None:
            raise WeightsError(f"weights were given ({weights}) where no backbone is used; leave them out")
        return backbone.fill({}, NONE, None)
    if isinstance(weights, str) and weights.startswith(_weights.RANDOM):
        return _weights.randomize(backbone, weights)
    if name == DEFAULT and (weights is None or not _weights.holds(name, Path(weights))):
        return _weights.load(backbone, SHIPPED.path, sha256=SHIPPED.sha256)
    path = _weights.find(name, weights)
    if path is None:
        path = fetch(name, _weights.cache_folder())
    return _weights.load(backbone, path)


def restore(
    name: str,
    state: Mapping[str, Tensor],
    *,
    output_negative_slope: float = 0.0,
    weights_source: str,
    weights_sha256: str | None,
) -> Backbone:
    """Return the backbone whose `state_dict()` was kept, for example in a model file.

    Args:
        name: One of `names()`, or `NONE`.
        state: Exactly the tensors of its `state_dict()`.
        tap_slope: See `Backbone`.
        weights_source: Where the weights came from when the backbone was created.
        weights_sha256: SHA-256 of the file they were read from, or None.

    Raises:
        SettingsError: Where the name or the slope is none of those that can be had.
        WeightsError: Where a tensor is missing, foreign, of the wrong shape or kind, or not finite.

    """
    return _build(name, output_negative_slope).fill(state, weights_source, weights_sha256)


def _build(name: str, output_negative_slope: float) -> Backbone:
    if name not in _BUILDERS:
        raise SettingsError(f'there is no backbone "{name}"; choose one of {", ".join(names())}')
    # Without storage: the weights that are put in bring their own.
    with torch.device("meta"):
        return _BUILDERS[name](output_negative_slope=output_negative_slope)
