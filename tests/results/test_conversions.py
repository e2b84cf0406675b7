"""Regions, and what other tools read of them."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperspot.errors import DataError, MissingPackageError
from hyperspot.images import InputSize
from hyperspot.results import Region, Verdict
from hyperspot.results.conversions import CocoBuilder, region_masks, to_supervision, to_yolo
from hyperspot.results.regions import find_regions


def verdict_on(mask: np.ndarray, heatmap: np.ndarray) -> Verdict:
    height, width = mask.shape
    return Verdict(
        score=9.0,
        p_value=0.01,
        is_anomalous=True,
        mask=mask,
        regions=find_regions(mask, heatmap),
        image=np.zeros((height, width, 3), np.uint8),
        input_map=heatmap,
        letterbox=InputSize(height, width, "contain").letterbox(height, width),
        heat_range=(0.0, 1.0),
        milliseconds=1.0,
        path=Path("part.png"),
    )


@pytest.fixture
def verdict() -> Verdict:
    mask = np.zeros((20, 30), dtype=bool)
    mask[2:6, 3:9] = True
    mask[4, 5] = False
    mask[15:20, 25:30] = True
    heatmap = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    heatmap[17, 27] = 9
    return verdict_on(mask, heatmap)


def test_a_region_has_its_corners(verdict):
    assert [region.xyxy for region in verdict.regions] == [(25, 15, 30, 20), (3, 2, 9, 6)]
    assert Region(1, 2, 3, 4, 5, 6.0).xyxy == (1, 2, 4, 6)


def test_coco_holds_boxes_areas_and_masks_that_decode_to_the_mask(verdict):
    coco = CocoBuilder()
    coco.add(verdict)
    coco.add(verdict)
    document = json.loads(json.dumps(coco.document()))
    assert [image["id"] for image in document["images"]] == [1, 2]
    assert [one["id"] for one in document["annotations"]] == [1, 2, 3, 4]
    decoded = np.zeros((20, 30), dtype=bool)
    for one in document["annotations"][:2]:
        left, top, width, height = one["bbox"]
        counts = one["segmentation"]["counts"]
        assert sum(counts) == 600
        # Independent decoding: alternating runs of zeros and ones, column by column.
        values = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(30, 20).T
        assert values.sum() == one["area"]
        assert values[top : top + height, left : left + width].sum() == one["area"]
        decoded |= values
    np.testing.assert_array_equal(decoded, verdict.mask)


def test_yolo_holds_centers_relative_to_the_image(verdict):
    first, second = (list(map(float, line.split())) for line in to_yolo(verdict).splitlines())
    assert first == pytest.approx([0, 27.5 / 30, 17.5 / 20, 5 / 30, 5 / 20], abs=1e-6)
    assert second == pytest.approx([0, 6 / 30, 4 / 20, 6 / 30, 4 / 20], abs=1e-6)


def test_region_masks_add_up_to_the_mask(verdict):
    found = np.zeros(verdict.mask.shape, dtype=int)
    assert [region for region, _ in region_masks(verdict)] == list(verdict.regions)
    for region, mask in region_masks(verdict):
        assert mask.sum() == region.area
        found[region.top : region.top + region.height, region.left : region.left + region.width] += mask
    np.testing.assert_array_equal(found, verdict.mask)


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12)), st.integers(0, 2**32 - 1))
def test_run_lengths_of_any_mask_decode_to_it(mask, seed):
    height, width = mask.shape
    heatmap = np.random.default_rng(seed).random(mask.shape, dtype=np.float32)
    coco = CocoBuilder()
    coco.add(verdict_on(mask, heatmap))
    decoded = np.zeros(mask.shape, dtype=int)
    for one in coco.document()["annotations"]:
        counts = one["segmentation"]["counts"]
        assert sum(counts) == mask.size
        assert all(counts[1:])
        decoded += np.repeat(np.arange(len(counts)) % 2, counts).reshape(width, height).T
    np.testing.assert_array_equal(decoded, mask)


def test_supervision_takes_them_or_a_sentence_names_what_is_missing(verdict):
    if importlib.util.find_spec("supervision") is None:
        with pytest.raises(MissingPackageError, match="needs supervision"):
            to_supervision(verdict)
        return
    found = to_supervision(verdict)
    assert found.xyxy.tolist() == [[25, 15, 30, 20], [3, 2, 9, 6]]
    np.testing.assert_array_equal(np.logical_or.reduce(found.mask), verdict.mask)
    assert found.confidence.tolist() == pytest.approx([region.score for region in verdict.regions])


def test_saving_replaces_nothing_unless_asked(verdict, tmp_path):
    files = verdict.save(tmp_path)
    assert sorted(path.name for path in files.values()) == [
        "part.heatmap.png", "part.json", "part.mask.png", "part.overlay.png",
    ]  # fmt: skip
    with pytest.raises(DataError, match="already exists"):
        verdict.save(tmp_path)
    assert verdict.save(tmp_path, overwrite=True) == files
    assert verdict.save(tmp_path, "line 3/part")["json"] == tmp_path / "line 3" / "part.json"


def test_yolo_leaves_the_regions_of_a_passed_image_out(verdict):
    assert verdict.regions
    assert to_yolo(dataclasses.replace(verdict, is_anomalous=False)) == ""
    assert to_yolo(dataclasses.replace(verdict, is_anomalous=None)) == to_yolo(verdict)
