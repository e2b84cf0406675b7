"""Takes the pictures of docs/station/pages.md: the real pages of the demo station in a real browser.

python tools/station_pictures.py
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs" / "station" / "images"
WIDE, PHONE = (1280, 860), (390, 844)
SHOTS = (
    ("live", "/live?product=flange", WIDE, "light"),
    ("live-dark", "/live?product=flange", WIDE, "dark"),
    ("live-phone", "/live?product=flange", PHONE, "dark"),
    ("inspections", "/inspections?product=flange", WIDE, "light"),
    ("inspection", "ANOMALOUS", WIDE, "light"),
    ("review", "/review?product=flange", WIDE, "light"),
    ("learn", "/learn?product=flange", WIDE, "light"),
    ("monitor", "/monitor?product=flange", WIDE, "light"),
    ("setup", "/setup/sources/new?kind=folder", WIDE, "light"),
    ("plan", "/setup/products/flange/plan/", WIDE, "dark"),
)
ENOUGH = 60
"""Inspections before the pictures are taken."""
COLORS = 128
"""Of the pictures; pages have few."""


def take(address: str, link: str, chromium: str) -> None:
    """Sign in, wait until the demo has inspected enough parts, and take all pictures."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context()
        page = context.new_page()
        page.goto(link)
        state: Any = context.storage_state()
        wait_for_inspections(context.request, address)
        for name, path, size, scheme in SHOTS:
            if path == "ANOMALOUS":
                page.goto(f"{address}/inspections?product=flange&decision=anomalous")
                path = str(page.locator("a.row").first.get_attribute("href"))
            shot = browser.new_context(
                storage_state=state,
                viewport={"width": size[0], "height": size[1]},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            view = shot.new_page()
            view.goto(f"{address}{path}")
            view.wait_for_timeout(1500)
            view.screenshot(path=FOLDER / f"{name}.png")
            shot.close()
            reduce(FOLDER / f"{name}.png")
        browser.close()


def wait_for_inspections(request: Any, address: str) -> None:
    """Wait until the demo has inspected enough parts."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        found = request.get(f"{address}/api/v1/inspections?product=flange&limit={ENOUGH}")
        if found.ok and len(found.json()["inspections"]) >= ENOUGH:
            return
        time.sleep(2)
    raise SystemExit("the demo inspected too few parts in ten minutes; see its log")


def reduce(path: Path) -> None:
    """Write a picture with few colors, which is a third of the size."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Run the demo station and take the pictures."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("there is no chromium; install it")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hyperspot", "serve", "--demo", "--data", folder, "--port", "0", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
            try:
                assert process.stdout is not None
                told = json.loads(process.stdout.readline())
                take(told["address"].rstrip("/"), told["sign_in_link"], chromium)
            finally:
                process.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
