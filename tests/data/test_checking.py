"""Descriptions of one data set, of several products, and of images whose damage only decoding shows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot.data import describe_each, open_dataset
from hyperspot.errors import DataError


def product(root: Path, layout: str = "mvtec") -> Path:
    good, defect = ("good", "crack") if layout == "mvtec" else ("ok", "ko")
    random = np.random.default_rng(0)
    for folder in (f"train/{good}", f"test/{good}", f"test/{defect}", f"ground_truth/{defect}"):
        (root / folder).mkdir(parents=True)
        noise = random.integers(0, 256, (40, 30), dtype=np.uint8)
        Image.fromarray(noise).save(root / folder / "0.png")
    return root


def test_several_products_are_described_in_order(tmp_path: Path) -> None:
    for name, layout in (("nut10", "mvtec"), ("nut9", "btad")):
        product(tmp_path / name, layout)
    (tmp_path / "nut8" / "train" / "good").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    empty, second, third = describe_each(tmp_path)
    assert isinstance(empty, DataError)
    assert "nut8 holds no image" in str(empty)
    assert second == open_dataset(tmp_path / "nut9").describe()
    assert third == open_dataset(tmp_path / "nut10").describe()
    assert (second["layout"], third["layout"]) == ("btad", "mvtec")


def test_one_data_set_is_described_alone_and_its_error_raised(tmp_path: Path) -> None:
    product(tmp_path / "nut9")
    product(tmp_path / "nut10")
    (one,) = describe_each(tmp_path, category="nut10")
    assert [one] == list(describe_each(tmp_path / "nut10"))
    for path, layout, message in (
        (tmp_path / "none", "auto", "does not exist"),
        (tmp_path, "voc", "no layout"),
        (tmp_path, "csv", "is a folder"),
    ):
        with pytest.raises(DataError, match=message):
            list(describe_each(path, layout))
    with pytest.raises(DataError, match="no category 'nut7'"):
        list(describe_each(tmp_path, category="nut7"))


def test_damage_behind_the_header_is_found_by_decoding(tmp_path: Path) -> None:
    root = product(tmp_path / "nut")
    image, mask = root / "test" / "crack" / "0.png", root / "ground_truth" / "crack" / "0.png"
    (whole,) = describe_each(root, check=True)
    (headers,) = describe_each(root)
    assert whole == {**headers, "decoded": 4, "damaged": []}
    for path in (image, mask):
        path.write_bytes(path.read_bytes()[:-200])
    (headers,) = describe_each(root)
    assert headers["problems"] == []
    (checked,) = describe_each(root, check=True)
    assert (checked["decoded"], checked["problems"]) == (2, [])
    assert [sentence.partition(" ")[0] for sentence in checked["damaged"]] == [str(image), str(mask)]
    image.write_bytes(b"no image")
    (headers,) = describe_each(root)
    (checked,) = describe_each(root, check=True)
    assert "0.png is not a PNG" in headers["problems"][0]
    assert checked["problems"] == [], "reported once"
    assert len(checked["damaged"]) == 2
