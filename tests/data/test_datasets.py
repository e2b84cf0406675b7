"""Every layout is recognized, listed in order, matched with its masks, and its faults are named."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot.data import Dataset, list_categories, load_mask, open_dataset
from hyperspot.errors import DataError, ImageError

SIZE = (6, 8)


def photos(folder: Path, names: Iterable[str], size: tuple[int, int] = SIZE) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", size[::-1], 90).save(folder / name)


def masks(folder: Path, names: Iterable[str], size: tuple[int, int] = SIZE, value: int = 255) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[1, 2] = value
    for name in names:
        Image.fromarray(mask).save(folder / name)


def mvtec(root: Path, good: str = "good", defect: str = "crack", mask: str = "{}_mask.png") -> Path:
    photos(root / "train" / good, ("10.png", "2.png"))
    photos(root / "test" / good, ("0.png",))
    photos(root / "test" / defect, ("0.png", "1.png"))
    masks(root / "ground_truth" / defect, (mask.format(0), mask.format(1)))
    (root / "train" / good / "Thumbs.db").write_text("litter")
    return root


def counts(dataset: Dataset) -> tuple[int, int, int]:
    labels = [photo.label for photo in dataset.test]
    return len(dataset.train), labels.count(0), labels.count(1)


def test_mvtec(tmp_path: Path) -> None:
    dataset = open_dataset(mvtec(tmp_path / "nut"))
    assert (dataset.layout, dataset.name, dataset.problems) == ("mvtec", "nut", ())
    assert counts(dataset) == (2, 1, 2)
    assert [photo.path.name for photo in dataset.train] == ["2.png", "10.png"]
    good, first, second = dataset.test
    assert (good.defect, first.defect) == ("good", "crack")
    assert [mask.name for mask in second.masks] == ["1_mask.png"]
    nowhere, somewhere = load_mask(good, *SIZE), load_mask(first, *SIZE)
    assert nowhere is not None
    assert not nowhere.any()
    assert somewhere is not None
    assert somewhere.sum() == 1
    assert dataset.describe() == {
        "name": "nut",
        "layout": "mvtec",
        "train_good": 2,
        "test_good": 1,
        "test_defective": 2,
        "defects": {"crack": 2},
        "with_mask": 2,
        "unused": 0,
        "sizes": "8 x 6",
        "fingerprint": dataset.fingerprint(),
        "problems": [],
    }


def test_btad_and_mpdd_differ_in_names_only(tmp_path: Path) -> None:
    btad = open_dataset(mvtec(tmp_path / "01", good="ok", defect="ko", mask="{}.bmp"))
    assert (btad.layout, counts(btad), btad.problems) == ("btad", (2, 1, 2), ())
    assert [len(photo.masks) for photo in btad.test] == [0, 1, 1]
    assert {photo.defect for photo in btad.test} == {"good", "ko"}
    mpdd = open_dataset(mvtec(tmp_path / "tubes"), "mpdd")
    assert (mpdd.layout, counts(mpdd)) == ("mpdd", (2, 1, 2))


def test_several_masks_of_one_photo_are_united(tmp_path: Path) -> None:
    photos(tmp_path / "train" / "good", ("0.png",))
    photos(tmp_path / "test" / "logical", ("0.png",))
    masks(tmp_path / "ground_truth" / "logical" / "0", ("0.png",), value=1)
    other = np.zeros(SIZE, np.uint8)
    other[5, 7] = 3
    Image.fromarray(other).save(tmp_path / "ground_truth" / "logical" / "0" / "1.png")
    union = load_mask(open_dataset(tmp_path).test[0], *SIZE)
    assert union is not None
    assert union.sum() == 2


def visa(root: Path) -> Path:
    candle = root / "candle" / "Data"
    photos(candle / "Images" / "Normal", [f"{number:04}.JPG" for number in range(20)])
    photos(candle / "Images" / "Anomaly", ("000.JPG",))
    masks(candle / "Masks" / "Anomaly", ("000.png",), value=2)
    return root


def test_visa_follows_its_official_split(tmp_path: Path) -> None:
    rows = [f"candle,train,normal,candle/Data/Images/Normal/{number:04}.JPG," for number in range(15)]
    rows += [f"candle,test,normal,candle/Data/Images/Normal/{number:04}.JPG," for number in range(15, 18)]
    rows += ["candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png"]
    rows += ["candle,train,normal,candle/Data/Images/Normal/9999.JPG,", "pcb1,train,normal,pcb1/0.JPG,"]
    (visa(tmp_path) / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_text("object,split,label,image,mask\n" + "\n".join(rows))
    assert list_categories(tmp_path) == ["candle"]
    dataset = open_dataset(tmp_path, category="candle")
    assert (dataset.layout, dataset.name, counts(dataset)) == ("visa", "candle", (15, 3, 1))
    mask = load_mask(dataset.test[-1], *SIZE)
    assert mask is not None
    assert mask.sum() == 1
    assert len(dataset.problems) == 1
    assert "9999.JPG" in dataset.problems[0]


def test_visa_without_split_sets_the_same_tenth_aside_everywhere(tmp_path: Path) -> None:
    dataset = open_dataset(visa(tmp_path) / "candle")
    assert counts(dataset) == (18, 2, 1)
    assert "set aside" in dataset.problems[0]
    assert [photo.path.name for photo in dataset.test] == ["0005.JPG", "0014.JPG", "000.JPG"]


def test_kolektorsdd_takes_labels_from_masks(tmp_path: Path) -> None:
    for item in ("kos01", "kos02", "kos10"):
        photos(tmp_path / item, [f"Part{number}.jpg" for number in range(4)])
        masks(tmp_path / item, [f"Part{number}_label.bmp" for number in range(4)], value=0)
        masks(tmp_path / item, ["Part3_label.bmp"])
    photos(tmp_path / "kos10", ("Part9.jpg",))
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("kolektorsdd", (7, 2, 3))
    assert all(photo.masks for photo in dataset.test if photo.label)
    assert dataset.problems == ("kos10/Part9.jpg has no mask to tell its label; it is left out",)
    assert open_dataset(tmp_path).photos == dataset.photos


def test_kolektorsdd2_leaves_defective_training_photos_unused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        photos(tmp_path / split, ("10000.png", "10001.png"))
        masks(tmp_path / split, ("10000_GT.png",), value=0)
        masks(tmp_path / split, ("10001_GT.png",))
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("kolektorsdd2", (1, 1, 1))
    assert dataset.describe()["unused"] == 1


def test_plain_folders(tmp_path: Path) -> None:
    photos(tmp_path / "plain", ("a.png", "b.png"))
    masks(tmp_path / "plain", ("b_mask.png",))
    plain = open_dataset(tmp_path / "plain")
    assert (plain.layout, counts(plain)) == ("folder", (2, 0, 0))
    assert plain.problems == ("b_mask.png looks like a mask and is left out",)
    photos(tmp_path / "sorted" / "good", ("a.png",))
    photos(tmp_path / "sorted" / "dent", ("b.png",))
    by_folder = open_dataset(tmp_path / "sorted")
    assert (by_folder.layout, counts(by_folder)) == ("folder", (1, 0, 1))
    assert by_folder.test[0].defect == "dent"
    assert load_mask(by_folder.test[0], *SIZE) is None


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_an_unreadable_label_takes_its_photo_along_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    photos(one / "kos01", [f"Part{number}.jpg" for number in range(6)])
    masks(one / "kos01", [f"Part{number}_label.bmp" for number in range(6)], value=0)
    masks(one / "kos01", ["Part5_label.bmp"])
    photos(two / "train", ("1.png", "2.png"))
    masks(two / "train", ("1_GT.png", "2_GT.png"), value=0)
    photos(two / "test", ("3.png",))
    masks(two / "test", ("3_GT.png",))
    before = counts(open_dataset(one)), counts(open_dataset(two))
    assert before == ((4, 1, 1), (2, 0, 1))
    for label, photo in (
        (one / "kos01" / "Part2_label.bmp", "kos01/Part2.jpg"),
        (two / "train/1_GT.png", "train/1.png"),
    ):
        label.write_bytes(content)
        dataset = open_dataset(label.parents[1])
        (problem,) = dataset.problems
        assert str(label) in problem
        assert problem.endswith(f"; until then {photo} has no label and is left out")
        assert dataset.describe()["problems"] == [problem]
        assert sum(counts(dataset)) == sum(before[0] if label.suffix == ".bmp" else before[1]) - 1
        assert counts(dataset)[2] == 1
    (two / "train" / "2_GT.png").write_bytes(content)
    (two / "test" / "3_GT.png").write_bytes(content)
    with pytest.raises(DataError, match=r"holds no photo in the layout kolektorsdd2.*1_GT\.png"):
        open_dataset(two)


def test_masks_without_a_photo_are_told_in_plain_folders_too(tmp_path: Path) -> None:
    photos(tmp_path / "good", ("a.png",))
    photos(tmp_path / "dent", ("b.png",))
    masks(tmp_path / "ground_truth" / "dent", ("b_mask.png", "c_mask.png"))
    masks(tmp_path / "ground_truth" / "crack", ("d.png",))
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("folder", (1, 0, 1))
    assert [mask.name for mask in dataset.test[0].masks] == ["b_mask.png"]
    assert dataset.problems == (
        "ground_truth/dent/c_mask.png is a mask without a photo; it is left out",
        "ground_truth/crack/d.png is a mask without a photo; it is left out",
    )


def test_what_is_named_like_a_mask_in_a_folder_of_photos(tmp_path: Path) -> None:
    photos(tmp_path, ("a.png", "b_mask.png", "c_label.png"))
    dataset = open_dataset(tmp_path)
    assert counts(dataset) == (3, 0, 0)
    assert dataset.problems == (
        "b_mask.png is named like a mask without a photo, and is taken as a photo",
        "c_label.png is named like a mask without a photo, and is taken as a photo",
    )
    masks(tmp_path, ("a_mask.png",))
    dataset = open_dataset(tmp_path)
    assert [photo.path.name for photo in dataset.train] == ["a.png"]
    assert dataset.problems == (
        "a_mask.png looks like a mask and is left out",
        "b_mask.png is a mask without a photo; it is left out",
        "c_label.png is a mask without a photo; it is left out",
    )
    for name in ("a.png", "a_mask.png"):
        (tmp_path / name).unlink()
    assert open_dataset(tmp_path).problems == (), "where all are named so, it tells nothing"


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_manifest_says_everything(tmp_path: Path, delimiter: str) -> None:
    photos(tmp_path / "in", ("1.png", "2.png", "3.png", "4.png"))
    masks(tmp_path / "in", ("a.png", "b.png"))
    rows = [
        "Split,path,label,mask,defect",
        "train,in/1.png,good,,",
        "",
        "test,in/2.png,OK",
        "test,in/3.png,defect,in/a.png|in/b.png,dent",
        "test,in/4.png,,,",
    ]
    table = tmp_path / "parts.csv"
    table.write_text("\n".join(rows).replace(",", delimiter), encoding="utf-8-sig")
    dataset = open_dataset(table)
    assert (dataset.layout, dataset.name, counts(dataset)) == ("csv", "parts", (1, 1, 1))
    assert (dataset.test[1].defect, len(dataset.test[1].masks)) == ("dent", 2)
    assert dataset.photos[3].label is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\n1.png,good\n", "no column split"),
        ("path,split,label\n9.png,train,good\n", "line 2 .*'9.png', which does not exist"),
        ("path,split,label\n1.png,train,good\n1.png,validation,good\n", "line 3 .*write train or test"),
        ("path,split,label\n1.png,train,fine\n", "line 2 .*label 'fine'"),
        ("path,split,label,mask\n1.png,test,bad,9.png\n", "mask '9.png'"),
        ("path,split,label\n", "holds no photo"),
        ("", "no column path"),
    ],
)
def test_a_mistake_in_a_manifest_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    photos(tmp_path, ("1.png",))
    (tmp_path / "parts.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        open_dataset(tmp_path / "parts.csv")


def test_a_manifest_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "parts.csv").write_bytes(b"path,split,label\n\xff\xfe,train,good\n")
    with pytest.raises(DataError, match="UTF-8"):
        open_dataset(tmp_path / "parts.csv")


def test_several_products_ask_for_a_category(tmp_path: Path) -> None:
    mvtec(tmp_path / "nut10")
    mvtec(tmp_path / "nut9")
    photos(tmp_path / "docs", ("logo.png",))
    assert list_categories(tmp_path) == ["nut9", "nut10"]
    assert list_categories(tmp_path / "nut9") == []
    with pytest.raises(DataError, match="choose a category: nut9, nut10"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, category="nut9").name == "nut9"
    with pytest.raises(DataError, match="no category 'bolt'; choose one of nut9, nut10"):
        open_dataset(tmp_path, category="bolt")
    with pytest.raises(DataError, match="leave the category"):
        open_dataset(tmp_path / "nut9", category="bolt")


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "missing")
    with pytest.raises(DataError, match="no photo in a known layout"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="choose one of auto, csv, mvtec"):
        open_dataset(tmp_path, "coco")
    photos(tmp_path, ("1.png",))
    with pytest.raises(DataError, match="layout mvtec, which is train/good"):
        open_dataset(tmp_path, "mvtec")
    with pytest.raises(DataError, match="is a file"):
        open_dataset(tmp_path / "1.png", "mvtec")


def test_faults_of_the_data_become_problems(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    (root / "ground_truth" / "crack" / "0_mask.png").rename(root / "ground_truth" / "crack" / "7_mask.png")
    masks(root / "ground_truth" / "crack", ("1_mask.png",), size=(3, 4))
    (root / "train" / "good" / "2.png").write_bytes(b"")
    dataset = open_dataset(root)
    assert counts(dataset) == (1, 1, 2)
    told = "\n".join(dataset.problems)
    assert len(dataset.problems) == 4
    assert "ground_truth/crack/7_mask.png is a mask without a photo" in told
    assert "train/good/2.png is empty" in told
    assert "ground_truth/crack/1_mask.png has 4 x 3 pixels, its photo 8 x 6" in told
    assert "test/crack/0.png is defective and has no mask" in told
    with pytest.raises(ImageError, match="scale the mask"):
        load_mask(dataset.test[2], *SIZE)


def test_a_photo_in_both_splits_is_a_problem(tmp_path: Path) -> None:
    photos(tmp_path, ("1.png",))
    (tmp_path / "parts.csv").write_text("path,split,label\n1.png,train,good\n1.png,test,good\n")
    assert "both a training and a test photo" in open_dataset(tmp_path / "parts.csv").problems[0]


def test_the_fingerprint_knows_names_sizes_and_labels_but_not_the_place(tmp_path: Path) -> None:
    first, second = mvtec(tmp_path / "a"), mvtec(tmp_path / "b" / "c")
    before = open_dataset(first).fingerprint()
    assert open_dataset(second).fingerprint() == before
    (second / "test" / "crack" / "1.png").rename(second / "test" / "good" / "1.png")
    assert open_dataset(second).fingerprint() != before
    photos(first / "train" / "good", ("2.png",), size=(60, 80))
    assert open_dataset(first).fingerprint() != before


@pytest.mark.real
def test_real_sets_are_whole(real_data: Path) -> None:
    assert counts(open_dataset(real_data, category="bottle")) == (209, 20, 63)
    kolektor = open_dataset(real_data / "kolektorsdd")
    assert counts(kolektor) == (248, 85, 50)
    assert kolektor.problems == ()
    assert all(len(photo.masks) == 1 for photo in kolektor.test if photo.label == 1)


def test_a_data_set_is_described_with_its_sizes(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    assert open_dataset(root).describe()["sizes"] == "8 x 6"
    photos(root / "test" / "good", ("1.png",), (12, 30))
    described = open_dataset(root).describe()
    assert described["sizes"] == "8 x 6 to 30 x 12"
    assert (described["train_good"], described["test_good"], described["defects"]) == (2, 2, {"crack": 2})


def test_masks_of_a_defect_without_photos_are_orphans(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    masks(root / "ground_truth" / "dent", ("0_mask.png",))
    assert open_dataset(root).problems == ("ground_truth/dent/0_mask.png is a mask without a photo; it is left out",)


def test_a_photo_counts_once_however_often_it_is_named(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    (root / "train" / "good" / "3.png").symlink_to("2.png")
    dataset = open_dataset(root)
    assert [photo.path.name for photo in dataset.train] == ["2.png", "10.png"]
    assert dataset.problems == ("train/good/3.png is the same file as train/good/2.png; it is taken once",)

    table = root / "list.csv"
    row = "train/good/2.png,{},{}\n"
    table.write_text("path,split,label\n" + row.format("train", "good") + row.format("Train", "0"))
    dataset = open_dataset(table)
    assert len(dataset.train) == 1
    assert dataset.problems == ("train/good/2.png is listed twice; it is taken once",)
    table.write_text("path,split,label\n" + row.format("train", "good") + row.format("train", "bad"))
    with pytest.raises(DataError, match=r"2\.png is listed as good and"):
        open_dataset(table)
    table.write_text("path,split,label,path\n")
    with pytest.raises(DataError, match="column path twice"):
        open_dataset(table)


def test_broken_links_and_photos_are_told(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    (root / "train" / "good" / "4.png").symlink_to("nowhere")
    (root / "train" / "good" / "5.png").write_text("no photo")
    problems = open_dataset(root).describe()["problems"]
    assert problems[0] == "train/good/4.png is a link that leads nowhere; it is left out"
    assert "5.png is not a PNG" in problems[1]


def test_a_file_or_a_folder_in_the_place_of_the_other_is_told(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    with pytest.raises(DataError, match=r"2\.png is a file"):
        open_dataset(root / "train" / "good" / "2.png")
    with pytest.raises(DataError, match="is a folder"):
        open_dataset(root, layout="csv")
