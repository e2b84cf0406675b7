import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hyperspot.metrics import PixelStatistics, auroc, average_precision, f1_max, pimo, pixels, ranking
from hyperspot.utils import out_of_core

Case = tuple[list[np.ndarray], list[np.ndarray]]


def regions_of(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Flood each region from its first pixel, over sides and corners."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while left:
        queue, region = [left.pop()], []
        while queue:
            row, column = queue.pop()
            region.append((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            queue += near
        regions.append(region)
    return regions


def slow_aupro(maps: list[np.ndarray], masks: list[np.ndarray], limit: float) -> float:
    """Walk over all thresholds; cut the curve at the limit by interpolation; integrate by trapezoids."""
    normal = np.concatenate([heat[~mask] for heat, mask in zip(maps, masks, strict=True)])
    regions = [
        np.array([heat[pixel] for pixel in region])
        for heat, mask in zip(maps, masks, strict=True)
        for region in regions_of(mask)
    ]
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([normal, *regions]))[::-1]:
        overlap = np.mean([(region >= threshold).mean() for region in regions])
        points.append(((normal >= threshold).mean(), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < limit:
            end = min(x1, limit)
            y_end = y1 if end == x1 else y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Generate up to four small images of different sizes, with at least one defective and one normal pixel."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([1, 2, 5, 10**6]))
    density = draw(st.sampled_from([0.05, 0.3, 0.7]))
    maps, masks = [], []
    for _ in range(draw(st.integers(1, 4))):
        shape = (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
        maps.append((random.integers(0, levels, shape) / 7 - 0.4).astype(np.float32))
        masks.append(random.random(shape) < density * draw(st.integers(0, 1)))
    flat = np.concatenate([mask.ravel() for mask in masks])
    assume(flat.any() and not flat.all())
    return maps, masks


def collect(maps: list[np.ndarray], masks: list[np.ndarray]) -> PixelStatistics:
    statistics = PixelStatistics()
    for heat, mask in zip(maps, masks, strict=True):
        statistics.update(heat, mask)
    return statistics


@settings(max_examples=150)
@given(cases(), st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_is_the_slow_one(case: Case, limit: float):
    assert collect(*case).aupro(limit) == pytest.approx(slow_aupro(*case, limit), abs=1e-12)


@given(cases())
def test_pooled_metrics_are_those_of_all_pixels_in_a_row(case: Case):
    statistics = collect(*case)
    scores = np.concatenate([heat.ravel() for heat in case[0]]).astype(np.float64)
    labels = np.concatenate([mask.ravel() for mask in case[1]])
    assert statistics.pixel_auroc == auroc(scores, labels)
    assert statistics.pixel_ap == average_precision(scores, labels)
    assert statistics.pixel_f1_max == f1_max(scores, labels)


def figures(statistics: PixelStatistics) -> dict[str, object]:
    """Return every metric and both curves."""
    return {
        "pixel_auroc": statistics.pixel_auroc,
        "pixel_ap": statistics.pixel_ap,
        "pixel_f1_max": statistics.pixel_f1_max,
        "aupro_30": statistics.aupro(0.30),
        "aupro_05": statistics.aupro(0.05),
        "aupimo": None if (scores := statistics.aupimo_per_image()) is None else scores.tolist(),
        "roc": np.concatenate(statistics.roc_curve(64)).tolist(),
        "pro": np.concatenate(statistics.pro_curve(64)).tolist(),
    }


def large_set(images: int, side: int, levels: int | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return maps and masks, every third one good; with `levels` the scores tie."""
    random = np.random.default_rng(images)
    maps, masks = [], []
    for number in range(images):
        mask = np.zeros((side, side), dtype=bool)
        if number % 3:
            mask[5 : 5 + side // 8, 9 : 9 + side // 4] = mask[side // 2, side // 2] = True
        heat = random.standard_normal((side, side), dtype=np.float32) + 2 * mask.astype(np.float32)
        maps.append(heat if levels is None else np.round(heat * levels) / np.float32(levels))
        masks.append(mask)
    return maps, masks


@pytest.mark.parametrize("levels", [None, 40, 1])
def test_out_of_core_metrics_are_identical(monkeypatch: pytest.MonkeyPatch, levels: int | None):
    case = large_set(9, 200, levels)
    in_memory = figures(collect(*case))
    assert in_memory["aupimo"] is not None
    monkeypatch.setattr(out_of_core, "BUDGET", 1000)
    assert figures(collect(*case)) == in_memory
    monkeypatch.setattr(ranking, "PIECE", 1111)
    monkeypatch.setattr(pixels, "BLOCK", 7777)
    monkeypatch.setattr(pimo, "WAITING", 50)
    in_pieces = figures(collect(*case))
    for name, value in in_memory.items():
        assert in_pieces[name] == pytest.approx(value, abs=1e-13), name


def test_memory_is_independent_of_the_number_of_images(monkeypatch: pytest.MonkeyPatch):
    """The peak is below 3 MB for 4, 16 and 64 MB of scores."""
    monkeypatch.setattr(out_of_core, "BUDGET", 2**18)
    monkeypatch.setattr(ranking, "PIECE", 2**13)
    monkeypatch.setattr(pixels, "BLOCK", 2**16)
    monkeypatch.setattr(pimo, "WAITING", 2**12)
    peaks = []
    for images in (16, 64, 256):
        maps, masks = large_set(3, 256, None)
        tracemalloc.start()
        try:
            statistics = PixelStatistics()
            for number in range(images):
                statistics.update(maps[number % 3] + np.float32(number / 999), masks[number % 3])
            assert figures(statistics)["aupimo"]
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert max(peaks) < 3e6
    assert peaks[2] < 1.2 * peaks[0]


def test_blocks_change_no_metric(monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(2)
    maps = [random.integers(0, 9, (8, 8)).astype(np.float32) for _ in range(6)]
    masks = [random.random((8, 8)) < share for share in (0, 0.2, 1, 0.5, 0, 0.1)]
    at_once = collect(maps, masks)
    expected = (at_once.pixel_auroc, at_once.pixel_ap, at_once.aupro(0.05))
    monkeypatch.setattr(pixels, "BLOCK", 70)
    monkeypatch.setattr(ranking, "PIECE", 4)
    in_blocks = collect(maps, masks)
    assert (in_blocks.pixel_auroc, in_blocks.pixel_ap, in_blocks.aupro(0.05)) == pytest.approx(expected, abs=1e-14)


@given(cases())
def test_thinned_curves_have_few_points_close_to_the_whole_curve(case: Case):
    statistics = collect(*case)
    for thin, whole in (
        (statistics.roc_curve(8), statistics.roc_curve(10_000)),
        (statistics.pro_curve(8), statistics.pro_curve(10_000)),
    ):
        assert len(thin[0]) == len(thin[1]) <= 8
        assert (thin[0][0], thin[1][0], thin[0][-1], thin[1][-1]) == (0, 0, 1, 1)
        assert (np.diff(thin[0]) >= 0).all()
        assert (np.diff(thin[1]) >= 0).all()
        for point in zip(*thin, strict=True):
            assert np.hypot(whole[0] - point[0], whole[1] - point[1]).min() < 1e-12
    assert np.trapezoid(*statistics.roc_curve(10_000)[::-1]) == pytest.approx(statistics.pixel_auroc, abs=1e-3)
    assert np.trapezoid(*statistics.pro_curve(10_000)[::-1]) == pytest.approx(statistics.aupro(1.0), abs=1e-3)


def test_thinned_curves_of_many_pixels_keep_the_area():
    random = np.random.default_rng(0)
    mask = random.random((300, 300)) < 0.2
    statistics = collect([(random.random((300, 300)) + 0.6 * mask).astype(np.float32)], [mask])
    x, y = statistics.roc_curve()
    assert len(x) <= 512
    assert np.trapezoid(y, x) == pytest.approx(statistics.pixel_auroc, abs=2e-3)


def test_two_regions_weigh_the_same_however_large():
    mask = np.zeros((10, 10), dtype=bool)
    mask[0, 0] = mask[1, 1] = True
    mask[4:9, 4:9] = True
    heat = np.zeros((10, 10), dtype=np.float32)
    heat[0, 0] = heat[1, 1] = 1
    # The two pixels that touch at a corner are one region: half of the overlap comes before any false positive.
    assert collect([heat], [mask]).aupro(0.3) == pytest.approx(0.5 + 0.5 * 0.15)


@pytest.mark.parametrize("limit", [0.05, 0.3])
def test_known_values_of_perfect_random_and_constant_maps(limit: float):
    random = np.random.default_rng(0)
    masks = [np.zeros((320, 320), dtype=bool) for _ in range(4)]
    for mask in masks[:2]:
        mask[20:120, 30:90] = mask[200:240, 150:310] = True
    noise = [random.random(mask.shape, dtype=np.float32) for mask in masks]
    perfect = [heat + 2 * mask.astype(np.float32) for heat, mask in zip(noise, masks, strict=True)]
    constant = [np.full_like(heat, -3.5) for heat in noise]
    by_chance = (1e-4 - 1e-5) / np.log(10)
    assert collect(perfect, masks).aupro(limit) == pytest.approx(1)
    assert collect(constant, masks).aupro(limit) == pytest.approx(limit / 2)
    assert collect(noise, masks).aupro(limit) == pytest.approx(limit / 2, abs=0.01)
    assert collect(perfect, masks).aupimo() == pytest.approx(1)
    assert collect(constant, masks).aupimo() == pytest.approx(by_chance)
    assert collect(noise, masks).aupimo() == pytest.approx(by_chance, abs=5e-4)
    assert collect(constant[1:3], masks[1:3]).aupimo() == pytest.approx(by_chance)
    assert collect(constant, masks).pixel_auroc == pytest.approx(0.5)


def slow_aupimo(maps: list[np.ndarray], masks: list[np.ndarray]) -> list[float]:
    """Compute the curve of each image at all scores, interpolate it on a fine grid, integrate over ln(rate)."""
    good = [heat for heat, mask in zip(maps, masks, strict=True) if not mask.any()]
    found = [heat[mask] for heat, mask in zip(maps, masks, strict=True) if mask.any()]
    rate = 10 ** np.linspace(-5, -4, 200_001)
    results = []
    for scores in found:
        top = np.unique(np.concatenate([scores, *(heat.ravel() for heat in good)]))[::-1]
        x, y = [0.0], [0.0]
        for threshold in top:
            x.append(np.mean([(heat >= threshold).mean() for heat in good]))
            y.append((scores >= threshold).mean())
            if x[-1] > 1e-4:
                break
        recall = np.interp(rate, x, y)
        results.append(np.trapezoid(recall, np.log(rate)) / np.log(10))
    return results


@pytest.mark.parametrize("step", [0.0, 1 / 64, 0.25])
def test_aupimo_is_the_slow_one_with_sizes_and_ties_of_all_kinds(step: float):
    random = np.random.default_rng(3)
    maps = [random.standard_normal(size, dtype=np.float32) for size in [(400, 300), (200, 250), (90, 110)]]
    masks = [np.zeros(heat.shape, dtype=bool) for heat in maps]
    for _ in range(2):
        mask = np.zeros((64, 64), dtype=bool)
        mask[5:25, 10:20] = mask[40, 40] = True
        maps.append(random.standard_normal(mask.shape, dtype=np.float32) + np.float32(3.7) * mask)
        masks.append(mask)
    if step:
        maps = [np.round(heat / np.float32(step)) * np.float32(step) for heat in maps]
    statistics = collect(maps, masks)
    expected = slow_aupimo(maps, masks)
    assert min(expected) > 0.02
    assert statistics.aupimo_per_image() == pytest.approx(expected, abs=1e-4)
    assert statistics.aupimo() == pytest.approx(np.mean(expected), abs=1e-4)


def test_aupimo_needs_enough_good_pixels():
    heat, mask = np.zeros((100, 999), dtype=np.float32), np.zeros((100, 999), dtype=bool)
    defective = mask.copy()
    defective[0] = True
    assert collect([heat, heat], [mask, defective]).aupimo() is None
    assert collect([heat, heat, heat], [mask, mask, defective]).aupimo() is not None
    assert collect([heat, heat], [defective, defective]).aupimo() is None


def test_images_are_added_after_a_metric_was_computed_and_in_any_order():
    random = np.random.default_rng(1)
    maps = [random.random((20, 30), dtype=np.float32) for _ in range(4)]
    masks = [random.random((20, 30)) < share for share in (0.1, 0.0, 0.3, 0.2)]
    statistics = collect(maps[:2], masks[:2])
    assert statistics.aupro() == collect(maps[:2], masks[:2]).aupro()
    statistics.update(maps[2], masks[2])
    statistics.update(maps[3], masks[3])
    assert statistics.aupro() == collect(maps, masks).aupro()
    assert statistics.aupro() == pytest.approx(collect(maps[::-1], masks[::-1]).aupro())
    assert statistics.pixel_auroc == collect(maps[::-1], masks[::-1]).pixel_auroc


def test_maps_are_neither_kept_nor_changed():
    heat, mask = np.arange(20, dtype=np.float32).reshape(4, 5), np.zeros((4, 5), dtype=bool)
    before = heat.copy()
    statistics = collect([heat, heat], [mask, heat > 17])
    first = statistics.pixel_auroc
    assert (heat == before).all()
    heat[:] = 0
    statistics.update(before, mask)
    assert first is not None
    assert statistics.pixel_auroc == auroc(
        np.tile(np.arange(20.0), 3), np.concatenate([np.zeros(20), np.arange(20) > 17, np.zeros(20)]).astype(int)
    )


@pytest.mark.parametrize("value", [False, True])
def test_metrics_of_one_class_are_undefined(value: bool):
    statistics = collect([np.ones((4, 4), dtype=np.float32)], [np.full((4, 4), value)])
    assert statistics.pixel_auroc is statistics.pixel_ap is statistics.pixel_f1_max is None
    assert statistics.aupro() is statistics.aupimo() is None
    assert statistics.roc_curve() is statistics.pro_curve() is None
    assert PixelStatistics().pixel_auroc is None


def test_both_zeros_are_one_score_and_negative_scores_are_ordered():
    mask = np.array([[True, False, True, False]])
    heat = np.array([[-0.0, 0.0, -1.0, -2.0]], dtype=np.float32)
    assert collect([heat], [mask]).pixel_auroc == (0.5 + 1 + 0 + 1) / 4


def test_invalid_maps_and_arguments_are_refused():
    mask = np.zeros((2, 2), dtype=bool)
    with pytest.raises(ValueError, match="not finite"):
        PixelStatistics().update(np.array([[0, np.nan], [1, 2]], dtype=np.float32), mask)
    with pytest.raises(ValueError, match="limit"):
        PixelStatistics().aupro(0.0)
    with pytest.raises(ValueError, match="shape"):
        PixelStatistics().update(np.zeros((2, 3), dtype=np.float32), mask)
    with pytest.raises(ValueError, match="8 points"):
        collect([np.eye(2, dtype=np.float32)], [np.eye(2, dtype=bool)]).roc_curve(7)
