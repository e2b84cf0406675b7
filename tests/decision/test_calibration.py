import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hyperspot.decision.calibration import Calibration, decimal_rate, default_rate
from hyperspot.decision.planning import Plan, one_per_group, plan, split
from hyperspot.errors import CalibrationError, SettingsError

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
        (1000, None, "auto", Plan("split", 299, 1, 0.01)),
        (400, None, "auto", Plan("split", 200, 1, 3 / 201)),
        (198, None, "auto", Plan("split", 99, 1, 0.03)),
        (197, None, "auto", Plan("cross", 197, 5, 3 / 198)),
        (20, None, "auto", Plan("cross", 20, 5, 3 / 21)),
        (20, None, "split", Plan("split", 10, 1, 3 / 11)),
        (4, None, "cross", Plan("cross", 4, 4, 0.5)),
        (1, 0.01, "none", Plan("none", 0, 0, 0.01)),
    ],
)
def test_plan(n: int, rate: float | None, mode: str, expected: Plan):
    assert plan(n, rate, mode) == expected


@pytest.mark.parametrize(
    ("n", "rate", "mode", "expected"),
    [
        (1000, None, "auto", Plan("leave-one-out", 1000, 0, 0.01)),
        (59, None, "leave-one-out", Plan("leave-one-out", 59, 0, 0.05)),
        (59, 1 / 60, "auto", Plan("leave-one-out", 59, 0, 1 / 60)),
        (2, None, "auto", Plan("leave-one-out", 2, 0, 0.5)),
        (59, None, "cross", Plan("cross", 59, 5, 0.05)),
        (24, 0.2, "split", Plan("split", 5, 1, 0.2)),
    ],
)
def test_plan_of_a_method_that_leaves_one_out(n: int, rate: float | None, mode: str, expected: Plan):
    assert plan(n, rate, mode, leaves_one_out=True) == expected
    assert expected.kind != "leave-one-out" or split(n, expected, 0) == []


def test_a_method_that_cannot_leave_one_out_says_so():
    with pytest.raises(SettingsError, match="choose `--calibration split` or `cross`"):
        plan(100, None, "leave-one-out")


@pytest.mark.parametrize(
    ("n", "rate", "mode", "named"),
    [
        (98, 0.01, "auto", "at least 99 good images and there are 98"),
        (98, 0.01, "cross", "at least 99 good images and there are 98"),
        (150, 0.01, "split", "at least 198 good images"),
        (1, None, "auto", "--calibration none"),
        (0, 0.5, "cross", "--calibration none"),
        (50, 0.01, "split", "at least 198 good images"),
        (50, 0.01, "leave-one-out", "at least 99 good images"),
    ],
)
def test_too_few_photos_are_refused_with_the_number_needed(n: int, rate: float | None, mode: str, named: str):
    with pytest.raises(CalibrationError, match=named):
        plan(n, rate, mode, leaves_one_out=mode == "leave-one-out")


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
    assert planned.rate == default_rate(planned.held_out)
    calibration = planned.calibrate(np.arange(planned.held_out, dtype=float))
    third_highest = planned.held_out - 3
    assert calibration.threshold == third_highest or planned.rate in (0.01, 0.5)
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
        Calibration.images_for(rate)


def test_stored_scores_give_the_same_calibration_back():
    given_scores = np.array([3.0, 1.0, 2.0], dtype=np.float32)
    first = Calibration.from_scores("cross", 0.5, given_scores)
    again = Calibration.from_scores(first.kind, first.false_alarm_rate, first.scores)
    assert again.threshold == first.threshold == 2.0
    assert first.scores.tolist() == [1.0, 2.0, 3.0]
    assert given_scores.tolist() == [3.0, 1.0, 2.0]


@given(st.integers(1, 3000))
def test_the_default_rate_is_the_documented_one(n: int):
    assert default_rate(n) == min(0.5, max(0.01, 3 / (n + 1)))


@given(st.integers(2, 3000), st.integers(1, 3000))
def test_the_decimal_number_of_a_rate_has_the_same_threshold(n: int, step: int):
    rate = min(step, n) / (n + 1)
    typed = float(str(decimal_rate(rate, n)))
    scores = np.arange(float(n))
    assert typed > rate - 1e-9
    assert (
        Calibration.from_scores("split", typed, scores).threshold
        == Calibration.from_scores("split", rate, scores).threshold
    )


@given(RATES)
def test_as_many_images_as_named_allow_a_rate_and_no_fewer(rate: float):
    needed = Calibration.images_for(rate)
    assert needed.limit <= needed.default
    assert 1 / (needed.limit + 1) <= rate
    assert needed.limit == 1 or 1 / needed.limit > rate
    assert 3 / (needed.default + 1) <= rate
    assert needed.default == 1 or 3 / needed.default > rate


def test_a_hundred_and_a_threefold_of_images_for_one_percent():
    assert Calibration.images_for(0.01) == (299, 99)
    assert Calibration.images_for(0.0075).default == 399


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (50, 3 / 51), (299, 0.01), (1000, 0.1)])
def test_the_interval_contains_the_true_rate_as_often_as_it_says(n: int, rate: float):
    """Scores are uniform, so that the true false-alarm rate of a threshold t is 1 - t."""
    random = np.random.default_rng(n)
    repeats, missed = 4000, np.zeros(2)
    for _ in range(repeats):
        calibration = Calibration.from_scores("split", rate, random.random(n))
        low, high = calibration.rate_interval(0.8)
        true_rate = 1 - calibration.threshold
        missed += (true_rate < low, true_rate > high)
    assert np.abs(missed / repeats - 0.1).max() < 4 * math.sqrt(0.1 * 0.9 / repeats)


