"""Arrays above a memory budget are kept in files."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperspot.utils import out_of_core as module
from hyperspot.utils.out_of_core import SpooledArray, pieces, zeros


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 50), st.sampled_from([0, 100, 10**6]))
def test_arrays_come_back_in_order_and_in_blocks(sizes: list[int], block: int, budget: int):
    random = np.random.default_rng(len(sizes))
    arrays = [random.random(size, dtype=np.float32) for size in sizes]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "BUDGET", budget)
        spooled = SpooledArray(np.float32)
        for number, array in enumerate(arrays):
            spooled.put(array)
            assert [values.tolist() for values in spooled] == [one.tolist() for one in arrays[: number + 1]]
    assert len(spooled) == len(arrays)
    assert spooled.total == sum(sizes)
    found = list(spooled.blocks(block))
    assert [len(one) for one in found] == [
        min(block, spooled.total - start) for start in range(0, spooled.total, block)
    ]
    assert np.concatenate([*found, np.zeros(0)]).tolist() == np.concatenate([*arrays, np.zeros(0)]).tolist()


def test_appended_arrays_may_be_changed_afterward():
    spooled, values = SpooledArray(np.float32), np.ones(3, dtype=np.float32)
    spooled.put(values)
    values[:] = 0
    next(spooled.blocks(3))[:] = 7
    assert next(iter(spooled)).tolist() == [1, 1, 1]


def test_large_arrays_are_zeros_in_a_file_that_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(module, "BUDGET", 100)
    array = zeros(1000, np.int64)
    assert type(array) is np.ndarray
    assert not array.any()
    array[:] = np.arange(1000)[::-1]
    array.sort()
    assert array.tolist() == list(range(1000))
    spooled = SpooledArray(np.int64)
    spooled.put(array)
    if os.name == "posix":
        assert list(tmp_path.iterdir()) == []
    assert next(iter(spooled)).tolist() == list(range(1000))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no space can be reserved here")
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "BUDGET", 100)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        zeros(1000, np.int64)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_file_systems_that_cannot_reserve_space_are_used(monkeypatch: pytest.MonkeyPatch, number: int):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "BUDGET", 100)
    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    assert zeros(1000, np.int64).sum() == 0
    monkeypatch.delattr(os, "posix_fallocate")
    assert zeros(1000, np.int64).sum() == 0, "as on Windows and macOS"


def test_pieces_cover_everything_once():
    assert [(one.start, one.stop) for one in pieces(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(pieces(0, 3)) == []
