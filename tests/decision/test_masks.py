"""The rule of the mask, against a slow implementation and by the properties that it is for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from hyperspot.decision.calibration import Calibration
from hyperspot.decision.masks import defect_mask
from hyperspot.decision.rule import DecisionRule
from hyperspot.images import InputSize, prepare

SIGMA = 4.0
"""Of the smoothing of anomaly maps, in input pixels."""
SIDE = 192
HEATMAPS = arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 24).map(float))
WHOLE = st.integers(0, 25).map(float)


def slow_mask(heatmap: np.ndarray, floor: float, typical: float, input_pixels: float) -> np.ndarray:
    """The rule in words: a first mask at level 0.4 of the whole peak, then each of its regions at its own level."""
    first = heatmap > max(floor, typical + 0.4 * (heatmap.max() - typical))
    labels, count = ndimage.label(first, np.ones((3, 3)))
    mask = np.zeros(heatmap.shape, dtype=bool)
    for label in range(1, count + 1):
        region = labels == label
        level = 0.4 + 0.4 * math.exp(-region.sum() * input_pixels / 2000)
        mask |= region & (heatmap > max(floor, typical + level * (heatmap[region].max() - typical)))
    return mask


def squares(*boxes: tuple[int, int, int, float]) -> np.ndarray:
    """An anomaly map of squares (top, left, side, strength), smoothed."""
    values = np.zeros((SIDE, SIDE))
    for top, left, side, strength in boxes:
        values[top : top + side, left : left + side] = strength
    return ndimage.gaussian_filter(values, SIGMA)


@given(HEATMAPS, WHOLE, WHOLE, st.sampled_from([0.25, 1.0, 90.0]))
def test_the_mask_is_the_definition(heatmap: np.ndarray, floor: float, typical: float, input_pixels: float):
    # Uneven values, so that rounding puts no pixel on a threshold.
    heatmap = heatmap.astype(np.float64) * 1.0173
    given_heatmap = heatmap.copy()
    found = defect_mask(heatmap, floor, typical, input_pixels)
    np.testing.assert_array_equal(found, slow_mask(heatmap, floor, typical, input_pixels))
    np.testing.assert_array_equal(heatmap, given_heatmap)


@given(HEATMAPS, WHOLE, WHOLE)
def test_nothing_below_the_floor_is_in_the_mask(heatmap: np.ndarray, floor: float, typical: float):
    mask = defect_mask(heatmap, floor, typical, 1.0)
    assert (heatmap[mask] > floor).all()
    # The peak is in it, unless it is below the floor or typical itself.
    peak = heatmap.max()
    assert mask[heatmap == peak].all() == (peak > max(floor, typical))


@pytest.mark.parametrize("side", [32, 40, 80, 120])
@pytest.mark.parametrize("strength", [3.0, 30.0])
def test_a_strong_defect_is_outlined_at_its_edge(side: int, strength: float):
    heatmap = squares((30, 40, side, strength))
    mask = defect_mask(heatmap, floor=0.3, typical=0.0, input_pixels=1.0)
    assert 0.8 <= mask.sum() / side**2 <= 1.3
    true = np.zeros_like(mask)
    true[30 : 30 + side, 40 : 40 + side] = True
    assert (mask & true).sum() / (mask | true).sum() > 0.75


def test_a_fixed_threshold_would_outline_a_strong_defect_with_a_margin():
    """The reason for the rule: the mask does not grow with the strength of a defect."""
    weak, strong = (squares((30, 40, 40, strength)) for strength in (3.0, 300.0))
    assert (strong > 0.3).sum() > 1.3 * (weak > 0.3).sum()
    np.testing.assert_array_equal(*(defect_mask(heatmap, 0.3, 0.0, 1.0) for heatmap in (weak, strong)))


def test_the_level_rises_as_a_region_becomes_smaller():
    """Cones of one slope: the lowest value inside, relative to the peak, is the level of the region."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    levels = []
    for radius in (8, 16, 32, 64):
        cone = np.maximum(0, 1 - np.hypot(rows, columns) / radius)
        levels.append(cone[defect_mask(cone, 0.0, 0.0, 1.0)].min())
        # A circle of 0.6 radii lies above 0.4; a pixel is 1 / radius high.
        expected = 0.4 + 0.4 * math.exp(-math.pi * (0.6 * radius) ** 2 / 2000)
        assert expected <= levels[-1] <= expected + 1 / radius
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 0.75
    assert levels[-1] < 0.45


def test_a_weak_region_beside_a_strong_one_has_its_own_edge():
    alone, weak = squares((20, 20, 40, 10.0)), squares((120, 120, 40, 6.0))
    both = defect_mask(np.maximum(alone, weak), 0.3, 0.0, 1.0)
    np.testing.assert_array_equal(both[:100, :100], defect_mask(alone, 0.3, 0.0, 1.0)[:100, :100])
    part = both[100:, 100:]
    # At the level of the strong one it would be outlined at less than 0.6 of its area.
    assert (weak > alone[:100, :100][both[:100, :100]].min()).sum() < 0.6 * 40**2
    assert 0.75 <= part.sum() / 40**2 <= 1.3
    # Far below the strongest peak a region may be its halo, and is left out.
    faint = squares((120, 120, 40, 3.0))
    assert not defect_mask(np.maximum(alone, faint), 0.3, 0.0, 1.0)[100:, 100:].any()


def test_a_constant_added_to_all_scores_changes_nothing():
    # Sums of these are exact.
    heatmap = np.round(squares((20, 20, 24, 9.0), (100, 90, 60, 6.0)) * 64) / 64
    expected = defect_mask(heatmap, 0.25, 0.125, 1.0)
    assert expected.any()
    for shift in (-1024.0, 3.5, 512.0):
        np.testing.assert_array_equal(defect_mask(heatmap + shift, 0.25 + shift, 0.125 + shift, 1.0), expected)


