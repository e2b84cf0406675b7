"""Missing packages are one error, whose command installs them from a checkout and from a wheel."""

import importlib.metadata
import json
import shlex
import sys
from pathlib import Path

import pytest

from hyperspot.errors import MissingPackageError
from hyperspot.utils.optional_packages import install_command, require


@pytest.fixture
def installed_from(monkeypatch: pytest.MonkeyPatch):
    """Return what makes the installed package record an origin (PEP 610)."""

    def record(origin: dict[str, object] | None) -> None:
        class Distribution:
            def read_text(self, name: str) -> str | None:
                assert name == "direct_url.json"
                return None if origin is None else json.dumps(origin)

        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution())

    return record


def test_a_checkout_is_named_with_its_constraints(tmp_path: Path, installed_from) -> None:
    checkout = tmp_path / "my checkout"
    checkout.mkdir()
    (checkout / "constraints.txt").touch()
    installed_from({"url": checkout.as_uri(), "dir_info": {"editable": True}})
    assert install_command("train") == f'`pip install -c constraints.txt -e ".[train]"` in {checkout}'
    installed_from({"url": checkout.as_uri(), "dir_info": {}})
    assert install_command("int8") == f'`pip install -c constraints.txt ".[int8]"` in {checkout}'
    assert shlex.split(install_command("int8").split("`")[1])[-1] == ".[int8]"


def test_wheels_and_lost_checkouts_install_from_an_index(tmp_path: Path, installed_from, monkeypatch) -> None:
    command = '`pip install "hyperspot[train]"`'
    wheel = (tmp_path / "hyperspot-1.0-py3-none-any.whl").as_uri()
    for origin in (None, {"url": wheel, "archive_info": {}}, {"url": (tmp_path / "gone").as_uri(), "dir_info": {}}):
        installed_from(origin)
        assert install_command("train") == command

    def nothing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    assert install_command("train") == command


def test_require_imports_or_raises_the_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert require("xml.dom", "train", "training").__name__ == "xml.dom"
    monkeypatch.setitem(sys.modules, "onnx", None)
    for module in ("onnx", "nothing_of_this_name.at_all"):
        with pytest.raises(MissingPackageError, match=r"exporting needs (onnx|nothing_of_this_name), which is not"):
            require(module, "export", "exporting")
    (tmp_path / "half_installed.py").write_text("import nothing_of_this_name")
    (tmp_path / "broken_library.py").write_text("raise ImportError('libx.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module, reason in (("half_installed", "No module named"), ("broken_library", "libx.so")):
        with pytest.raises(ImportError, match=rf"{module}, which is installed but .* \({reason}.*reinstall it"):
            require(module, "export", "exporting")
