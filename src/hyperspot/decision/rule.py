"""The decision rule: from the anomaly map to the verdict, for every engine. `calibration` sets its thresholds."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from hyperspot.decision.calibration import MOST_IMAGES, Calibration
from hyperspot.decision.defects import ImageMaps
from hyperspot.decision.good_images import GoodImage, zone_scores
from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.decision.zone_levels import ZoneLevels, find_levels, scores_of_calibration, shares
from hyperspot.errors import CalibrationError
from hyperspot.images import PreparedImage
from hyperspot.images.registration import lowest_correlation
from hyperspot.results.verdict import Verdict

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
        inspection: Region of interest, zones and rules on regions; by default the whole image and no rules.
        zones: Levels of the zones with false-alarm rates of their own, and of everything else; empty without such
            zones.

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
    inspection: InspectionPlan = field(default_factory=InspectionPlan)
    zones: tuple[ZoneLevels, ...] = ()

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
        plan, calibration, alignment = self.inspection, self.calibration, prepared.alignment
        scores = zone_scores(input_map, prepared, method_score, self.background_weight, plan)
        by_zone = self._by_zone(scores)
        score = self.image_score(scores)
        is_found = alignment is None or alignment.is_found
        if not is_found and calibration.threshold is not None:
            score = max(score, float(np.nextafter(calibration.scores[-1], np.inf)))
        statistical = calibration.is_anomalous(score) if is_found else True
        maps = ImageMaps(prepared, input_map, self.heat_range[0], plan)
        suspicious = self._suspicious(by_zone or {"": score}) if is_found else {}
        mask, regions = maps.find_defects(suspicious)
        reasons: list[str] = []
        within_rules = None
        if regions:
            regions, reasons = maps.apply_rules(mask, regions)
            within_rules = not reasons if plan.has_rules else None
        elif plan.has_rules:
            # An alarm that cannot be measured stays one.
            reasons = ["no region to measure"]
        if not is_found and alignment is not None and plan.area.reference is not None:
            reasons = [f"part not found: correlation {alignment.correlation:.2f} < {plan.area.reference.lowest:.2f}"]
        elif not plan.has_rules and calibration.threshold is not None:
            above = [(name, one) for name, one in by_zone.items() if one > calibration.threshold]
            reasons = [f"zone {name}: score {one:.4g} > {calibration.threshold:.4g}" for name, one in above]
        is_anomalous = False if statistical and within_rules else statistical
        return Verdict(
            score=score,
            p_value=calibration.p_value(score),
            is_anomalous=is_anomalous,
            mask=mask,
            regions=regions,
            image=prepared.image,
            input_map=maps.input_map,
            letterbox=prepared.letterbox,
            heat_range=self.heat_range,
            milliseconds=(seconds + time.perf_counter() - started) * 1000,
            path=prepared.path,
            threshold=calibration.threshold,
            mask_floor=self.mask_floor,
            statistical_is_anomalous=statistical,
            reasons=tuple(reasons) if is_anomalous else (),
            within_rules=within_rules,
            zone_scores=by_zone,
            within=maps.within,
            input_within=maps.input_within,
            alignment=alignment,
        )

    def image_score(self, scores: Float64[np.ndarray, "zones"]) -> float:
        """Return the image score of the scores of the plan's `groups`: the highest, on the scale of the zones.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Calibration, DecisionRule
            >>> calibration = Calibration.from_scores("split", 0.2, [3.0, 1.0, 2.0, 4.0])
            >>> DecisionRule.from_good_images(calibration, [np.arange(5.0)], 0.2).image_score(np.array([2.5]))
            2.5

        """
        return max(self._by_zone(scores).values(), default=float(scores[0]))

    def _by_zone(self, scores: Float64[np.ndarray, "zones"]) -> dict[str, float]:
        return {zone.name: zone.scaled(float(one)) for zone, one in zip(self.zones, scores, strict=False)}

    def _suspicious(self, scores: Mapping[str, float]) -> dict[int, float]:
        """Return the floor of masks of each of the plan's `groups` with a suspicious score, by its place."""
        limit = max(MASK_RATE, self.calibration.false_alarm_rate)
        floors = [zone.mask_floor for zone in self.zones] or [self.mask_floor]
        found = {}
        for number, (score, floor) in enumerate(zip(scores.values(), floors, strict=True)):
            p_value = self.calibration.p_value(score)
            if p_value is not None and p_value <= limit and floor is not None:
                found[number] = floor
        return found

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
            "inspection": self.inspection.to_dict(),
            "zones": [zone.to_dict() for zone in self.zones],
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
        # Files written before there were regions of interest have neither.
        inspection = InspectionPlan.from_dict(values.get("inspection", {}))
        zones = tuple(ZoneLevels(**zone) for zone in values.get("zones", ()))
        if tuple(zone.name for zone in zones) != (inspection.groups if inspection.own_rates else ()):
            raise ValueError("the levels of the zones do not fit the inspection plan")
        return cls(calibration, None if floor is None else float(floor), rate, (cold, hot), weight, inspection, zones)


