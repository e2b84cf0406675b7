"""Builds sdist and wheel, and uses the wheel in a fresh environment without torch.

    python -m tools.check_package

It runs in the development environment, which trains and exports the model that the fresh one predicts with.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

from hyperspot.data.demo_product.product_set import make_product_set

ROOT = Path(__file__).parents[1]
IN_WHEEL = (
    "hyperspot/py.typed",
    "hyperspot/backbones/compact.safetensors",
    "hyperspot/report/report.html.j2",
    "hyperspot/report/report.css",
    "hyperspot/report/trade_off.js",
    "hyperspot/report/training.html.j2",
    "hyperspot/hardware/native/_kernels.",
    "hyperspot/hardware/native/_resize.",
)
IN_SDIST = (
    "hatch_build.py",
    "src/hyperspot/hardware/native/kernels.c",
    "src/hyperspot/hardware/native/cpu.h",
    "LICENSE",
)


def main() -> None:
    """Run all checks; an error ends the program."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
        (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
        with zipfile.ZipFile(wheel) as opened:
            _check(wheel.name, opened.namelist(), IN_WHEEL, unwanted=("tests/", "hyperspot/hardware/native/kernels.c"))
        with tarfile.open(sdist) as packed:
            inside = [path.partition("/")[2] for path in packed.getnames()]
        _check(sdist.name, inside, IN_SDIST, unwanted=("shared/", ".venv/", "dist/"))

        python = _fresh_environment(folder / "fresh", wheel)
        print(_run(python, ROOT / "tools" / "smoke_test.py", cwd=folder).strip())
        _run(python, "-m", "hyperspot", "--help", cwd=folder)
        torch = subprocess.run([str(python), "-c", "import torch"], capture_output=True, check=False)
        if torch.returncode == 0:
            raise SystemExit("the extra `runtime` brought torch along")
        _predict(python, folder)
    print(f"{wheel.name} and {sdist.name} are complete; the wheel predicts without torch")


def _check(name: str, files: Iterable[str], wanted: Iterable[str], unwanted: tuple[str, ...]) -> None:
    held = list(files)
    missing = [start for start in wanted if not any(file.startswith(start) for file in held)]
    surplus = [file for file in held if file.startswith(unwanted)]
    if missing or surplus:
        raise SystemExit(f"{name} lacks {missing or 'nothing'} and has too much: {surplus[:5] or 'nothing'}")


def _fresh_environment(folder: Path, wheel: Path) -> Path:
    """Install the wheel with the extra `runtime` into a new environment and return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    constraints = ROOT / "constraints.txt"
    _run(
        python, "-m", "pip", "install", "--quiet", "--constraint", constraints, f"hyperspot[runtime] @ {wheel.as_uri()}"
    )
    return python


def _predict(python: Path, folder: Path) -> None:
    """Train and export here, predict one good and one defective image there."""
    product = make_product_set(folder / "product", train=24, good=1, defective=4, size=128)
    model, exported = folder / "part.safetensors", folder / "part.onnx"
    hyperspot = (sys.executable, "-m", "hyperspot")
    _run(*hyperspot, "train", product, "-o", model, "--method", "padim", "--short-side", "128")
    _run(*hyperspot, "export", model, "-o", exported)
    images = sorted(product.glob("test/*/*.png"))
    printed = _run(python, "-m", "hyperspot", "predict", exported, *images, "--json", cwd=folder)
    verdicts = [json.loads(line) for line in printed.splitlines()]
    scores = {Path(one["image"]).parent.name: one["score"] for one in verdicts}
    if len(verdicts) != len(images) or scores["good"] >= max(scores.values()):
        raise SystemExit(f"unexpected predictions: {printed}")


def _run(*command: object, cwd: Path | None = None) -> str:
    """Run a command and return its standard output; stderr goes through."""
    # The fresh environment must not import this checkout.
    environment = os.environ | {"PYTHONPATH": "", "PYTHONIOENCODING": "utf-8"} if cwd else os.environ
    done = subprocess.run(  # our own commands
        [str(part) for part in command], stdout=subprocess.PIPE, encoding="utf-8", cwd=cwd, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nexit code {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


if __name__ == "__main__":
    main()
