"""All backbones by name: built in, registered by a call, or from installed plugins."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyperspot.backbones import compact
from hyperspot.backbones import weights as _weights
from hyperspot.backbones.base import Backbone, WeightsSource
from hyperspot.backbones.compact import Compact
from hyperspot.backbones.efficientnet import EfficientNet
from hyperspot.backbones.hub import fetch
from hyperspot.backbones.none import NoBackbone
from hyperspot.backbones.resnet import ResNet
from hyperspot.backbones.timm_models import PREFIX, TimmBackbone
from hyperspot.backbones.vgg import VGG
from hyperspot.choices import DEFAULTS
from hyperspot.errors import SettingsError, WeightsError
from hyperspot.utils.registry import Registry

DEFAULT = DEFAULTS.backbone
"""Name of the default backbone; its weights are in the package."""
NONE = "none"
"""Name of no backbone, for methods that train their own network (`Method.uses_backbone`)."""


def _torchvision(name: str) -> WeightsSource:
    """Return the repository of torchvision's IMAGENET1K_V1 weights, under torchvision's names."""
    return WeightsSource(repository=f"timm/{name}.tv_in1k")


def _resnet(name: str, depths: tuple[int, int, int], expansion: int, width: int) -> Callable[..., Backbone]:
    return partial(ResNet, name, depths, expansion=expansion, width=width, weights=_torchvision(name))


_BUILT_IN: dict[str, Callable[..., Backbone]] = {
    DEFAULT: lambda **options: Compact(DEFAULT, weights=compact.SHIPPED, **options),
    "resnet18": _resnet("resnet18", (2, 2, 2), expansion=1, width=1),
    "resnet34": _resnet("resnet34", (3, 4, 6), expansion=1, width=1),
    "resnet50": _resnet("resnet50", (3, 4, 6), expansion=4, width=1),
    "wide_resnet50_2": _resnet("wide_resnet50_2", (3, 4, 6), expansion=4, width=2),
    "vgg19_bn": partial(VGG, "vgg19_bn", weights=_torchvision("vgg19_bn")),
    # No source: the published weights were trained with other paddings or other recipes.
    "efficientnet_b5": partial(EfficientNet, "efficientnet_b5"),
}


def _check(name: str, builder: Any) -> None:
    if not callable(builder):
        raise TypeError(f"'{name}' is {builder!r}, not a callable that returns a Backbone")


BACKBONES: Registry[Callable[..., Backbone]] = Registry(
    "backbone", "hyperspot.backbones", _BUILT_IN, check=_check, hint=f", or {PREFIX}NAME for a model of timm"
)
"""Builders by name, without `none` and the models of timm."""


def register_backbone(name: str, builder: Callable[[], Backbone]) -> None:
    """Add a backbone under a name.

    Installed packages use the entry-point group `hyperspot.backbones` instead.

    Args:
        name: For `--backbone`, `Settings.backbone` and `create`.
        builder: Returns the backbone with its network built; called without arguments. `create` loads the weights.

    Raises:
        SettingsError: If the name is taken.

    Examples:
        >>> import torch
        >>> from hyperspot import Backbone, register_backbone
        >>> from hyperspot.backbones import BACKBONES, create
        >>> class Edges(Backbone):
        ...     def __init__(self):
        ...         super().__init__("edges", channels=(8,), strides=(4,))
        ...         self.conv = torch.nn.Conv2d(3, 8, 7, stride=4, padding=3)
        ...
        ...     def pyramid(self, images):
        ...         return [self.conv(images).relu()]
        >>> register_backbone("edges", Edges)
        >>> create("edges", weights="random:0").weights_source
        'random:0'
        >>> del BACKBONES["edges"]

    """
    if name == NONE or name.startswith(PREFIX):
        raise SettingsError(f"the backbone name '{name}' is taken; choose another name")
    _check(name, builder)
    BACKBONES.register(name, builder)


def names() -> tuple[str, ...]:
    """Return the names of all backbones but `none` and the models of timm.

    Examples:
        >>> names()[:3]
        ('compact', 'resnet18', 'resnet34')

    """
    return tuple(BACKBONES)


def create(name: str, weights: Path | str | None = None, *, output_negative_slope: float = 0.0) -> Backbone:
    """Return a frozen backbone with its weights.

    Args:
        name: One of `names()`, `timm/NAME` for a model of timm, or `none`, which has no weights.
        weights: A safetensors file, a folder with one named after the backbone, or `random:SEED`. Default: the weights
            in the backbone's package if it has any; otherwise the folder in HYPERSPOT_WEIGHTS, then the cache, then a
            download. A backbone without tensors in its state needs none.
        output_negative_slope: See `Backbone`; only for the backbones built into hyperspot.

    Raises:
        SettingsError: If the name or the slope is unknown or out of range.
        WeightsError: If the weights are missing, unsafe, damaged or of another network, or given for `none`.
        MissingPackageError: If timm is needed and not installed.

    Examples:
        >>> backbone = create("compact")
        >>> backbone.channels, backbone.strides
        ((64, 128, 256), (4, 8, 16))

    """
    if isinstance(weights, str) and weights.startswith(_weights.RANDOM):
        seed = _weights.seed_of(weights)
        if name != NONE:
            return _weights.randomize(_build(name, output_negative_slope, seed), weights)
    backbone = _build(name, output_negative_slope)
    if name == NONE:
        if weights is not None:
            raise WeightsError(f"weights were given ({weights}), but no backbone is used; leave them out")
        return backbone.fill({}, NONE, None)
    if weights is None and not backbone.state_dict():
        return backbone.fill({}, NONE, None)
    source = backbone.default_weights
    if source.path is not None and (weights is None or not _weights.holds(name, Path(weights))):
        return _weights.load(backbone, source.path, sha256=source.sha256)
    path = _weights.find(name, weights)
    if path is None:
        if source.repository is None:
            raise WeightsError(
                f"the weights of {name} are missing and cannot be downloaded; save its tensors as "
                f"{_weights.file_stem(name)}.safetensors in a folder and set HYPERSPOT_WEIGHTS to that folder"
            )
        path = fetch(name, source.repository, _weights.cache_folder())
    return _weights.load(backbone, path)


def restore(
    name: str,
    state: Mapping[str, Tensor],
    *,
    output_negative_slope: float = 0.0,
    weights_source: str,
    weights_sha256: str | None,
) -> Backbone:
    """Return a backbone from its stored `state_dict()`, for example from a model file.

    Args:
        name: As for `create`.
        state: Exactly the tensors of its `state_dict()`.
        output_negative_slope: As for `create`.
        weights_source: Stored when the backbone was created.
        weights_sha256: Stored when the backbone was created.

    Raises:
        SettingsError: If the name or the slope is unknown or out of range.
        WeightsError: If a tensor is missing, unknown, not finite, or of another shape or type.
        MissingPackageError: If timm is needed and not installed.

    """
    return _build(name, output_negative_slope).fill(state, weights_source, weights_sha256)


def _build(name: str, output_negative_slope: float, seed: int = 0) -> Backbone:
    """Return a backbone with its network; one that is built in has no storage yet, another has random weights."""
    if name == NONE or name in _BUILT_IN:
        builder: Callable[..., Backbone] = partial(NoBackbone, NONE) if name == NONE else BACKBONES[name]
        # Without storage: the loaded weights bring their own.
        with torch.device("meta"):
            return builder(output_negative_slope=output_negative_slope)
    builder = partial(TimmBackbone, name) if name.startswith(PREFIX) else BACKBONES.find(name)
    if output_negative_slope != 0:
        raise SettingsError(
            f"the backbone '{name}' has no leaky output activation; set output_negative_slope to 0 or choose one of "
            f"{', '.join(_BUILT_IN)}"
        )
    with _weights.seeded(seed):
        backbone = builder()
    if not isinstance(backbone, Backbone):
        raise SettingsError(f"the builder of the backbone '{name}' returned {backbone!r}; it must return a Backbone")
    backbone.name = name
    return backbone
