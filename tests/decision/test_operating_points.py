"""Operating points against p-values, and the advice that follows from them."""

import json
import re

import numpy as np
import pytest

from hyperspot.decision.advice import advise
from hyperspot.decision.calibration import Calibration
from hyperspot.decision.operating_points import OperatingPoint, operating_points

LABELS = np.array([0] * 50 + [1] * 30)


def scored(good, bad):
    return np.concatenate([good, bad])


def points_and_advice(calibration, scores, labels=LABELS, auroc=0.99):
    points = operating_points(calibration, scores, labels)
    return points, advise(calibration, points, auroc, scores, labels)


@pytest.mark.parametrize("n", [9, 10, 19, 30, 99, 250])
@pytest.mark.parametrize("rate", [0.1, 0.13, 1 / 3])
def test_counts_are_those_of_the_p_values(n, rate):
    random = np.random.default_rng(n)
    # Rounded: calibration and test scores have ties.
    calibration = Calibration.from_scores("split", rate, random.normal(size=n).round(1))
    scores = scored(random.normal(size=50), random.normal(2, size=30)).round(1)
    points = operating_points(calibration, scores, LABELS)
    assert [point.false_alarm_rate for point in points] == sorted(
        {rate, *(one for one in (0.01, 0.02, 0.05, 0.1) if 1 / (n + 1) <= one)}
    )
    for point in points:
        p_values = [(1 + np.sum(calibration.scores >= score)) / (n + 1) for score in scores]
        called = np.array(p_values) <= point.false_alarm_rate
        assert (point.detected, point.defective) == (called[50:].sum(), 30)
        assert (point.false_alarms, point.good) == (called[:50].sum(), 50)
        assert point.detection_rate == called[50:].mean()
        assert point.observed_false_alarm_rate == called[:50].mean()
        assert json.loads(json.dumps(point.to_dict()))["false_alarms"] == called[:50].sum()


def test_a_missing_class_has_no_rate():
    point = OperatingPoint(0.1, 1.0, detected=0, defective=0, false_alarms=1, good=4)
    assert point.detection_rate is point.detection_interval is None
    assert point.to_dict()["detection_interval"] is None
    assert OperatingPoint(0.1, 1.0, detected=1, defective=2, false_alarms=0, good=0).observed_false_alarm_rate is None


@pytest.mark.parametrize(("n", "rate"), [(99, 0.01), (99, 0.05), (99, 0.29), (30, 0.1), (6, 1 / 7), (48, 3 / 49)])
def test_the_rank_of_the_threshold_counts_from_the_highest_score(n, rate):
    calibration = Calibration.from_scores("split", rate, np.random.default_rng(n).normal(size=n))
    assert np.sum(calibration.scores >= calibration.threshold) == calibration.above + 1


def test_two_odd_good_images_that_hide_the_defects_are_pointed_out():
    # 97 calibration scores below 1 and two of glare above the defects.
    calibration = Calibration.from_scores("split", 0.01, [*np.linspace(0.1, 0.97, 97), 4.0, 5.0])
    scores = scored(np.linspace(0, 0.9, 50), np.linspace(1.5, 3, 30))
    points, advice = points_and_advice(calibration, scores)
    assert points[0].detected == 0
    text = " ".join(advice)
    assert "Only 0 % of the defective images are found" in text
    assert "image AUROC 99.0 %" in text
    assert "100 % at a false-alarm rate of 5 % (0 of 50 good images)" in text
    assert "2 of the 99 good calibration images set the threshold so high (highest score 5)" in text
    assert "without them the threshold would be 0.97 and find 100 %" in text
    assert "highest of 99 calibration scores" in text
    assert "200 more good images" in text
    # What is advised holds: with 299 images the threshold is the third highest.
    assert Calibration.from_scores("split", 0.01, np.arange(299.0)).above == 2
    assert Calibration.from_scores("split", 0.01, np.arange(298.0)).above == 1


def test_above_ten_percent_multiples_of_the_rate_are_shown():
    calibration = Calibration.from_scores("split", 0.15, np.linspace(0, 1, 19))
    scores = scored(np.linspace(0, 0.5, 50), np.linspace(0.6, 0.89, 30))
    _, advice = points_and_advice(calibration, scores)
    for rate in (0.3, 0.45):
        # The rate leaves room for this many of 19 calibration images at or above the threshold.
        threshold = np.linspace(0, 1, 19)[-int(rate * 20)]
        found = np.mean(scores[50:] > threshold)
        assert f"{100 * found:.3g} % at a false-alarm rate of {100 * rate:.0f} %" in advice[1]


@pytest.mark.parametrize("n", [21, 27, 29])
def test_multiples_of_the_rate_are_not_rounded_down_to_another_threshold(n):
    calibration = Calibration.from_scores("split", 3 / (n + 1), np.arange(float(n)))
    scores = scored(np.zeros(50), np.linspace(n / 2, n - 2, 30))
    _, advice = points_and_advice(calibration, scores)
    stated = re.findall(r"([\d.]+) % at a false-alarm rate of ([\d.]+) %", advice[1])
    assert len(stated) == 2
    for multiple, (found, rate) in zip((2, 3), stated, strict=True):
        threshold = n - 3 * multiple
        assert calibration.at_rate(float(rate) / 100).threshold == threshold
        assert found == f"{100 * np.mean(scores[50:] > threshold):.3g}"


def test_one_image_is_one_and_a_steady_threshold_needs_no_more():
    calibration = Calibration.from_scores("split", 0.1, [*np.linspace(0.1, 0.9, 26), 4.0, 4.0, 9.0])
    scores = scored(np.linspace(0, 0.8, 50), np.linspace(1.5, 3, 30))
    _, advice = points_and_advice(calibration, scores)
    assert any("1 of the 29 good calibration images sets" in one and "without it" in one for one in advice)
    assert not any("more good images" in one for one in advice)


def test_scores_above_the_threshold_are_counted_as_the_calibration_counts():
    # 0.29 * 100 is below 29 in floating-point numbers, and the 29th highest score is the threshold.
    calibration = Calibration.from_scores("split", 0.29, np.arange(99.0))
    assert calibration.threshold == 70
    # 10 of 30 scores lie between the threshold and the next calibration score.
    scores = scored(np.zeros(50), [*[69.5] * 10, *[60.0] * 10, *[80.0] * 10])
    _, advice = points_and_advice(calibration, scores)
    assert any("without it the threshold would be 69 and find 66.7 %" in one for one in advice)


@pytest.mark.parametrize(("found", "auroc"), [(1.0, 0.99), (0.0, 0.85), (0.0, None)])
def test_there_is_no_advice_where_enough_is_found_or_the_ranking_is_poor(found, auroc):
    calibration = Calibration.from_scores("split", 0.05, np.linspace(0, 1, 99))
    scores = scored(np.linspace(0, 0.9, 50), np.full(30, 0.5 + found))
    assert points_and_advice(calibration, scores, auroc=auroc)[1] == ()


def test_more_false_alarms_than_chance_explains_ask_for_recalibration():
    calibration = Calibration.from_scores("split", 0.05, np.linspace(0, 1, 99))
    good = np.linspace(0, 0.9, 50)
    good[:12] = 2
    (advice,) = points_and_advice(calibration, scored(good, np.full(30, 3.0)))[1]
    assert advice.startswith("12 of 50 good images are called anomalous")
    assert "hyperspot recalibrate" in advice
    good[:12] = 0
    good[:3] = 2
    assert points_and_advice(calibration, scored(good, np.full(30, 3.0)))[1] == ()
