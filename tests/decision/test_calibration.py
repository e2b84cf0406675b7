import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperspot.decision.calibration import Calibration, Plan, pixel_threshold, plan, split
from hyperspot.errors import CalibrationError

RATES = st.one_of(st.floats(0.03, 0.95), st.integers(2, 40).map(lambda n: 1 / n), st.sampled_from([0.05, 0.1, 0.29]))


@st.composite
def calibrated(draw: st.DrawFn, tied: bool = True) -> tuple[float, list[float]]:
    """Draw a rate and scores that suffice for it; with ties where `tied`."""
    rate = draw(RATES)
    least = math.ceil(1 / rate)
    score = st.integers(0, 8).map(float) if tied else st.floats(-1e6, 1e6)
    return rate, draw(st.lists(score, min_size=least, max_size=least + 40, unique=not tied))


@given(calibrated(), st.one_of(st.integers(-1, 9).map(float), st.floats(-1, 9)))
def test_the_p_value_counts_and_the_threshold_says_the_same(case: tuple[float, list[float]], score: float):
    rate, scores = case
    calibration = Calibration.from_scores("split", rate, scores)
    p = (1 + sum(held >= score for held in scores)) / (len(scores) + 1)
    assert calibration.p_value(score) == p
    assert calibration.is_anomalous(score) is (p <= rate)
    assert calibration.threshold is not None
    assert (score > calibration.threshold) is (p <= rate)


def _alarms(rate: float, scores: list[float]) -> int:
    """Count alarms where each of the scores in turn is the new photo and the others are held out."""
    return sum(
        bool(Calibration.from_scores("split", rate, scores[:i] + scores[i + 1 :]).is_anomalous(scores[i]))
        for i in range(len(scores))
    )


@given(calibrated(tied=False))
def test_of_exchangeable_photos_as_many_alarm_as_promised(case: tuple[float, list[float]]):
    rate, scores = case
    scores = [*scores, 2e6]
    alarms = _alarms(rate, scores)
    assert alarms / len(scores) <= rate < (alarms + 1) / len(scores)


@given(calibrated())
def test_ties_only_make_fewer_alarms(case: tuple[float, list[float]]):
    rate, scores = case
    assert _alarms(rate, [*scores, 3.0]) / (len(scores) + 1) <= rate


def test_random_splits_keep_the_promise_and_hardly_more():
    random = np.random.default_rng(0)
    rate, shares = 0.05, []
    planned = plan(200, rate)
    for seed in range(400):
        scores = random.gamma(3, size=200)
        (held,) = split(200, planned, seed)
        calibration = planned.calibrate(scores[held])
        others = np.delete(scores, held)
        shares.append(np.mean([bool(calibration.is_anomalous(score)) for score in others]))
    promised = math.floor(rate * (planned.held_out + 1)) / (planned.held_out + 1)
    assert np.mean(shares) == pytest.approx(promised, abs=0.006)
    assert np.mean(shares) <= rate


@pytest.mark.parametrize(
    ("n", "rate", "mode", "expected"),
    [
        (200, 0.01, "auto", Plan("split", 99, 1, 0.01)),
        (198, 0.01, "auto", Plan("split", 99, 1, 0.01)),
        (197, 0.01, "auto", Plan("cross", 197, 5, 0.01)),
        (99, 0.01, "auto", Plan("cross", 99, 5, 0.01)),
        (1000, 0.05, "auto", Plan("split", 200, 1, 0.05)),
        (24, 0.2, "auto", Plan("split", 5, 1, 0.2)),
        (24, 0.2, "cross", Plan("cross", 24, 5, 0.2)),
        (3, 0.25, "auto", Plan("cross", 3, 3, 0.25)),
        (2, 0.9, "auto", Plan("split", 1, 1, 0.9)),
        (400, None, "auto", Plan("split", 99, 1, 0.01)),
        (150, None, "auto", Plan("cross", 150, 5, 0.01)),
        (20, None, "auto", Plan("cross", 20, 5, 1 / 21)),
        (20, None, "split", Plan("split", 10, 1, 1 / 11)),
        (1, 0.01, "none", Plan("none", 0, 0, 0.01)),
    ],
)
def test_plan(n: int, rate: float | None, mode: str, expected: Plan):
    assert plan(n, rate, mode) == expected


