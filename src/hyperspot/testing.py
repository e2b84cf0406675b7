"""Conformance checks for methods and backbones, also for those of plugins. No test framework is needed.

`check_method` and `check_backbone` run all rules. To get one test per rule, run the functions in `METHOD_RULES` and
`BACKBONE_RULES` on a `MethodCase` or `BackboneCase`, which fits once for all rules:

    >>> from hyperspot.methods import PaDiM
    >>> case = MethodCase(PaDiM, settings={"channels": 16})
    >>> METHOD_RULES["batch size"](case)
    >>> METHOD_RULES["defects score higher"](case)
    >>> BACKBONE_RULES["random weights"](BackboneCase("compact"))
"""

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hyperspot.backbones import DEFAULT, NONE, Backbone, create, restore
from hyperspot.detector.detector import Detector
from hyperspot.detector.heatmaps import smooth
from hyperspot.errors import SettingsError, WeightsError
from hyperspot.methods import METHODS, Finalize, Method, MethodSettings
from hyperspot.utils.progress import SILENT

HEIGHT, WIDTH = 64, 96
SIGMA = 4.0
DEFECT = slice(24, 40), slice(40, 56)
EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Case = TypeVar("Case")


class MethodCase:
    """A method under test; everything that several rules need is made once.

    Args:
        method_class: The class.
        settings: Its settings, for example fewer training steps. Default: its defaults.
        exportable: Whether a detector with this method can be exported. If not, exporting must raise SettingsError.

    Attributes:
        checkpoints: Results at each training step, recorded by the rule `step callback`.

    """

    def __init__(
        self,
        method_class: type[Method],
        *,
        settings: Mapping[str, Any] | MethodSettings | None = None,
        exportable: bool = True,
    ) -> None:
        self.method_class = method_class
        self.name = method_class.name
        given = settings or {}
        self.settings = given if isinstance(given, MethodSettings) else method_class.Settings(**given)
        self.exportable = exportable
        self.checkpoints: list[tuple[Tensor, Tensor]] = []

    def build(self) -> Method:
        """Return a new instance, not fitted."""
        if not self.method_class.uses_backbone:
            return self.method_class(create(NONE), self.settings)
        options = self.method_class.backbone_options(self.settings)
        return self.method_class(create(DEFAULT, weights=None, **options), self.settings)

    def fit(self, images: Float[Tensor, "_n 3 _H _W"]) -> Method:
        """Return a new instance, fitted on images in two batches."""
        method = self.build()
        method.fit(_batches(images), seed=0, progress=SILENT)
        return method.eval()

    @cached_property
    def method(self) -> Method:
        """An instance fitted on `images`."""
        return self.fit(self.images)

    @cached_property
    def images(self) -> Float[Tensor, "8 3 _H _W"]:
        """Normalized good images, not square: a bright disc on a shaded ground, with noise."""
        generator = np.random.default_rng(0)
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        disc = ((rows - HEIGHT / 2) ** 2 + (columns - WIDTH / 2) ** 2) < 20**2
        base = 0.3 * rows / HEIGHT - 0.5 + disc
        return torch.tensor(base + generator.normal(0, 0.05, (8, 3, HEIGHT, WIDTH)), dtype=torch.float32)

    @cached_property
    def detector(self) -> Detector:
        """A detector with this method, trained on six 8-bit images."""
        with _registered(self.method_class):
            return _fit_detector(
                self.images,
                method=self.name,
                method_settings=self.settings,
                weights="random:0" if self.method_class.uses_backbone else None,
            )


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
        return _fit_detector(images, method=method, method_settings=settings, backbone=self.name, weights=self.weights)


