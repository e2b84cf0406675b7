"""Layouts of annotation tools: polygons and boxes become masks, and images without annotations are good."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot.data import Dataset, Sample, load_mask, open_dataset
from hyperspot.data.shapes import Box, Polygon, RunLengths
from hyperspot.errors import DataError, ImageError
from hyperspot.results.conversions import CocoBuilder
from tests.data.test_datasets import SIZE, counts, images

HEIGHT, WIDTH = SIZE


def mask_of(sample: Sample, size: tuple[int, int] = SIZE) -> list[list[int]]:
    """Return first and last row, and first and last column of a mask, and its area."""
    mask = load_mask(sample, *size)
    assert mask is not None
    rows, columns = np.nonzero(mask)
    return [[rows.min(), rows.max()], [columns.min(), columns.max()], [int(mask.sum())]]


def by_name(dataset: Dataset) -> dict[str, Sample]:
    return {sample.path.name: sample for sample in dataset.samples}


def shape(label: str, points: list, kind: str = "polygon", **values: object) -> dict:
    return {"label": label, "points": points, "shape_type": kind, **values}


def labelme(folder: Path, name: str, *shapes: dict, size: tuple[int, int] = SIZE, **values: object) -> None:
    images(folder, (name,))
    content = {"version": "5.4", "shapes": shapes, "imagePath": name, "imageHeight": size[0], "imageWidth": size[1]}
    content |= values
    (folder / name).with_suffix(".json").write_text(json.dumps(content))


SQUARE = [[1, 1], [4, 1], [4, 3], [1, 3]]


def test_labelme_reads_every_kind_of_shape(tmp_path: Path) -> None:
    drawn = np.zeros((2, 3), bool)
    drawn[0, 1:] = True
    encoded = io.BytesIO()
    Image.fromarray(drawn).save(encoded, "PNG")
    crop = base64.b64encode(encoded.getvalue()).decode()
    kinds = {
        "polygon": (shape("dent", SQUARE), [[1, 2], [1, 3], [6]]),
        "rectangle": (shape("dent", [[6, 5], [2, 3]], "rectangle"), [[3, 4], [2, 5], [8]]),
        "circle": (shape("dent", [[3, 3], [3, 5]], "circle"), [[1, 4], [1, 4], [12]]),
        "line": (shape("dent", [[0.5, 2.5], [6.5, 2.5]], "line"), [[2, 2], [0, 6], [7]]),
        "linestrip": (shape("dent", [[0.5, 0.5], [0.5, 3.5], [2.5, 3.5]], "linestrip"), [[0, 3], [0, 2], [6]]),
        "point": (shape("dent", [[7.5, 5.5]], "point"), [[5, 5], [7, 7], [1]]),
        "mask": (shape("dent", [[2, 1], [4, 2]], "mask", mask=crop), [[1, 1], [3, 4], [2]]),
    }
    for kind, (one, _) in kinds.items():
        labelme(tmp_path, f"{kind}.png", one)
    labelme(tmp_path, "two.png", shape("dent", SQUARE), shape("scratch", [[0, 5], [8, 5], [8, 6], [0, 6]]))
    labelme(tmp_path, "good.png")
    labelme(tmp_path, "marked_ok.png", shape("OK", SQUARE))
    images(tmp_path, [f"bare{number}.png" for number in range(8)])
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("labelme", (8, 2, 8))
    found = by_name(dataset)
    for kind, (_, expected) in kinds.items():
        assert mask_of(found[f"{kind}.png"]) == expected, kind
    assert (found["two.png"].defect, mask_of(found["two.png"])[2]) == ("dent+scratch", [14])
    assert {found[name].label for name in ("good.png", "marked_ok.png", "bare0.png")} == {0}
    assert dataset.problems == (
        "8 images have no JSON file and are taken as good (bare0.png)",
        "there is no split: one of 5 good images was set aside for the test",
    )
    assert dataset.describe()["with_mask"] == 8


def test_labelme_folders_are_splits_and_mistakes_are_named(tmp_path: Path) -> None:
    labelme(tmp_path / "train", "a.png")
    labelme(tmp_path / "train", "b.png", shape("dent", SQUARE))
    labelme(tmp_path / "val", "c.png")
    labelme(tmp_path / "test", "d.png")
    labelme(tmp_path / "test", "e.png", shape("dent", SQUARE), shape("dent", [[1, 1]], "ellipse"))
    labelme(tmp_path / "test", "wide.png", size=(HEIGHT, 99))
    (tmp_path / "test" / "lost.json").write_text('{"shapes": [], "imagePath": "lost.png"}')
    dataset = open_dataset(tmp_path)
    assert [(sample.path.name, sample.split, sample.label) for sample in dataset.samples] == [
        ("a.png", "train", 0), ("c.png", "train", 0),
        ("d.png", "test", 0), ("e.png", "test", 1), ("wide.png", "test", 0), ("b.png", "test", 1),
    ]  # fmt: skip
    assert sorted(dataset.problems) == [
        "test/e.json has a shape of the kind ellipse, which is not read; draw a polygon",
        "test/lost.json has no image beside it; it is left out",
        "test/wide.json is for an image of 99 x 6 pixels, wide.png has 8 x 6; annotate it again",
    ]
    (tmp_path / "test" / "d.json").write_text('{"shapes": [{}], "imagePath": "d.png"}')
    with pytest.raises(DataError, match=r"d\.json is no labelme file"):
        open_dataset(tmp_path)
    (tmp_path / "test" / "d.json").write_text("{")
    with pytest.raises(DataError, match=r"d\.json is no JSON file"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("split", ["", "train"])
def test_labelme_flags_without_a_shape_leave_the_label_open(tmp_path: Path, split: str) -> None:
    folder = tmp_path / split
    labelme(folder, "off.png", flags={"defect": False})
    labelme(folder, "good.png", flags={"good": True, "defect": False})
    labelme(folder, "none.png", flags=None)
    labelme(folder, "drawn.png", shape("dent", SQUARE), flags={"defect": True})
    labelme(folder, "flagged.png", flags={"defect": True, "dirty": True, "blurred": False})
    dataset = open_dataset(tmp_path, "labelme")
    labels = {name: sample.label for name, sample in by_name(dataset).items()}
    assert labels == {"off.png": 0, "good.png": 0, "none.png": 0, "drawn.png": 1, "flagged.png": None}
    assert "flagged.png" not in {sample.path.name for sample in (*dataset.train, *dataset.test)}
    prefix = f"{split}/" if split else ""
    assert dataset.problems[0] == (
        "1 image has a flag and no shape of a defect, thus no label, and is left out "
        f"({prefix}flagged.png: defect, dirty); draw the defect, or remove the flag"
    )
    labelme(folder, "marked_ok.png", shape("OK", SQUARE), flags={"defect": True})
    again = open_dataset(tmp_path, "labelme")
    assert by_name(again)["marked_ok.png"].label is None
    assert again.problems[0].startswith("2 images have a flag and no shape of a defect, thus no label, and are")


@pytest.mark.parametrize("name", ["0", "1", ""])
def test_a_class_with_a_number_for_a_name_is_a_defect(tmp_path: Path, name: str) -> None:
    labelme(tmp_path / "labelme", "a.png", shape(name, SQUARE))
    document = coco(tmp_path / "coco" / "a.json", {"a.png": [BOX]})
    document.write_text(document.read_text().replace('"hole"', f'"{name}"'))
    images(tmp_path / "coco", ("a.png",))
    yolo(tmp_path / "yolo" / "images", tmp_path / "yolo" / "labels", a="0 0.5 0.5 0.5 0.3333333\n")
    (tmp_path / "yolo" / "data.yaml").write_text(f"names: ['{name}', '']\n")
    for layout in ("labelme", "coco", "yolo"):
        (sample,) = open_dataset(tmp_path / layout, layout).samples
        assert (sample.label, sample.has_mask) == (1, True), layout


@pytest.mark.parametrize("name", ["good", "OK", "Normal"])
def test_a_class_for_good_images_marks_no_defect(tmp_path: Path, name: str) -> None:
    yolo(tmp_path / "images", tmp_path / "labels", a="0 0.5 0.5 0.5 0.3333333\n")
    (tmp_path / "data.yaml").write_text(f"names: ['{name}']\n")
    assert [sample.label for sample in open_dataset(tmp_path).samples] == [0]


def coco(path: Path, names: dict[str, list[dict]], **size: int) -> Path:
    listed, annotations = [], []
    for number, (name, marked) in enumerate(names.items(), start=10):
        listed.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH, **size})
        annotations += [{"id": len(annotations), "image_id": number, "category_id": 3, **one} for one in marked]
    content = {"images": listed, "annotations": annotations, "categories": [{"id": 3, "name": "hole"}]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


BOX = {"bbox": [1, 2, 3, 2], "segmentation": []}
PARTS = {"bbox": [0, 0, 8, 6], "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3], [6, 4, 8, 4, 8, 6, 6, 6]]}
RUNS = {"bbox": [0, 0, 8, 6], "iscrowd": 1, "segmentation": {"size": [6, 8], "counts": [2, 3, 43]}}


def test_coco_with_a_document_for_each_split(tmp_path: Path) -> None:
    for split, names in {"train": "abc", "val": "d", "test": "efgh"}.items():
        images(tmp_path / split, [f"{name}.png" for name in names])
    images(tmp_path / "test", ("unlisted.png",))
    coco(tmp_path / "annotations" / "instances_train2017.json", {"a.png": [], "b.png": [BOX], "train/c.png": []})
    coco(tmp_path / "annotations" / "instances_val2017.json", {"d.png": []})
    coco(tmp_path / "annotations" / "instances_test2017.json", {"e.png": [], "f.png": [PARTS], "gone.png": []})
    coco(tmp_path / "annotations" / "more_test.json", {"g.png": [RUNS], "sub\\h.png": [BOX, RUNS]})
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("coco", (3, 1, 4))
    assert [sample.path.name for sample in dataset.train] == ["a.png", "c.png", "d.png"]
    found = by_name(dataset)
    assert found["b.png"].defect == "hole"
    assert mask_of(found["b.png"]) == [[2, 3], [1, 3], [6]]
    assert mask_of(found["f.png"]) == [[1, 5], [1, 7], [10]]
    assert mask_of(found["g.png"]) == [[2, 4], [0, 0], [3]]
    assert mask_of(found["h.png"])[2] == [9]
    assert dataset.problems == (
        "gone.png is listed in annotations/instances_test2017.json but missing; it is left out",
        "1 image is not listed in instances_test2017.json, instances_train2017.json, instances_val2017.json, "
        "more_test.json (test/unlisted.png) and left out",
    )


def test_a_missing_image_is_not_replaced_by_its_namesake_of_another_split(tmp_path: Path) -> None:
    images(tmp_path / "train", ("1.png", "2.png"))
    images(tmp_path / "test" / "deep", ("1.png", "3.png"))
    images(tmp_path / "pool", ("4.png",))
    coco(tmp_path / "train" / "instances.json", {"1.png": [], "3.png": [BOX], "4.png": []})
    coco(tmp_path / "test" / "instances.json", {"1.png": [], "2.png": [BOX], "3.png": []})
    dataset = open_dataset(tmp_path)
    placed = [sample.path.relative_to(tmp_path).as_posix() for sample in dataset.samples]
    # One outside of the folders of splits may be of any.
    assert placed == ["train/1.png", "pool/4.png", "test/deep/1.png", "test/deep/3.png"]
    assert counts(dataset) == (2, 2, 0)
    assert dataset.problems[:2] == (
        "2.png is listed in test/instances.json but missing; it is left out",
        "3.png is listed in train/instances.json but missing; it is left out",
    )
    # Without a split, the only image of a name is taken wherever it lies.
    for folder in ("train", "test"):
        (tmp_path / folder / "instances.json").unlink()
    alone = open_dataset(coco(tmp_path / "all.json", {"3.png": [], "4.png": []}))
    assert {sample.path.name for sample in alone.samples} == {"3.png", "4.png"}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("test_rig", ""),
        ("train-station.v2", ""),
        ("validation_of_nuts", ""),
        ("test", "test"),
        ("train2017", "train"),
        ("instances_train2017", "train"),
        ("test_rig-train", "train"),
    ],
)
def test_a_single_document_is_for_the_split_at_the_end_of_its_name(tmp_path: Path, name: str, split: str) -> None:
    files = [f"{number}.png" for number in range(10)]
    images(tmp_path / "images", files)
    document = coco(tmp_path / f"{name}.json", {file: [] for file in files})
    manifest = tmp_path / f"{name}.manifest"
    manifest.write_text("".join(lookout_line(f"images/{file}", "normal") for file in files))
    expected = {"": (8, 2, 0), "train": (10, 0, 0), "test": (0, 10, 0)}[split]
    for layout, place in (("coco", document), ("coco", tmp_path), ("lookout", manifest), ("lookout", tmp_path)):
        assert counts(open_dataset(place, layout)) == expected, (layout, place)


def test_several_documents_are_for_the_last_split_in_their_names(tmp_path: Path) -> None:
    images(tmp_path / "images", ("a.png", "b.png"))
    for split, file in {"train": "a.png", "test": "b.png"}.items():
        coco(tmp_path / f"test_rig_{split}_2.json", {file: []})
        (tmp_path / f"test_rig_{split}_2.manifest").write_text(lookout_line(f"images/{file}", "normal"))
    for layout in ("coco", "lookout"):
        dataset = open_dataset(tmp_path, layout)
        assert [(one.path.name, one.split) for one in dataset.samples] == [("a.png", "train"), ("b.png", "test")]


def test_coco_of_roboflow_and_a_document_by_its_name(tmp_path: Path) -> None:
    for split, name in {"train": "a.jpg", "valid": "b.jpg"}.items():
        images(tmp_path / split, (name,))
        coco(tmp_path / split / "_annotations.coco.json", {name: []})
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset), dataset.problems) == ("coco", (1, 1, 0), ())
    alone = open_dataset(tmp_path / "train" / "_annotations.coco.json", "coco")
    assert (alone.layout, [sample.path.name for sample in alone.train]) == ("coco", ["a.jpg"])


def test_a_document_in_another_folder_gives_the_same_fingerprint_everywhere(tmp_path: Path) -> None:
    prints = []
    for place in (tmp_path / "one", tmp_path / "two" / "deeper"):
        images(place / "images", [f"{number}.png" for number in range(10)])
        marked = {f"{number}.png": [BOX] if number > 7 else [] for number in range(10)}
        opened = open_dataset(coco(place / "annotations" / "parts.json", marked))
        assert (opened.layout, opened.name, counts(opened)) == ("coco", "parts", (6, 2, 2))
        prints.append(opened.fingerprint())
    first = tmp_path / "one"
    coco(first / "annotations" / "parts.json", marked | {"9.png": [PARTS]})
    assert prints[0] == prints[1] != open_dataset(first / "annotations" / "parts.json").fingerprint()


def test_coco_written_by_predict_is_read_back(tmp_path: Path) -> None:
    from tests.results.test_conversions import verdict_on

    random = np.random.default_rng(0)
    masks = [random.random(SIZE) < 0.4 for _ in range(2)]
    builder = CocoBuilder()
    for number, mask in enumerate(masks):
        images(tmp_path, (f"{number}.png",))
        verdict = verdict_on(mask, random.random(SIZE, dtype=np.float32))
        object.__setattr__(verdict, "path", tmp_path / f"{number}.png")
        builder.add(verdict)
    (tmp_path / "found.json").write_text(json.dumps(builder.document()))
    dataset = open_dataset(tmp_path, "coco")
    for sample, mask in zip(dataset.test, masks, strict=True):
        np.testing.assert_array_equal(load_mask(sample, *SIZE), mask)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{}], "annotations": [], "categories": []}, "no COCO document"),
        ({"images": [], "annotations": [{"image_id": 1, "bbox": [1]}], "categories": []}, "no COCO document"),
        ([], "no COCO document"),
    ],
)
def test_a_broken_coco_document_is_an_error(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "a.json", "coco")


def test_run_lengths_of_another_size_are_an_error(tmp_path: Path) -> None:
    images(tmp_path, ("a.png",), (7, 8))
    wrong = dict(RUNS)
    coco(tmp_path / "a.json", {"a.png": [wrong]})
    dataset = open_dataset(tmp_path)
    assert dataset.problems[0] == "a.json is for an image of 8 x 6 pixels, a.png has 8 x 7; annotate it again"
    with pytest.raises(ImageError, match=r"a\.png does not fit: the image has 8 x 7 pixels; annotate it again"):
        load_mask(dataset.test[0], 7, 8)
    wrong["segmentation"] = {"size": [6, 8], "counts": [2, 3]}
    coco(tmp_path / "a.json", {"a.png": [wrong]})
    with pytest.raises(DataError, match="run lengths of 5 pixels do not fit 8 x 6"):
        open_dataset(tmp_path)


def yolo(folder: Path, labels: Path, **lines: str | None) -> None:
    images(folder, [f"{name}.png" for name in lines])
    labels.mkdir(parents=True, exist_ok=True)
    for name, text in lines.items():
        if text is not None:
            (labels / f"{name}.txt").write_text(text)


BOX_LINE = "1 0.5 0.5 0.5 0.3333333\n"
POLYGON_LINE = "0 0.125 0.166667 0.5 0.166667 0.5 0.5 0.125 0.5\n"


@pytest.mark.parametrize("nested", ["images/train", "train/images"])
def test_yolo_boxes_and_polygons(tmp_path: Path, nested: str) -> None:
    def place(split: str) -> tuple[Path, Path]:
        inner = nested.replace("train", split)
        return tmp_path / inner, tmp_path / inner.replace("images", "labels")

    yolo(*place("train"), a="", b=None, c=BOX_LINE)
    yolo(*place("val"), d="", e=POLYGON_LINE, f=BOX_LINE + "\n" + POLYGON_LINE)
    (place("val")[1] / "lost.txt").write_text(BOX_LINE)
    (tmp_path / "data.yaml").write_text("train: x\nnc: 2\nnames:\n  0: stain # dirt\n  1: 'crack'\npath: .\n")
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("yolo", (2, 1, 3))
    found = by_name(dataset)
    assert {name: found[f"{name}.png"].defect for name in "cef"} == {"c": "crack", "e": "stain", "f": "crack+stain"}
    assert mask_of(found["c.png"]) == [[2, 3], [2, 5], [8]]
    assert mask_of(found["e.png"]) == [[1, 2], [1, 3], [6]]
    assert mask_of(found["f.png"])[2] == [12]
    lost = place("val")[1].relative_to(tmp_path).as_posix()
    bare = place("train")[0].relative_to(tmp_path).as_posix()
    assert sorted(dataset.problems) == sorted([
        f"{lost}/lost.txt has no image; it is left out",
        f"1 image has no label file and is taken as good ({bare}/b.png)",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "stain\ncrack\n"),
        ("data.yaml", "names: ['stain', \"crack\"]\n"),
        ("data.yml", "nc: 2\nnames: {0: stain, 1: crack}\n"),
        ("parts.yaml", "names:\n- stain\n- crack\nnc: 2\n"),
    ],
)
def test_yolo_labels_beside_the_images_and_names_of_classes(tmp_path: Path, name: str, text: str) -> None:
    yolo(tmp_path, tmp_path, **{f"good{number}": "" for number in range(9)}, bad=BOX_LINE)
    (tmp_path / name).write_text(text)
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("yolo", (7, 2, 1))
    assert by_name(dataset)["bad.png"].defect == "crack"
    assert dataset.problems == ("there is no split: one of 5 good images was set aside for the test",)


def test_notes_beside_images_are_no_labels(tmp_path: Path) -> None:
    for text in ("taken on Monday\n", "3 120 80 40 40\n", "3 0.5 0.5 wide 0.1\n", "x 0.5 0.5 0.5 0.5\n"):
        yolo(tmp_path, tmp_path, a=text)
        assert open_dataset(tmp_path).layout == "folder"
    yolo(tmp_path / "p", tmp_path / "p", a=BOX_LINE, b="0 0.5 0.5\n")
    with pytest.raises(DataError, match=r"line 1 of .*b\.txt is neither a box"):
        open_dataset(tmp_path / "p")
    (tmp_path / "p" / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"b\.txt is no text in UTF-8"):
        open_dataset(tmp_path / "p")


def lookout_line(image: str, name: str, mask: str | None = None, label: str = "anomaly-label") -> str:
    line: dict = {
        "source-ref": f"s3://bucket/parts/{image}",
        label: 1,
        f"{label}-metadata": {"class-name": name, "type": "groundtruth/image-classification"},
    }
    if mask is not None:
        colors = {
            "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"},
            "1": {"class-name": "scratch", "hex-color": "#2ca02c"},
        }
        line["anomaly-mask-ref"] = f"s3://bucket/parts/{mask}"
        line["anomaly-mask-ref-metadata"] = {
            "internal-color-map": colors,
            "type": "groundtruth/semantic-segmentation",
        }
    return json.dumps(line) + "\n"


def lookout(folder: Path) -> None:
    images(folder / "train", ("a.png", "b.png"))
    images(folder / "test", ("c.png", "d.png", "e.png"))
    mask = np.full((*SIZE, 3), 255, np.uint8)
    mask[2:4, 1:3] = (0x2C, 0xA0, 0x2C)
    (folder / "masks").mkdir()
    Image.fromarray(mask).save(folder / "masks" / "d.png")


def test_lookout_manifests_of_both_splits(tmp_path: Path) -> None:
    lookout(tmp_path)
    (tmp_path / "train.manifest").write_text(
        lookout_line("train/a.png", "normal") + lookout_line("train/b.png", "normal")
    )
    (tmp_path / "test.manifest").write_text(
        lookout_line("test/c.png", "normal")
        + lookout_line("test/d.png", "anomaly", "masks/d.png")
        + lookout_line("test/e.png", "anomaly", "masks/gone.png", label="my-job")
        + lookout_line("test/gone.png", "anomaly")
    )
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, counts(dataset)) == ("lookout", (2, 1, 2))
    _, marked, bare = dataset.test
    assert (marked.defect, bare.defect) == ("scratch", "scratch")
    # The background of these masks is white.
    assert mask_of(marked) == [[2, 3], [1, 2], [4]]
    assert load_mask(bare, *SIZE) is None
    test = tmp_path / "test.manifest"
    assert sorted(dataset.problems) == sorted([
        f"line 3 of {test} names the mask s3://bucket/parts/masks/gone.png, which is not below {tmp_path}",
        f"line 4 of {test} names s3://bucket/parts/test/gone.png, which is not below {tmp_path}; it is left out",
        "test/e.png is defective and has no mask",
    ])  # fmt: skip


def test_one_lookout_manifest_is_divided(tmp_path: Path) -> None:
    lookout(tmp_path)
    manifest = tmp_path / "output.manifest"
    good = "".join(lookout_line(name, "normal") for name in ("train/a.png", "train/b.png", "test/c.png", "test/e.png"))
    manifest.write_text(good + "\n" + lookout_line("test/d.png", "anomaly", "masks/d.png"))
    dataset = open_dataset(manifest)
    assert (dataset.layout, dataset.name, counts(dataset)) == ("lookout", "output", (3, 1, 1))
    assert dataset.problems == ("there is no split: one of 5 good images was set aside for the test",)
    manifest.write_text('{"source-ref": "a.png"\n')
    with pytest.raises(DataError, match=r"line 1 of .* is no line of a Lookout for Vision manifest"):
        open_dataset(manifest)


def test_a_lookout_manifest_in_a_folder_opens_by_itself_as_its_data_set_does(tmp_path: Path) -> None:
    lookout(tmp_path)
    images(tmp_path / "manifests", ("near.png",))
    manifest = tmp_path / "manifests" / "output.manifest"
    names = [*(f"{folder}.png" for folder in ("train/a", "train/b", "test/c", "test/e")), "near.png"]
    lines = [*(lookout_line(name, "normal") for name in names), lookout_line("test/d.png", "anomaly", "masks/d.png")]
    manifest.write_text("".join([*lines, lookout_line("gone.png", "normal")]))
    opened, alone = open_dataset(tmp_path), open_dataset(manifest)
    assert (alone.layout, counts(alone)) == ("lookout", (4, 1, 1))
    assert alone.samples == opened.samples
    assert load_mask(by_name(alone)["d.png"], *SIZE).sum() == 4  # type: ignore[union-attr]
    gone = f"line 7 of {manifest} names s3://bucket/parts/gone.png, which is not below {tmp_path}; it is left out"
    assert gone in alone.problems


def test_info_names_the_layout(tmp_path: Path, run) -> None:
    lookout(tmp_path / "lookout")
    manifest = tmp_path / "lookout" / "all.manifest"
    manifest.write_text(lookout_line("train/a.png", "normal"))
    labelme(tmp_path / "labelme", "a.png", shape("dent", SQUARE))
    yolo(tmp_path / "yolo" / "images", tmp_path / "yolo" / "labels", a=BOX_LINE)
    images(tmp_path / "coco", ("a.png",))
    document = coco(tmp_path / "coco" / "a.json", {"a.png": [BOX]})
    for path, layout in (
        (manifest, "lookout"),
        (tmp_path / "labelme", "labelme"),
        (tmp_path / "yolo", "yolo"),
        (document, "coco"),
    ):
        code, out, _ = run("info", path, "--json")
        assert (code, json.loads(out)["layout"]) == (0, layout)


def test_shapes_reach_beyond_the_image_and_thin_ones_stay() -> None:
    mask = np.zeros((5, 6), bool)
    Polygon(((-9, -9), (99, -9), (99, 99), (-9, 99))).draw(mask)
    assert mask.all()
    for shape_beyond in (Polygon(((50, 50), (60, 50), (60, 60))), Polygon(((9, 9),)), Box(9, 9, 12, 12)):
        mask = np.zeros((5, 6), bool)
        shape_beyond.draw(mask)
        assert not mask.any()
    mask = np.zeros((5, 6), bool)
    Polygon(((1.1, 2.0), (4.2, 2.1), (1.1, 2.2))).draw(mask)
    assert mask.any(axis=1).tolist() == [False, False, True, False, False]
    mask = np.zeros((5, 6), bool)
    Box(2.4, 2.4, 2.45, 2.45).draw(mask)
    assert mask.sum() == 1


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        (Box(-9, 1, -4, 3), []),
        (Box(1, -9, 3, -4), []),
        (Box(-9, -9, -4, -4), []),
        (Box(-3, 1, 0, 2), []),
        (Box(6, 1, 9, 2), []),
        (Box(1, 5, 2, 9), []),
        (Box(0, 0, 0, 0), [[0, 0]]),
        (Box(-3, 1, 0.2, 2), [[1, 0]]),
        (Box(5.8, 4.8, 5.9, 4.9), [[4, 5]]),
    ],
)
def test_a_box_outside_of_the_image_marks_nothing(box: Box, pixels: list[list[int]]) -> None:
    mask = np.zeros((5, 6), bool)
    box.draw(mask)
    assert np.argwhere(mask).tolist() == pixels


def test_polygons_are_filled_by_the_centers_of_pixels() -> None:
    random = np.random.default_rng(5)
    rows, columns = np.indices((30, 40)) + 0.5
    for _ in range(20):
        points = random.uniform(-5, 45, (random.integers(3, 8), 2))
        mask = np.zeros((30, 40), bool)
        Polygon(tuple(map(tuple, points.tolist()))).draw(mask)
        crossings = np.zeros((30, 40), int)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            cut = (y0 <= rows) != (y1 <= rows)
            crossings += cut & (columns >= x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
        np.testing.assert_array_equal(mask, crossings % 2 == 1)


def test_compressed_run_lengths() -> None:
    """Encoded as pycocotools does, by a slow implementation of its format."""
    random = np.random.default_rng(6)
    for _ in range(30):
        mask = random.random((13, 17)) < random.random()
        flat = np.concatenate([[False], mask.ravel(order="F")])
        edges = np.flatnonzero(flat[1:] != flat[:-1])
        counts_of = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
        text = ""
        for place, count in enumerate(counts_of):
            value = count - (counts_of[place - 2] if place > 2 else 0)
            more = True
            while more:
                group, value = value & 31, value >> 5
                more = value != (-1 if group & 16 else 0)
                text += chr(48 + (group | (32 if more else 0)))
        drawn = np.zeros(mask.shape, bool)
        RunLengths.from_coco(13, 17, text).draw(drawn)
        np.testing.assert_array_equal(drawn, mask)
