"""Loads a predictor from any file: a model file (torch) or an exported file (no torch)."""

from pathlib import Path
from typing import get_args

from hyperspot.errors import SettingsError
from hyperspot.hardware.cpu import Precision
from hyperspot.predictor import Predictor
from hyperspot.runtime import ExportedDetector, is_exported
from hyperspot.utils.optional_packages import explain

ENGINES = ("torch", "openvino", "onnxruntime")


def load_model(
    path: Path | str,
    *,
    engine: str | None = None,
    precision: str | None = None,
    device: str = "auto",
    false_alarm_rate: float | None = None,
) -> Predictor:
    """Return the detector of a model file or of an exported file; only a model file imports torch.

    Args:
        path: Of the file.
        engine: `torch` for a model file, `openvino` or `onnxruntime` for an exported file; default: what is installed.
        precision: Of the backbone; default: what suits the device.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        false_alarm_rate: The false-alarm rate to promise; default: that of the file.

    Raises:
        ModelFileError: If the file is missing, damaged or foreign.
        SettingsError: If the engine, the precision or the device does not fit the file.
        DeviceError: If there is no such device, or it lacks the precision.
        MissingPackageError: If torch is needed and not installed.
        CalibrationError: If the file has too few calibration scores for the rate.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from hyperspot import Detector, load_model
        >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Detector.fit(good, short_side=64, false_alarm_rate=0.2).save(f"{folder}/part.safetensors")
        ...     predictor = load_model(path, false_alarm_rate=0.5)
        >>> predictor.predict(np.full((64, 64, 3), 255, np.uint8)).is_anomalous
        True

    """
    predictor = _open(Path(path), engine, _precision(precision), device)
    return predictor if false_alarm_rate is None else predictor.with_false_alarm_rate(false_alarm_rate)


def _open(path: Path, engine: str | None, precision: Precision | None, device: str) -> Predictor:
    if is_exported(path):
        if device not in ("auto", "cpu"):
            raise SettingsError(f"{path} is an exported file and runs on the CPU; for {device} give the model file")
        return ExportedDetector.load(path, engine=engine, precision=precision)
    if engine is not None and engine not in ENGINES:
        raise SettingsError(f"there is no engine '{engine}'; choose one of {', '.join(ENGINES)}")
    if engine not in (None, "torch"):
        raise SettingsError(f"{path} runs in torch only; `hyperspot export` makes a file for {engine}")
    try:
        from hyperspot.detector.detector import Detector
    except ModuleNotFoundError as error:
        raise explain(error, f"predicting with the model file {path}, unlike with an exported file,") from None
    return Detector.load(path, device=device, precision=precision)


def _precision(named: str | None) -> Precision | None:
    known: dict[str, Precision] = {one: one for one in get_args(Precision)}
    if named is not None and named not in known:
        raise SettingsError(f"there is no precision '{named}'; choose one of {', '.join(known)}")
    return None if named is None else known[named]
