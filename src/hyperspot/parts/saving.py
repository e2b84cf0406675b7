"""Puts the models of all views, and what belongs to them, into one file, and reads it."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hyperspot.decision.rule import DecisionRule
from hyperspot.errors import HyperspotError, ModelFileError
from hyperspot.model_loading import load_model
from hyperspot.parts import part_file
from hyperspot.parts.calibration import PartCalibration
from hyperspot.predictor import Predictor
from hyperspot.runtime import ExportedDetector

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, HyperspotError)
"""Raised when a manifest that `write` did not write is put together."""


class Contents(NamedTuple):
    """What a `PartInspector` consists of."""

    predictors: Mapping[str, Predictor]
    images: Mapping[str, tuple[str, ...]]
    calibration: PartCalibration
    record: dict[str, Any]


def write(path: Path, contents: Contents) -> Path:
    """Write the file atomically; a shared model is written once. Raises ModelFileError if it cannot be written."""
    part_file.require_writable(path)
    with tempfile.TemporaryDirectory() as folder:
        files: dict[int, Path] = {}
        views: dict[str, dict[str, Any]] = {}
        for view, predictor in contents.predictors.items():
            key = id(_model(predictor))
            if key not in files:
                suffix = ".onnx" if isinstance(predictor, ExportedDetector) else ".safetensors"
                saved: Any = predictor
                files[key] = saved.save(Path(folder, f"model{len(files)}{suffix}"))
            rule = predictor.decision_rule.to_dict()
            # They follow from the calibration of the part.
            rule.pop("scores")
            views[view] = {"file": files[key].name, "images": list(contents.images[view]), "decision_rule": rule}
        manifest = {"views": views, "calibration": contents.calibration.to_dict(), "record": contents.record}
        # A tiled detector has a second file beside the one that it is read from.
        part_file.write(path, manifest, sorted(Path(folder).iterdir()))
    return path


def read(path: Path, engine: str | None, precision: str | None, device: str) -> tuple[Contents, part_file.Unpacked]:
    """Return what `write` wrote, and the unpacked model files.

    Raises:
        ModelFileError: If the file is missing, damaged, foreign or made by a newer version.
        HyperspotError: As `load_model`.

    """
    manifest, unpacked = part_file.read(path)
    views = manifest["views"]
    try:
        files = {view["file"] for view in views.values()}
        calibration = PartCalibration.from_dict(manifest["calibration"])
        if tuple(views) != calibration.views or not files <= set(manifest["sha256"]):
            raise ValueError("its views are not those of its calibration and its files")
        images = {name: tuple(map(str, view["images"])) for name, view in views.items()}
        rules = {
            name: DecisionRule.from_dict({**view["decision_rule"], "scores": calibration.of_view(name).scores})
            for name, view in views.items()
        }
    except MALFORMED as error:
        raise ModelFileError(
            f"{path} does not hold a whole part inspector ({type(error).__name__}: {error}); train it again"
        ) from None
    models = {file: _load(path, unpacked.folder / file, engine, precision, device) for file in files}
    predictors = {name: models[view["file"]].with_decision_rule(rules[name]) for name, view in views.items()}
    return Contents(predictors, images, calibration, manifest["record"]), unpacked


def export(path: Path, contents: Contents) -> Path:
    """Write the file with every model as an ONNX file; raises ModelFileError if one is exported already."""
    from hyperspot.export import export as export_model

    part_file.require_writable(path)
    if any(isinstance(predictor, ExportedDetector) for predictor in contents.predictors.values()):
        raise ModelFileError("the models of this part are exported already; give the file made by training")
    with tempfile.TemporaryDirectory() as folder:
        exported: dict[int, ExportedDetector] = {}
        predictors = {}
        for view, predictor in contents.predictors.items():
            key = id(_model(predictor))
            if key not in exported:
                detector: Any = predictor
                exported[key] = ExportedDetector.load(export_model(detector, Path(folder, f"{len(exported)}.onnx")))
            predictors[view] = exported[key].with_decision_rule(predictor.decision_rule)
        return write(path, contents._replace(predictors=predictors))


def _load(path: Path, file: Path, engine: str | None, precision: str | None, device: str) -> Predictor:
    try:
        return load_model(file, engine=engine, precision=precision, device=device)
    except HyperspotError as error:
        # The temporary folder says nothing to the user.
        raise type(error)(str(error).replace(str(file), f"{file.name} in {path}")) from None


def _model(predictor: Predictor) -> object:
    """Return what predictors share that differ in their decision rules alone."""
    shared: Any = predictor
    return shared.engine if isinstance(predictor, ExportedDetector) else shared.anomaly_model