def calibrate(
    kind: str,
    rate: float,
    good: Sequence[GoodImage],
    mask_false_alarm_rate: float,
    background_weight: float,
    inspection: InspectionPlan | None = None,
    shown: Sequence[GoodImage] | None = None,
) -> tuple[DecisionRule, Float64[np.ndarray, "n"]]:
    """Return the decision rule by the scores of good images, and the image score of each.

    Zones with rates of their own and registration are calibrated with the rest: the promise holds for all together.

    Args:
        kind: As in `Calibration`.
        rate: The promised false-alarm rate, in (0, 1).
        good: Calibration images.
        mask_false_alarm_rate: In (0, 1).
        background_weight: That the scores were made with.
        inspection: That the images were prepared and scored with.
        shown: Images whose map values set the floor of masks and the heat range; default: all.

    Raises:
        CalibrationError: If there are too few images for the rate, or for that of a zone.

    """
    plan = InspectionPlan() if inspection is None else inspection
    shown = good if shown is None else shown
    scores = np.stack([one.scores for one in good])
    image_scores: Float64[np.ndarray, "n"] = scores[:, 0]
    levels: tuple[ZoneLevels, ...] = ()
    if plan.own_rates:
        rates = shares(plan.own_rates, rate)
        levels = find_levels(scores, plan.groups, rates)
        image_scores = scores_of_calibration(scores, levels, rates)
    if plan.area.reference is not None:
        correlations = np.array([one.correlation for one in good], dtype=np.float64)
        image_scores = _with_lost_parts(image_scores, correlations)
        lowest = lowest_correlation(correlations)
        plan = plan.with_reference(replace(plan.area.reference, lowest=lowest))
    calibration = Calibration.from_scores(kind, rate, image_scores)
    rule = DecisionRule.from_good_images(
        calibration, [one.values for one in shown], mask_false_alarm_rate, background_weight
    )
    if calibration.threshold is not None:
        maxima = np.stack([one.maxima for one in shown])
        floors = np.quantile(maxima, 1 - mask_false_alarm_rate, axis=0, method="higher")
        levels = tuple(replace(one, mask_floor=float(floor)) for one, floor in zip(levels, floors, strict=False))
    return replace(rule, inspection=plan, zones=levels), image_scores


def _with_lost_parts(
    scores: Float64[np.ndarray, "n"], correlations: Float64[np.ndarray, "n"]
) -> Float64[np.ndarray, "n"]:
    """Return the scores, above all others where the part would not be found by the correlations of the other images."""
    changed = scores.copy()
    lowest = int(correlations.argmin())
    others = np.delete(correlations, lowest)
    if len(others) and correlations[lowest] < lowest_correlation(others):
        changed[lowest] = np.nextafter(scores.max(), np.inf)
    return changed
