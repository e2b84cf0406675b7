"""Time and peak memory of `Verdict.save` against the verdict itself, for images of 1 to 50 megapixels.

    python -m benchmarks.result_writing [--megapixels 1 5 20 50] [--repeats 5]

The images are noise like that of a camera, in JPEG files, with a defect. Each size and style has its own process:
its peak memory is that of all it did. Seconds are of the clock, and of all cores together. Prints one JSON line per
process, then a table for docs/speed.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STYLES = ("none", "outline png", "heatmap png", "side-by-side png", "outline jpeg", "heatmap jpeg")
"""Style and format of the overlay; `none` writes no file."""

MAKE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from hyperspot import Detector
folder = Path(sys.argv[1])
random = np.random.default_rng(0)

def scene(height, width):
    coarse = Image.fromarray(random.integers(90, 160, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).copy()
    pixels += random.integers(0, 8, (height, width, 1), dtype=np.uint8)
    return pixels

good = [scene(384, 512) for _ in range(12)]
Detector.fit(good, false_alarm_rate=0.2).save(folder / "model.safetensors")
for megapixels in sys.argv[2:]:
    height = round((float(megapixels) * 1e6 * 3 / 4) ** 0.5)
    pixels = scene(height, height * 4 // 3)
    pixels[height // 3 : height // 2, height // 3 : height // 2] = 20
    Image.fromarray(pixels).save(folder / f"{megapixels}.jpg", quality=95)
"""
MEASURE = """
import json, resource, statistics, sys, tempfile, time
from pathlib import Path
from hyperspot import Detector
folder, megapixels, style, repeats = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
detector = Detector.load(folder / "model.safetensors")
detector.predict(folder / f"{megapixels}.jpg")
verdict_seconds, save_seconds, size = [], [], {}

def timed(kept, work):
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    kept.append((time.perf_counter() - wall, time.process_time() - cpu))
    return result

for _ in range(repeats):
    verdict = timed(verdict_seconds, lambda: detector.predict(folder / f"{megapixels}.jpg"))
    if style != "none":
        with tempfile.TemporaryDirectory() as out:
            overlay, overlay_format = style.split()
            files = timed(save_seconds, lambda: verdict.save(out, overlay=overlay, overlay_format=overlay_format))
            size = {name: round(path.stat().st_size / 1e6, 1) for name, path in files.items()}
median = lambda taken: [round(statistics.median(one), 3) for one in zip(*taken)]
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({
    "megapixels": float(megapixels),
    "overlay": style,
    "regions": len(verdict.regions),
    "verdict_seconds": median(verdict_seconds),
    "save_seconds": median(save_seconds),
    "file_megabytes": size,
    "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6),
}))
"""


def python(script: str, *arguments: object) -> str:
    """Return the output of a new process. This process imports next to nothing: a child starts with its peak memory."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", nargs="+", type=float, default=[1, 5, 20, 50])
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    sizes = [f"{size:g}" for size in chosen.megapixels]
    runs: dict[tuple[str, str], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        python(MAKE, folder, *sizes)
        for size in sizes:
            for style in STYLES:
                line = python(MEASURE, Path(folder), size, style, chosen.repeats)
                runs[size, style] = json.loads(line)
                print(line, end="", flush=True)
    print("\n| megapixels | overlay | verdict: s, CPU s | writing: s, CPU s | ratio of CPU s | peak MB without, with |")
    print("|---|---|---|---|---|---|")
    for size in sizes:
        wall, cpu = (statistics.median(runs[size, style]["verdict_seconds"][at] for style in STYLES) for at in (0, 1))
        for style in STYLES[1:]:
            run, without = runs[size, style], runs[size, "none"]
            took, worked = run["save_seconds"]
            print(
                f"| {size} | {style} | {wall:.2f}, {cpu:.2f} | {took:.2f}, {worked:.2f} | {worked / cpu:.1f} "
                f"| {without['peak_megabytes']}, {run['peak_megabytes']} |"
            )


if __name__ == "__main__":
    main()
