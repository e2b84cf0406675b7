"""New good images beside those of a rule: which scores calibrate, the floor of masks, and what is called a shift."""

import numpy as np
import pytest

from hyperspot import Calibration, DecisionRule
from hyperspot.decision.merging import NewImages, chance_of_alarms, merge_good_images


def rule_of(scores, rate=0.2, kind="leave-one-out"):
    maps = [np.array([0.5, score + 0.25]) for score in scores]
    return DecisionRule.from_good_images(Calibration.from_scores(kind, rate, scores), maps, mask_false_alarm_rate=0.1)


def merged_in_parts(parts, rate, size, *, alike=True):
    """Return the rule after parts of scores that each were made by a model that knew all images so far."""
    rule, known, images = rule_of(parts[0]), np.full(len(parts[0]), size), size
    for scores in parts[1:]:
        maps = [np.array([0.5, score + 0.25]) for score in scores]
        rule, known = merge_good_images(rule, known, images, scores, maps, np.arange(len(scores)), rate, alike=alike)
        images += size
        assert len(known) == len(rule.calibration.scores)
    return rule, known


def test_scores_of_models_that_knew_less_than_a_third_leave():
    parts = [list(np.random.default_rng(number).uniform(number, number + 1, 30)) for number in range(6)]
    rule, known = merged_in_parts(parts, None, 30)
    # Of 180 images; the model of the second part knew 60.
    assert rule.calibration.scores.tolist() == sorted(score for part in parts[1:] for score in part)
    assert sorted(set(known.tolist())) == [60, 90, 120, 150, 180]
    assert rule.calibration.false_alarm_rate == 3 / 151
    assert rule.calibration.kind == "leave-one-out"
    assert len(merged_in_parts(parts, None, 30, alike=False)[0].calibration.scores) == 180


def test_as_many_stay_as_the_rate_needs():
    parts = [list(np.linspace(0, 1, 5)) for _ in range(6)]
    # 29 scores for a steady threshold at 10 %: all parts. 11 for 25 %: those that knew a third.
    assert len(merged_in_parts(parts, 0.1, 5)[0].calibration.scores) == 30
    assert len(merged_in_parts(parts, 0.25, 5)[0].calibration.scores) == 25


def test_the_floor_of_masks_is_that_of_all_images_at_once():
    random = np.random.default_rng(0)
    scores = random.gamma(9, 1, 120)
    at_once = rule_of(scores)
    for size in (1, 7, 60):
        first, later = scores[:60], scores[60:]
        rule, known, images = rule_of(first), np.full(60, 60), 60
        for start in range(0, 60, size):
            part = later[start : start + size]
            maps = [np.array([0.5, score + 0.25]) for score in part]
            rule, known = merge_good_images(rule, known, images, list(part), maps, np.arange(len(part)), 0.2)
            images += len(part)
        assert rule.mask_floor == pytest.approx(at_once.mask_floor)
        assert rule.calibration.threshold == at_once.calibration.threshold
        assert rule.heat_range[1] == pytest.approx(2 * rule.mask_floor - rule.heat_range[0])


def test_without_calibration_only_the_heat_range_changes():
    rule = DecisionRule.from_good_images(Calibration.from_scores("none", 0.1, []), [np.array([1.0, 2.0])], 0.1)
    merged, known = merge_good_images(rule, np.empty(0, int), 1, [5.0], [np.array([1.0, 5.0])], np.array([0]), 0.1)
    assert merged.calibration.kind == "none"
    assert merged.mask_floor is None
    assert merged.heat_range[1] > rule.heat_range[1]
    assert len(known) == 0


def test_the_chance_of_alarms_is_that_of_a_simulation():
    random = np.random.default_rng(0)
    n, images, rate = 39, 12, 0.1
    calibration = Calibration.from_scores("split", rate, np.arange(float(n)))
    ranks = random.random((20000, n + images))
    thresholds = np.sort(ranks[:, :n])[:, n - 1 - calibration.above]
    alarms = (ranks[:, n:] > thresholds[:, None]).sum(1)
    for at_least in (1, 3, 5):
        assert chance_of_alarms(calibration, at_least, images) == pytest.approx((alarms >= at_least).mean(), abs=0.01)


def test_few_images_of_which_most_are_called_anomalous_are_a_shift():
    calibration = Calibration.from_scores("split", 0.05, np.arange(99.0))
    usual = NewImages.compare(calibration, range(8), [], [50.0, 97.5, *np.arange(6.0)])
    assert usual.odd == (1,)
    assert not usual.is_shifted
    shifted = NewImages.compare(calibration, range(8), [], [50.0, *np.arange(200.0, 207.0)])
    assert shifted.odd == (7, 6, 5, 4, 3, 2, 1)
    assert shifted.drift is None
    assert shifted.is_shifted
    assert not NewImages.compare(calibration, range(8), [], list(np.arange(200.0, 208.0)), grouped=True).is_shifted
