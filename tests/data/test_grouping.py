"""Groups of images from a rule: folder, regular expression or table."""

from pathlib import Path

import pytest

from hyperspot.data.grouping import groups_of
from hyperspot.errors import DataError


def test_folders_are_named_relative_to_their_common_folder(tmp_path: Path):
    paths = [tmp_path / name for name in ("a/x/1.png", "a/y/1.png", "b/x/1.png")]
    assert groups_of(paths, "folder") == ["a/x", "a/y", "b/x"]
    assert groups_of(paths[:1] * 2, "folder") == [".", "."]
    # The folder that holds them all has a name of its own, which no folder within has.
    assert groups_of([tmp_path / "good" / "1.png", tmp_path / "good" / "good" / "1.png"], "folder") == [".", "good"]
    assert groups_of([], "folder") == []


@pytest.mark.parametrize("rule", [r"lot(\d+)_", r"pattern:lot(\d+)_"])
def test_the_group_of_a_pattern_names_the_lot(rule: str):
    assert groups_of([Path("lot7_1.png"), Path("lot12_1.png")], rule) == ["7", "12"]


def test_without_parentheses_the_whole_match_does():
    assert groups_of([Path("x/2024-05-01T10.png"), Path("2024-05-02T10.png")], r"\d{4}-\d\d-\d\d") == [
        "2024-05-01",
        "2024-05-02",
    ]


def test_a_column_names_the_lot_by_path_or_by_name(tmp_path: Path):
    table = tmp_path / "lots.csv"
    table.write_text("\ufeffimage,lot\na/1.png,7\nb/1.png,8\n2.png,9\n", encoding="utf-8")
    paths = [tmp_path / "a" / "1.png", tmp_path / "b" / "1.png", tmp_path / "elsewhere" / "2.png"]
    assert groups_of(paths, f"{table}:lot") == ["7", "8", "9"]


def test_a_row_with_a_folder_names_no_image_of_another_folder(tmp_path: Path):
    table = tmp_path / "lots.csv"
    table.write_text("image,lot\nlot1/001.png,A\n")
    assert groups_of([tmp_path / "lot1" / "001.png"], f"{table}:lot") == ["A"]
    with pytest.raises(DataError, match=r"has no 'lot' for .*lot2.001\.png; give each image one row"):
        groups_of([tmp_path / "lot2" / "001.png"], f"{table}:lot")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("lot(", "is no regular expression"),
        ("(l)(o)t", "has 2 groups; put parentheses"),
        ("pattern:", "has 0 groups; put parentheses"),
        (r"lot(\d+)", r"part\.png does not match --group-by 'lot\(\\d\+\)'; change the pattern"),
        (r"p(\d*)", "part.png does not match"),
        ("missing.csv:lot", r"missing\.csv cannot be read \(No such file or directory\)"),
        ("{root}/lots.csv:day", "lots.csv has no column 'day'; its columns are image, lot"),
        ("{root}/bare.csv:lot", "bare.csv has no column 'image'; its columns are lot"),
        ("{root}/lots.csv:lot", "lots.csv has no 'lot' for .*part.png; give each image one row"),
        ("{root}/twice.csv:lot", "twice.csv has several rows named part.png"),
        ("{root}/binary.csv:lot", "binary.csv cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, rule: str, message: str):
    (tmp_path / "lots.csv").write_text("image,lot\nother.png,7\n")
    (tmp_path / "bare.csv").write_text("lot\n7\n")
    (tmp_path / "twice.csv").write_text("image,lot\npart.png,7\npart.png,8\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=message):
        groups_of([tmp_path / "part.png"], rule.replace("{root}", str(tmp_path)))
