"""A detector from an exported file: the whole verdict without torch."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hyperspot.calibration import Calibration
from hyperspot.cpu import NumberFormat
from hyperspot.errors import CalibrationError, ModelFileError
from hyperspot.images import Frame, read_image
from hyperspot.judging import Judge
from hyperspot.runtime.engines import Engine, open_engine
from hyperspot.runtime.sealed import check, read_description
from hyperspot.verdict import Verdict


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
        self.frame = Frame.from_dict(description["frame"])
        self.has_own_score = bool(description["own_score"])
        self.judge = Judge(
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
        number_format: NumberFormat | None = None,
    ) -> "ExportedDetector":
        """Read a file that `hyperspot export` wrote; the options are those of `engines.open_engine`.

        Raises:
            ModelFileError: Where the file is missing, damaged, foreign or made by a newer version.
            SettingsError: Where no engine for it is installed.

        """
        path = Path(path)
        check(path)
        opened = open_engine(path, engine, threads=threads, number_format=number_format)
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
        placement = self.frame.place(*image.shape[:2])
        maps, scores = self.engine.run(placement.to_frame(image)[None])
        return self.judge.verdict(
            image,
            placement,
            maps[0],
            float(scores[0]) if self.has_own_score else None,
            started=started,
            path=Path(photo) if isinstance(photo, str | Path) else None,
        )
