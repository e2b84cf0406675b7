"""Conformance rules of backbones."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hyperspot.backbones import Backbone, create, restore
from hyperspot.detector.detector import Detector
from hyperspot.errors import WeightsError
from hyperspot.methods import METHODS
from hyperspot.testing.checks import (
    HEIGHT,
    WIDTH,
    check_export,
    check_model_file,
    expect,
    fit_detector,
    require,
    require_same_state,
    run_rules,
)
from hyperspot.testing.methods import MethodCase


class BackboneCase:
    """A backbone under test.

    Args:
        name: Registered, or `timm/NAME`.
        weights: As for `create`.
        exportable: Whether a detector with this backbone can be exported.

    """

    def __init__(self, name: str, *, weights: Path | str | None = "random:0", exportable: bool = True) -> None:
        self.name, self.weights, self.exportable = name, weights, exportable

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone with its weights."""
        return create(self.name, self.weights)

    @cached_property
    def images(self) -> Float[Tensor, "3 3 _H _W"]:
        """Random normalized images, not square."""
        return torch.randn(3, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))

    def detector(self, method: str, settings: Mapping[str, Any]) -> Detector:
        """Return a detector with this backbone."""
        images = MethodCase(METHODS[method]).images
        return fit_detector(images, method=method, method_settings=settings, backbone=self.name, weights=self.weights)


def check_backbone(name: str, *, weights: Path | str | None = "random:0", exportable: bool = True) -> tuple[str, ...]:
    """Check that a backbone follows the rules of the contract, and return the names of the rules that were checked.

    Args:
        name: Registered, or `timm/NAME`.
        weights: As for `create`.
        exportable: As for `check_method`.

    Raises:
        AssertionError: If a rule is broken; the message names it.

    Examples:
        >>> from hyperspot.backbones import BACKBONES, register_backbone
        >>> class Wrong(Backbone):
        ...     def __init__(self):
        ...         super().__init__("wrong", channels=(8,), strides=(8,))
        ...         self.conv = torch.nn.Conv2d(3, 8, 7, stride=4, padding=3)
        ...
        ...     def pyramid(self, images):
        ...         return [self.conv(images)]
        >>> register_backbone("wrong", Wrong)
        >>> check_backbone("wrong")
        Traceback (most recent call last):
        ...
        AssertionError: 'wrong' breaks the rule 'shapes': stride 8 gave (3, 8, 16, 24)
        >>> del BACKBONES["wrong"]

    """
    return run_rules(BACKBONE_RULES, BackboneCase(name, weights=weights, exportable=exportable))


def _declaration(case: BackboneCase) -> None:
    backbone = case.backbone
    lengths = {len(backbone.channels), len(backbone.strides), len(backbone.levels)}
    require(lengths == {len(backbone.channels)} and bool(backbone.channels), "channels, strides and levels differ")
    require(list(backbone.strides) == sorted(backbone.strides), f"strides {backbone.strides} are not fine to coarse")
    require(len(backbone.mean) == len(backbone.std) == 3 and min(backbone.std) > 0, "mean and std need three numbers")
    require(bool(backbone.weights_source), "weights_source is empty")


def _pyramid_shapes(case: BackboneCase) -> None:
    for images in (case.images, case.images.transpose(2, 3).contiguous()):
        levels = case.backbone(images)
        require(len(levels) == len(case.backbone.channels), f"pyramid returned {len(levels)} feature maps")
        for level, channels, stride in zip(levels, case.backbone.channels, case.backbone.strides, strict=True):
            shape = tuple(level.shape)
            sides = [abs(side / stride - found) for side, found in zip(images.shape[2:], shape[2:], strict=True)]
            require(shape[:2] == (len(images), channels) and max(sides) < 1, f"stride {stride} gave {shape}")
            require(bool(torch.isfinite(level).all()), f"the features of stride {stride} are not finite")


def _frozen(case: BackboneCase) -> None:
    modules = torch.nn.Sequential(case.backbone).train()[0].modules()
    require(not any(module.training for module in modules), "a module is in training mode")
    require(not any(one.requires_grad for one in case.backbone.parameters()), "a parameter requires a gradient")


def _backbone_batch_size(case: BackboneCase) -> None:
    for together, alone in zip(case.backbone(case.images), case.backbone(case.images[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-4)


def _backbone_is_pure(case: BackboneCase) -> None:
    before = {name: value.clone() for name, value in case.backbone.state_dict().items()}
    given = case.images.clone()
    first, second = case.backbone(given), case.backbone(given)
    require(all(map(torch.equal, first, second)), "a second call gave other features")
    require(torch.equal(given, case.images), "forward changed its input")
    require_same_state(before, case.backbone.state_dict())


def _half_precision(case: BackboneCase) -> None:
    expected = case.backbone(case.images)
    case.backbone.precision = "bf16"
    try:
        found = case.backbone(case.images)
    finally:
        case.backbone.precision = "f32"
    for level, half in zip(expected, found, strict=True):
        deviation = float((half - level).abs().mean() / level.std())
        require(half.dtype == torch.float32 and deviation < 0.1, f"features in bf16 deviate by {deviation:.2f} std")


def _random_weights(case: BackboneCase) -> None:
    before = torch.get_rng_state()
    first, again, other = (create(case.name, f"random:{seed}").state_dict() for seed in (5, 5, 6))
    require(torch.equal(torch.get_rng_state(), before), "create drew from torch's global generator")
    require_same_state(first, again)
    differ = any(not torch.equal(first[name], other[name]) for name in first)
    require(differ or not first, "two seeds gave the same weights")


def _restored(case: BackboneCase) -> None:
    state = {name: value.contiguous().clone() for name, value in case.backbone.state_dict().items()}
    again = restore(case.name, state, weights_source="a file", weights_sha256=None)
    require(all(map(torch.equal, case.backbone(case.images), again(case.images))), "a restored backbone differs")
    if not state:
        return
    state.popitem()
    with expect(WeightsError, "restore accepted weights with a missing tensor"):
        restore(case.name, state, weights_source="a file", weights_sha256=None)


def _detectors(case: BackboneCase) -> None:
    images = MethodCase(METHODS["cfa"]).images
    for method, settings in _methods_for(case.backbone).items():
        check_model_file(case.detector(method, settings), images)


def _backbone_export(case: BackboneCase) -> None:
    images = MethodCase(METHODS["cfa"]).images
    for method, settings in _methods_for(case.backbone).items():
        check_export(case.detector(method, settings), images, exportable=case.exportable)


BACKBONE_RULES: dict[str, Callable[[BackboneCase], None]] = {
    "declaration": _declaration,
    "shapes": _pyramid_shapes,
    "frozen": _frozen,
    "batch size": _backbone_batch_size,
    "forward is pure": _backbone_is_pure,
    "half precision": _half_precision,
    "random weights": _random_weights,
    "restored weights": _restored,
    "model file": _detectors,
    "export": _backbone_export,
}
"""The rules that `check_backbone` checks, by name."""


def _methods_for(backbone: Backbone) -> dict[str, dict[str, Any]]:
    """Return methods with settings that fit the levels of a backbone."""
    levels = backbone.levels[-2:]
    return {"cfa": {"levels": levels, "steps": 3}, "patchcore": {"levels": levels, "dimensions": 64}}