def check_method(
    method_class: type[Method],
    *,
    settings: Mapping[str, Any] | MethodSettings | None = None,
    exportable: bool = True,
) -> tuple[str, ...]:
    """Check that a method follows the rules of the contract, and return the names of the rules that were checked.

    Args:
        method_class: The class; it need not be registered.
        settings: Its settings, for example fewer training steps. Default: its defaults.
        exportable: Whether a detector with this method can be exported. The rule `export` needs the packages of the
            extras `export` and `onnxruntime`, and is left out without them.

    Raises:
        AssertionError: If a rule is broken; the message names it.

    Examples:
        >>> from hyperspot.methods import PaDiM
        >>> class Wrong(PaDiM):
        ...     name = "wrong"
        ...
        ...     def forward(self, images):
        ...         return super().forward(images)[0][:1], None
        >>> check_method(Wrong, settings={"channels": 16})
        Traceback (most recent call last):
        ...
        AssertionError: 'wrong' breaks the rule 'shapes': 8 images of 64 x 96 gave maps of shape (1, 64, 96)

    """
    return _run(METHOD_RULES, MethodCase(method_class, settings=settings, exportable=exportable))


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
    return _run(BACKBONE_RULES, BackboneCase(name, weights=weights, exportable=exportable))


def missing_for_export() -> list[str]:
    """Return the packages that the rule `export` needs and that are not installed."""
    return [name for name in EXPORT_PACKAGES if importlib.util.find_spec(name) is None]


def _run(rules: Mapping[str, Callable[[Any], None]], case: Any) -> tuple[str, ...]:
    checked = []
    for rule, check in rules.items():
        if rule == "export" and missing_for_export():
            continue
        try:
            check(case)
        # Any exception: an error inside the checked code breaks the rule, too.
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            raise AssertionError(f"'{case.name}' breaks the rule '{rule}': {kind}{error}") from error
        checked.append(rule)
    return tuple(checked)


def _shapes(case: MethodCase) -> None:
    maps, scores = _predict(case.method, case.images)
    _require(maps.shape == (8, HEIGHT, WIDTH), f"8 images of {HEIGHT} x {WIDTH} gave maps of shape {tuple(maps.shape)}")
    _require(scores.shape == (8,), f"8 images gave scores of shape {tuple(scores.shape)}")
    _require_finite(maps, scores)


def _batch_size(case: MethodCase) -> None:
    # Mirrored, so that none is a training image: a distance of zero is only the rounding of the batch.
    unseen = case.images[:3].flip(3)
    together = _predict(case.method, unseen)
    for number in range(len(unseen)):
        alone = _predict(case.method, unseen[number : number + 1])
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], other[number], rtol=1e-4, atol=1e-5)


def _forward_is_pure(case: MethodCase) -> None:
    before = {name: value.clone() for name, value in case.method.state_dict().items()}
    given = case.images[:2].clone()
    first, second = _predict(case.method, given), _predict(case.method, given)
    _require(torch.equal(first[0], second[0]) and torch.equal(first[1], second[1]), "a second call gave other results")
    _require(torch.equal(given, case.images[:2]), "forward changed its input")
    _require_same_state(before, case.method.state_dict())


def _repeatable(case: MethodCase) -> None:
    again = case.fit(case.images)
    _require_same_state(case.method.fitted_state(), again.fitted_state())
    again.fit(_batches(case.images), seed=0, progress=SILENT)
    _require_same_state(case.method.fitted_state(), again.fitted_state())


def _step_callback(case: MethodCase) -> None:
    method = case.build()
    unseen = case.images[:2].flip(3)
    steps_seen = []
    case.checkpoints = []

    def evaluate(step: int, steps: int, finalize: Finalize | None) -> None:
        steps_seen.append((step, steps))
        training = method.training
        if finalize is not None:
            finalize()
        case.checkpoints.append(_predict(method.eval(), unseen))
        method.train(training)

    method.step_callback = evaluate
    method.fit(_batches(case.images), seed=0, progress=SILENT)
    _require_same_state(case.method.fitted_state(), method.fitted_state())
    if not steps_seen:
        return
    total = steps_seen[0][1]
    _require(steps_seen == [(step, total) for step in range(1, total + 1)], f"steps were reported as {steps_seen}")
    for last, result in zip(case.checkpoints[-1], _predict(case.method, unseen), strict=True):
        torch.testing.assert_close(last, result, rtol=1e-4, atol=1e-5)


