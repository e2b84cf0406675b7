"""Saves and describes whatever a command calls a model: a model file (torch) or an exported file (no torch)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperspot.errors import ModelFileError
from hyperspot.runtime import ExportedDetector, is_exported

if TYPE_CHECKING:
    from hyperspot.predictor import Predictor


def save_predictor(predictor: "Predictor", path: Path) -> None:
    """Write a model file or an exported file; raises ModelFileError if the suffix does not fit or writing fails."""
    if isinstance(predictor, ExportedDetector):
        predictor.save(path)
        return
    from hyperspot.detector import model_file

    model_file.require_writable(path)
    saved: Any = predictor
    saved.save(path)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a model file or an exported file."""
    if is_exported(path):
        return ExportedDetector.load(path).description
    from hyperspot.detector import model_file

    return model_file.read_metadata(path)


def require_trained(model: Path) -> Path:
    """Return the path of a model file; raises ModelFileError for an exported file, which cannot be exported again."""
    if is_exported(model):
        raise ModelFileError(f"{model} is an exported file; give the model file that it was exported from")
    return model
