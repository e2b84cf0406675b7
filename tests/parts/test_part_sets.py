"""Parts are found in every convention, and what does not fit one is named."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot import open_part_set
from hyperspot.errors import DataError

VIEWS = ("side", "top")


def image(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(f"{path} {number}".encode())).integers(0, 255, (8, 10), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def names(parts) -> list[str]:
    return [part.name for part in parts]


def test_part_folders(part_folder: Path):
    found = open_part_set(part_folder)
    assert (found.layout, found.images, found.problems) == ("folders", ("left", "right"), ())
    assert len(found.train) == 24
    assert {part.label for part in found.test} == {0, 1}
    described = found.describe()
    assert (described["test_good"], described["test_defective"]) == (8, 9)
    assert described["defects"] == {"missing_bolt": 3, "scratch": 3, "stain": 3}
    bad = next(part for part in found.test if part.defect == "stain")
    assert bad.name.startswith("test/stain/")
    assert [mask.name for mask in bad.samples["left"].masks] == ["left_mask.png"]
    assert all(not sample.masks for part in found.train for sample in part.samples.values())


def test_a_data_set_per_view(tmp_path: Path):
    for view in VIEWS:
        for place in ("train/good/1", "train/good/2", "train/good/10", "test/good/1", "test/bent/1"):
            image(tmp_path / view / f"{place}.png")
    image(tmp_path / "top" / "ground_truth" / "bent" / "1_mask.png")
    found = open_part_set(tmp_path)
    assert (found.layout, found.images) == ("views", VIEWS)
    assert names(found.train) == ["train/good/1", "train/good/2", "train/good/10"]
    assert [(part.label, part.defect) for part in found.test] == [(1, "bent"), (0, "good")]
    assert found.test[0].samples["top"].masks


def test_lightings_below_views(tmp_path: Path):
    for place in ("top/dark", "top/bright"):
        for number in range(3):
            image(tmp_path / place / "train" / "good" / f"{number}.png")
    for number in range(3):
        image(tmp_path / "side" / "train" / "good" / f"{number}.png")
    assert open_part_set(tmp_path).images == ("side", "top/bright", "top/dark")


def test_folders_of_parts_and_of_views(tmp_path: Path):
    for part in ("a", "b", "c"):
        for view in VIEWS:
            image(tmp_path / "by part" / part / f"{view}.png")
            image(tmp_path / "by view" / view / f"{part}.png")
            image(tmp_path / "lit" / part / view / "dark.png")
            image(tmp_path / "lit" / part / view / "bright.png")
    for name in ("by part", "by view"):
        found = open_part_set(tmp_path / name)
        assert (names(found.train), found.images) == (["a", "b", "c"], VIEWS)
    assert open_part_set(tmp_path / "lit").images == ("side/bright", "side/dark", "top/bright", "top/dark")
    shutil.rmtree(tmp_path / "by view" / "side")
    image(tmp_path / "by view" / "top" / "d.png")
    assert open_part_set(tmp_path / "by view").images == ("top",)


def test_known_views_decide_where_numbers_do_not(tmp_path: Path):
    for part in ("a", "b"):
        for view in VIEWS:
            image(tmp_path / part / f"{view}.png")
    with pytest.raises(DataError, match="views and parts cannot be told apart; give --pattern"):
        open_part_set(tmp_path)
    assert names(open_part_set(tmp_path, views=VIEWS).parts) == ["a", "b"]
    assert open_part_set(tmp_path, views=["a", "b", "c"]).images == ("a", "b")
    assert names(open_part_set(tmp_path, pattern=r"(?P<part>\w+)/(?P<view>\w+)\.").parts) == ["a", "b"]


@pytest.mark.parametrize("kind", ["{part}/{view}.png", "{view}/{part}.png"])
def test_a_stray_image_does_not_swap_parts_and_views(tmp_path: Path, kind: str):
    for part in ("a", "b", "c"):
        for view in VIEWS:
            image(tmp_path / kind.format(part=part, view=view))
    stray = image(tmp_path / kind.format(part="b", view="notes"))
    found = open_part_set(tmp_path, views=VIEWS)
    assert (names(found.parts), found.images) == (["a", "b", "c"], VIEWS)
    assert found.problems == (
        f"1 image is of no view that the model knows ({stray.relative_to(tmp_path).as_posix()}); left out",
    )


def test_the_folder_of_one_part(tmp_path: Path):
    for name in ("side", "top/dark", "top/bright", "back/dark", "back/bright", "notes/x"):
        image(tmp_path / "7" / f"{name}.png")
    views = ("side", "top/dark", "top/bright", "back/dark", "back/bright")
    for root in (tmp_path / "7", tmp_path):
        (part,) = open_part_set(root, views=views).parts
        assert (part.name, set(part.samples)) == ("7", set(views))
    for name in VIEWS:
        image(tmp_path / "8" / f"{name}.png")
    (part,) = open_part_set(tmp_path / "8", views=VIEWS).parts
    assert (part.name, tuple(part.samples)) == ("8", VIEWS)


def test_views_of_different_labels_are_named(tmp_path: Path):
    for view in VIEWS:
        for place in ("train/good/1", "test/good/1", "test/bent/1"):
            image(tmp_path / view / f"{place}.png")
    assert not open_part_set(tmp_path).problems
    image(tmp_path / "top" / "test" / "bent" / "2.png")
    image(tmp_path / "side" / "test" / "good" / "2.png")
    (problem,) = open_part_set(tmp_path).problems
    assert problem.startswith("1 pair of parts of equal names have different labels and no view in common (")
    assert "test/bent/2 in top" in problem
    assert "test/good/2 in side" in problem


def test_names_of_real_iad(tmp_path: Path):
    for number, split, defect in (
        ("0001_OK", "train", "good"),
        ("0002_OK", "test", "good"),
        ("0003_NG_HS", "test", "HS"),
    ):
        for camera in "12345":
            # A view that does not show the defect is good.
            folder = "good" if camera == "5" else defect
            image(tmp_path / split / folder / f"audiojack_{number}_C{camera}_20230922.jpg")
    found = open_part_set(tmp_path)
    assert (found.layout, found.images) == ("names", ("C1", "C2", "C3", "C4", "C5"))
    assert names(found.train) == ["audiojack_0001_OK"]
    assert [(part.name, part.label, part.defect) for part in found.test] == [
        ("audiojack_0002_OK", 0, "good"),
        ("audiojack_0003_NG_HS", 1, "HS"),
    ]
    assert found.test[1].samples["C5"].label == 0


def test_a_table(tmp_path: Path):
    rows = ["part;view;light;path;label;defect;mask"]
    for part, label, defect in (("7", "good", ""), ("8", "defect", "bent")):
        for light in ("dark", "bright"):
            path = image(tmp_path / f"{part}_{light}.png")
            mask = image(tmp_path / "m" / path.name).relative_to(tmp_path).as_posix() if label == "defect" else ""
            rows.append(f"{part};top;{light};{path.name};{label};{defect};{mask}")
    table = tmp_path / "parts.csv"
    table.write_text("\n".join(rows))
    found = open_part_set(table)
    assert (found.layout, found.name, found.images) == ("csv", "parts", ("top/bright", "top/dark"))
    assert [(part.name, part.split, part.label, part.defect) for part in found.parts] == [
        ("7", "train", 0, "good"),
        ("8", "test", 1, "bent"),
    ]
    assert [mask.name for mask in found.test[0].samples["top/dark"].masks] == ["8_dark.png"]
    table.write_text("part,view,path\n7,top,7_dark.png\n7,side,7_bright.png\n")
    assert open_part_set(table).train[0].images == {"side": tmp_path / "7_bright.png", "top": tmp_path / "7_dark.png"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("7,top,a.png\n7,top,b.png", "two images of the view top, a.png and b.png"),
        ("7,top,a.png\n8,top,a.png", "a.png is in the parts 7 and 8"),
        ("7,top,no.png", "names the image 'no.png', which does not exist"),
        (",top,a.png", "line 2 .* names no part"),
        ("7,,a.png", "line 2 .* names no view"),
        ("../../7,top,a.png", r"line 2 .* names '\.\./\.\./7', which is a path to another place"),
        ("/tmp/7,top,a.png", "line 2 .* names '/tmp/7', which is a path"),
        ("7,../top,a.png", r"line 2 .* names '\.\./top', which is a path"),
    ],
)
def test_faults_of_a_table(tmp_path: Path, rows: str, message: str):
    for name in ("a", "b"):
        image(tmp_path / f"{name}.png")
    table = tmp_path / "parts.csv"
    table.write_text(f"part,view,path\n{rows}\n")
    with pytest.raises(DataError, match=message):
        open_part_set(table)


def test_a_part_in_both_splits(tmp_path: Path):
    """An explicit split is refused; names may lie in a layout that sets single images aside."""
    image(tmp_path / "train" / "good" / "7_C1_x.png")
    image(tmp_path / "test" / "good" / "7_C2_x.png")
    image(tmp_path / "test" / "good" / "8_C1_x.png")
    image(tmp_path / "train" / "good" / "8_C2_x.png")
    found = open_part_set(tmp_path)
    assert (names(found.train), names(found.test)) == (["7"], ["8"])
    assert "images of 2 parts lie in both splits (7); a part belongs to the split of its first view" in found.problems
    table = tmp_path / "parts.csv"
    table.write_text("part,view,split,path\n7,C1,train,train/good/7_C1_x.png\n7,C2,test,test/good/7_C2_x.png\n")
    with pytest.raises(DataError, match="the part 7 is both a training and a test part"):
        open_part_set(table)


def test_incomplete_parts_and_strange_names_are_named(tmp_path: Path):
    for part in range(6):
        image(tmp_path / "train" / "good" / f"{part}_C1_x.png")
    image(tmp_path / "train" / "good" / "0_C2_x.png")
    image(tmp_path / "train" / "good" / "overview.png")
    found = open_part_set(tmp_path)
    assert "1 image names no part and view (train/good/overview.png); left out" in found.problems
    assert found.incomplete == (
        "the part 1 lacks the view C2",
        "the part 2 lacks the view C2",
        "the part 3 lacks the view C2",
        "2 more parts lack views",
    )
    assert set(found.incomplete) <= set(found.describe()["problems"])


def test_damage_is_named(tmp_path: Path):
    for part in range(3):
        for view in VIEWS:
            image(tmp_path / str(part) / f"{view}.png")
    (tmp_path / "1" / "top.png").write_bytes(b"")
    found = open_part_set(tmp_path)
    assert "1/top.png is empty (0 bytes); it is left out" in found.problems
    assert found.incomplete == ("the part 1 lacks the view top",)


@pytest.mark.parametrize("pattern", ["(", r"(?P<part>\d+)"])
def test_useless_patterns_are_refused(tmp_path: Path, pattern: str):
    with pytest.raises(DataError, match="--pattern '"):
        open_part_set(tmp_path, pattern=pattern)


def test_patterns_that_find_paths_are_refused(tmp_path: Path):
    image(tmp_path / "a" / "top.png")
    with pytest.raises(DataError, match=r"--pattern in a/top.png names '/top', which is a path to another place"):
        open_part_set(tmp_path, pattern=r"(?P<view>a)(?P<part>/\w+)")


def test_no_parts(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        open_part_set(tmp_path / "nowhere")
    image(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"names none\); use VIEW/train/good/ID.png"):
        open_part_set(tmp_path)


def test_a_pattern_in_data_sets_and_in_any_folders(tmp_path: Path):
    for view in VIEWS:
        for place in ("train/good/a_1", "test/bent/b_1"):
            image(tmp_path / "sets" / view / f"{place}.png")
        image(tmp_path / "sets" / view / "ground_truth" / "bent" / "b_1_mask.png")
        image(tmp_path / "any" / "monday" / view / "new" / "a_1.png")
        image(tmp_path / "any" / "tuesday" / view / "new" / "b_1.png")
    pattern = r"(?P<view>side|top)/.*/(?P<part>\w+)_(?P<light>\d)\.png"
    found = open_part_set(tmp_path / "sets", pattern=pattern)
    assert (names(found.train), names(found.test), found.images) == (["a"], ["b"], ("side/1", "top/1"))
    found = open_part_set(tmp_path / "any", pattern=pattern)
    assert (found.layout, names(found.train)) == ("names", ["a", "b"])


def test_good_parts_and_a_folder_per_defect(tmp_path: Path):
    for place in ("good/a", "good/b", "good/c", "bent/d"):
        for view in VIEWS:
            image(tmp_path / place / f"{view}.png")
    image(tmp_path / "ground_truth" / "bent" / "d" / "top_mask.png")
    found = open_part_set(tmp_path)
    assert (names(found.train), names(found.test)) == (["good/a", "good/b", "good/c"], ["bent/d"])
    assert (found.test[0].defect, found.test[0].samples["top"].masks) == (
        "bent",
        (tmp_path / "ground_truth" / "bent" / "d" / "top_mask.png",),
    )
    assert found.images == VIEWS
