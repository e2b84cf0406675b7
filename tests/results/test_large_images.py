"""Large images: nothing between map and written file takes a copy of the image, and regions may be many."""

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
import numpy as np
import pytest

from hyperspot.decision.calibration import Calibration
from hyperspot.decision.masks import defect_mask
from hyperspot.decision.rule import DecisionRule
from hyperspot.images import InputSize, PreparedImage, prepare
from hyperspot.results.conversions import to_yolo
from hyperspot.results.measurements import measure_regions
from hyperspot.results.regions import find_regions
from hyperspot.results.verdict import Verdict

HEIGHT, WIDTH = 1944, 2592
PIXELS = HEIGHT * WIDTH
"""5 MP."""
RULE = DecisionRule(Calibration.from_scores("split", 0.2, [1.0, 2.0, 3.0, 4.0]), 2.0, 0.1, (0.5, 4.0))


@pytest.fixture(scope="module")
def prepared() -> PreparedImage:
    image = np.random.default_rng(0).integers(60, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return prepare(image, InputSize(256, 352, "contain"))


def defect() -> np.ndarray:
    anomaly_map = np.random.default_rng(1).random((256, 352), dtype=np.float32)
    anomaly_map[100:110, 100:130] = 9
    return anomaly_map


def noise() -> np.ndarray:
    return 9 * np.random.default_rng(2).random((256, 352), dtype=np.float32)


@contextmanager
def peak_bytes_per_pixel() -> Iterator[list[float]]:
    found: list[float] = []
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1] / PIXELS)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("make", "limit"), [(defect, 2.0), (noise, 16.0)])
def test_a_decision_takes_the_mask_and_the_part_of_the_heatmap_above_the_floor(prepared, make, limit):
    with peak_bytes_per_pixel() as found:
        verdict = RULE.decide(prepared, make(), None)
    assert verdict.regions
    assert found[0] < limit


def test_a_good_image_takes_no_heatmap(prepared):
    with peak_bytes_per_pixel() as found:
        verdict = RULE.decide(prepared, defect() / 100, None)
    assert verdict.p_value == 1
    assert found[0] < 1.5
    assert verdict.heatmap.shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("make", [defect, noise])
@pytest.mark.parametrize("overlay", ["outline", "heatmap", "side-by-side"])
def test_saving_takes_at_most_twice_the_image(prepared, tmp_path, overlay, make):
    verdict = RULE.decide(prepared, make(), None)
    with peak_bytes_per_pixel() as found:
        verdict.save(tmp_path, "large", overlay=overlay)
    assert found[0] < 6


def test_a_hundred_thousand_regions_take_seconds(tmp_path, monkeypatch):
    """Seconds of the processor, whatever else the machine does."""
    # Other tests check the types of the same calls; a hundred thousand checks take longer than what is measured.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    side = 1280
    spots = np.zeros((side, side), np.float32)
    spots[::4, ::4] = 1 + np.random.default_rng(3).random((side // 4, side // 4), dtype=np.float32)
    size = InputSize(side, side, "stretch")
    prepared = prepare(np.zeros((side, side, 3), np.uint8), size)
    rule = DecisionRule(RULE.calibration, 0.5, 0.1, (0.0, 0.4))
    started = time.process_time()
    verdict = rule.decide(prepared, spots, 5.0)
    assert len(verdict.regions) == (side // 4) ** 2
    verdict.save(tmp_path)
    assert to_yolo(verdict).count("\n") == len(verdict.regions)
    assert time.process_time() - started < 30


@pytest.mark.parametrize("fit", ["stretch", "contain"])
@pytest.mark.parametrize("shape", [(50, 70), (300, 90), (61, 640)])
def test_the_mask_is_that_of_the_whole_heatmap(shape, fit):
    random = np.random.default_rng(4)
    for _ in range(20):
        anomaly_map = (random.random((32, 48)) ** 8 * 9).astype(np.float32)
        prepared = prepare(np.zeros((*shape, 3), np.uint8), InputSize(32, 48, fit))
        verdict: Verdict = RULE.decide(prepared, anomaly_map, 5.0)
        content = anomaly_map[prepared.letterbox.content]
        mask = defect_mask(verdict.heatmap, 2.0, 0.5, content.size / verdict.mask.size)
        np.testing.assert_array_equal(verdict.mask, mask)
        measured = measure_regions(mask, find_regions(mask, verdict.heatmap))
        assert verdict.regions == tuple(one.region for one in measured)
