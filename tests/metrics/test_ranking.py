import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperspot.metrics import auroc, average_precision, f1_max, roc_curve

METRICS = (auroc, average_precision, f1_max, roc_curve)


@st.composite
def ranked(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores, often tied, and labels of both classes."""
    n = draw(st.integers(2, 40))
    score = draw(st.sampled_from([st.integers(-3, 3).map(float), st.floats(-1e3, 1e3)]))
    scores = draw(st.lists(score, min_size=n, max_size=n))
    positives = draw(st.integers(1, n - 1))
    labels = draw(st.permutations([1] * positives + [0] * (n - positives)))
    return np.array(scores), np.array(labels)


@given(ranked())
def test_auroc_counts_pairs(case: tuple[np.ndarray, np.ndarray]):
    scores, labels = case
    pairs = [
        (positive > negative) + (positive == negative) / 2
        for positive in scores[labels == 1]
        for negative in scores[labels == 0]
    ]
    assert auroc(scores, labels) == pytest.approx(np.mean(pairs), abs=1e-12)


@given(ranked())
def test_precision_and_recall_at_every_threshold(case: tuple[np.ndarray, np.ndarray]):
    scores, labels = case
    area = best = recall_before = 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        precision = labels[called].mean()
        recall = labels[called].sum() / labels.sum()
        area += (recall - recall_before) * precision
        best = max(best, 2 * precision * recall / (precision + recall) if precision + recall else 0.0)
        recall_before = recall
    assert average_precision(scores, labels) == pytest.approx(area, abs=1e-12)
    assert f1_max(scores, labels) == pytest.approx(best, abs=1e-12)


@given(ranked())
def test_the_roc_curve_passes_every_threshold_and_encloses_the_area(case: tuple[np.ndarray, np.ndarray]):
    scores, labels = case
    x, y = roc_curve(scores, labels)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    assert np.trapezoid(y, x) == pytest.approx(auroc(scores, labels), abs=1e-12)
    for threshold in set(scores[labels == 1]):
        called = scores >= threshold
        here = np.array([called[labels == 0].mean(), called[labels == 1].mean()])
        assert np.hypot(x - here[0], y - here[1]).min() < 1e-12


@given(ranked())
def test_only_the_order_matters(case: tuple[np.ndarray, np.ndarray]):
    scores, labels = case
    _, ranks = np.unique(scores, return_inverse=True)
    for metric in METRICS[:3]:
        assert metric(ranks**3 - 5.0, labels.astype(bool)) == metric(scores, labels)


def test_perfect_reversed_and_constant_scores():
    labels = np.array([0, 0, 0, 1])
    scores = np.arange(4.0)
    assert [metric(scores, labels) for metric in METRICS[:3]] == [1, 1, 1]
    assert [metric(-scores, labels) for metric in METRICS[:3]] == [0, 0.25, 0.4]
    assert [metric(0 * scores, labels) for metric in METRICS[:3]] == [0.5, 0.25, 0.4]
    assert auroc(np.array([np.inf, 1.0, -np.inf]), np.array([1, 1, 0])) == 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("label", [0, 1])
def test_metrics_of_one_class_are_undefined(metric, label: int):
    assert metric(np.array([1.0, 2.0]), np.array([label, label])) is None


@pytest.mark.parametrize("metric", METRICS)
def test_scores_that_are_not_numbers_are_refused(metric):
    with pytest.raises(ValueError, match="NaN"):
        metric(np.array([1.0, np.nan]), np.array([0, 1]))
