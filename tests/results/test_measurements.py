"""Calipers, areas and distances against slow definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperspot.results.measurements import Scale, calipers, gap, measure_regions
from hyperspot.results.regions import find_regions

points = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=12)


def slow_calipers(corners):
    """Take the extent along very many directions."""
    angles = np.linspace(0, math.pi, 20001)
    along = corners @ np.stack([np.cos(angles), np.sin(angles)])
    extent = np.ptp(along, axis=0)
    return extent.max(), extent.min()


@given(points)
def test_calipers_are_the_extremes_over_all_directions(drawn):
    corners = np.array(drawn, dtype=float)
    longest, shortest = calipers(corners)
    expected = slow_calipers(corners)
    assert longest == pytest.approx(expected[0], abs=1e-4)
    assert shortest == pytest.approx(expected[1], abs=3e-3)


def slow_gap(one, other, scale):
    """Compare all pairs of pixels, as squares with sides of their own."""
    return min(
        math.hypot(max(abs(a[0] - b[0]) - 1, 0) * scale.y, max(abs(a[1] - b[1]) - 1, 0) * scale.x)
        for a, b in itertools.product(one, other)
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 200))
def test_regions_are_measured_in_order(seed: int):
    random = np.random.default_rng(seed)
    mask = random.random((24, 30)) < 0.12
    heatmap = random.random((24, 30))
    scale = Scale(0.5, 2.0, 0.1)
    regions = find_regions(mask, heatmap)
    measured = measure_regions(mask, regions, scale)
    assert [one.region.xyxy for one in measured] == [one.xyxy for one in regions]
    pixels = []
    for one in measured:
        runs = one.runs.T.tolist()
        own = [(row, column) for row, start, stop in runs for column in range(start, stop)]
        pixels.append(own)
        assert len(own) == one.region.area
        corners = np.array([(x + a, y + b) for y, x in own for a in (0, 1) for b in (0, 1)], dtype=float)
        assert (one.region.length_px, one.region.width_px) == pytest.approx(slow_calipers(corners), abs=3e-3)
        in_mm = slow_calipers(corners * (scale.x, scale.y) * 0.1)
        assert (one.region.length_mm, one.region.width_mm) == pytest.approx(in_mm, abs=1e-3)
        assert one.region.area_mm2 == pytest.approx(len(own) * 0.5 * 2.0 * 0.01)
    for first, second in itertools.islice(itertools.combinations(range(len(measured)), 2), 20):
        expected = slow_gap(pixels[first], pixels[second], scale)
        assert gap(measured[first], measured[second], scale) == pytest.approx(expected)


def test_a_diagonal_scratch():
    mask = np.eye(40, dtype=bool)
    (one,) = measure_regions(mask, find_regions(mask, mask.astype(float)))
    assert one.region.length_px == pytest.approx(40 * math.sqrt(2))
    assert one.region.width_px == pytest.approx(math.sqrt(2))
    assert one.region.length_mm is None