def test_the_scale_of_the_image_does_not_matter():
    heatmap = squares((20, 20, 16, 9.0), (100, 90, 60, 6.0))
    expected = defect_mask(heatmap, 0.3, 0.1, 1.0)
    for scale in (2, 5):
        larger = np.kron(heatmap, np.ones((scale, scale)))
        found = defect_mask(larger, 0.3, 0.1, 1 / scale**2)
        np.testing.assert_array_equal(found, np.kron(expected, np.ones((scale, scale))).astype(bool))
    assert defect_mask(heatmap, 0.3, 0.1, 1 / 25).sum() < expected.sum()


@pytest.mark.parametrize("value", [0.0, 5.0, math.inf])
def test_a_map_without_a_peak_has_no_mask(value: float):
    heatmap = np.full((4, 5), value)
    assert not defect_mask(heatmap, floor=value, typical=0.0, input_pixels=1.0).any()
    assert not defect_mask(heatmap, floor=0.0, typical=min(value, 9.0), input_pixels=1.0).any()


def rule_of(scores: list[float], rate: float, floor_rate: float = 0.1) -> DecisionRule:
    calibration = Calibration.from_scores("split", rate, scores)
    return DecisionRule.from_good_images(calibration, [np.array([0.0, 0.0, one]) for one in scores], floor_rate)


def decide(rule: DecisionRule, peak: float, side: int = 64):
    anomaly_map = np.zeros((side, side), np.float32)
    anomaly_map[8:24, 8:24] = peak
    return rule.decide(
        prepare(np.zeros((side, side, 3), np.uint8), InputSize(side, side, "stretch")), anomaly_map, None
    )


@pytest.mark.parametrize(
    ("rate", "peak", "p_value", "is_anomalous", "has_mask"),
    [
        (0.01, 100, 0.01, True, True),
        (0.01, 95.5, 0.05, False, True),
        (0.01, 94.5, 0.06, False, False),
        (0.09, 91.5, 0.09, True, True),
        (0.09, 90.5, 0.10, False, False),
        # Below the floor, 90, there is no pixel to show.
        (0.2, 85.5, 0.15, True, False),
    ],
)
def test_suspicious_images_have_a_mask_too(rate, peak, p_value, is_anomalous, has_mask):
    """Up to a p-value of 5 %, or the promised rate if it is larger."""
    verdict = decide(rule_of([float(one) for one in range(1, 100)], rate), peak)
    assert verdict.p_value == pytest.approx(p_value)
    assert (verdict.is_anomalous, bool(verdict.mask.any())) == (is_anomalous, has_mask)
    assert len(verdict.regions) == has_mask
    assert verdict.mask_floor == 90.0


def test_the_area_of_a_region_is_that_in_the_input():
    """A photo of four times the input's side has the mask of the input, scaled."""
    rule = rule_of([1.0] * 19, 0.1)
    anomaly_map = (10 * squares((16, 24, 40, 1.0))[:96, :96]).astype(np.float32)
    small, large = (
        rule.decide(prepare(np.zeros((side, side, 3), np.uint8), InputSize(96, 96, "stretch")), anomaly_map, None)
        for side in (96, 384)
    )
    assert large.mask.sum() / 16 == pytest.approx(small.mask.sum(), rel=0.03)


def test_without_calibration_there_is_no_floor_and_no_mask():
    maps = [np.arange(9.0)]
    rule = DecisionRule.from_good_images(Calibration.from_scores("none", 0.1, []), maps, 0.1)
    verdict = decide(rule, 1e6)
    assert (rule.mask_floor, verdict.mask_floor, verdict.p_value) == (None, None, None)
    assert not verdict.mask.any()


@given(st.lists(st.lists(st.integers(0, 20), min_size=1), min_size=1, max_size=60), st.floats(0.001, 0.99))
def test_the_floor_is_reached_by_the_share_of_good_images(images: list[list[int]], rate: float):
    maxima = np.array([max(image) for image in images], dtype=float)
    calibration = Calibration.from_scores("split", 0.9, [*maxima, 0.0])
    rule = DecisionRule.from_good_images(calibration, [np.array(image, dtype=np.float32) for image in images], rate)
    assert rule.mask_floor in maxima
    assert (maxima > rule.mask_floor).mean() <= rate
    assert (maxima >= rule.mask_floor).sum() > rate * (len(maxima) - 1) * (1 - 1e-9) - 1e-9


def test_the_floor_of_masks_stays_at_another_rate():
    rule = rule_of([float(one) for one in range(1, 100)], 0.01)
    assert rule.with_false_alarm_rate(0.3).mask_floor == rule.mask_floor == 90.0
    assert rule_of([float(one) for one in range(1, 100)], 0.01, floor_rate=0.5).mask_floor == 50.0
    again = DecisionRule.from_dict(rule.to_dict())
    assert (again.mask_floor, again.mask_false_alarm_rate) == (90.0, 0.1)


@pytest.mark.parametrize(
    ("name", "value"), [("mask_floor", None), ("mask_floor", "x"), ("mask_false_alarm_rate", 1), ("heat_range", [2, 2])]
)
def test_a_rule_that_fits_nothing_is_refused(name, value):
    values = rule_of([1.0, 2.0, 3.0], 0.3).to_dict()
    with pytest.raises((ValueError, TypeError)):
        DecisionRule.from_dict({**values, name: value})
    # The former name says nothing about the floor.
    former = {("pixel_threshold" if key == "mask_floor" else key): one for key, one in values.items()}
    with pytest.raises(KeyError, match="mask_floor"):
        DecisionRule.from_dict(former)
