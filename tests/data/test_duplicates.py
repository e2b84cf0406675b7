"""Byte-identical images are named: across labels and splits first, and never too many."""

import os
from pathlib import Path

import numpy as np
import pytest

from hyperspot.data import Sample, open_dataset
from hyperspot.data import duplicates as module
from hyperspot.data.duplicates import find_duplicates

SIZE = 40_000


def write(path: Path, seed: int, changed: int | None = None) -> None:
    """Write bytes of one size that differ by seed, or in one place alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = bytearray(np.random.default_rng(seed).integers(0, 256, SIZE, dtype=np.uint8).tobytes())
    if changed is not None:
        content[changed] ^= 1
    path.write_bytes(content)


def product(root: Path) -> Path:
    for number, name in enumerate(("train/good/0", "train/good/1", "test/good/0", "test/good/1", "test/dent/0")):
        write(root / f"{name}.png", number)
    return root


def test_a_set_without_duplicates_has_no_problem(tmp_path: Path) -> None:
    root = product(tmp_path)
    # Equal but for one byte at the start, in the middle or at the end.
    for number, place in enumerate((0, SIZE // 2, SIZE - 1)):
        write(root / "train" / "good" / f"near{number}.png", 0, place)
    assert open_dataset(root).problems == ()


def test_each_kind_of_duplicate_is_named_the_gravest_first(tmp_path: Path) -> None:
    root = product(tmp_path)
    write(root / "test" / "good" / "copy.png", 3)
    write(root / "train" / "good" / "copy.png", 1)
    write(root / "test" / "good" / "2.png", 0)
    write(root / "test" / "dent" / "1.png", 2)
    write(root / "empty.gif", 9)
    assert open_dataset(root).problems[:4] == (
        "test/good/0.png and test/dent/1.png hold the same bytes; they are labeled good and not good, keep the right "
        "one",
        "train/good/0.png and test/good/2.png hold the same bytes; they are training and test images at once, figures "
        "from them are worthless; keep one",
        "train/good/1.png and train/good/copy.png hold the same bytes; the promised false-alarm rate does not hold; "
        "keep one",
        "test/good/1.png and test/good/copy.png hold the same bytes; the test counts them more than once; keep one",
    )


def test_masks_are_not_images(tmp_path: Path) -> None:
    root = product(tmp_path)
    write(root / "ground_truth" / "dent" / "0_mask.png", 4)
    assert not [problem for problem in open_dataset(root).problems if "same bytes" in problem]


def test_many_duplicates_are_bounded(tmp_path: Path) -> None:
    for group in range(9):
        for copy in range(6):
            write(tmp_path / f"{group}-{copy}.png", group)
    *named, rest = open_dataset(tmp_path).problems
    assert len(named) == 5
    assert named[0].startswith("0-0.png, 0-1.png, 0-2.png and 3 more hold the same bytes; ")
    assert rest == "4 more groups of images hold the same bytes; remove the copies"


def test_a_test_image_is_among_the_named_of_a_large_group(tmp_path: Path) -> None:
    root = product(tmp_path)
    for number in range(5):
        write(root / "train" / "good" / f"copy{number}.png", 0)
    write(root / "test" / "good" / "9.png", 0)
    first = open_dataset(root).problems[0]
    assert first.startswith("train/good/0.png, test/good/9.png, train/good/copy0.png and 4 more hold the same bytes")
    assert "training and test images at once" in first


def test_hard_links_are_duplicates_and_symbolic_ones_are_one_file(tmp_path: Path) -> None:
    root = product(tmp_path)
    os.link(root / "train" / "good" / "0.png", root / "train" / "good" / "hard.png")
    (root / "train" / "good" / "soft.png").symlink_to("1.png")
    assert [problem.partition(";")[0] for problem in open_dataset(root).problems] == [
        "train/good/0.png and train/good/hard.png hold the same bytes",
        "train/good/soft.png is the same file as train/good/1.png",
    ]


def test_only_files_of_equal_size_and_middle_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: list[str] = []
    checksum = module._checksum
    monkeypatch.setattr(module, "_checksum", lambda path: (whole.append(path.name), checksum(path))[1])
    root = product(tmp_path)
    assert open_dataset(root).problems == ()
    assert whole == []
    write(root / "train" / "good" / "copy.png", 1)
    write(root / "train" / "good" / "near.png", 1, 0)
    assert len(open_dataset(root).problems) == 1
    assert sorted(whole) == ["1.png", "copy.png", "near.png"]


def test_missing_files_are_ignored(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 0)
    write(tmp_path / "b.png", 0)
    samples = [Sample(tmp_path / name, 0, "train", "good") for name in ("a.png", "gone.png", "b.png")]
    assert find_duplicates(samples) == [[samples[0], samples[2]]]
