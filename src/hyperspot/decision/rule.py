"""From the heatmap in the common frame to the verdict: the same for every engine, without torch."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from hyperspot.decision.calibration import Calibration
from hyperspot.images import Letterbox
from hyperspot.results.verdict import Verdict, find_regions


@dataclass(frozen=True, eq=False)
class DecisionRule:
    """What turns scores into decisions; all of it comes from good photos.

    Attributes:
        calibration: Scores of good photos, for the p-value.
        pixel_threshold: What is above it is in the mask; none without calibration.
        heat_range: The scores that are drawn as cold and as hot.

    """

    calibration: Calibration
    pixel_threshold: float | None
    heat_range: tuple[float, float]

    def verdict(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        letterbox: Letterbox,
        input_map: Float[np.ndarray, "H W"],
        image_score: float | None,
        *,
        started: float,
        path: Path | None,
    ) -> Verdict:
        """Judge one photo by its heatmap in the frame.

        Args:
            image: The photo, and `letterbox` how it lies in the frame.
            placement: As above.
            input_map: The heatmap in the pixels of the frame.
            own_score: The image score where the method has one of its own; otherwise the highest value of the
                heatmap counts, where it shows the photo itself.
            started: When the work began, by `time.perf_counter`.
            path: Where the photo was read from, if from a file.

        """
        score = float(input_map[letterbox.content].max()) if image_score is None else image_score
        heatmap = letterbox.invert(input_map)
        is_anomalous = self.calibration.is_anomalous(score)
        mask = np.zeros(heatmap.shape, dtype=bool)
        if is_anomalous and self.pixel_threshold is not None:
            mask = heatmap > self.pixel_threshold
        return Verdict(
            score=score,
            p_value=self.calibration.p_value(score),
            is_anomalous=is_anomalous,
            heatmap=heatmap,
            mask=mask,
            regions=find_regions(mask, heatmap),
            image=image,
            input_map=input_map,
            letterbox=letterbox,
            heat_range=self.heat_range,
            milliseconds=(time.perf_counter() - started) * 1000,
            path=path,
        )
