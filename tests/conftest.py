"""What all tests share: where the real photos and weights are, and a small made-up product."""

import os
import shutil
import sys
from pathlib import Path

import pytest

# The same numbers on every machine; what is tested in bf16 or on a GPU asks for it.
os.environ["HYPERSPOT_PRECISION"] = "f32"
os.environ["HYPERSPOT_DEVICE"] = "cpu"
# Threads that wait by spinning slow training down several times when another program keeps a core busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


DEVICES = Path(__file__).parent / "devices"


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores out among test processes side by side (`pytest --numprocesses`) and what these start."""
    processes = getattr(config.option, "numprocesses", None) or 1
    if processes > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the tests of devices to a process of their own (`pytest tests/devices`, as `make test` does).

    Their device is written in Python, and torch takes it only before the first gradient of a process.
    """
    asked = any(DEVICES.is_relative_to(path) or path.is_relative_to(DEVICES) for path in _named(config))
    return True if collection_path == DEVICES and not asked else None


def _named(config: pytest.Config) -> list[Path]:
    """Return what was named on the command line, but for the whole of the tests."""
    paths = [Path(str(argument).split("::")[0]).resolve() for argument in config.args]
    return [path for path in paths if path != DEVICES.parent and path != DEVICES.parents[1]]


def _shared(folder: str, variable: str) -> Path:
    named = os.environ.get(variable)
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / folder
    if not path.is_dir():
        pytest.skip(f"no real {folder} here: set {variable} to a folder that holds them")
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data sets, or skip where there is none."""
    return _shared("data", "HYPERSPOT_REAL_DATA")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Return the folder of real ImageNet weights, or skip where there is none."""
    return _shared("weights", "HYPERSPOT_REAL_WEIGHTS")


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small made-up data set in the MVTec layout."""
    from hyperspot.data.demo_product.product_set import make_product_set

    return make_product_set(tmp_path_factory.mktemp("data") / "product", train=24, good=8, defective=9, size=128)


@pytest.fixture(scope="session")
def detector(product: Path):
    """Return a detector of the product, small and quick."""
    from hyperspot import Detector

    return Detector.fit(
        product,
        short_side=128,
        false_alarm_rate=0.2,
    )


@pytest.fixture(scope="session")
def model_file(detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return that detector's model file."""
    return detector.save(tmp_path_factory.mktemp("model") / "product.safetensors")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return what runs the command line in this process and gives exit code, stdout and stderr."""
    from hyperspot.cli import app as cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hyperspot", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def chromium():
    """Return headless Chromium, driven by Playwright, or skip.

    Of a module, as an event loop runs in this thread meanwhile: its other tests cannot use `asyncio.run`.
    """
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """Return an empty page of 1280 x 1000 pixels, and expect that it reports no error."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(10_000)
    opened = context.new_page()
    errors = []
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []
