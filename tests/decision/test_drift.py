"""Drift: false warnings stay below the stated chance, and shifted scores are found."""

import numpy as np
import pytest

from hyperspot import Calibration
from hyperspot.decision.drift import FALSE_WARNINGS, FEWEST, Drift, detect_drift

RUNS = 2000


def warnings(shift: float, *, calibration: int, current: int, passed: bool, rate: float) -> float:
    """Return the share of simulated runs with a warning; the scores have a heavy tail, as real ones have."""
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(RUNS):
        calibrated = Calibration.from_scores("split", rate, np.exp(rng.standard_t(5, calibration)))
        scores = np.exp(rng.standard_t(5, current) + shift)
        drift = detect_drift(calibrated, scores, passed=passed)
        count += drift is not None and drift.is_significant
    return count / RUNS


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize(("calibration", "current", "rate"), [(20, 25, 0.1), (100, 60, 0.03), (300, 60, 0.01)])
def test_false_warnings_are_at_most_the_stated_chance(calibration: int, current: int, rate: float, passed: bool):
    share = warnings(0, calibration=calibration, current=current, passed=passed, rate=rate)
    # Three standard deviations of the simulation above the stated chance.
    assert share <= FALSE_WARNINGS + 3 * np.sqrt(FALSE_WARNINGS / RUNS)


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_a_shift_by_the_standard_deviation_is_found(shift: float):
    """That of Student's t with 5 degrees of freedom is 1.29."""
    assert warnings(1.29 * shift, calibration=100, current=60, passed=True, rate=0.03) > 0.9
    assert warnings(1.29 * shift, calibration=100, current=60, passed=False, rate=0.03) > 0.98


@pytest.fixture
def calibration() -> Calibration:
    return Calibration.from_scores("split", 0.1, np.arange(40.0))


def test_nothing_is_tested_with_few_images_or_without_calibration(calibration: Calibration):
    assert detect_drift(calibration, np.full(FEWEST - 1, 30.0)) is None
    assert detect_drift(calibration, np.full(FEWEST, 30.0)) is not None
    assert detect_drift(Calibration.from_scores("none", 0.1, []), np.full(FEWEST, 30.0)) is None


def test_lots_are_not_tested():
    """The calibration scores are of one image per lot, the current images of a single lot."""
    rng = np.random.default_rng(0)
    calibrated = Calibration.from_scores("split", 0.1, rng.normal(0, 1, 40) + rng.normal(0, 0.5, 40))
    lot = 1.5 + rng.normal(0, 0.5, 50)
    alone = detect_drift(calibrated, lot, passed=False)
    assert alone is not None
    assert alone.is_significant
    assert detect_drift(calibrated, lot, passed=False, grouped=True) is None


def test_anomalous_images_do_not_count_unless_they_are_known_to_be_good(calibration: Calibration):
    usual = list(np.linspace(0, 35, 30))
    with_defects = detect_drift(calibration, [*usual, *[99.0] * 30])
    assert with_defects is not None
    assert not with_defects.is_significant
    assert with_defects.images == 30
    known = detect_drift(calibration, [*usual, *[99.0] * 30], passed=False)
    assert known is not None
    assert known.is_significant


def test_only_the_most_recent_images_count(calibration: Calibration):
    drift = detect_drift(calibration, [*np.linspace(0, 36, 500), *[34.5] * 50])
    assert drift is not None
    assert drift.is_significant
    assert drift.is_higher
    assert drift.images == 50


def test_lower_scores_mean_nothing_where_calibration_scores_are_too_high():
    low = np.full(40, 1.5)
    split = detect_drift(Calibration.from_scores("split", 0.1, np.arange(40.0)), low)
    cross = detect_drift(Calibration.from_scores("cross", 0.1, np.arange(40.0)), low)
    assert split is not None
    assert cross is not None
    assert split.is_significant
    assert not cross.is_significant


def test_the_bias_of_other_models_is_tolerated():
    rng = np.random.default_rng(0)
    usual, shifted = rng.normal(0, 1, 5000), rng.normal(0.6, 1, 50)
    exact, approximate = (
        detect_drift(Calibration.from_scores(kind, 0.1, usual), shifted, passed=False) for kind in ("split", "cross")
    )
    assert exact is not None
    assert approximate is not None
    assert exact.p_value < approximate.p_value / 10


def test_equal_scores_are_no_drift():
    drift = detect_drift(Calibration.from_scores("split", 0.1, np.ones(40)), np.ones(40), passed=False)
    assert drift is not None
    assert drift.p_value == 1


def test_the_warning_says_what_may_have_changed_and_what_to_do():
    assert Drift(2e-5, 50, is_higher=True).describe("passed images") == (
        "passed images score higher than the calibration images (p = 2e-05): light, focus or position may have "
        "changed; recalibrate with current good images"
    )
    assert "hide defects" in Drift(2e-5, 50, is_higher=False).describe("passed images")
