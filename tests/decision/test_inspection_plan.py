"""Inspection plans: JSON, zones and their levels."""

import json

import numpy as np
import pytest

from hyperspot.decision.calibration import Calibration
from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.decision.zone_levels import find_levels, scores_of_calibration, shares
from hyperspot.errors import CalibrationError, DataError

SQUARE = [[0, 0], [20, 0], [20, 20], [0, 20]]
WHOLE = {
    "image_size": [40, 20],
    "include": [SQUARE],
    "ignore": [[[1, 1], [2, 1], [2, 2]]],
    "mask": [0, 800],
    "zones": [
        {"name": "rim", "polygons": [SQUARE], "false_alarm_rate": 0.01, "rules": {"min_length": "0.3mm"}},
        {"name": "face", "polygons": [SQUARE]},
    ],
    "mm_per_pixel": 0.05,
    "rules": {"min_area": "40px2", "max_count": 1},
}


def test_json_is_read_and_written_unchanged(tmp_path):
    path = tmp_path / "roi.json"
    path.write_text(json.dumps(WHOLE))
    plan = InspectionPlan.read(path)
    again = json.loads(json.dumps(plan.to_dict()))
    assert InspectionPlan.from_dict(again).to_dict() == plan.to_dict()
    assert set(again) == set(WHOLE)
    assert plan.groups == ("rim", "elsewhere")
    assert InspectionPlan().to_dict() == {}
    assert InspectionPlan().is_empty
    assert not plan.is_empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": None}, "need the size"),
        ({"image_size": [40]}, "not two whole numbers"),
        ({"zones": [{"name": "", "polygons": [SQUARE]}]}, "name of its own"),
        ({"zones": [{"name": "a", "polygons": []}]}, "no polygon"),
        ({"zones": [{"name": "a", "polygons": [SQUARE], "false_alarm_rate": 2}]}, "rate of 2.0"),
        ({"zones": [{"name": "a", "polygons": [SQUARE]}] * 2}, "name of its own"),
        ({"zones": [{"name": "a", "polygon": [SQUARE]}]}, "a zone has no 'polygon'"),
        ({"mm_per_pixel": None}, "--mm-per-pixel"),
        ({"mm_per_pixel": -1}, "positive"),
        ({"include": [[1, 2, 3]]}, "is no region of interest"),
        ({"roi": []}, "has no 'roi'"),
    ],
)
def test_malformed_files_are_refused_in_one_sentence(tmp_path, change, message):
    path = tmp_path / "roi.json"
    path.write_text(json.dumps({**WHOLE, **change}))
    with pytest.raises(DataError, match=message) as caught:
        InspectionPlan.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_pixel_of_two_zones_belongs_to_the_first():
    plan = InspectionPlan.from_dict(WHOLE)
    rim, face = plan.zone_masks(20, 40)
    assert rim.sum() == 400
    assert not face.any()
    inside, elsewhere = plan.group_masks(20, 40)
    assert not (inside & elsewhere).any()
    np.testing.assert_array_equal(inside | elsewhere, plan.area.mask(20, 40))


def test_zones_keep_the_promise_and_their_shares():
    """Zones of other levels and spreads, correlated between each other: the whole rate is promised and observed."""
    random = np.random.default_rng(0)
    own, rate, n = (0.02, 0.06), 0.1, 99
    rates = shares(own, rate)

    def draw(count):
        common = random.normal(size=(count, 1))
        return np.array([5.0, -2.0, 0.0]) + np.array([0.1, 3.0, 1.0]) * np.exp(
            0.3 * common + 0.4 * random.normal(size=(count, 3))
        )

    observed, by_zone = [], []
    for _ in range(200):
        good = draw(n)
        levels = find_levels(good, ("rim", "face", "elsewhere"), rates)
        calibration = Calibration.from_scores("split", rate, scores_of_calibration(good, levels, rates))
        new = draw(200)
        scaled = np.stack([[zone.scaled(float(one)) for one in new[:, k]] for k, zone in enumerate(levels)])
        observed.append((scaled.max(axis=0) > calibration.threshold).mean())
        by_zone.append((scaled > calibration.threshold).mean(axis=1))
    error = np.std(observed) / np.sqrt(len(observed))
    assert rate - 0.02 < np.mean(observed) < rate + 2 * error
    np.testing.assert_allclose(np.mean(by_zone, axis=0), rates, rtol=0.25)


def test_rates_that_cannot_be_promised_are_refused():
    with pytest.raises(CalibrationError, match="nothing is left"):
        shares((0.04, 0.06), 0.1)
    with pytest.raises(CalibrationError, match=r"the zone 'rim': .* needs at least 99"):
        find_levels(np.zeros((98, 2)), ("rim", "elsewhere"), (0.01, 0.1))