@pytest.mark.parametrize(
    ("n", "rate", "mode", "named"),
    [
        (98, 0.01, "auto", "at least 99 good images and there are 98"),
        (98, 0.01, "cross", "at least 99 good images and there are 98"),
        (150, 0.01, "split", "at least 198 good images"),
        (1, None, "auto", "--calibration none"),
        (0, 0.5, "cross", "--calibration none"),
    ],
)
def test_too_few_photos_are_refused_with_the_number_needed(n: int, rate: float | None, mode: str, named: str):
    with pytest.raises(CalibrationError, match=named):
        plan(n, rate, mode)


@given(RATES, st.integers(2, 300), st.sampled_from(["auto", "split", "cross"]))
def test_every_plan_can_be_calibrated(rate: float, n: int, mode: str):
    try:
        planned = plan(n, rate, mode)
    except CalibrationError:
        assert 1 / ((n // 2 if mode == "split" else n) + 1) > rate
        return
    held = np.concatenate(split(n, planned, 0))
    assert len(held) == planned.held_out
    assert planned.calibrate(np.zeros(len(held))).threshold == 0.0


@given(st.integers(2, 300), st.integers(0, 5))
def test_the_default_rate_can_always_be_promised(n: int, seed: int):
    planned = plan(n, None)
    assert planned.rate == max(0.01, 1 / (n + 1))
    parts = split(n, planned, seed)
    held = np.concatenate(parts)
    assert len(parts) == planned.folds
    assert len(set(held)) == len(held) == planned.held_out
    assert all((np.diff(part) > 0).all() for part in parts)
    assert all(0 < len(part) < n for part in parts)


def test_the_seed_decides_what_is_held_out():
    planned = plan(200, 0.01)
    first, again, other = (split(200, planned, seed)[0] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_without_calibration_nothing_is_said():
    planned = plan(5, None, "none")
    assert split(5, planned, 0) == []
    calibration = planned.calibrate([])
    assert calibration.threshold is None
    assert calibration.p_value(3.0) is None
    assert calibration.is_anomalous(3.0) is None


def test_scores_that_cannot_be_ranked_are_refused():
    with pytest.raises(CalibrationError, match="not a finite number"):
        Calibration.from_scores("split", 0.5, [1.0, math.nan])
    with pytest.raises(CalibrationError, match="at least 9 "):
        Calibration.from_scores("cross", 0.1, [1.0] * 8)
    with pytest.raises(ValueError, match="the score is not a number"):
        Calibration.from_scores("split", 0.5, [1.0]).p_value(math.nan)
    with pytest.raises(ValueError, match="unknown kind"):
        Calibration.from_scores("guess", 0.5, [1.0])


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_rates_that_promise_nothing_are_refused(rate: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        plan(100, rate)
    with pytest.raises(ValueError, match="between 0 and 1"):
        pixel_threshold([np.zeros(3)], rate)


def test_stored_scores_give_the_same_calibration_back():
    given_scores = np.array([3.0, 1.0, 2.0], dtype=np.float32)
    first = Calibration.from_scores("cross", 0.5, given_scores)
    again = Calibration.from_scores(first.kind, first.false_alarm_rate, first.scores)
    assert again.threshold == first.threshold == 2.0
    assert first.scores.tolist() == [1.0, 2.0, 3.0]
    assert given_scores.tolist() == [3.0, 1.0, 2.0]


@given(st.lists(st.lists(st.integers(0, 20), min_size=1), min_size=1), st.floats(0.001, 0.99))
def test_the_pixel_threshold_is_the_smallest_that_keeps_the_rate(images: list[list[int]], rate: float):
    threshold = pixel_threshold([np.array(image, dtype=np.float32) for image in images], rate)
    pixels = np.concatenate([np.array(image) for image in images])
    assert (pixels > threshold).mean() <= rate
    assert (pixels >= threshold).mean() > rate or threshold == pixels.min()
