"""A detector read from an exported file: the whole verdict without torch."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from hyperspot.decision.rule import DecisionRule
from hyperspot.errors import CalibrationError, ModelFileError
from hyperspot.hardware.cpu import Precision
from hyperspot.images import Crop, InputSize
from hyperspot.images.tiles import Tiling
from hyperspot.predictor import Predictor
from hyperspot.runtime import exported_file
from hyperspot.runtime.engines import Engine, open_engine

MALFORMED = (KeyError, TypeError, ValueError, CalibrationError)
"""Raised by metadata that `hyperspot export` did not write."""


class ExportedDetector(Predictor):
    """Predicts as the `Detector` that it was exported from.

    Attributes:
        engine: Runs its graph.
        description: Metadata of the file: settings, input size, decision rule, and the training record.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from hyperspot import Detector, ExportedDetector
        >>> from hyperspot.export import export
        >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
        >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
        >>> bad = np.full((64, 64, 3), 255, np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = export(detector, f"{folder}/part.onnx")
        ...     exported = ExportedDetector.load(path, precision="f32")
        ...     recalibrated = exported.recalibrate(good).save(f"{folder}/recalibrated.onnx")
        >>> exported.predict(bad).is_anomalous
        True
        >>> bool(np.isclose(exported.predict(bad).score, detector.predict(bad).score))
        True

    """

    def __init__(self, engines: Sequence[Engine], description: dict[str, Any], path: Path | None = None) -> None:
        self.engine, *_ = self._engines = tuple(engines)
        self.description = description
        tiling = description.get("tiling")
        self.tiling = None if tiling is None else Tiling.from_dict(tiling)
        self.input_size = (
            InputSize.from_dict(description["input_size"]) if self.tiling is None else self.tiling.input_size
        )
        self.crops = tuple(Crop(**crop) for crop in description["crops"])
        self.decision_rule = DecisionRule.from_dict(description["decision_rule"])
        self.has_image_score = bool(description["has_image_score"])
        self._path = path

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        engine: str | None = None,
        threads: int | None = None,
        precision: Precision | None = None,
    ) -> "ExportedDetector":
        """Read a file that `hyperspot export` wrote.

        Args:
            path: `.onnx`, or `.xml` with its `.bin` beside it.
            engine: `openvino` or `onnxruntime`; default: the first of the two that is installed.
            threads: Of the engine; default: its choice.
            precision: Of the backbone, in OpenVINO: `f32` or `bf16`; default: what suits the CPU.

        Raises:
            ModelFileError: If the file is missing, damaged, foreign or made by a newer version.
            MissingPackageError: If the engine is not installed.
            SettingsError: If the engine or the precision does not fit the file.

        """
        path = Path(path)
        exported_file.check(path)
        opened = open_engine(path, engine, threads=threads, precision=precision)
        description = exported_file.read_description(path, opened.description)
        engines = [opened]
        try:
            tiling = description.get("tiling")
            files = exported_file.view_files(path, 1 if tiling is None else len(Tiling.from_dict(tiling).views))
        except MALFORMED as error:
            raise _not_whole(path, error) from None
        for beside in files[1:]:
            if not beside.is_file():
                raise ModelFileError(f"{beside} with the view of the whole image does not exist; copy it beside {path}")
            exported_file.check(beside)
            engines.append(open_engine(beside, engine, threads=threads, precision=precision))
            other = exported_file.read_description(beside, engines[-1].description)
            if {**other, "checksum": None} != {**description, "checksum": None}:
                raise ModelFileError(f"{beside} is not of the same export as {path.name}; copy both files again")
        try:
            return cls(engines, description, path)
        except MALFORMED as error:
            raise _not_whole(path, error) from None

    def run(
        self, batch: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]:
        """Return the anomaly maps and, if the method has its own, the image scores."""
        runs = [partial(self._run_engine, engine) for engine in self._engines]
        return runs[0](batch) if self.tiling is None else self.tiling.run(batch, runs)

    def _run_engine(
        self, engine: Engine, batch: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]:
        maps, scores = engine.run(batch)
        return maps, scores if self.has_image_score else None

    def describe(self) -> dict[str, Any]:
        """Return the settings, the training record and the versions at export, as JSON values."""
        return {
            "settings": self.description["settings"],
            "training": self.description["record"],
            "versions": self.description["versions"],
        }

    def save(self, path: Path | str) -> Path:
        """Write the exported file again with the current decision rule; the graph is copied unchanged.

        Raises:
            ModelFileError: If the suffix differs from that of the file it was read from, or it cannot be written.

        """
        path = Path(path)
        if self._path is None or path.suffix.lower() != self._path.suffix.lower():
            raise ModelFileError(f"{path} cannot be written: only a copy of {self._path} in the same format")
        changed = {**self.description, "decision_rule": self.decision_rule.to_dict()}
        sources, targets = (exported_file.view_files(one, len(self._engines)) for one in (self._path, path))
        exported_file.require_replaceable(path)
        for source, target in reversed(list(zip(sources, targets, strict=True))):
            exported_file.check(source)
            exported_file.rewrite(source, target, changed)
        exported_file.remove_stale(path, len(targets))
        return path


def _not_whole(path: Path, error: Exception) -> ModelFileError:
    return ModelFileError(f"{path} does not hold a whole detector ({type(error).__name__}: {error}); export it again")