def _random_state(case: MethodCase) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    case.fit(case.images[:2])
    _require(torch.equal(torch.get_rng_state(), torch_before), "fit drew from torch's global generator")
    numpy_after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
    _require(np.array_equal(numpy_after, numpy_before), "fit drew from NumPy's global generator")


def _fitted_state(case: MethodCase) -> None:
    state = case.method.fitted_state()
    for name, value in state.items():
        _require(value.numel() > 0 and not value.is_meta, f"fit left {name} empty")
        _require(not value.requires_grad, f"{name} still requires a gradient after fit")
    other = case.build()
    other.load_fitted_state(state)
    expected, found = (_predict(method.eval(), case.images[:2]) for method in (case.method, other))
    _require(torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1]), "a restored method differs")
    with _expect(KeyError, "load_fitted_state accepted an unknown name"):
        other.load_fitted_state({"no_such_tensor": torch.zeros(1)})


def _defect(case: MethodCase) -> None:
    good = case.images[-1:].clone()
    bad = good.clone()
    bad[:, :, *DEFECT] = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 4 - 2
    maps, scores = _predict(case.method, torch.cat([good, bad]))
    _require(float(scores[1]) > float(scores[0]), "the score of an image with a pasted defect is not higher")
    inside = maps[:, *DEFECT].mean((1, 2))
    _require(float(inside[1]) > float(inside[0]), "the anomaly map is not higher at a pasted defect")


def _poor_training_images(case: MethodCase) -> None:
    images = case.images
    for poor in (images[:1], images[:1].expand(4, -1, -1, -1).contiguous(), torch.full((4, 3, HEIGHT, WIDTH), 0.5)):
        _require_finite(*_predict(case.fit(poor), torch.cat([images[:1], torch.zeros(1, 3, HEIGHT, WIDTH)])))


def _constant_images(case: MethodCase) -> None:
    for level in (-2.0, 0.0, 0.5, 3.0):
        _require_finite(*_predict(case.method, torch.full((2, 3, HEIGHT, WIDTH), level)))


def _unknown_settings(case: MethodCase) -> None:
    with _expect(ValueError, "Settings accepted an unknown name"):
        case.method_class.Settings.model_validate({"no_such_setting": 1})


def _model_file(case: MethodCase) -> None:
    with _registered(case.method_class):
        _check_model_file(case.detector, case.images)


def _export(case: MethodCase) -> None:
    with _registered(case.method_class):
        _check_export(case.detector, case.images, exportable=case.exportable)


METHOD_RULES: dict[str, Callable[[MethodCase], None]] = {
    "shapes": _shapes,
    "forward is pure": _forward_is_pure,
    "batch size": _batch_size,
    "same seed, same result": _repeatable,
    "step callback": _step_callback,
    "global random state": _random_state,
    "fitted state": _fitted_state,
    "defects score higher": _defect,
    "poor training images": _poor_training_images,
    "constant images": _constant_images,
    "unknown settings": _unknown_settings,
    "model file": _model_file,
    "export": _export,
}
"""The rules that `check_method` checks, by name."""


def _declaration(case: BackboneCase) -> None:
    backbone = case.backbone
    lengths = {len(backbone.channels), len(backbone.strides), len(backbone.levels)}
    _require(lengths == {len(backbone.channels)} and bool(backbone.channels), "channels, strides and levels differ")
    _require(list(backbone.strides) == sorted(backbone.strides), f"strides {backbone.strides} are not fine to coarse")
    _require(len(backbone.mean) == len(backbone.std) == 3 and min(backbone.std) > 0, "mean and std need three numbers")
    _require(bool(backbone.weights_source), "weights_source is empty")


