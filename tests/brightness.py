"""A predictor that needs no training: the brightness of a pixel is its anomaly score."""

from pathlib import Path

import numpy as np
from PIL import Image

from hyperspot.decision.calibration import Calibration
from hyperspot.decision.rule import DecisionRule
from hyperspot.images import Crop, InputSize
from hyperspot.predictor import Predictor

SIZE = 32


class BrightnessPredictor(Predictor):
    """Scores pixels by brightness in 0..1, and images by their brightest pixel."""

    def __init__(self, *, calibrated: bool = True) -> None:
        kind, scores = ("split", [0.1, 0.2, 0.3, 0.5]) if calibrated else ("none", [])
        self.input_size = InputSize(SIZE, SIZE, "stretch")
        self.crops = (Crop(0, 0, SIZE, SIZE),)
        calibration = Calibration.from_scores(kind, 0.2, scores)
        self.decision_rule = DecisionRule(calibration, 0.4 if calibrated else None, 0.01, (0.0, 1.0))

    def run(self, batch):
        return batch.mean(-1, dtype=np.float32) / np.float32(255), None

    def describe(self):
        return {
            "settings": {"method": "brightness", "method_settings": {"gain": 1.0}},
            "training": {
                "data": {"images": 4, "name": "part"},
                "backbone": {"weights_source": "none"},
            },
            "versions": {"hyperspot": "test"},
        }


def write_part(root: Path, defects: dict[str, list[float]], good: list[float], *, masks: bool = True) -> Path:
    """Write a data set in the MVTec layout; images have a bright square, and the numbers are its brightness."""
    for name, levels in {"good": good, **defects}.items():
        for number, level in enumerate(levels):
            image = np.full((SIZE, SIZE, 3), 25, dtype=np.uint8)
            image[8:16, 8:16] = round(255 * level)
            _save(image, root / "test" / name / f"{number:03}.png")
            if name != "good" and masks:
                mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
                mask[8:16, 8:16] = 255
                _save(mask, root / "ground_truth" / name / f"{number:03}_mask.png")
    _save(np.full((SIZE, SIZE, 3), 25, dtype=np.uint8), root / "train" / "good" / "000.png")
    return root


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
