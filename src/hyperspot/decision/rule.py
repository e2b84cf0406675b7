"""The decision rule: from the anomaly map to the verdict, for every engine. `calibration` sets its thresholds."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from hyperspot.decision.calibration import MOST_IMAGES, Calibration
from hyperspot.decision.masks import defect_mask
from hyperspot.errors import CalibrationError
from hyperspot.images import Letterbox, LetterboxedImage, PreparedImage
from hyperspot.results.regions import Region, find_regions
from hyperspot.results.verdict import Verdict

Run = Callable[[UInt8[np.ndarray, "b H W 3"]], tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]]
"""What runs a model: 8-bit images at the input size to anomaly maps and, if the method has its own, image scores."""


MEDIAN_STEP = 4
"""Rows and columns of the input map from one value to the next, for its median."""
MASK_RATE = 0.05
"""Largest p-value of an image with a mask, unless the promised false-alarm rate is larger: suspicious images that pass
have a mask too."""


@dataclass(frozen=True, eq=False)
class DecisionRule:
    """Turns an anomaly map into a verdict. All of it comes from good images, and none of it from training.

    Attributes:
        calibration: Scores of good images and the promised false-alarm rate.
        mask_floor: Only pixels above it are in a mask (see `masks`); None without calibration.
        mask_false_alarm_rate: The share of good images with a pixel above the floor, in (0, 1).
        heat_range: The scores drawn as cold and as hot.
        background_weight: Share of the median of a map that the image score leaves out; see `image_score`.

    Examples:
        >>> import numpy as np
        >>> from hyperspot import Calibration, DecisionRule
        >>> calibration = Calibration.from_scores("split", 0.2, [3.0, 1.0, 2.0, 4.0])
        >>> maps = [np.array([0.5, 1.0, score]) for score in (3.0, 1.0, 2.0, 4.0)]
        >>> rule = DecisionRule.from_good_images(calibration, maps, mask_false_alarm_rate=0.4)
        >>> rule.calibration.threshold, rule.mask_floor
        (4.0, 3.0)
        >>> rule.with_false_alarm_rate(0.4).calibration.threshold
        3.0
        >>> DecisionRule.from_dict(rule.to_dict()).heat_range == rule.heat_range
        True

    """

    calibration: Calibration
    mask_floor: float | None
    mask_false_alarm_rate: float
    heat_range: tuple[float, float]
    background_weight: float = 0.0

    @classmethod
    def from_good_images(
        cls,
        calibration: Calibration,
        maps: Sequence[Float[np.ndarray, "_pixels"]],
        mask_false_alarm_rate: float,
        background_weight: float = 0.0,
    ) -> "DecisionRule":
        """Set the floor of masks and the heat range from the anomaly maps of good images.

        Args:
            calibration: By the image scores of the same images.
            maps: Map values inside each image, or a sample of them with the maximum.
            mask_false_alarm_rate: In (0, 1).
            background_weight: That the scores were made with.

        """
        values = np.concatenate(maps)
        cold = float(np.median(values))
        floor = None
        if calibration.threshold is not None:
            maxima = [float(one.max()) for one in maps]
            floor = float(np.quantile(maxima, 1 - mask_false_alarm_rate, method="higher"))
        hot = 2 * (float(values.max()) if floor is None else floor) - cold
        heat_range = (cold, hot if hot > cold else cold + 1.0)
        return cls(calibration, floor, mask_false_alarm_rate, heat_range, background_weight)

    def with_false_alarm_rate(self, rate: float) -> "DecisionRule":
        """Return the rule for another promised false-alarm rate; the floor of masks stays.

        Raises:
            CalibrationError: If there is no calibration, or too few calibration images for the rate.

        """
        if self.calibration.kind == "none":
            raise CalibrationError(
                "this model has no calibration, so no false-alarm rate can be promised; recalibrate it with good images"
            )
        if not 0 < rate < 1:
            raise CalibrationError(f"a false-alarm rate lies between 0 and 1, not at {rate}; 0.01 is one alarm in 100")
        n = len(self.calibration.scores)
        if rate < 1 / (n + 1):
            # Rounded up, so that the rate named is possible.
            scale = 10 ** (len(str(n + 1)) + 1)
            raise CalibrationError(
                f"a false-alarm rate of {rate:g} needs at least {math.ceil(min(1 / rate, MOST_IMAGES) - 1e-9) - 1} "
                f"calibration images and this model has {n}: the smallest possible rate is "
                f"{math.ceil(scale / (n + 1)) / scale:g} (1 in {n + 1}); a lower one needs more good images"
            )
        calibration = Calibration.from_scores(self.calibration.kind, rate, self.calibration.scores)
        return replace(self, calibration=calibration)

    def decide(
        self,
        prepared: PreparedImage,
        input_map: Float[np.ndarray, "H W"],
        method_score: float | None,
        seconds: float = 0.0,
    ) -> Verdict:
        """Return the verdict on one image.

        Args:
            prepared: The image.
            input_map: Its anomaly map at the input size.
            method_score: The method's image score; None takes `image_score`.
            seconds: Time spent on preprocessing and the model.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Calibration, DecisionRule
            >>> from hyperspot.images import InputSize, prepare
            >>> calibration = Calibration.from_scores("split", 0.2, [3.0, 1.0, 2.0, 4.0])
            >>> rule = DecisionRule.from_good_images(calibration, [np.arange(5.0)], mask_false_alarm_rate=0.2)
            >>> prepared = prepare(np.zeros((64, 64, 3), np.uint8), InputSize(32, 32, "stretch"))
            >>> anomaly_map = np.zeros((32, 32), np.float32)
            >>> anomaly_map[8:12, 8:12] = 9
            >>> verdict = rule.decide(prepared, anomaly_map, method_score=None)
            >>> verdict.score, verdict.p_value, verdict.regions[0].xyxy
            (9.0, 0.2, (17, 17, 23, 23))

        """
        started = time.perf_counter()
        letterbox = prepared.letterbox
        score = image_score(input_map, letterbox, method_score, self.background_weight)
        p_value = self.calibration.p_value(score)
        suspicious = p_value is not None and p_value <= max(MASK_RATE, self.calibration.false_alarm_rate)
        mask, regions = self._defects(input_map, letterbox) if suspicious else (empty_mask(letterbox), ())
        return Verdict(
            score=score,
            p_value=p_value,
            is_anomalous=self.calibration.is_anomalous(score),
            mask=mask,
            regions=regions,
            image=prepared.image,
            input_map=input_map,
            letterbox=letterbox,
            heat_range=self.heat_range,
            milliseconds=(seconds + time.perf_counter() - started) * 1000,
            path=prepared.path,
            threshold=self.calibration.threshold,
            mask_floor=self.mask_floor,
        )

    def _defects(
        self, input_map: Float[np.ndarray, "H W"], letterbox: Letterbox
    ) -> tuple[Bool[np.ndarray, "_h _w"], tuple[Region, ...]]:
        """Return the mask of an image and its regions, from the part of the heatmap that exceeds the floor."""
        mask = empty_mask(letterbox)
        box = None if self.mask_floor is None else letterbox.box_above(input_map, self.mask_floor)
        if self.mask_floor is None or box is None:
            return mask, ()
        heatmap = letterbox.invert(input_map, *box)
        input_pixels = input_map[letterbox.content].size / mask.size
        mask[box] = defect_mask(heatmap, self.mask_floor, self.heat_range[0], input_pixels)
        return mask, find_regions(mask[box], heatmap, (box[0].start, box[1].start))

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON values; `from_dict` reads them, and derives the threshold from the scores."""
        return {
            "kind": self.calibration.kind,
            "false_alarm_rate": self.calibration.false_alarm_rate,
            "threshold": self.calibration.threshold,
            "scores": [float(score) for score in self.calibration.scores],
            "mask_floor": self.mask_floor,
            "mask_false_alarm_rate": self.mask_false_alarm_rate,
            "heat_range": list(self.heat_range),
            "background_weight": self.background_weight,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DecisionRule":
        """Return the rule that `to_dict` described; raises KeyError, TypeError, ValueError or CalibrationError."""
        calibration = Calibration.from_scores(values["kind"], values["false_alarm_rate"], values["scores"])
        floor, rate = values["mask_floor"], float(values["mask_false_alarm_rate"])
        cold, hot = map(float, values["heat_range"])
        if (floor is None) != (calibration.threshold is None) or not 0 < rate < 1:
            raise ValueError(f"the floor of masks {floor} at the rate {rate} does not fit the calibration")
        if not (np.isfinite([cold, hot]).all() and cold < hot):
            raise ValueError(f"the heat range {cold} to {hot} is empty")
        weight = float(values["background_weight"])
        if not 0 <= weight <= 1:
            raise ValueError(f"the background weight {weight} lies outside 0 to 1")
        return cls(calibration, None if floor is None else float(floor), rate, (cold, hot), weight)


def empty_mask(letterbox: Letterbox) -> Bool[np.ndarray, "_h _w"]:
    """Return a mask of an image without a defect."""
    return np.zeros((letterbox.height, letterbox.width), dtype=bool)


def image_score(
    input_map: Float[np.ndarray, "H W"], letterbox: Letterbox, method_score: float | None, background_weight: float
) -> float:
    """Return the image score: the method's or, without one, the maximum of the map inside the image.

    A share of the median is left out, because texture and exposure move the whole map of an image, and a defect a part.
    """
    if method_score is not None:
        return method_score
    inside = input_map[letterbox.content]
    if background_weight == 0:
        return float(inside.max())
    # The map is smooth: few pixels give its median.
    return float(inside.max()) - background_weight * float(np.median(inside[::MEDIAN_STEP, ::MEDIAN_STEP]))


def score_good_images(
    run: Run, images: Iterable[LetterboxedImage], background_weight: float
) -> tuple[list[float], list[Float[np.ndarray, "_pixels"]]]:
    """Return the image score and a sample of the map values, with their maximum, of each good image."""
    scores, values = [], []
    for image in images:
        maps, method_scores = run(image.pixels[None])
        method_score = None if method_scores is None else float(method_scores[0])
        scores.append(image_score(maps[0], image.letterbox, method_score, background_weight))
        inside = maps[0][image.letterbox.content]
        # All that a rule takes from a map: its maximum, and a median over all images that a sample gives.
        values.append(np.append(inside[::MEDIAN_STEP, ::MEDIAN_STEP], inside.max()))
    return scores, values
