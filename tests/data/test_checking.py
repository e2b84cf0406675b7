"""What is told of one data set, of several products, and of pictures that only decoding shows to be damaged."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot.data import describe_each, open_dataset
from hyperspot.errors import DataError


def product(root: Path, layout: str = "mvtec") -> Path:
    good, defect = ("good", "crack") if layout == "mvtec" else ("ok", "ko")
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    for folder in (f"train/{good}", f"test/{good}", f"test/{defect}", f"ground_truth/{defect}"):
        (root / folder).mkdir(parents=True)
        Image.fromarray(noise).save(root / folder / "0.png")
    return root


def test_each_of_several_products_is_told_in_order(tmp_path: Path) -> None:
    for name, layout in (("nut10", "mvtec"), ("nut9", "btad")):
        product(tmp_path / name, layout)
    (tmp_path / "nut8" / "train" / "good").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    empty, second, third = describe_each(tmp_path)
    assert isinstance(empty, DataError)
    assert "nut8 holds no photo" in str(empty)
    assert second == open_dataset(tmp_path / "nut9").describe()
    assert third == open_dataset(tmp_path / "nut10").describe()
    assert (second["layout"], third["layout"]) == ("btad", "mvtec")


def test_one_data_set_is_told_alone_and_its_error_raised(tmp_path: Path) -> None:
    product(tmp_path / "nut9")
    product(tmp_path / "nut10")
    (one,) = describe_each(tmp_path, category="nut10")
    assert [one] == list(describe_each(tmp_path / "nut10"))
    for path, layout, said in (
        (tmp_path / "none", "auto", "does not exist"),
        (tmp_path, "coco", "no layout"),
        (tmp_path, "csv", "is a folder"),
    ):
        with pytest.raises(DataError, match=said):
            list(describe_each(path, layout))
    with pytest.raises(DataError, match="no category 'nut7'"):
        list(describe_each(tmp_path, category="nut7"))


def test_what_is_damaged_beyond_its_header_is_found_by_decoding(tmp_path: Path) -> None:
    root = product(tmp_path / "nut")
    photo, mask = root / "test" / "crack" / "0.png", root / "ground_truth" / "crack" / "0.png"
    (whole,) = describe_each(root, check=True)
    (headers,) = describe_each(root)
    assert whole == {**headers, "decoded": 4, "damaged": []}
    for path in (photo, mask):
        path.write_bytes(path.read_bytes()[:-200])
    (headers,) = describe_each(root)
    assert headers["problems"] == []
    (checked,) = describe_each(root, check=True)
    assert (checked["decoded"], checked["problems"]) == (2, [])
    assert [sentence.partition(" ")[0] for sentence in checked["damaged"]] == [str(photo), str(mask)]
    photo.write_bytes(b"no picture")
    (headers,) = describe_each(root)
    (checked,) = describe_each(root, check=True)
    assert "0.png is not a PNG" in headers["problems"][0]
    assert checked["problems"] == [], "told once"
    assert len(checked["damaged"]) == 2
