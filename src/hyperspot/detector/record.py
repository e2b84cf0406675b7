"""The training record: data and versions that made a detector."""

import importlib.metadata
import platform
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import hyperspot
from hyperspot.data import Dataset
from hyperspot.decision.calibration import FEW, Calibration
from hyperspot.errors import CalibrationWarning
from hyperspot.images.reading import ImageInput


def versions() -> dict[str, str]:
    """Return the versions of hyperspot, Python, torch, NumPy and Pillow."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "pillow")}
    return {"hyperspot": hyperspot.__version__, "python": platform.python_version(), **packages}


def described(data: Dataset | Sequence[ImageInput]) -> dict[str, Any]:
    """Return name, layout and fingerprint of a data set, or of images in memory."""
    if isinstance(data, Dataset):
        return {"name": data.name, "layout": data.layout, "fingerprint": data.fingerprint()}
    return {"name": "images", "layout": "memory", "fingerprint": None}


def images_learned(record: Mapping[str, Any]) -> int:
    """Return the number of good images of the training and of all updates.

    Examples:
        >>> images_learned({"data": {"images": 50}, "updates": [{"images": 20}, {"images": 5}]})
        75

    """
    return int(record["data"]["images"]) + sum(int(one["images"]) for one in record.get("updates", ()))


def warn_of_few(calibration: Calibration) -> None:
    """Warn if few images calibrate, which makes the default rate high and the threshold unsteady."""
    n = len(calibration.scores)
    if calibration.threshold is None or n >= FEW:
        return
    low, high = calibration.rate_interval()
    warnings.warn(
        f"{n} good images calibrate the threshold, so that {calibration.false_alarm_rate:.0%} of good parts may be "
        f"called anomalous (true rate {low:.0%} to {high:.0%} with 90% confidence); "
        f"{calibration.images_for(0.05).default} images would allow 5%",
        CalibrationWarning,
        stacklevel=3,
    )
