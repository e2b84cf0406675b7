"""What the options of regions mean: region of interest, scale and rules."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperspot.decision.inspection_plan import InspectionPlan
    from hyperspot.decision.region_rules import RegionRules
    from hyperspot.predictor import Predictor


@dataclass(frozen=True)
class RuleOptions:
    """Rules on regions as they were given; None was not."""

    min_area: str | None
    min_length: str | None
    min_width: str | None
    max_count: int | None
    min_distance: str | None

    def apply(self, rules: "RegionRules") -> "RegionRules":
        """Return the rules with those that were given."""
        from dataclasses import replace

        return replace(rules, **{name: value for name, value in asdict(self).items() if value is not None})


def plan_of(roi: Path | None, mm_per_pixel: float | None, rules: RuleOptions) -> "InspectionPlan":
    """Return the plan of a file, or of the whole image, with the scale and the rules that were given."""
    from hyperspot.decision.inspection_plan import InspectionPlan

    plan = InspectionPlan() if roi is None else InspectionPlan.read(roi)
    return plan.with_rules(rules.apply(plan.rules), mm_per_pixel)


def with_rules(predictor: "Predictor", mm_per_pixel: float | None, rules: RuleOptions) -> "Predictor":
    """Return a predictor with the scale and the rules that were given."""
    current = predictor.decision_rule.inspection.rules
    return predictor.with_rules(rules.apply(current), mm_per_pixel=mm_per_pixel)


def in_pixels(length: str, plan: "InspectionPlan | None") -> float:
    """Return a length, for example `8px` or `0.5mm`, in image pixels; raises SettingsError without a scale for mm.

    Several views have no plan: each has a scale of its own.
    """
    from hyperspot.decision.region_rules import Limit
    from hyperspot.errors import SettingsError

    limit = Limit.parse(length, area=False)
    if limit.unit == "px":
        return limit.value
    if plan is None:
        raise SettingsError(f"'{length}' needs a scale, and the views of a part have none; give it in pixels")
    if plan.mm_per_pixel is None:
        raise SettingsError(f"'{length}' needs a scale; give it with --mm-per-pixel, or in pixels")
    return limit.value / plan.mm_per_pixel
