"""The image score: the maximum of the map, less a share of its median."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperspot.decision.calibration import Calibration
from hyperspot.decision.good_images import image_score, score_good_images
from hyperspot.decision.rule import DecisionRule, calibrate
from hyperspot.images import InputSize, prepare

WIDE = InputSize(32, 64, "contain")
UPRIGHT = (90, 60)
"""Height and width of an image with padding on both sides."""


@given(st.integers(0, 50), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_the_score_is_the_definition(seed: int, weight: float):
    """Every fourth row and column inside the image gives the median; the padding counts for nothing."""
    letterbox = WIDE.letterbox(*UPRIGHT)
    rows, columns = letterbox.content
    input_map = np.random.default_rng(seed).random((32, 64)).astype(np.float32)
    input_map[:, : columns.start] = 99
    input_map[:, columns.stop :] = 99
    inside = input_map[rows, columns].tolist()
    median = statistics.median(value for row in inside[::4] for value in row[::4])
    expected = max(map(max, inside)) - weight * median
    assert image_score(input_map, letterbox, None, weight) == pytest.approx(expected, rel=1e-6)
    assert image_score(input_map, letterbox, 7.5, weight) == 7.5


def test_half_of_what_moves_the_whole_map_is_left_out():
    letterbox = WIDE.letterbox(*UPRIGHT)
    input_map = np.random.default_rng(0).random((32, 64)).astype(np.float32)
    for weight, left in ((0.0, 4.0), (0.5, 2.0), (1.0, 0.0)):
        scores = [image_score(input_map + shift, letterbox, None, weight) for shift in (np.float32(0), np.float32(4))]
        assert scores[1] - scores[0] == pytest.approx(left, abs=1e-5)


def test_verdicts_and_calibration_use_the_weight_of_the_rule():
    images = [prepare(np.full((*UPRIGHT, 3), value, np.uint8), WIDE) for value in (10, 20, 30, 40)]

    def run(pixels):
        maps = pixels[..., 0].astype(np.float32)
        maps[:, 8:16, 28:34] *= 3
        return maps, None

    rule, scores = calibrate("split", 0.2, score_good_images(run, images, 0.5), 0.1, 0.5)
    assert scores.tolist() == [2.5 * value for value in (10, 20, 30, 40)]
    verdict = rule.decide(images[2], run(images[2].pixels[None])[0][0], None)
    assert (verdict.score, verdict.p_value) == (75.0, 3 / 5)
    # Masks are by map values, not by scores.
    assert rule.mask_floor == 120.0
    assert DecisionRule.from_dict(rule.to_dict()).background_weight == 0.5
    assert rule.with_false_alarm_rate(0.5).background_weight == 0.5


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), None])
def test_a_weight_out_of_range_is_refused(weight):
    rule = DecisionRule.from_good_images(Calibration.from_scores("split", 0.5, [1.0, 2.0]), [np.arange(4.0)], 0.1, 0.5)
    with pytest.raises((ValueError, TypeError)):
        DecisionRule.from_dict({**rule.to_dict(), "background_weight": weight})
