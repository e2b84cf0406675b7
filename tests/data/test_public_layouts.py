"""MVTec LOCO, MVTec AD 2 and Real-IAD, and data sets in folders inside of folders."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot.data import describe_each, list_categories, load_mask, open_dataset
from hyperspot.data.part_sets import open_part_set
from hyperspot.errors import DataError
from tests.data.test_datasets import SIZE, counts, images, masks, mvtec


def test_mvtec_loco(tmp_path: Path) -> None:
    root = tmp_path / "breakfast_box"
    images(root / "train" / "good", ("000.png", "001.png"))
    images(root / "validation" / "good", ("000.png",))
    images(root / "test" / "good", ("000.png",))
    for kind, value in (("logical_anomalies", 255), ("structural_anomalies", 7)):
        images(root / "test" / kind, ("000.png", "001.png"))
        masks(root / "ground_truth" / kind / "000", ("000.png",), value=value)
        masks(root / "ground_truth" / kind / "001", ("000.png",), value=value)
        other = np.zeros(SIZE, np.uint8)
        other[5, 7] = value
        Image.fromarray(other).save(root / "ground_truth" / kind / "001" / "001.png")
    (root / "defects_config.json").write_text("[]")
    dataset = open_dataset(root)
    assert (dataset.layout, counts(dataset), dataset.problems) == ("mvtec_loco", (3, 1, 4), ())
    assert dataset.describe()["defects"] == {"logical_anomalies": 2, "structural_anomalies": 2}
    areas = [load_mask(sample, *SIZE).sum() for sample in dataset.test]  # type: ignore[union-attr]
    assert areas == [0, 1, 2, 1, 2]


def test_mvtec_ad_2(tmp_path: Path) -> None:
    root = tmp_path / "can"
    images(root / "train" / "good", ("000_regular.png", "001_regular.png"))
    images(root / "validation" / "good", ("000_regular.png",))
    images(root / "test_public" / "good", ("000_regular.png",))
    images(root / "test_public" / "bad", ("000_regular.png", "000_overexposed.png"))
    masks(root / "test_public" / "ground_truth" / "bad", ("000_regular_mask.png", "000_overexposed_mask.png"))
    images(root / "test_private", ("000.png", "001.png"))
    images(root / "test_private_mixed", ("000_mixed.png",))
    dataset = open_dataset(root)
    assert (dataset.layout, counts(dataset)) == ("mvtec_ad_2", (3, 1, 2))
    assert [sample.masks[0].name for sample in dataset.test if sample.label] == [
        "000_overexposed_mask.png", "000_regular_mask.png",
    ]  # fmt: skip
    assert dataset.problems == (
        "test_private holds 2 images without labels; they are left out",
        "test_private_mixed holds 1 images without labels; they are left out",
    )
    assert list_categories(tmp_path) == ["can"]


def real_iad(root: Path) -> dict[str, list[dict]]:
    lists: dict[str, list[dict]] = {"train": [], "test": []}
    for number, split in ((1, "train"), (2, "train"), (3, "test"), (4, "test")):
        for view in ("C1", "C2"):
            name = f"OK/S{number:04}/tape_{number:04}_OK_{view}_2023.jpg"
            images((root / name).parent, (Path(name).name,))
            lists[split].append({"category": "tape", "anomaly_class": "OK", "image_path": name, "mask_path": None})
    for view, kind in (("C1", "HS"), ("C2", "OK")):
        name = f"NG/HS/S0001/tape_0001_NG_HS_{view}_2023.jpg"
        images((root / name).parent, (Path(name).name,))
        mask = name.replace(".jpg", ".png") if kind == "HS" else None
        if mask:
            masks((root / mask).parent, (Path(mask).name,))
        lists["test"].append({"category": "tape", "anomaly_class": kind, "image_path": name, "mask_path": mask})
    return lists


@pytest.mark.parametrize(
    "place", ["realiad_jsons/tape.json", "realiad_jsons/realiad_jsons/tape.json", "realiad_512/tape/tape.json"]
)
def test_real_iad_follows_its_lists(tmp_path: Path, place: str) -> None:
    root = tmp_path / "realiad_512" / "tape"
    lists = real_iad(root)
    lists["test"].append(lists["test"][0] | {"image_path": "OK/S0009/gone.jpg"})
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(json.dumps({"meta": {"normal_class": "OK", "prefix": "tape/"}, **lists}))
    dataset = open_dataset(root)
    assert (dataset.layout, counts(dataset)) == ("real_iad", (4, 5, 1))
    (defective,) = (sample for sample in dataset.test if sample.label == 1)
    assert (defective.defect, defective.path.name) == ("HS", "tape_0001_NG_HS_C1_2023.jpg")
    mask = load_mask(defective, *SIZE)
    assert mask is not None
    assert mask.sum() == 1
    assert dataset.problems == ("1 image is listed in tape.json but missing (OK/S0009/gone.jpg)",)
    assert list_categories(tmp_path / "realiad_512") == ["tape"]
    (tmp_path / place).write_text("{}")
    with pytest.raises(DataError, match=r"tape\.json is no list of Real-IAD"):
        open_dataset(root)


def test_real_iad_without_lists(tmp_path: Path) -> None:
    root = tmp_path / "tape"
    real_iad(root)
    dataset = open_dataset(root)
    assert (dataset.layout, counts(dataset)) == ("real_iad", (4, 4, 1))
    # The view that shows no defect has no mask and no label.
    assert dataset.describe()["unused"] == 1
    assert dataset.problems == (
        "realiad_jsons/tape.json is missing: one of 2 good samples was set aside for the test",
        "1 image in NG has no mask and thus no label (NG/HS/S0001/tape_0001_NG_HS_C2_2023.jpg); it is left out",
    )
    images(root / "NG" / "HS" / "S0002", ("tape_0002_NG_HS_C2_2023.jpg",))
    masks(root / "NG" / "HS" / "S0002", ("tape_0002_NG_HS_C1_2023.png", "tape_0002_NG_HS_C3_2023.png"))
    assert open_dataset(root).problems[1:] == (
        "2 images in NG have no mask and thus no label (NG/HS/S0001/tape_0001_NG_HS_C2_2023.jpg); they are left out",
        "2 PNG files in NG are masks without an image (NG/HS/S0002/tape_0002_NG_HS_C1_2023.png); they are left out",
    )


def test_real_iad_without_lists_keeps_the_views_of_a_part_in_one_split(tmp_path: Path) -> None:
    for number in range(1, 21):
        for view in range(1, 6):
            images(tmp_path / "tape" / "OK" / f"S{number:04}", (f"tape_{number:04}_OK_C{view}_2023.jpg",))
    images(tmp_path / "tape" / "OK", ("alone_1.jpg", "alone_2.jpg"))
    dataset = open_dataset(tmp_path / "tape")
    splits: dict[Path, set[str]] = {}
    for sample in dataset.samples:
        if sample.path.parent.name != "OK":
            splits.setdefault(sample.path.parent, set()).add(sample.split)
    assert len(splits) == 20
    assert all(len(found) == 1 for found in splits.values())
    assert {sample.split for sample in dataset.samples} == {"train", "test"}
    assert abs(len(dataset.train) - len(dataset.test)) <= 8


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_folders_of_users_named_ok_and_ng_are_not_taken_for_real_iad(tmp_path: Path, ending: str) -> None:
    root = tmp_path / "nut"
    images(root / "OK" / "monday", [f"{number}.{ending}" for number in range(4)])
    images(root / "NG" / "scratch", [f"{number}.{ending}" for number in range(3)])
    # Any JSON file may bear the name of the folder.
    (tmp_path / "nut.json").write_text('{"images": [], "annotations": [], "train": 1}')
    with pytest.raises(DataError, match=r"no image in a known layout.*7 images lie in folders .*OK/monday \(4\)"):
        open_dataset(root)
    with pytest.raises(DataError, match="no image in a known layout"):
        open_part_set(root)
    (tmp_path / "nut.json").unlink()
    problem = {"png": "3 PNG files in NG are masks without", "jpg": "3 images in NG have no mask and thus no label"}
    assert open_dataset(root, "real_iad").problems[1].startswith(problem[ending])


def test_real_iad_is_recognized_by_its_list_alone(tmp_path: Path) -> None:
    root = tmp_path / "nut"
    images(root / "OK" / "monday", ("0.jpg", "1.jpg"))
    listed = [{"anomaly_class": "OK", "image_path": f"OK/monday/{number}.jpg"} for number in range(2)]
    (root / "nut.json").write_text(json.dumps({"train": listed[:1], "test": listed[1:]}))
    dataset = open_dataset(root)
    assert (dataset.layout, counts(dataset)) == ("real_iad", (1, 1, 0))


def test_images_of_real_iad_that_are_not_listed_are_named(tmp_path: Path) -> None:
    root = tmp_path / "realiad_512" / "tape"
    lists = real_iad(root)
    del lists["train"][-1], lists["train"][-1]
    (root / "tape.json").write_text(json.dumps(lists))
    (problem,) = open_dataset(root).problems
    assert (
        problem
        == "2 images lie in folders that the layout real_iad does not read: OK/S0002 (2); move or remove what they hold"
    )


def kolektor(root: Path) -> Path:
    for item in ("kos01", "kos02"):
        images(root / item, [f"Part{number}.jpg" for number in range(4)])
        masks(root / item, [f"Part{number}_label.bmp" for number in range(4)], value=0)
        masks(root / item, ["Part3_label.bmp"])
    return root


@pytest.mark.parametrize("inner", ["", "KolektorSDD", "archive/KolektorSDD"])
def test_a_data_set_in_folders_of_one_folder_is_found(tmp_path: Path, inner: str) -> None:
    kolektor(tmp_path / "data" / inner)
    dataset = open_dataset(tmp_path / "data")
    assert (dataset.layout, counts(dataset), dataset.problems) == ("kolektorsdd", (4, 2, 2), ())
    assert dataset.root == tmp_path / "data" / inner


def test_several_products_in_a_folder_of_one_folder_are_listed(tmp_path: Path) -> None:
    mvtec(tmp_path / "data" / "set" / "nut")
    assert open_dataset(tmp_path / "data").name == "nut"
    mvtec(tmp_path / "data" / "set" / "bolt")
    with pytest.raises(DataError, match="choose a category: bolt, nut"):
        open_dataset(tmp_path / "data")
    assert open_dataset(tmp_path / "data", category="bolt").name == "bolt"
    described = [one["name"] for one in describe_each(tmp_path / "data") if isinstance(one, dict)]
    assert described == ["bolt", "nut"]


def test_deeper_plain_images_are_named_and_not_taken(tmp_path: Path) -> None:
    images(tmp_path / "test" / "scratch", ("0.png",))
    with pytest.raises(DataError, match=r"1 image lies in folders that layouts do not read: scratch \(1\)"):
        open_dataset(tmp_path / "test")


def test_formats_beside_images_are_named(tmp_path: Path) -> None:
    images(tmp_path, ("a.png",))
    for name in ("b.HEIC", "c.avif", "d.gif", "e.jxl"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "f.JFIF").write_bytes((tmp_path / "a.png").read_bytes()[:-1] + b"x")
    dataset = open_dataset(tmp_path)
    assert [sample.path.name for sample in dataset.train] == ["a.png", "f.JFIF"]
    assert [problem.split(" is not read")[0] for problem in dataset.problems] == [
        "1 .avif file", "1 .gif file", "1 .heic file", "1 .jxl file",
    ]  # fmt: skip


def test_a_search_that_ends_early_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hyperspot.data import problems
    from hyperspot.images import finding

    images(tmp_path, ("a.png",))
    for number in range(4):
        images(tmp_path / f"day{number}", (f"{number}.png",))
    for module, name in ((finding, "MOST_FOLDERS"), (problems, "MOST_SEARCHED")):
        monkeypatch.setattr(module, name, 3)
    assert open_dataset(tmp_path).problems[-1] == (
        "only the first 3 folders without samples were searched for unread images"
    )
