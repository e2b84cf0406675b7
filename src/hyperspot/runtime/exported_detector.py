"""A detector from an exported file: the whole verdict without torch."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hyperspot.decision.calibration import Calibration
from hyperspot.decision.rule import DecisionRule
from hyperspot.errors import CalibrationError, ModelFileError
from hyperspot.hardware.cpu import Precision
from hyperspot.images import InputSize, read_image
from hyperspot.results.verdict import Verdict
from hyperspot.runtime.checksum import check, read_description
from hyperspot.runtime.engines import Engine, open_engine


class ExportedDetector:
    """Judges photos as the `Detector` does that it was exported from.

    Attributes:
        engine: What runs its graph.
        description: Everything known of it: settings, frame, calibration, and the record of how it was made.

    """

    def __init__(self, engine: Engine, description: dict[str, Any]) -> None:
        calibrated = description["calibration"]
        cold, hot = description["heat_range"]
        self.engine = engine
        self.description = description
        self.input_size = InputSize.from_dict(description["input_size"])
        self.has_image_score = bool(description["has_image_score"])
        self.judge = DecisionRule(
            Calibration.from_scores(calibrated["kind"], calibrated["false_alarm_rate"], calibrated["scores"]),
            description["pixel_threshold"],
            (float(cold), float(hot)),
        )

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        engine: str | None = None,
        threads: int | None = None,
        precision: Precision | None = None,
    ) -> "ExportedDetector":
        """Read a file that `hyperspot export` wrote; the options are those of `engines.open_engine`.

        Raises:
            ModelFileError: Where the file is missing, damaged, foreign or made by a newer version.
            SettingsError: Where no engine for it is installed.

        """
        path = Path(path)
        check(path)
        opened = open_engine(path, engine, threads=threads, precision=precision)
        description = read_description(path, opened.description)
        try:
            return cls(opened, description)
        except (KeyError, TypeError, ValueError, CalibrationError) as error:
            raise ModelFileError(
                f"{path} does not hold a whole detector ({type(error).__name__}: {error}); export it again"
            ) from None

    def predict(self, photo: Path | str | bytes | np.ndarray | Image.Image) -> Verdict:
        """Judge one photo: a path, encoded bytes, an array (h w 3, 8-bit RGB) or a Pillow image.

        Raises ImageError where it cannot be read.
        """
        image = read_image(photo)
        started = time.perf_counter()
        letterbox = self.input_size.letterbox(*image.shape[:2])
        maps, scores = self.engine.run(letterbox.apply(image)[None])
        return self.judge.verdict(
            image,
            letterbox,
            maps[0],
            float(scores[0]) if self.has_image_score else None,
            started=started,
            path=Path(photo) if isinstance(photo, str | Path) else None,
        )
