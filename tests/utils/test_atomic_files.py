"""Files that are written whole or not at all, on every system."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperspot.utils import atomic_files
from hyperspot.utils.atomic_files import check_writable, replacing

try:
    import fcntl
except ImportError:
    fcntl = None


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
def test_names_may_have_the_maximal_length(tmp_path, name):
    with replacing(tmp_path / name) as partial:
        partial.write_text("new")
    assert (tmp_path / name).read_text() == "new"


@pytest.mark.parametrize("name", ["folder", "missing/it", "/dev/null"])
def test_folders_and_devices_are_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):  # noqa: PT011
        check_writable(tmp_path / name)
    with pytest.raises(OSError), replacing(tmp_path / name):  # noqa: PT011
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder"]


@pytest.mark.skipif(fcntl is None, reason="the real Windows needs no emulation")
def test_a_file_is_flushed_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Windows refuses os.fsync on a handle opened for reading only."""
    flush, flushed = os.fsync, []

    def fsync(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flush(handle)
        flushed.append(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(tmp_path / "it") as partial:
        partial.write_text("new")
    assert (tmp_path / "it").read_text() == "new"
    assert len(flushed) == 1


def test_a_file_is_written_where_permissions_cannot_be_changed(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(Path, "chmod", refuse)
    with replacing(tmp_path / "it") as partial:
        partial.write_text("new")
    assert (tmp_path / "it").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
@pytest.mark.parametrize(("umask", "mode"), [("022", "644"), ("002", "664"), ("077", "600")])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    # In a process of its own, because the umask belongs to the process.
    script = (
        "import os, sys; from pathlib import Path; from hyperspot.utils.atomic_files import replacing\n"
        "os.umask(int(sys.argv[2], 8))\n"
        "with replacing(Path(sys.argv[1])) as partial: partial.write_text('new')"
    )
    path = tmp_path / "it"
    subprocess.run([sys.executable, "-c", script, path, umask], check=True, timeout=60)
    assert path.read_text() == "new"
    assert f"{path.stat().st_mode & 0o777:o}" == mode


def test_windows_retries_while_a_reader_holds_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "it"
    path.write_text("old")
    refusals, move = [PermissionError(13, "used by another process")] * 2, Path.replace

    def busy(self, target):
        if refusals:
            raise refusals.pop()
        return move(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(atomic_files.sys, "platform", "win32")
    with replacing(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert refusals == []

    monkeypatch.setattr(atomic_files.sys, "platform", "linux")
    refusals.append(PermissionError(13, "not permitted"))
    with pytest.raises(PermissionError), replacing(path) as partial:
        partial.write_text("newer")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
