"""Conformance rules of methods."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hyperspot.backbones import DEFAULT, NONE, create
from hyperspot.detector.detector import Detector
from hyperspot.detector.heatmaps import smooth
from hyperspot.methods import Finalize, LeftOut, Method, MethodSettings
from hyperspot.testing.checks import (
    DEFECT,
    HEIGHT,
    SIGMA,
    WIDTH,
    check_export,
    check_model_file,
    expect,
    fit_detector,
    in_batches,
    predict_maps,
    registered,
    require,
    require_finite,
    require_same_state,
    run_rules,
)
from hyperspot.utils.progress import SILENT

NEAR = 1.25
"""Largest ratio, either way, of an approximate left-out map to that of a method fitted without the image, at an odd
place. Ratios of registered methods lie within 0.95 to 1.05; with the vectors of the image in the memory, below 0.6."""

MERGED = 1.5
"""Largest ratio, either way, of the anomaly maps of unseen images after an update to those after fitting all images.
Ratios of registered methods lie within 0.9 to 1.3 for the few images here."""


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
        method.fit(in_batches(images), seed=0, progress=SILENT)
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
        with registered(self.method_class):
            return fit_detector(
                self.images,
                method=self.name,
                method_settings=self.settings,
                weights="random:0" if self.method_class.uses_backbone else None,
            )


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
    return run_rules(METHOD_RULES, MethodCase(method_class, settings=settings, exportable=exportable))


def _shapes(case: MethodCase) -> None:
    maps, scores = predict_maps(case.method, case.images)
    require(maps.shape == (8, HEIGHT, WIDTH), f"8 images of {HEIGHT} x {WIDTH} gave maps of shape {tuple(maps.shape)}")
    require(scores.shape == (8,), f"8 images gave scores of shape {tuple(scores.shape)}")
    require_finite(maps, scores)


def _batch_size(case: MethodCase) -> None:
    # Mirrored, so that none is a training image: a distance of zero is only the rounding of the batch.
    unseen = case.images[:3].flip(3)
    together = predict_maps(case.method, unseen)
    for number in range(len(unseen)):
        alone = predict_maps(case.method, unseen[number : number + 1])
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], other[number], rtol=1e-4, atol=1e-5)


def _forward_is_pure(case: MethodCase) -> None:
    before = {name: value.clone() for name, value in case.method.state_dict().items()}
    given = case.images[:2].clone()
    first, second = predict_maps(case.method, given), predict_maps(case.method, given)
    require(torch.equal(first[0], second[0]) and torch.equal(first[1], second[1]), "a second call gave other results")
    require(torch.equal(given, case.images[:2]), "forward changed its input")
    require_same_state(before, case.method.state_dict())


def _repeatable(case: MethodCase) -> None:
    again = case.fit(case.images)
    require_same_state(case.method.fitted_state(), again.fitted_state())
    again.fit(in_batches(case.images), seed=0, progress=SILENT)
    require_same_state(case.method.fitted_state(), again.fitted_state())


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
        case.checkpoints.append(predict_maps(method.eval(), unseen))
        method.train(training)

    method.step_callback = evaluate
    method.fit(in_batches(case.images), seed=0, progress=SILENT)
    require_same_state(case.method.fitted_state(), method.fitted_state())
    if not steps_seen:
        return
    total = steps_seen[0][1]
    require(steps_seen == [(step, total) for step in range(1, total + 1)], f"steps were reported as {steps_seen}")
    for last, result in zip(case.checkpoints[-1], predict_maps(case.method, unseen), strict=True):
        torch.testing.assert_close(last, result, rtol=1e-4, atol=1e-5)


def _random_state(case: MethodCase) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    case.fit(case.images[:2])
    require(torch.equal(torch.get_rng_state(), torch_before), "fit drew from torch's global generator")
    numpy_after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
    require(np.array_equal(numpy_after, numpy_before), "fit drew from NumPy's global generator")


def _fitted_state(case: MethodCase) -> None:
    state = case.method.fitted_state()
    for name, value in state.items():
        require(value.numel() > 0 and not value.is_meta, f"fit left {name} empty")
        require(not value.requires_grad, f"{name} still requires a gradient after fit")
    other = case.build()
    other.load_fitted_state(state)
    expected, found = (predict_maps(method.eval(), case.images[:2]) for method in (case.method, other))
    require(torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1]), "a restored method differs")
    with expect(KeyError, "load_fitted_state accepted an unknown name"):
        other.load_fitted_state({"no_such_tensor": torch.zeros(1)})


def _defect(case: MethodCase) -> None:
    good = case.images[-1:].clone()
    bad = good.clone()
    bad[:, :, *DEFECT] = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 4 - 2
    maps, scores = predict_maps(case.method, torch.cat([good, bad]))
    require(float(scores[1]) > float(scores[0]), "the score of an image with a pasted defect is not higher")
    inside = maps[:, *DEFECT].mean((1, 2))
    require(float(inside[1]) > float(inside[0]), "the anomaly map is not higher at a pasted defect")


def _poor_training_images(case: MethodCase) -> None:
    images = case.images
    for poor in (images[:1], images[:1].expand(4, -1, -1, -1).contiguous(), torch.full((4, 3, HEIGHT, WIDTH), 0.5)):
        require_finite(*predict_maps(case.fit(poor), torch.cat([images[:1], torch.zeros(1, 3, HEIGHT, WIDTH)])))


def _constant_images(case: MethodCase) -> None:
    for level in (-2.0, 0.0, 0.5, 3.0):
        require_finite(*predict_maps(case.method, torch.full((2, 3, HEIGHT, WIDTH), level)))


def _leave_one_out(case: MethodCase) -> None:
    support = case.method_class.leave_one_out(case.settings)
    groups = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6])
    odd = case.images.clone()
    # Odd places, the first shared by a whole group: nothing but vectors of the same group makes them normal.
    patches = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 4 - 2
    odd[:3, :, *DEFECT] = patches[[0, 0, 1]]
    method = case.build()
    if support is None:
        with expect(NotImplementedError, "fit_leave_one_out did not refuse what leave_one_out does not claim"):
            method.fit_leave_one_out(in_batches(odd), groups, seed=0, progress=SILENT)
        return
    left_out = list(method.fit_leave_one_out(in_batches(odd), groups, seed=0, progress=SILENT))
    require(len(left_out) == len(odd), f"{len(odd)} images gave {len(left_out)} left-out results")
    fitted, expected = method.eval().fitted_state(), case.fit(odd).fitted_state()
    require(fitted.keys() == expected.keys(), "fit_leave_one_out and fit leave other tensors")
    for name, value in expected.items():
        torch.testing.assert_close(fitted[name], value, rtol=1e-3, atol=1e-4, msg=f"{name} differs from that of fit")
    for index in (0, 1, 2, 7):
        found, own = left_out[index]
        without = case.fit(odd[groups != groups[index]])
        with torch.inference_mode():
            raw, score = without(odd[index : index + 1])
        require(found.shape == raw.shape[1:], f"a left-out map has the shape {tuple(found.shape)}")
        require((own is None) == (score is None), "only one of forward and fit_leave_one_out gives an image score")
        if support == "exact" or index < 3:
            _require_left_out(odd, found, raw, exact=support == "exact")
        if support == "exact" and own is not None and score is not None:
            torch.testing.assert_close(own, score[0], rtol=1e-3, atol=1e-4)


def _update(case: MethodCase) -> None:
    odd = case.images.clone()
    # The new images have odd places, the first of them shared by a whole group.
    patches = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 4 - 2
    odd[5:, :, *DEFECT] = patches[[0, 0, 1]]
    fitted = case.fit(odd[:5])

    def updated(*arrivals: list[int]) -> tuple[Method, list[LeftOut]]:
        """Return a copy of the fitted method, updated by some images at a time, and the results of the last ones."""
        method, left_out = case.build(), []
        method.load_fitted_state(fitted.fitted_state())
        for arrival in arrivals:
            groups = torch.tensor([0, 0, 1])[[index - 5 for index in arrival]]
            batches = [odd[arrival[:2]], odd[arrival[2:]]] if arrival[2:] else [odd[arrival]]
            left_out = list(method.update(batches, groups, seed=0, progress=SILENT))
        return method.eval(), left_out

    if not case.method_class.can_update(case.settings):
        with expect(NotImplementedError, "update did not refuse what can_update does not claim"):
            updated([5, 6, 7])
        return
    before = {name: value.clone() for name, value in fitted.fitted_state().items()}
    method, left_out = updated([5, 6, 7])
    require_same_state(before, fitted.fitted_state())
    require(len(left_out) == 3, f"3 new images gave {len(left_out)} left-out results")
    require_same_state(method.fitted_state(), updated([5, 6, 7])[0].fitted_state())
    everything = case.fit(odd)
    for name, value in everything.fitted_state().items():
        require(
            method.fitted_state()[name].numel() <= value.numel(),
            f"{name} has {method.fitted_state()[name].numel()} values, and {value.numel()} if all images are fitted",
        )
    seen, unseen = odd[5:6], case.images[:3].flip(3)
    maps = [float(predict_maps(one, seen)[0][:, *DEFECT].mean()) for one in (fitted, method)]
    require(maps[1] < maps[0] / NEAR, f"a learned place is {maps[1] / maps[0]:.2f} times as anomalous as before")
    expected = predict_maps(everything, unseen)[0].mean((1, 2))
    for arrivals in ([[5, 6, 7]], [[5, 6], [7]], [[7], [5, 6]]):
        ratios = predict_maps(updated(*arrivals)[0], unseen)[0].mean((1, 2)) / expected
        require(
            bool(((ratios <= MERGED) & (ratios >= 1 / MERGED)).all()),
            f"after the arrivals {arrivals} unseen images are {ratios.tolist()} times as anomalous as after one fit",
        )
    exact = case.method_class.leave_one_out(case.settings) == "exact"
    for index, others in ((5, [7]), (7, [5, 6])):
        found, own = left_out[index - 5]
        with torch.inference_mode():
            raw, score = updated(others)[0](odd[index : index + 1])
        require(found.shape == raw.shape[1:], f"a left-out map has the shape {tuple(found.shape)}")
        require((own is None) == (score is None), "only one of forward and update gives an image score")
        _require_left_out(odd, found, raw, exact=exact)


def _require_left_out(
    images: Float[Tensor, "_n 3 H W"], found: Float[Tensor, "h w"], raw: Float[Tensor, "1 h w"], *, exact: bool
) -> None:
    """Require that a left-out map is that of a method without the image, at least at its odd place."""
    if exact:
        torch.testing.assert_close(found, raw[0], rtol=1e-3, atol=1e-3 * float(raw.abs().max()))
        return
    size = (images.shape[2], images.shape[3], SIGMA)
    near, far = (float(smooth(one, *size)[:, *DEFECT].mean()) for one in (found[None], raw))
    require(
        1 / NEAR <= near / far <= NEAR,
        f"an odd place is {near / far:.2f} times as anomalous as without its image and group",
    )


def _unknown_settings(case: MethodCase) -> None:
    with expect(ValueError, "Settings accepted an unknown name"):
        case.method_class.Settings.model_validate({"no_such_setting": 1})


def _model_file(case: MethodCase) -> None:
    with registered(case.method_class):
        check_model_file(case.detector, case.images)


def _export(case: MethodCase) -> None:
    with registered(case.method_class):
        check_export(case.detector, case.images, exportable=case.exportable)


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
    "leave one out": _leave_one_out,
    "update": _update,
    "unknown settings": _unknown_settings,
    "model file": _model_file,
    "export": _export,
}
"""The rules that `check_method` checks, by name."""
