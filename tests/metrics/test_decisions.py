import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperspot.metrics import MaskCounts, detection_rate, false_alarm_rate, seg_f1


def count(predicted: list[np.ndarray], masks: list[np.ndarray]) -> MaskCounts:
    counts = MaskCounts()
    for called, mask in zip(predicted, masks, strict=True):
        counts.update(called, mask)
    return counts


@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_seg_f1_pools_the_pixels_of_all_images(seed: int, images: int, density: float):
    random = np.random.default_rng(seed)
    shapes = random.integers(1, 7, (images, 2))
    masks = [random.random(shape) < 0.3 for shape in shapes]
    masks[0][0, 0] = True
    predicted = [random.random(shape) < density for shape in shapes]
    called, truth = (np.concatenate([one.ravel() for one in many]) for many in (predicted, masks))
    hits = (called & truth).sum()
    precision = hits / called.sum() if called.any() else 0.0
    recall = hits / truth.sum()
    expected = 2 * precision * recall / (precision + recall) if hits else 0.0
    counts = count(predicted, masks)
    assert seg_f1(counts) == pytest.approx(expected, abs=1e-12)
    assert counts.false_positives == (called & ~truth).sum()
    assert counts.false_negatives == (~called & truth).sum()


def test_seg_f1_without_a_defect_is_undefined():
    assert seg_f1(count([np.ones((2, 2), dtype=bool)], [np.zeros((2, 2), dtype=bool)])) is None


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        MaskCounts().update(np.ones((2, 2), dtype=bool), np.ones((2, 3), dtype=bool))


def test_rates_are_shares_of_one_class():
    labels = np.array([0, 0, 0, 0, 1, 1])
    calls = np.array([True, False, False, False, True, True])
    assert false_alarm_rate(calls, labels) == 0.25
    assert detection_rate(calls, labels) == 1.0
    assert detection_rate(~calls, labels) == 0.0
    assert detection_rate(calls[:4], labels[:4]) is None
    assert false_alarm_rate(calls[4:], labels[4:]) is None
