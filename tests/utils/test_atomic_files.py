"""Files that are written whole or not at all."""

import pytest

from hyperspot.utils.atomic_files import check_writable, replacing


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "it"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_what_failed(tmp_path):
    path = tmp_path / "it"
    path.write_text("old")

    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:  # noqa: PT012
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x" * 255, "図" * 85, "😀" * 63])
def test_names_may_be_as_long_as_there_can_be(tmp_path, name):
    with replacing(tmp_path / name) as partial:
        partial.write_text("new")
    assert (tmp_path / name).read_text() == "new"


@pytest.mark.parametrize("name", ["folder", "missing/it", "/dev/null"])
def test_what_cannot_be_replaced_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):  # noqa: PT011
        check_writable(tmp_path / name)
    with pytest.raises(OSError), replacing(tmp_path / name):  # noqa: PT011
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder"]