def test_the_interval_is_that_of_the_beta_distribution():
    calibration = Calibration.from_scores("leave-one-out", 0.0121, np.arange(248.0))
    assert calibration.above == 2
    assert calibration.threshold == 245.0
    assert calibration.rate_interval(0.9) == pytest.approx(tuple(stats.beta(3, 246).ppf([0.05, 0.95])))
    with pytest.raises(ValueError, match="a confidence lies between 0 and 1"):
        calibration.rate_interval(1.0)
    with pytest.raises(CalibrationError, match="no calibration"):
        Calibration.from_scores("none", 0.1, []).rate_interval()


@pytest.mark.parametrize(("n", "more", "rate"), [(59, 119, "2.5 %"), (199, 399, "0.75 %"), (5, 11, "25 %")])
def test_the_sentence_on_steadiness_names_figures(n: int, more: int, rate: str):
    calibration = Calibration.from_scores("split", default_rate(n), np.arange(float(n)))
    low, high = calibration.rate_interval()
    said = calibration.steadiness()
    assert f"threshold from {n} good images" in said
    assert f"{100 * low:.1f} to {100 * high:.1f} %" in said
    assert said.endswith(f"{more} images would allow {rate}")
    assert 3 / (more + 1) == pytest.approx(3 / (n + 1) / 2)
    assert "no calibration" in Calibration.from_scores("none", 0.1, []).steadiness()


def test_more_images_allow_a_lower_rate_than_the_promised_one():
    said = Calibration.from_scores("split", 0.005, np.arange(299.0)).steadiness()
    assert said.endswith("1199 images would allow 0.25 %")
    assert Calibration.from_scores("split", 3 / 1200, np.arange(1199.0)).above == 2


def test_another_rate_keeps_the_scores_and_the_kind():
    calibration = Calibration.from_scores("leave-one-out", 0.2, np.arange(59.0))
    other = calibration.at_rate(1 / 60)
    assert (other.kind, other.threshold, other.false_alarm_rate) == ("leave-one-out", 58.0, 1 / 60)
    np.testing.assert_array_equal(other.scores, calibration.scores)
    with pytest.raises(CalibrationError, match="needs at least 60 "):
        calibration.at_rate(1 / 61)


@pytest.mark.parametrize("shape", ["lognormal", "gamma", "chi_square"])
def test_the_estimated_tail_is_honest_below_what_can_be_promised(shape: str):
    """The mean true rate of images that it calls rarer than a third of the promise is near that rate, or below."""
    random = np.random.default_rng(3)
    draws = {
        "lognormal": (lambda n: random.lognormal(0, 0.4, n), lambda t: stats.lognorm.sf(t, 0.4)),
        "gamma": (lambda n: random.gamma(9, size=n), lambda t: stats.gamma.sf(t, 9)),
        "chi_square": (lambda n: random.chisquare(5, n), lambda t: stats.chi2.sf(t, 5)),
    }
    draw, tail = draws[shape]
    n, wanted = 150, 1 / 151 / 3
    true_rates = []
    for _ in range(100):
        calibration = Calibration.from_scores("split", 0.05, draw(n))
        grid = calibration.scores[-1] * np.geomspace(0.7, 3, 120)
        above = next(score for score in grid if calibration.estimated_p_value(score) <= wanted)
        true_rates.append(tail(above))
    assert np.mean(true_rates) <= 1.5 * wanted


def test_the_estimate_falls_with_the_score_and_is_never_the_promise():
    scores = np.random.default_rng(0).lognormal(size=300)
    calibration = Calibration.from_scores("split", 0.05, scores)
    estimates = [calibration.estimated_p_value(score) for score in (-1.0, 0.0, 0.5, 1.0, 5.0, 50.0, 5000.0)]
    assert estimates == sorted(estimates, reverse=True)
    assert estimates[0] == 1.0
    assert estimates[-1] == pytest.approx(0.1 / 301)
    assert calibration.p_value(5000.0) == 1 / 301
    assert calibration.estimated_p_value(1.0) == pytest.approx((scores > 1).mean(), abs=0.05)
    for few in ("none", "split"):
        assert Calibration.from_scores(few, 0.5, scores[:99]).estimated_p_value(1.0) is None
    assert Calibration.from_scores("split", 0.5, scores - 1).estimated_p_value(1.0) is None
    assert Calibration.from_scores("split", 0.5, np.ones(100)).estimated_p_value(2.0) == 0.1 / 101
    with pytest.raises(ValueError, match="the score is not a number"):
        calibration.estimated_p_value(math.nan)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.integers(0, 9))
def test_groups_are_held_out_whole_and_give_one_image_each(labels: list[int], seed: int):
    groups = np.unique(labels, return_inverse=True)[1]
    count = int(groups.max()) + 1
    drawn = one_per_group(groups, seed)
    assert groups[drawn].tolist() == list(range(count))
    if count < 2:
        return
    for mode in ("split", "cross"):
        planned = plan(count, 0.5, mode)
        parts = split(len(groups), planned, seed, groups)
        held_out = [set(groups[part]) for part in parts]
        assert sum(map(len, held_out)) == planned.held_out
        for part, own in zip(parts, held_out, strict=True):
            assert not own & set(np.delete(groups, part))


def test_every_image_of_a_group_may_be_drawn():
    groups = np.array([0, 0, 0, 1])
    assert {int(one_per_group(groups, seed)[0]) for seed in range(40)} == {0, 1, 2}
