"""The estimated detection rate: all kinds and sizes, larger defects are found more often, nothing without a promise."""

import io

import numpy as np
import pytest
from PIL import Image

from hyperspot.data import open_dataset
from hyperspot.detector.power import PowerEstimate, SyntheticResult, estimate_power
from hyperspot.errors import CalibrationError, DataError
from hyperspot.images.synthetic_defects import KINDS, SIZES


@pytest.fixture(scope="module")
def good(product) -> list:
    return [sample.path for sample in open_dataset(product).test if sample.label == 0]


@pytest.fixture(scope="module")
def estimate(detector, good) -> PowerEstimate:
    return estimate_power(detector, good, count=40)


def test_every_kind_and_size_is_drawn_equally_often(estimate: PowerEstimate, detector):
    assert estimate.false_alarm_rate == detector.decision_rule.calibration.false_alarm_rate
    assert {name: total for name, (_, total) in estimate.by_kind().items()} == dict.fromkeys(KINDS, 8)
    assert {name: total for name, (_, total) in estimate.by_size().items()} == dict.fromkeys(SIZES, 10)
    assert {(kind, size): n for kind, row in estimate.table().items() for size, (_, n) in row.items()} == {
        (kind, size): 2 for kind in KINDS for size in SIZES
    }


def test_large_defects_are_found_and_counted(estimate: PowerEstimate):
    found = {size: one for size, (one, _) in estimate.by_size().items()}
    assert found["large"] >= 8
    assert found["large"] > found["tiny"]
    assert estimate.detection_rate == sum(found.values()) / 40
    assert sum(found for found, _ in estimate.by_kind().values()) == sum(found.values())


def test_pictures_show_the_smallest_found_and_the_largest_missed(estimate: PowerEstimate):
    found, missed = estimate.smallest_found, estimate.largest_missed
    assert len(found) + len(missed) == 40
    assert [one.area for one in found] == sorted(one.area for one in found)
    assert [one.area for one in missed] == sorted((one.area for one in missed), reverse=True)
    for result in (found[0], missed[0]):
        assert [Image.open(io.BytesIO(picture)).size for picture in result.pictures] == [(128, 128)] * 3


def test_verdicts_are_those_of_the_detector(detector, estimate: PowerEstimate):
    threshold = detector.decision_rule.calibration.threshold
    assert all(result.found == (result.score > threshold) for result in estimate.results)


def test_the_seed_decides_and_the_images_are_spread(detector, good):
    one, same, other = (estimate_power(detector, good, count=8, seed=seed) for seed in (0, 0, 1))
    assert [result.score for result in one.results] == [result.score for result in same.results]
    assert [result.score for result in one.results] != [result.score for result in other.results]
    assert sorted(result.index for result in one.results) == list(range(8))


def test_arrays_are_taken_in_either_channel_order(detector):
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    rgb = estimate_power(detector, [image], count=2)
    bgr = estimate_power(detector, [image[..., ::-1]], count=2, channel_order="BGR")
    assert [result.score for result in rgb.results] == [result.score for result in bgr.results]


def test_to_dict_is_json(estimate: PowerEstimate):
    values = estimate.to_dict()
    assert values["images"] == 40
    assert values["by_size"]["large"] == list(estimate.by_size()["large"])
    assert values["detection_rate"] == estimate.detection_rate


def test_an_empty_part_of_the_table_is_left_out():
    result = SyntheticResult("stain", "tiny", 0.1, 0, 1.0, found=True)
    assert PowerEstimate(0.1, (result,)).table() == {"stain": {"tiny": (1, 1)}}


def test_what_cannot_be_estimated_is_refused(detector, good, product):
    with pytest.raises(DataError, match="no image was given"):
        estimate_power(detector, [])
    with pytest.raises(DataError, match="no image was given"):
        estimate_power(detector, good, count=0)
    from hyperspot import Calibration, DecisionRule

    rule = DecisionRule.from_good_images(Calibration.from_scores("none", 0.1, []), [np.zeros(4)], 0.001)
    with pytest.raises(CalibrationError, match="no calibration"):
        estimate_power(detector.with_decision_rule(rule), good)
