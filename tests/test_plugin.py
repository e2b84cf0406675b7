"""The example plugin: built as a wheel, installed, found by its entry points, checked, stored and loaded."""

import json
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

import hyperspot
from hyperspot import Detector
from hyperspot.backbones import BACKBONES, create
from hyperspot.backbones import names as backbone_names
from hyperspot.errors import ModelFileError, PluginWarning, SettingsError
from hyperspot.methods import METHODS, method_class, register_method
from hyperspot.testing import check_backbone, check_method

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the installed plugin, built from its own pyproject.toml."""
    copy, built, site = (tmp_path_factory.mktemp(name) for name in ("copy", "built", "site"))
    shutil.copytree(PLUGIN, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(command, cwd=copy, capture_output=True, check=True)
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    return site


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch):
    """Return a function that puts a folder on the path and forgets which plugins were loaded."""
    modules = set(sys.modules)

    def install(folder: Path) -> None:
        monkeypatch.syspath_prepend(folder)

    for registry in (METHODS, BACKBONES):
        for attribute in ("_parts", "_origins", "_broken"):
            monkeypatch.setattr(registry, attribute, dict(getattr(registry, attribute)))
        monkeypatch.setattr(registry, "_loaded", False)
    yield install
    for name in set(sys.modules) - modules:
        if name.startswith(("hyperspot_example", "broken_plugin")):
            del sys.modules[name]


@pytest.fixture
def installed(fresh, site: Path) -> None:
    fresh(site)


@pytest.mark.usefixtures("installed")
def test_it_is_listed_beside_the_built_in_ones() -> None:
    assert list(METHODS)[-1] == "diagonal"
    assert method_class("diagonal").__module__ == "hyperspot_example.method"
    assert backbone_names()[-1] == "dct"
    assert create("dct").weights_source == "none"
    assert METHODS.origin("diagonal") == BACKBONES.origin("dct") == "the package hyperspot-example 0.1.0"
    assert METHODS.origin("cfa") is None


@pytest.mark.usefixtures("installed")
def test_it_passes_the_checks() -> None:
    assert "model file" in check_method(method_class("diagonal"))
    assert "model file" in check_backbone("dct")


@pytest.mark.usefixtures("installed")
def test_a_detector_with_it_is_saved_and_loaded_and_names_it_if_it_is_missing(product: Path, tmp_path: Path) -> None:
    detector = Detector.fit(product, method="diagonal", backbone="dct", short_side=64, false_alarm_rate=0.2)
    image = next((product / "test").rglob("*.png"))
    path = detector.save(tmp_path / "model.safetensors")
    assert Detector.load(path).predict(image).score == detector.predict(image).score
    for part, registry, name in (("method", METHODS, "diagonal"), ("backbone", BACKBONES, "dct")):
        missing = registry.pop(name)
        with pytest.raises(ModelFileError) as raised:
            Detector.load(path)
        registry[name] = missing
        expected = f"needs the {part} '{name}' from the package hyperspot-example 0.1.0; install it first"
        assert str(raised.value) == f"{path} {expected}"


@pytest.mark.usefixtures("installed")
def test_the_command_line_knows_it(run, product: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    arguments = ("--method", "diagonal", "--backbone", "dct", "--set", "level=2", "--short-side", 64, "--json")
    code, out, _ = run("train", product, *arguments, "-o", model)
    assert code == 0, out
    code, out, err = run("predict", model, product / "test" / "good", "--json")
    assert code == 0, err
    assert all("score" in json.loads(line) for line in out.splitlines())
    code, _, err = run("train", product, *arguments, "--set", "level=5", "-o", model)
    assert code == 1
    assert "the backbone 'dct' has no level 5" in " ".join(err.split())


def test_without_it_built_in_names_work_and_unknown_ones_are_answered_with_those(fresh) -> None:
    with pytest.raises(SettingsError, match="there is no method 'diagonal'; choose one of cfa, "):
        method_class("diagonal")
    with pytest.raises(SettingsError, match=r"there is no backbone 'dct'; choose one of compact, .*timm/NAME"):
        create("dct")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('no gears')", "ImportError: no gears"),
        ("Broken = 3", "TypeError: 3 is not a subclass of Method"),
        (
            "from hyperspot.methods import CFA as Broken",
            "TypeError: CFA.name is 'cfa', and its entry point is 'broken'",
        ),
    ],
)
def test_a_broken_plugin_is_named_once_and_breaks_nothing_else(fresh, tmp_path: Path, code: str, reason: str) -> None:
    (tmp_path / "broken_plugin.py").write_text(code)
    metadata = tmp_path / "broken_plugin-2.5.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 2.5\n")
    (metadata / "entry_points.txt").write_text("[hyperspot.methods]\nbroken = broken_plugin:Broken\n")
    fresh(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert method_class("cfa") is METHODS["cfa"]
    with pytest.warns(PluginWarning, match=rf"the package broken-plugin 2\.5 cannot be loaded \(.*{re.escape(reason)}"):
        assert "cfa" in list(METHODS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "broken" not in list(METHODS)
        with pytest.raises(SettingsError, match=r"method 'broken' is not available: the package broken-plugin 2\.5"):
            method_class("broken")


def test_a_name_is_registered_once(fresh) -> None:
    with pytest.raises(SettingsError, match="the method name 'cfa' is taken"):

        @register_method
        class Mine(METHODS["padim"]):
            name = "cfa"

    @hyperspot.register_method
    class Other(METHODS["padim"]):
        name = "other"

    assert method_class("other") is register_method(Other)
    assert METHODS.origin("other") == f"the module {__name__}"
    for name in ("compact", "none", "timm/resnet18"):
        with pytest.raises(SettingsError, match=f"the backbone name '{name}' is taken"):
            hyperspot.register_backbone(name, lambda: create("compact"))


def test_importing_hyperspot_loads_no_plugin(site: Path) -> None:
    code = (
        "import sys, hyperspot, hyperspot.methods; hyperspot.methods.method_class('cfa');"
        "sys.exit('hyperspot_example' in sys.modules)"
    )
    paths = [str(ROOT / "src"), str(site)]
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {paths}; {code}"], check=True)


@pytest.mark.parametrize(("page", "file"), [("add-a-method", "method"), ("add-a-backbone", "backbone")])
def test_the_how_to_pages_show_the_code_of_the_example(page: str, file: str) -> None:
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    code = (PLUGIN / "src" / "hyperspot_example" / f"{file}.py").read_text(encoding="utf-8")
    assert f"```python\n{code}```" in text
