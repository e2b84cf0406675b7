"""Regions, and what other tools read of them."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from hyperspot.errors import DataError, MissingPackageError
from hyperspot.images import InputSize
from hyperspot.results import Region, Verdict
from hyperspot.results.conversions import CocoBuilder, region_masks, to_supervision, to_yolo
from hyperspot.results.regions import find_regions


@pytest.fixture
def verdict() -> Verdict:
    mask = np.zeros((20, 30), dtype=bool)
    mask[2:6, 3:9] = True
    mask[4, 5] = False
    mask[15:20, 25:30] = True
    heatmap = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    heatmap[17, 27] = 9
    return Verdict(
        score=9.0,
        p_value=0.01,
        is_anomalous=True,
        heatmap=heatmap,
        mask=mask,
        regions=find_regions(mask, heatmap),
        image=np.zeros((20, 30, 3), np.uint8),
        input_map=heatmap,
        letterbox=InputSize(20, 30, "contain").letterbox(20, 30),
        heat_range=(0.0, 1.0),
        milliseconds=1.0,
        path=Path("part.png"),
    )


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
    masks = [mask for _, mask in region_masks(verdict)]
    assert [region for region, _ in region_masks(verdict)] == list(verdict.regions)
    np.testing.assert_array_equal(np.logical_or.reduce(masks), verdict.mask)
    assert not np.logical_and(*masks).any()


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
