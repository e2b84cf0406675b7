"""Robust distances of scores from their median."""

import numpy as np

from hyperspot.decision.odd_images import FAR, robust_z


def test_of_normal_scores_the_distances_are_standard_deviations():
    z = robust_z(np.random.default_rng(0).lognormal(3, 0.2, 20_000))
    assert abs(z.mean()) < 0.05
    assert abs(z.std() - 1) < 0.05
    assert (z > FAR).sum() <= 3


def test_odd_scores_do_not_hide_each_other():
    scores = np.concatenate([np.random.default_rng(0).lognormal(0, 0.1, 40), [3.0, 3.0, 4.0]])
    assert np.flatnonzero(robust_z(scores) > FAR).tolist() == [40, 41, 42]


def test_scores_at_or_below_zero_are_compared_as_they_are():
    assert robust_z([-1.0, 0.0, 1.0, 2.0, 3.0, 30.0])[-1] > FAR
    assert robust_z([-1.0, 0.0, 1.0])[0] == -robust_z([-1.0, 0.0, 1.0])[2]


def test_equal_scores_are_not_odd_and_any_other_is():
    assert robust_z([2.0, 2.0, 2.0]).tolist() == [0, 0, 0]
    assert robust_z([2.0, 2.0, 2.0, 2.1, 1.9]).tolist() == [0, 0, 0, np.inf, -np.inf]
    assert robust_z([]).size == 0
