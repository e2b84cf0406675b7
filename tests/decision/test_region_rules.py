"""Rules on regions: limits, counts and distances, and the sentences about them."""

import numpy as np
import pytest

from hyperspot.decision.defects import apply_rules
from hyperspot.decision.inspection_plan import InspectionPlan, Zone
from hyperspot.decision.region_rules import Limit, RegionRules
from hyperspot.errors import SettingsError
from hyperspot.images.inspected_area import InspectedArea
from hyperspot.results.measurements import Scale, measure_regions
from hyperspot.results.regions import find_regions

MM = Scale(mm_per_pixel=0.1)


@pytest.fixture
def measured():
    """Return a scratch of 30 x 1 pixels and, below it, a spot of 6 x 6, the spot with the lower score."""
    mask = np.zeros((60, 60), bool)
    mask[10, 5:35] = True
    mask[20:26, 10:16] = True
    heatmap = np.where(mask, 1.0, 0.0)
    heatmap[10, 20] = 2.0
    return measure_regions(mask, find_regions(mask, heatmap), MM)


def reasons(measured, **rules):
    return RegionRules(**rules).reasons(list(enumerate(measured, 1)), MM)


def test_each_limit_names_what_reaches_it(measured):
    assert reasons(measured, min_length="2mm") == ["region 1: length 3mm >= 2mm"]
    assert reasons(measured, min_width="0.2mm") == ["region 2: width 0.6mm >= 0.2mm"]
    assert reasons(measured, min_area="0.35mm2") == ["region 2: area 0.36mm2 >= 0.35mm2"]
    assert reasons(measured, min_area=31) == ["region 2: area 36px2 >= 31px2"]
    assert reasons(measured, min_length="40px") == []


def test_thousands_of_regions_are_not_all_named(measured):
    many = [(number, measured[1]) for number in range(1, 3001)]
    found = RegionRules(min_area="1px").reasons(many, MM)
    assert len(found) == 6
    assert found[-1] == "2995 more regions"
    # More than are accepted: their distances do not matter.
    assert RegionRules(max_count=2, min_distance="1mm").reasons(many, MM) == ["3000 regions > 2"]


def test_a_region_counts_if_it_reaches_every_limit(measured):
    assert reasons(measured, min_length="5px", min_width="3px") == ["region 2: length 8.49px >= 5px, width 6px >= 3px"]
    assert reasons(measured, min_length="9px", min_width="3px") == []


def test_a_number_of_regions_is_accepted_if_they_are_far_apart(measured):
    assert reasons(measured, max_count=2) == []
    assert reasons(measured, min_area="1px", max_count=1) == ["2 regions > 1"]
    assert reasons(measured, max_count=2, min_distance="0.8mm") == []
    assert reasons(measured, max_count=2, min_distance="1mm") == ["regions 1 and 2: distance 0.9mm < 1mm"]


def test_a_region_in_two_zones_is_subject_to_both(measured):
    left = ((0.0, 0.0), (12.0, 0.0), (12.0, 60.0), (0.0, 60.0))
    right = ((12.0, 0.0), (60.0, 0.0), (60.0, 60.0), (12.0, 60.0))
    zones = (
        Zone("rim", (left,), rules=RegionRules(min_length="1mm")),
        Zone("face", (right,), rules=RegionRules(min_length="9mm")),
    )
    plan = InspectionPlan(InspectedArea((60, 60)), zones, mm_per_pixel=0.1)
    regions, found = apply_rules(measured, plan, plan.zone_masks(60, 60), MM)
    assert [region.zone for region in regions] == ["face", "face"]
    assert found == ["region 1 in zone rim: length 3mm >= 1mm"]


def test_without_rules_nothing_is_accepted_and_no_reason_is_given(measured):
    assert RegionRules().reasons(list(enumerate(measured, 1)), MM) == ["region 1", "region 2"]
    assert apply_rules(measured, InspectionPlan(), (), MM)[1] == []


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"min_area": "3mm"}, "give an area in mm2"),
        ({"min_length": "3mm2"}, "is not a length"),
        ({"min_length": "-3mm"}, "is not a length"),
        ({"min_width": "wide"}, "is not a length"),
        ({"max_count": -1}, "give 0 or more"),
    ],
)
def test_malformed_rules_are_refused(rules, message):
    with pytest.raises(SettingsError, match=message):
        RegionRules(**rules)


def test_json():
    rules = RegionRules(min_area="0.3mm2", min_width=3, max_count=2)
    assert RegionRules.from_dict(rules.to_dict()) == rules
    with pytest.raises(SettingsError, match="no rule 'area'"):
        RegionRules.from_dict({"area": 3})
    assert Limit.parse("12 px2", area=True) == Limit(12.0, "px", True)
