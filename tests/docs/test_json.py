"""docs/json.md lists the names that each command prints."""

import json
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
COMMANDS = {
    "train": ("train", "images/good", "-o", "json.safetensors", "--false-alarm-rate", "0.1", "--short-side", "96"),
    "predict": ("predict", "part.safetensors", "new.png", "--out", "results"),
    "recalibrate": ("recalibrate", "part.onnx", "images/today", "-o", "json.onnx"),
    "update": ("update", "part.safetensors", "images/today", "-o", "json.safetensors"),
    "export": ("export", "part.safetensors", "-o", "json.onnx"),
    "info": ("info", "data", "--check"),
    "engines": ("info", "--engines"),
    "part train": ("part", "train", "parts", "-o", "json.hyperspot", "--false-alarm-rate", "0.2", "--short-side", "96"),
    "part predict": ("part", "predict", "part.hyperspot", "parts", "--out", "results"),
    "part recalibrate": ("part", "recalibrate", "part.hyperspot", "parts", "-o", "json.hyperspot"),
    "part export": ("part", "export", "part.hyperspot", "-o", "json.hyperspot"),
    "part info": ("part", "info", "parts"),
}
TABLES = {
    "engines": ("info", 1),
    "part train": ("part", 0),
    "part predict": ("part", 1),
    "part recalibrate": ("part", 2),
    "part export": ("part", 3),
    "part info": ("part", 4),
}
"""Section and table of commands that share a section."""


def documented_names(section: str, table: int = 0) -> set[str]:
    """Return the names in a table of a section."""
    text = PAGE.read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = text.split("| name | type | meaning |")[1 + table].split("\n\n")[0]
    return first_column(rows)


def first_column(table: str) -> set[str]:
    """Return the code words of the first column of a table."""
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_name_is_documented(command: str, documented: Path, run):
    code, out, err = run(*COMMANDS[command], "--json")
    assert code == 0, err
    printed = {name for line in out.splitlines() for name in json.loads(line)}
    section, table = TABLES.get(command, (command, 0))
    assert printed == documented_names(section, table)


def test_the_manifest_of_a_part_is_documented(documented: Path, run):
    code, out, err = run("part", "info", "part.hyperspot", "--json")
    assert code == 0, err
    section = (PAGE.parent / "model-file.md").read_text("utf-8").partition("\n## The file of a part\n")[2]
    assert set(json.loads(out)) - {"model"} == first_column(section)


@pytest.mark.parametrize("model", ["part.safetensors", "part.onnx"])
def test_the_metadata_of_files_is_documented(model: str, documented: Path, run):
    code, out, err = run("info", model, "--json")
    assert code == 0, err
    text = (PAGE.parent / "model-file.md").read_text("utf-8")
    section = text.partition("\n## The exported file\n")[2 if model.endswith(".onnx") else 0]
    assert set(json.loads(out)) - {"model"} <= first_column(section)


def test_exit_codes(documented: Path, run):
    (documented / "broken.png").write_bytes(b"no image")
    assert run("predict", "part.safetensors", "new.png", "--fail-on-anomaly")[0] == 3
    assert run("predict", "part.safetensors", "new.png", "broken.png", "--fail-on-anomaly")[0] == 1
    assert run("predict", "part.safetensors", "broken.png", "--no-such-option")[0] == 2
    assert run("info", "missing")[0] == 1
