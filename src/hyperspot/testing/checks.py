"""What the rules of methods and backbones share."""

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hyperspot.detector.detector import Detector
from hyperspot.detector.heatmaps import smooth
from hyperspot.errors import SettingsError
from hyperspot.methods import METHODS, Method

HEIGHT, WIDTH = 64, 96
SIGMA = 4.0
DEFECT = slice(24, 40), slice(40, 56)
EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing_for_export() -> list[str]:
    """Return the packages that the rule `export` needs and that are not installed."""
    return [name for name in EXPORT_PACKAGES if importlib.util.find_spec(name) is None]


def run_rules(rules: Mapping[str, Callable[[Any], None]], case: Any) -> tuple[str, ...]:
    """Run all rules on a case and return their names; raises AssertionError with the name of a broken one."""
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


def in_batches(images: Float[Tensor, "n 3 H W"]) -> list[Tensor]:
    """Return images in two batches of different size, if there are enough."""
    return [images[:5], images[5:]] if len(images) > 5 else [images]


@torch.inference_mode()
def predict_maps(method: Method, images: Float[Tensor, "b 3 H W"]) -> tuple[Tensor, Tensor]:
    """Return smoothed maps and image scores, as a detector does."""
    raw, own = method(images)
    maps = smooth(raw, images.shape[2], images.shape[3], SIGMA)
    return maps, maps.amax((1, 2)) if own is None else own


def as_arrays(images: Float[Tensor, "n 3 H W"]) -> list[np.ndarray]:
    """Return normalized images as 8-bit images, and a last one with a defect."""
    frames = ((images * 0.2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    bad = frames[-1].copy()
    bad[DEFECT] = np.random.default_rng(1).integers(0, 256, (16, 16, 3))
    return [*frames, bad]


def fit_detector(images: Tensor, **changes: Any) -> Detector:
    """Fit a small detector whose input is not square."""
    detector = Detector.fit(as_arrays(images)[:6], short_side=HEIGHT, false_alarm_rate=0.5, device="cpu", **changes)
    size = detector.input_size
    require((size.height, size.width) == (HEIGHT, WIDTH), f"the input size is {size.height} x {size.width}")
    return detector


def check_model_file(detector: Detector, images: Tensor) -> None:
    """Require that a saved and loaded detector gives the same verdicts bit by bit."""
    with tempfile.TemporaryDirectory() as folder:
        path = detector.save(Path(folder) / "model.safetensors")
        loaded = Detector.load(path, device="cpu")
        for frame in as_arrays(images)[-3:]:
            expected, found = detector.predict(frame), loaded.predict(frame)
            same = np.array_equal(found.heatmap, expected.heatmap) and np.array_equal(found.mask, expected.mask)
            same &= (found.score, found.p_value, found.is_anomalous) == (
                expected.score,
                expected.p_value,
                expected.is_anomalous,
            )
            require(same and found.regions == expected.regions, "the verdict of a loaded detector differs")
        again = loaded.save(Path(folder) / "again.safetensors")
        require(again.read_bytes() == path.read_bytes(), "saving a loaded detector gave another file")


def check_export(detector: Detector, images: Tensor, *, exportable: bool) -> None:
    """Require that an exported detector gives the same numbers, or that exporting is refused with SettingsError."""
    from hyperspot.export.exporting import export
    from hyperspot.runtime import ExportedDetector

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        if not exportable:
            with expect(SettingsError, "export did not refuse"):
                export(detector, path)
            require(not any(Path(folder).iterdir()), "a refused export left a file")
            return
        export(detector, path)
        exported = ExportedDetector.load(path, engine="onnxruntime")
        # None is a training image: a distance of zero is only the rounding of the engine.
        frames = as_arrays(images)
        for batch in (np.stack(frames[-1:]), np.stack(frames[-3:])):
            (maps, scores), (found_maps, found_scores) = detector.run(batch), exported.run(batch)
            np.testing.assert_allclose(found_maps, maps, rtol=0, atol=1e-4 * np.abs(maps).max())
            require((scores is None) == (found_scores is None), "only one of both gives image scores")
            if scores is not None and found_scores is not None:
                np.testing.assert_allclose(found_scores, scores, rtol=1e-4)


@contextlib.contextmanager
def registered(cls: type[Method]) -> Iterator[None]:
    """Register a method for a while, unless it is registered; model files look it up by name."""
    known = METHODS.get(cls.name)
    require(known in (None, cls), f"the name '{cls.name}' belongs to another method")
    METHODS[cls.name] = cls
    try:
        yield
    finally:
        if known is None:
            del METHODS[cls.name]


@contextlib.contextmanager
def expect(error: type[Exception], otherwise: str) -> Iterator[None]:
    """Require that the block raises an error."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"{otherwise}; it must raise {error.__name__}")


def require(condition: bool, otherwise: str) -> None:
    """Raise AssertionError with a message unless a condition holds."""
    # Not an assert statement, which `python -O` removes.
    if not condition:
        raise AssertionError(otherwise)


def require_finite(maps: Tensor, scores: Tensor) -> None:
    """Require finite anomaly maps and scores."""
    require(bool(torch.isfinite(maps).all()), "the anomaly map is not finite")
    require(bool(torch.isfinite(scores).all()), "the score is not finite")


def require_same_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Require equal names and equal bits of two states."""
    require(expected.keys() == found.keys(), f"tensors are {sorted(found)} instead of {sorted(expected)}")
    for name, value in expected.items():
        require(torch.equal(value, found[name]), f"{name} differs")
