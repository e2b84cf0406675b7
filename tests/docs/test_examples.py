"""The examples run as their README says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("api/*.py"))
LONGEST_SCRIPT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all examples run in: they render the same product."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture
def environment() -> dict[str, str]:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return {**os.environ, "PATH": path}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_run_without_a_warning(script: Path, folder: Path, environment: dict[str, str]):
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert len(script.read_text("utf-8").splitlines()) < LONGEST_SCRIPT


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_the_walkthrough_runs_every_command(folder: Path, environment: dict[str, str]):
    script = EXAMPLES / "cli" / "walkthrough.sh"
    done = subprocess.run(["sh", str(script)], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "hyperspot-examples" / "report.html").is_file()
    trained, exported = (
        [line.split("  score")[0] for line in done.stdout.splitlines() if "product/test/missing_bolt" in line][at]
        for at in (0, -1)
    )
    assert trained == exported
    used = {line.split()[1] for line in script.read_text("utf-8").splitlines() if line.startswith("hyperspot ")}
    assert used == {"info", "train", "predict", "evaluate", "recalibrate", "export"}


def test_the_notebook_runs(folder: Path, monkeypatch: pytest.MonkeyPatch):
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"notebook cell {number}", "exec"), names)
    assert names["exported"].predict(names["verdict"].path).is_anomalous is True
    assert all(not cell.get("outputs") for cell in notebook["cells"])


def test_the_readme_lists_every_example():
    text = (EXAMPLES / "README.md").read_text("utf-8")
    listed = {line.split("](")[1].split(")")[0] for line in text.splitlines() if line.startswith("| [")}
    there = {str(path.relative_to(EXAMPLES).as_posix()) for path in [*SCRIPTS, *EXAMPLES.glob("cli/*.sh")]}
    assert listed == there | {"notebook.ipynb", "plugin/"[:-1]}
