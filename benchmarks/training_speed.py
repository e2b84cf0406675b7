"""From the command to the model file: wall time and peak memory of training, and of predicting one image.

    python -m benchmarks.training_speed DATA --weights FILE [--repetitions 3]

Each is a fresh process of the command line on all cores, in turn; times are medians, memory is the maximum.
RESULTS.md has the accuracy of the same settings.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPES = {
    "default": [],
    "released": ["--set", "variant=released", "--aspect", "square", "--crops", "center"],
}


def run(*arguments: str | Path) -> tuple[float, float]:
    """Return the seconds and the peak memory in MB (Linux) of one command of hyperspot."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "hyperspot", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"hyperspot {arguments[0]} ended with {process.returncode}")
    return time.perf_counter() - started, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    image = next(iter(sorted(given.data.glob("test/*/*"))))
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for repetition in range(given.repetitions):
            for name, options in RECIPES.items():
                model, exported = Path(folder) / f"{name}.safetensors", Path(folder) / f"{name}.onnx"
                common = ["--weights", given.weights, "--backbone", given.backbone]
                calls = {f"train, {name}": ["train", given.data, "-o", model, *common, *options]}
                calls[f"predict one image, {name}, torch"] = ["predict", model, image]
                if not repetition:
                    run(*calls[f"train, {name}"])
                    run("export", model, "-o", exported)
                calls[f"predict one image, {name}, exported"] = ["predict", exported, image]
                for what, arguments in calls.items():
                    taken.setdefault(what, []).append(run(*arguments))
    print("| command | seconds | peak memory, MB |\n|---|---|---|")
    for what, found in sorted(taken.items()):
        seconds, memory = zip(*found, strict=True)
        print(f"| {what} | {statistics.median(seconds):.2f} | {max(memory):.0f} |")


if __name__ == "__main__":
    main()
