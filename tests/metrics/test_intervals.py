"""Confidence intervals against their definition."""

import math

import pytest

from hyperspot.metrics.intervals import exact_interval, wilson_interval


@pytest.mark.parametrize(("count", "total"), [(1, 25), (12, 40), (39, 40), (0, 7), (7, 7), (300, 1000)])
def test_the_ends_are_the_rates_that_the_score_test_just_accepts(count, total):
    """The ends p solve |count / total - p| = 1.96 sqrt(p (1 - p) / total)."""
    observed = count / total
    low, high = wilson_interval(count, total)
    assert 0 <= low <= observed <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert abs(observed - end) == pytest.approx(1.959963985 * math.sqrt(end * (1 - end) / total))
    assert (low == 0) is (count == 0)
    assert (high == 1) is (count == total)


def test_a_higher_confidence_is_wider():
    low, high = wilson_interval(3, 20, confidence=0.5)
    assert wilson_interval(3, 20)[0] < low < high < wilson_interval(3, 20)[1]


def test_nothing_observed_has_no_interval():
    assert wilson_interval(0, 0) is None


@pytest.mark.parametrize(("count", "total", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_impossible_counts_are_refused(count, total, confidence):
    with pytest.raises(ValueError, match="is no rate"):
        wilson_interval(count, total, confidence)


@pytest.mark.parametrize(("count", "total"), [(1, 25), (12, 40), (39, 40), (0, 7), (7, 7), (300, 1000)])
def test_the_ends_of_the_exact_interval_are_the_rates_that_the_binomial_tests_just_accept(count, total):
    def at_most(seen, rate):
        return sum(math.comb(total, j) * rate**j * (1 - rate) ** (total - j) for j in range(seen + 1))

    low, high = exact_interval(count, total)
    assert (low == 0) is (count == 0)
    assert (high == 1) is (count == total)
    if count > 0:
        assert 1 - at_most(count - 1, low) == pytest.approx(0.025)
    if count < total:
        assert at_most(count, high) == pytest.approx(0.025)


def test_the_exact_interval_of_nothing_and_of_impossible_counts():
    assert exact_interval(0, 0) is None
    with pytest.raises(ValueError, match="is no rate"):
        exact_interval(3, 2)
