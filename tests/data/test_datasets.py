"""Every layout is recognized, listed in order, matched with its masks, and its faults are named."""

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot.data import Dataset, list_categories, load_mask, open_dataset
from hyperspot.errors import DataError, ImageError

SIZE = (6, 8)


def images(folder: Path, names: Iterable[str], size: tuple[int, int] = SIZE) -> None:
    """Write images that differ by name and folder, wherever the data set lies."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        noise = np.random.default_rng(zlib.crc32("/".join([*folder.parts[-2:], name]).encode()))
        Image.fromarray(noise.integers(0, 256, size, dtype=np.uint8)).save(folder / name)


def masks(folder: Path, names: Iterable[str], size: tuple[int, int] = SIZE, value: int = 255) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[1, 2] = value
    for name in names:
        Image.fromarray(mask).save(folder / name)


def mvtec(root: Path, good: str = "good", defect: str = "crack", mask: str = "{}_mask.png") -> Path:
    images(root / "train" / good, ("10.png", "2.png"))
    images(root / "test" / good, ("0.png",))
    images(root / "test" / defect, ("0.png", "1.png"))
    masks(root / "ground_truth" / defect, (mask.format(0), mask.format(1)))
    (root / "train" / good / "Thumbs.db").write_text("litter")
    return root


def counts(dataset: Dataset) -> tuple[int, int, int]:
    labels = [sample.label for sample in dataset.test]
    return len(dataset.train), labels.count(0), labels.count(1)


def test_mvtec(tmp_path: Path) -> None:
    dataset = open_dataset(mvtec(tmp_path / "nut"))
    assert (dataset.layout, dataset.name, dataset.problems) == ("mvtec", "nut", ())
    assert counts(dataset) == (2, 1, 2)
    assert [sample.path.name for sample in dataset.train] == ["2.png", "10.png"]
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
    assert [len(sample.masks) for sample in btad.test] == [0, 1, 1]
    assert {sample.defect for sample in btad.test} == {"good", "ko"}
    mpdd = open_dataset(mvtec(tmp_path / "tubes"), "mpdd")
    assert (mpdd.layout, counts(mpdd)) == ("mpdd", (2, 1, 2))


def test_several_masks_of_one_image_are_united(tmp_path: Path) -> None:
    images(tmp_path / "train" / "good", ("0.png",))
    images(tmp_path / "test" / "logical", ("0.png",))
    masks(tmp_path / "ground_truth" / "logical" / "0", ("0.png",), value=1)
    other = np.zeros(SIZE, np.uint8)
    other[5, 7] = 3
    Image.fromarray(other).save(tmp_path / "ground_truth" / "logical" / "0" / "1.png")
    union = load_mask(open_dataset(tmp_path).test[0], *SIZE)
    assert union is not None
    assert union.sum() == 2


def visa(root: Path) -> Path:
    candle = root / "candle" / "Data"
    images(candle / "Images" / "Normal", [f"{number:04}.JPG" for number in range(20)])
    images(candle / "Images" / "Anomaly", ("000.JPG",))
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
    assert [sample.path.name for sample in dataset.test] == ["0005.JPG", "0014.JPG", "000.JPG"]


def test_kolektorsdd_takes_labels_from_masks(tmp_path: Path) -> None:
    for item in ("kos01", "kos02", "kos10"):
        images(tmp_path / item, [f"Part{number}.jpg" for number in range(4)])
        masks(tmp_path / item, [f"Part{number}_label.bmp" for number in range(4)], value=0)
        masks(tmp_path / item, ["Part3_label.bmp"])
    images(tmp_path / "kos10", ("Part9.jpg",))
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("kolektorsdd", (7, 2, 3))
    assert all(sample.masks for sample in dataset.test if sample.label)
    assert dataset.problems == ("kos10/Part9.jpg has no mask and thus no label; it is left out",)
    assert open_dataset(tmp_path).samples == dataset.samples


def test_kolektorsdd2_leaves_defective_training_images_unused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        images(tmp_path / split, ("10000.png", "10001.png"))
        masks(tmp_path / split, ("10000_GT.png",), value=0)
        masks(tmp_path / split, ("10001_GT.png",))
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("kolektorsdd2", (1, 1, 1))
    assert dataset.describe()["unused"] == 1


def test_plain_folders(tmp_path: Path) -> None:
    images(tmp_path / "plain", ("a.png", "b.png"))
    masks(tmp_path / "plain", ("b_mask.png",))
    plain = open_dataset(tmp_path / "plain")
    assert (plain.layout, counts(plain)) == ("folder", (2, 0, 0))
    assert plain.problems == ("b_mask.png looks like a mask and is left out",)
    images(tmp_path / "sorted" / "good", ("a.png",))
    images(tmp_path / "sorted" / "dent", ("b.png",))
    by_folder = open_dataset(tmp_path / "sorted")
    assert (by_folder.layout, counts(by_folder)) == ("folder", (1, 0, 1))
    assert by_folder.test[0].defect == "dent"
    assert load_mask(by_folder.test[0], *SIZE) is None


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_an_unreadable_label_drops_its_image_alone(tmp_path: Path, content: bytes) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    images(one / "kos01", [f"Part{number}.jpg" for number in range(6)])
    masks(one / "kos01", [f"Part{number}_label.bmp" for number in range(6)], value=0)
    masks(one / "kos01", ["Part5_label.bmp"])
    images(two / "train", ("1.png", "2.png"))
    masks(two / "train", ("1_GT.png", "2_GT.png"), value=0)
    images(two / "test", ("3.png",))
    masks(two / "test", ("3_GT.png",))
    before = counts(open_dataset(one)), counts(open_dataset(two))
    assert before == ((4, 1, 1), (2, 0, 1))
    for label, image in (
        (one / "kos01" / "Part2_label.bmp", "kos01/Part2.jpg"),
        (two / "train/1_GT.png", "train/1.png"),
    ):
        label.write_bytes(content)
        dataset = open_dataset(label.parents[1])
        (problem,) = dataset.problems
        assert str(label) in problem
        assert problem.endswith(f"; until then {image} has no label and is left out")
        assert dataset.describe()["problems"] == [problem]
        assert sum(counts(dataset)) == sum(before[0] if label.suffix == ".bmp" else before[1]) - 1
        assert counts(dataset)[2] == 1
    (two / "train" / "2_GT.png").write_bytes(content)
    (two / "test" / "3_GT.png").write_bytes(content)
    with pytest.raises(DataError, match=r"holds no image in the layout kolektorsdd2.*1_GT\.png"):
        open_dataset(two)


def test_masks_without_an_image_are_reported_in_plain_folders_too(tmp_path: Path) -> None:
    images(tmp_path / "good", ("a.png",))
    images(tmp_path / "dent", ("b.png",))
    masks(tmp_path / "ground_truth" / "dent", ("b_mask.png", "c_mask.png"))
    masks(tmp_path / "ground_truth" / "crack", ("d.png",))
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("folder", (1, 0, 1))
    assert [mask.name for mask in dataset.test[0].masks] == ["b_mask.png"]
    assert dataset.problems == (
        "ground_truth/dent/c_mask.png is a mask without an image; it is left out",
        "ground_truth/crack/d.png is a mask without an image; it is left out",
    )


def test_names_like_masks_in_a_folder_of_images(tmp_path: Path) -> None:
    images(tmp_path, ("a.png", "b_mask.png", "c_label.png"))
    dataset = open_dataset(tmp_path)
    assert counts(dataset) == (3, 0, 0)
    assert dataset.problems == (
        "b_mask.png is named like a mask without an image, and is taken as an image",
        "c_label.png is named like a mask without an image, and is taken as an image",
    )
    masks(tmp_path, ("a_mask.png",))
    dataset = open_dataset(tmp_path)
    assert [sample.path.name for sample in dataset.train] == ["a.png"]
    assert dataset.problems == (
        "a_mask.png looks like a mask and is left out",
        "b_mask.png is a mask without an image; it is left out",
        "c_label.png is a mask without an image; it is left out",
    )
    for name in ("a.png", "a_mask.png"):
        (tmp_path / name).unlink()
    assert open_dataset(tmp_path).problems == (), "if all are named so, it means nothing"


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_manifest_lists_everything(tmp_path: Path, delimiter: str) -> None:
    images(tmp_path / "in", ("1.png", "2.png", "3.png", "4.png"))
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
    assert dataset.samples[3].label is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n1.png,good\n", "no column split"),
        ("path,split,label\n9.png,train,good\n", "line 2 .*'9.png', which does not exist"),
        ("path,split,label\n1.png,train,good\n1.png,validation,good\n", "line 3 .*write train or test"),
        ("path,split,label\n1.png,train,fine\n", "line 2 .*label 'fine'"),
        ("path,split,label,mask\n1.png,test,bad,9.png\n", "mask '9.png'"),
        ("path,split,label\n", "holds no image"),
        ("", "no column path"),
    ],
)
def test_a_mistake_in_a_manifest_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    images(tmp_path, ("1.png",))
    (tmp_path / "parts.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "parts.csv")


def test_a_manifest_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "parts.csv").write_bytes(b"path,split,label\n\xff\xfe,train,good\n")
    with pytest.raises(DataError, match="UTF-8"):
        open_dataset(tmp_path / "parts.csv")


def test_several_products_ask_for_a_category(tmp_path: Path) -> None:
    mvtec(tmp_path / "nut10")
    mvtec(tmp_path / "nut9")
    images(tmp_path / "docs", ("logo.png",))
    assert list_categories(tmp_path) == ["nut9", "nut10"]
    assert list_categories(tmp_path / "nut9") == []
    with pytest.raises(DataError, match="choose a category: nut9, nut10"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, category="nut9").name == "nut9"
    with pytest.raises(DataError, match="no category 'bolt'; choose one of nut9, nut10"):
        open_dataset(tmp_path, category="bolt")
    with pytest.raises(DataError, match="leave the category"):
        open_dataset(tmp_path / "nut9", category="bolt")


def test_errors_of_opening(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "missing")
    with pytest.raises(DataError, match="no image in a known layout"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="choose one of auto, csv, lookout, mvtec_loco"):
        open_dataset(tmp_path, "voc")
    images(tmp_path, ("1.png",))
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
    reported = "\n".join(dataset.problems)
    assert len(dataset.problems) == 4
    assert "ground_truth/crack/7_mask.png is a mask without an image" in reported
    assert "train/good/2.png is empty" in reported
    assert "ground_truth/crack/1_mask.png has 4 x 3 pixels, its image 8 x 6" in reported
    assert "test/crack/0.png is defective and has no mask" in reported
    with pytest.raises(ImageError, match="scale the mask"):
        load_mask(dataset.test[2], *SIZE)


def test_an_image_in_both_splits_is_the_first_problem(tmp_path: Path) -> None:
    images(tmp_path, ("1.png",))
    (tmp_path / "parts.csv").write_text("path,split,label\n1.png,train,good\n1.png,test,good\n")
    assert "both a training and a test image" in open_dataset(tmp_path / "parts.csv").problems[0]


def test_the_fingerprint_covers_names_sizes_and_labels_but_not_the_place(tmp_path: Path) -> None:
    first, second = mvtec(tmp_path / "a"), mvtec(tmp_path / "b" / "c")
    before = open_dataset(first).fingerprint()
    assert open_dataset(second).fingerprint() == before
    (second / "test" / "crack" / "1.png").rename(second / "test" / "good" / "1.png")
    assert open_dataset(second).fingerprint() != before
    images(first / "train" / "good", ("2.png",), size=(60, 80))
    assert open_dataset(first).fingerprint() != before


def test_the_fingerprint_is_that_of_recorded_runs(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    listed = [
        ("test/crack/0.png", ("test", 1, "crack"), ["ground_truth/crack/0_mask.png"]),
        ("test/crack/1.png", ("test", 1, "crack"), ["ground_truth/crack/1_mask.png"]),
        ("test/good/0.png", ("test", 0, "good"), []),
        ("train/good/10.png", ("train", 0, "good"), []),
        ("train/good/2.png", ("train", 0, "good"), []),
    ]
    text = ""
    for name, (split, label, defect), masked in listed:
        files = [f"{one}:{len((root / one).read_bytes())}" for one in (name, *masked)]
        text += f"('{split}', {label}, '{defect}', {files})"
    assert open_dataset(root).fingerprint() == hashlib.sha256(text.encode()).hexdigest()
    assert text.startswith("('test', 1, 'crack', ['test/crack/0.png:")


REAL = {
    "bottle": (209, 20, 63),
    "transistor": (213, 60, 40),
    "screw": (320, 41, 119),
    "kolektorsdd": (248, 85, 50),
    "magnetic_tile": (250, 80, None),
    "full/kolektorsdd": (248, 85, 50),
    "full/screw": (120, 41, 119),
}


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_sets_are_whole(real_data: Path, name: str) -> None:
    if not (real_data / name).is_dir():
        pytest.skip(f"the real data set {name} is not here")
    dataset = open_dataset(real_data / name)
    good, tested, defective = REAL[name]
    assert counts(dataset)[:2] == (good, tested)
    assert defective is None or counts(dataset)[2] == defective
    assert dataset.problems == (), "no byte-identical images, and every defect has its mask"
    assert all(len(sample.masks) == 1 for sample in dataset.test if sample.label == 1)


def test_a_data_set_is_described_with_its_sizes(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    assert open_dataset(root).describe()["sizes"] == "8 x 6"
    images(root / "test" / "good", ("1.png",), (12, 30))
    described = open_dataset(root).describe()
    assert described["sizes"] == "8 x 6 to 30 x 12"
    assert (described["train_good"], described["test_good"], described["defects"]) == (2, 2, {"crack": 2})


def test_masks_of_a_defect_without_images_are_orphans(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    masks(root / "ground_truth" / "dent", ("0_mask.png",))
    assert open_dataset(root).problems == ("ground_truth/dent/0_mask.png is a mask without an image; it is left out",)


def test_an_image_counts_once_however_often_it_is_listed(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    (root / "train" / "good" / "3.png").symlink_to("2.png")
    dataset = open_dataset(root)
    assert [sample.path.name for sample in dataset.train] == ["2.png", "10.png"]
    assert dataset.problems == ("train/good/3.png is the same file as train/good/2.png; it is used once",)

    table = root / "list.csv"
    row = "train/good/2.png,{},{}\n"
    table.write_text("path,split,label\n" + row.format("train", "good") + row.format("Train", "0"))
    dataset = open_dataset(table)
    assert len(dataset.train) == 1
    assert dataset.problems == ("train/good/2.png is listed twice; it is used once",)
    table.write_text("path,split,label\n" + row.format("train", "good") + row.format("train", "bad"))
    with pytest.raises(DataError, match=r"2\.png is listed with two labels"):
        open_dataset(table)
    table.write_text("path,split,label,path\n")
    with pytest.raises(DataError, match="column path twice"):
        open_dataset(table)


def test_broken_links_and_images_are_reported(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    (root / "train" / "good" / "4.png").symlink_to("nowhere")
    (root / "train" / "good" / "5.png").write_text("no image")
    problems = open_dataset(root).describe()["problems"]
    assert problems[0] == "train/good/4.png is a broken link; it is left out"
    assert "5.png is not a PNG" in problems[1]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    with pytest.raises(DataError, match=r"2\.png is a file"):
        open_dataset(root / "train" / "good" / "2.png")
    with pytest.raises(DataError, match="is a folder"):
        open_dataset(root, layout="csv")


def test_unused_folders_and_formats_are_counted(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut")
    images(root / "train" / "good" / "monday", [f"{number}.png" for number in range(10)])
    images(root / "test" / "crack" / "deep" / "er", ("7.png",))
    images(root / "validation" / "good", ("8.png", "9.png"))
    images(root / "ground_truth" / "crack" / "0", ("0.png",))
    for number in range(3):
        (root / "train" / "good" / f"c{number}.HEIC").write_bytes(b"x")
    (root / "test" / "good" / "a.gif").write_bytes(b"x")
    (root / "train" / "good" / ".b.gif").write_bytes(b"x")
    assert open_dataset(root).problems == (
        "13 images lie in folders that the layout mvtec does not read: train/good/monday (10), validation/good (2), "
        "test/crack/deep/er (1); move or remove what they hold",
        "1 .gif file is not read (test/good/a.gif); convert to PNG",
        "3 .heic files are not read (train/good/c0.HEIC, ...); convert to PNG",
    )
    (plain,) = open_dataset(root / "train" / "good").problems[:1]
    assert plain.startswith("10 images lie in folders that the layout folder does not read: monday (10); move")


def test_many_unused_folders_are_bounded(tmp_path: Path) -> None:
    images(tmp_path, ("a.png",))
    for number in range(8):
        images(tmp_path / f"day{number}", (f"{number}.png",))
    (problem,) = open_dataset(tmp_path).problems
    assert problem.count("day") == 5
    assert problem.endswith(", 3 more; move or remove what they hold")


def test_a_folder_without_readable_images_names_where_they_are(tmp_path: Path) -> None:
    images(tmp_path / "lots" / "a" / "b", ("1.png", "2.png"))
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "1.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"2 images lie in folders that layouts do not read: a/b \(2\); move"):
        open_dataset(tmp_path / "lots")
    with pytest.raises(DataError, match=r"1 \.heic file is not read \(1\.heic\)"):
        open_dataset(tmp_path / "phone")
    images(tmp_path / "lots" / "train" / "good" / "monday", ("1.png",))
    with pytest.raises(DataError, match=r"holds no image in the layout mvtec.*train/good/monday \(1\)"):
        open_dataset(tmp_path / "lots")


def test_jfif_files_are_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jfif", "JPEG")
    dataset = open_dataset(tmp_path)
    assert (counts(dataset), dataset.problems) == ((1, 0, 0), ())


def test_links_in_circles_end_the_search(tmp_path: Path) -> None:
    images(tmp_path, ("a.png",))
    images(tmp_path / "deep", ("b.png",))
    (tmp_path / "deep" / "round").symlink_to(tmp_path)
    (problem,) = open_dataset(tmp_path).problems
    assert "deep (1); move" in problem
