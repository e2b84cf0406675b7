"""The promise of parts: kept by the joint calibration, broken by thresholds of each view at the rate."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks import part_promise
from hyperspot import Calibration, PartCalibration
from hyperspot.errors import CalibrationError

UNLIKELY = 1e-4
"""The chance that a bound below fails although the promise holds, were the seed another one."""


def slow_part_scores(scores: np.ndarray) -> np.ndarray:
    """Return the part scores by leaving each part out in turn."""
    found = []
    for number, row in enumerate(scores):
        standardized = []
        for column, score in enumerate(row):
            others = sorted(np.delete(scores[:, column], number))
            low = others[(len(others) - 1) // 2]
            high = others[int(np.ceil(0.9 * len(others))) - 1]
            standardized.append((score - low) / (high - low))
        found.append(max(standardized))
    return np.sort(found)


@pytest.mark.parametrize("parts", [4, 11, 50])
def test_part_scores_are_those_of_parts_left_out(parts: int):
    scores = np.random.default_rng(parts).gamma(3, [1, 20, 0.3], (parts, 3))
    calibration = PartCalibration.from_scores("split", 0.5, ["a", "b", "c"], scores)
    np.testing.assert_allclose(calibration.calibration.scores, slow_part_scores(scores))


@pytest.mark.parametrize(("parts", "rate", "views"), [(9, 0.1, 4), (19, 0.05, 4), (99, 0.05, 4), (59, 0.05, 12)])
def test_the_joint_calibration_keeps_the_promise(parts: int, rate: float, views: int):
    observed, error, _ = part_promise.simulate("joint", parts, 400, views=views, rate=rate)
    margin = stats.norm.isf(UNLIKELY) * error
    assert observed - margin <= rate
    assert observed + margin >= 0.6 * rate, "a rule that never alarms would keep the promise, too"


def test_a_single_view_keeps_the_promise():
    observed, error, _ = part_promise.simulate("joint", 39, 400, views=1)
    assert abs(observed - part_promise.RATE) <= stats.norm.isf(UNLIKELY) * error + 0.01


@pytest.mark.parametrize("parts", [19, 99])
def test_each_view_at_the_rate_breaks_the_promise(parts: int):
    observed, error, _ = part_promise.simulate("each view at the rate", parts, 200)
    assert observed - stats.norm.isf(UNLIKELY) * error > 2 * part_promise.RATE


def test_the_rate_divided_by_the_views_needs_more_parts_and_finds_less():
    with pytest.raises(CalibrationError, match="needs at least 79"):
        part_promise.simulate("rate / views", 39, 1)
    _, _, divided = part_promise.simulate("rate / views", 99, 400)
    _, _, joint = part_promise.simulate("joint", 99, 400)
    assert joint > divided


def test_the_benchmark_prints_every_rule(capsys):
    part_promise.main(["--sets", "2", "--sizes", "19", "99"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * len(part_promise.RULES)
    assert sum("too few parts" in line for line in lines) == 1


def test_the_thresholds_of_views_are_that_of_the_part():
    scores = np.random.default_rng(0).gamma(3, [1, 20], (80, 2))
    calibration = PartCalibration.from_scores("cross", 0.1, ["top", "side"], scores)
    for view in calibration.views:
        own = calibration.of_view(view)
        assert isinstance(own, Calibration)
        assert (own.kind, own.false_alarm_rate, len(own.scores)) == ("cross", 0.1, 80)
        for score in (own.threshold - 1e-6, own.threshold + 1e-6):
            whole = calibration.calibration
            assert own.is_anomalous(score) == whole.is_anomalous(calibration.standardize(view, score))
            assert own.p_value(score) == whole.p_value(calibration.standardize(view, score))


def test_it_comes_back_from_json():
    scores = np.random.default_rng(0).gamma(3, [1, 20], (80, 2))
    calibration = PartCalibration.from_scores("split", 0.1, ["top", "side"], scores)
    copied = PartCalibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    np.testing.assert_array_equal(copied.calibration.scores, calibration.calibration.scores)
    with pytest.raises(ValueError, match="1 views have scores of the shape"):
        PartCalibration.from_dict({**calibration.to_dict(), "views": ["top"]})


def test_what_cannot_be_calibrated_is_refused():
    scores = np.arange(12.0).reshape(6, 2)
    with pytest.raises(ValueError, match="`none` is not possible"):
        PartCalibration.from_scores("none", 0.2, ["a", "b"], scores)
    with pytest.raises(CalibrationError, match="at least 3 good calibration parts and there are 2"):
        PartCalibration.from_scores("split", 0.5, ["a", "b"], scores[:2])
    with pytest.raises(CalibrationError, match="not a finite number"):
        PartCalibration.from_scores("split", 0.5, ["a", "b"], np.where(scores == 3, np.nan, scores))
    with pytest.raises(CalibrationError, match=r"a false-alarm rate of 0\.01 needs at least 99"):
        PartCalibration.from_scores("split", 0.01, ["a", "b"], scores)


def test_equal_scores_of_a_view_decide_nothing():
    """A view without any spread leaves the decision to the others, and nothing is divided by zero."""
    scores = np.stack([np.ones(30), np.random.default_rng(0).gamma(3, 1, 30)], axis=1)
    calibration = PartCalibration.from_scores("split", 0.1, ["dead", "alive"], scores)
    alone = PartCalibration.from_scores("split", 0.1, ["alive"], scores[:, 1:])
    assert calibration.of_view("alive").threshold == alone.of_view("alive").threshold
    assert calibration.of_view("dead").is_anomalous(1.0) is False
    assert calibration.of_view("dead").is_anomalous(1.5) is True
