"""Code and commands of the documentation run, in the order of each page."""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from hyperspot import read_image

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"add-a-metric.md", "add-a-method.md", "add-a-backbone.md"}
"""Pages whose code other tests run."""
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "index.md",
    ROOT / "docs" / "promise.md",
    *sorted(page for page in (ROOT / "docs" / "how-to").glob("*.md") if page.name not in ELSEWHERE),
]
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
MAKE = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ALLOWED = re.compile(r"(hyperspot|ls|make|curl|python -m venv|(\.venv|line)/bin/(hyperspot|pip)) ?")


def blocks(page: Path, language: str) -> list[str]:
    """Return the code of one language, without the indentation of lists."""
    found = BLOCK.findall(page.read_text("utf-8"))
    return [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, kind, code in found if kind == language]


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines() if line and line[0] != "#"]


def camera(frame: np.ndarray) -> ModuleType:
    """Return what the pages use of OpenCV: a camera with three frames, and a writer, both BGR."""

    class VideoCapture:
        def __init__(self, number: int) -> None:
            self.left = 3

        def read(self):
            self.left -= 1
            return (True, frame.copy()) if self.left >= 0 else (False, None)

    module = ModuleType("cv2")
    module.VideoCapture = VideoCapture
    module.imwrite = lambda path, image: Image.fromarray(image[..., ::-1]).save(path)
    return module


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_of_a_page_runs(page: Path, documented: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from hyperspot.data import layouts

    monkeypatch.setitem(sys.modules, "cv2", camera(read_image(documented / "new.png")[..., ::-1]))
    monkeypatch.setattr(layouts, "LAYOUTS", dict(layouts.LAYOUTS))
    names: dict[str, object] = {"__name__": "page"}
    for number, code in enumerate(blocks(page, "python")):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)
    if page.name == "color-cameras-and-bgr.md":
        assert capsys.readouterr().out.strip() == "0"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_of_a_page_run(page: Path, documented: Path, run):
    """`hyperspot` runs; make targets and extras exist."""
    for table in blocks(page, "csv"):
        (documented / "parts.csv").write_text(table)
    for line in commands(page):
        assert ALLOWED.match(line), line
        if "hyperspot " not in line or "pip" in line:
            check_tools(line)
        elif "|" in line:
            path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
            done = subprocess.run(
                ["sh", "-c", line], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (line, done.stderr)
        else:
            code, _, err = run(*shlex.split(line.partition("hyperspot ")[2]))
            assert code == 0, (line, err)


def check_tools(line: str) -> None:
    words = line.split("#")[0].split()
    if words[0] == "make":
        assert words[1] in MAKE, line
    for extras in re.findall(r'"\.\[([\w,]+)\]"', line):
        assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"]), line


def test_extras_are_those_of_the_package():
    table = (ROOT / "README.md").read_text("utf-8").partition("| extra |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    assert {"train", "export", "runtime", "onnxruntime", "int8", "all"} <= named
    assert named <= set(PROJECT["project"]["optional-dependencies"])


def test_the_readme_lists_every_command():
    from hyperspot.cli.app import app

    table = (ROOT / "README.md").read_text("utf-8").partition("| command |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `hyperspot (\w+)", table, re.MULTILINE))
    commands = {command.callback.__name__ for command in app.registered_commands}
    assert named == commands | {group.name for group in app.registered_groups}


def test_the_server_answers(documented: Path):
    (code,) = blocks(ROOT / "docs" / "how-to" / "serve-from-your-own-server.md", "python")
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(code, "server", "exec"), names)
    names["Handler"].log_message = lambda *arguments: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), names["Handler"])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        with urllib.request.urlopen(url, data=(documented / "new.png").read_bytes()) as answer:
            found = json.load(answer)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, data=b"no image")
        assert refused.value.code == 422
        assert "error" in json.load(refused.value)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    expected = names["detector"].predict(documented / "new.png").to_dict()
    assert found["score"] == pytest.approx(expected["score"], rel=1e-6)
    assert found["is_anomalous"] == expected["is_anomalous"]


def test_every_how_to_page_is_listed():
    """In the table of contents of the site, and in the overview."""
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    overview = (ROOT / "docs" / "how-to" / "index.md").read_text("utf-8")
    for page in (ROOT / "docs" / "how-to").glob("*.md"):
        assert f"how-to/{page.name}" in site
        assert page.name == "index.md" or f"({page.name})" in overview