def _pyramid_shapes(case: BackboneCase) -> None:
    for images in (case.images, case.images.transpose(2, 3).contiguous()):
        levels = case.backbone(images)
        _require(len(levels) == len(case.backbone.channels), f"pyramid returned {len(levels)} feature maps")
        for level, channels, stride in zip(levels, case.backbone.channels, case.backbone.strides, strict=True):
            shape = tuple(level.shape)
            sides = [abs(side / stride - found) for side, found in zip(images.shape[2:], shape[2:], strict=True)]
            _require(shape[:2] == (len(images), channels) and max(sides) < 1, f"stride {stride} gave {shape}")
            _require(bool(torch.isfinite(level).all()), f"the features of stride {stride} are not finite")


def _frozen(case: BackboneCase) -> None:
    modules = torch.nn.Sequential(case.backbone).train()[0].modules()
    _require(not any(module.training for module in modules), "a module is in training mode")
    _require(not any(one.requires_grad for one in case.backbone.parameters()), "a parameter requires a gradient")


def _backbone_batch_size(case: BackboneCase) -> None:
    for together, alone in zip(case.backbone(case.images), case.backbone(case.images[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-4)


def _backbone_is_pure(case: BackboneCase) -> None:
    before = {name: value.clone() for name, value in case.backbone.state_dict().items()}
    given = case.images.clone()
    first, second = case.backbone(given), case.backbone(given)
    _require(all(map(torch.equal, first, second)), "a second call gave other features")
    _require(torch.equal(given, case.images), "forward changed its input")
    _require_same_state(before, case.backbone.state_dict())


def _half_precision(case: BackboneCase) -> None:
    expected = case.backbone(case.images)
    case.backbone.precision = "bf16"
    try:
        found = case.backbone(case.images)
    finally:
        case.backbone.precision = "f32"
    for level, half in zip(expected, found, strict=True):
        deviation = float((half - level).abs().mean() / level.std())
        _require(half.dtype == torch.float32 and deviation < 0.1, f"features in bf16 deviate by {deviation:.2f} std")


def _random_weights(case: BackboneCase) -> None:
    before = torch.get_rng_state()
    first, again, other = (create(case.name, f"random:{seed}").state_dict() for seed in (5, 5, 6))
    _require(torch.equal(torch.get_rng_state(), before), "create drew from torch's global generator")
    _require_same_state(first, again)
    differ = any(not torch.equal(first[name], other[name]) for name in first)
    _require(differ or not first, "two seeds gave the same weights")


def _restored(case: BackboneCase) -> None:
    state = {name: value.contiguous().clone() for name, value in case.backbone.state_dict().items()}
    again = restore(case.name, state, weights_source="a file", weights_sha256=None)
    _require(all(map(torch.equal, case.backbone(case.images), again(case.images))), "a restored backbone differs")
    if not state:
        return
    state.popitem()
    with _expect(WeightsError, "restore accepted weights with a missing tensor"):
        restore(case.name, state, weights_source="a file", weights_sha256=None)


def _detectors(case: BackboneCase) -> None:
    images = MethodCase(METHODS["cfa"]).images
    for method, settings in _methods_for(case.backbone).items():
        _check_model_file(case.detector(method, settings), images)


def _backbone_export(case: BackboneCase) -> None:
    images = MethodCase(METHODS["cfa"]).images
    for method, settings in _methods_for(case.backbone).items():
        _check_export(case.detector(method, settings), images, exportable=case.exportable)


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


def _batches(images: Float[Tensor, "n 3 H W"]) -> list[Tensor]:
    return [images[:5], images[5:]] if len(images) > 5 else [images]


@torch.inference_mode()
def _predict(method: Method, images: Float[Tensor, "b 3 H W"]) -> tuple[Tensor, Tensor]:
    """Return smoothed maps and image scores, as a detector does."""
    raw, own = method(images)
    maps = smooth(raw, images.shape[2], images.shape[3], SIGMA)
    return maps, maps.amax((1, 2)) if own is None else own


def _frames(images: Float[Tensor, "n 3 H W"]) -> list[np.ndarray]:
    """Return normalized images as 8-bit images, and a last one with a defect."""
    frames = ((images * 0.2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    bad = frames[-1].copy()
    bad[DEFECT] = np.random.default_rng(1).integers(0, 256, (16, 16, 3))
    return [*frames, bad]


def _fit_detector(images: Tensor, **changes: Any) -> Detector:
    detector = Detector.fit(_frames(images)[:6], short_side=HEIGHT, false_alarm_rate=0.5, device="cpu", **changes)
    size = detector.input_size
    _require((size.height, size.width) == (HEIGHT, WIDTH), f"the input size is {size.height} x {size.width}")
    return detector


def _check_model_file(detector: Detector, images: Tensor) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = detector.save(Path(folder) / "model.safetensors")
        loaded = Detector.load(path, device="cpu")
        for frame in _frames(images)[-3:]:
            expected, found = detector.predict(frame), loaded.predict(frame)
            same = np.array_equal(found.heatmap, expected.heatmap) and np.array_equal(found.mask, expected.mask)
            same &= (found.score, found.p_value, found.is_anomalous) == (
                expected.score,
                expected.p_value,
                expected.is_anomalous,
            )
            _require(same and found.regions == expected.regions, "the verdict of a loaded detector differs")
        again = loaded.save(Path(folder) / "again.safetensors")
        _require(again.read_bytes() == path.read_bytes(), "saving a loaded detector gave another file")


def _check_export(detector: Detector, images: Tensor, *, exportable: bool) -> None:
    from hyperspot.export.exporting import export
    from hyperspot.runtime import ExportedDetector

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        if not exportable:
            with _expect(SettingsError, "export did not refuse"):
                export(detector, path)
            _require(not any(Path(folder).iterdir()), "a refused export left a file")
            return
        export(detector, path)
        exported = ExportedDetector.load(path, engine="onnxruntime")
        # None is a training image: a distance of zero is only the rounding of the engine.
        frames = _frames(images)
        for batch in (np.stack(frames[-1:]), np.stack(frames[-3:])):
            (maps, scores), (found_maps, found_scores) = detector.run(batch), exported.run(batch)
            np.testing.assert_allclose(found_maps, maps, rtol=0, atol=1e-4 * np.abs(maps).max())
            _require((scores is None) == (found_scores is None), "only one of both gives image scores")
            if scores is not None and found_scores is not None:
                np.testing.assert_allclose(found_scores, scores, rtol=1e-4)


@contextlib.contextmanager
def _registered(cls: type[Method]) -> Iterator[None]:
    """Register a method for a while, unless it is registered; model files look it up by name."""
    known = METHODS.get(cls.name)
    _require(known in (None, cls), f"the name '{cls.name}' belongs to another method")
    METHODS[cls.name] = cls
    try:
        yield
    finally:
        if known is None:
            del METHODS[cls.name]


@contextlib.contextmanager
def _expect(error: type[Exception], otherwise: str) -> Iterator[None]:
    try:
        yield
    except error:
        return
    raise AssertionError(f"{otherwise}; it must raise {error.__name__}")


def _require(condition: bool, otherwise: str) -> None:
    # Not an assert statement, which `python -O` removes.
    if not condition:
        raise AssertionError(otherwise)


def _require_finite(maps: Tensor, scores: Tensor) -> None:
    _require(bool(torch.isfinite(maps).all()), "the anomaly map is not finite")
    _require(bool(torch.isfinite(scores).all()), "the score is not finite")


def _require_same_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    _require(expected.keys() == found.keys(), f"tensors are {sorted(found)} instead of {sorted(expected)}")
    for name, value in expected.items():
        _require(torch.equal(value, found[name]), f"{name} differs")
