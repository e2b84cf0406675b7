"""Peak memory of fitting with the largest backbone: WideResNet-50-2, 100 synthetic images, the 224 crop.

    taskset -c 0 python -m benchmarks.fitting_memory [--only patchcore]

Each fit is a process, from images on disk to the detector. Weights are untrained: the memory does not depend on them.
Prints one JSON line per fit, then a table; exit code 1 if one exceeds its limit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

LIMITS_GB = {"patchcore": 4.0, "padim": 8.0}
"""In GiB, whole processes with everything they import."""
IMAGES = 100

FIT = """
import json, resource, sys, time
from hyperspot import Detector

class Stages:
    def __init__(self):
        self.seconds = {}
    def track(self, items, stage, total=None):
        began = time.perf_counter()
        for item in items:
            yield item
        self.seconds[stage] = round(self.seconds.get(stage, 0) + time.perf_counter() - began, 1)
    def note(self, **values):
        pass

data, method = sys.argv[1:]
stages, began = Stages(), time.perf_counter()
detector = Detector.fit(
    data, method=method, backbone="wide_resnet50_2", weights="random:0", aspect="square", crops="center",
    calibration="none", progress=stages,
)
taken = time.perf_counter() - began
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({
    "method": method,
    "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**3, 2),
    "seconds": round(taken, 1),
    "stages": stages.seconds,
}))
"""
MAKE = """
import sys
from hyperspot.data.demo_product.product_set import make_product_set
make_product_set(sys.argv[1], train=int(sys.argv[2]), good=0, defective=0)
"""


def python(script: str, *arguments: object) -> str:
    """Return the output of a new process. This process imports next to nothing: a child starts with its peak memory."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=LIMITS_GB)
    parser.add_argument("--images", type=int, default=IMAGES)
    given = parser.parse_args()
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        python(MAKE, folder, given.images)
        for method in [given.only] if given.only else LIMITS_GB:
            line = json.loads(python(FIT, folder, method))
            measured.append({**line, "limit_gb": LIMITS_GB[method], "images": given.images})
            print(json.dumps(measured[-1]), flush=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"\n{given.images} images, {cores} of {os.cpu_count()} cores, load of the machine {os.getloadavg()[0]:.1f}\n")
    print("| method | peak, GiB | limit, GiB | seconds in all | of these |\n|---|---|---|---|---|")
    for line in measured:
        stages = ", ".join(f"{stage} {seconds}" for stage, seconds in line["stages"].items())
        print(f"| {line['method']} | {line['peak_gb']} | {line['limit_gb']} | {line['seconds']} | {stages} |")
    if over := [line["method"] for line in measured if line["peak_gb"] > line["limit_gb"]]:
        print(f"over the limit: {', '.join(over)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
