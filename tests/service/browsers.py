"""Real browsers in front of real stations, for tests."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from hyperspot import make_product_set

SECONDS = 60_000
"""Milliseconds that anything may take at most, on a busy machine."""
SIZE = 64


@contextlib.contextmanager
def served(folder, *options):
    """Run a station as people start it; yield its address and its one-time link."""
    command = [sys.executable, "-m", "hyperspot", "serve", "--data", folder, "--port", "0", "--threads", "1", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        (folder.parent / f"{folder.name}.log").open("wb") as log,
        subprocess.Popen(
            [*map(str, command), *options], stdout=subprocess.PIPE, stderr=log, env=environment
        ) as process,
    ):
        try:
            line = process.stdout.readline()
            assert line, (folder.parent / f"{folder.name}.log").read_text()[-2000:]
            told = json.loads(line)
            yield told["address"].rstrip("/"), told["sign_in_link"]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode == 0


@pytest.fixture(scope="session")
def demo_images(tmp_path_factory):
    """Images of the demo product: for training, good and defective."""
    root = make_product_set(tmp_path_factory.mktemp("demo"), train=24, good=8, defective=6, size=SIZE)
    return {
        "train": sorted((root / "train" / "good").glob("*.png")),
        "good": sorted((root / "test" / "good").glob("*.png")),
        "defective": sorted(path for path in (root / "test").glob("*/*.png") if path.parent.name != "good"),
    }


def opened(browser, **options):
    """Return a new page; a dialog or an error of a script in it fails the test by `page.problems`."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    context.set_default_timeout(SECONDS)
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(f"script: {error}"))
    page.on("dialog", lambda dialog: (page.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "console",
        lambda message: (
            page.problems.append(f"console: {message.text}")
            if message.type == "error" and "Failed to load resource" not in message.text
            else None
        ),
    )
    return page
