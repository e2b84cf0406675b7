"""Start-up time of each call in a fresh process, and disk space of an installation.

    python -m benchmarks.startup [--venv FOLDER ...] [--data DATA --weights FILE]

A detector is trained, saved and exported first; without DATA on the synthetic product with untrained features, which
does not change the time of a start. Every environment (this one, and each FOLDER with hyperspot installed) then starts
everything in turn, one process at a time. The first line, Python alone, shows the load of the machine. CPU seconds are
those of all threads, and depend less on other processes.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

TOOLS = ("pip", "pkg_resources", "setuptools", "wheel", "_distutils_hack")
"""Packages of a fresh virtual environment that hyperspot does not need."""
NEEDS = "import importlib.util, sys; sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))"


@dataclass(frozen=True)
class Start:
    """One call of Python: its arguments, the packages it needs, and its time limit in seconds."""

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    limit: float | None = None


@dataclass
class Environment:
    """A Python with hyperspot, and the seconds (wall, CPU) that each start took in it."""

    name: str
    python: Path
    variables: dict[str, str]
    taken: dict[Start, list[tuple[float, float]]] = field(default_factory=dict)

    def has(self, packages: tuple[str, ...]) -> bool:
        call = [str(self.python), "-c", NEEDS, *packages]
        return subprocess.run(call, env=self.variables, check=False).returncode == 0

    def start(self, what: Start) -> tuple[float, float]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        done = subprocess.run(
            [self.python, *what.arguments], env=self.variables, capture_output=True, text=True, check=False
        )
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(f"{what.name} failed in {self.name}: {done.stderr.strip()}")
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(folder: Path, data: Path | None, weights: str) -> tuple[Path, list[Path], Path]:
    """Return a model file, exported files, and an image."""
    from hyperspot import Detector, open_dataset
    from hyperspot.data.demo_product.product_set import make_product_set
    from hyperspot.export.exporting import export

    dataset = open_dataset(data or make_product_set(folder / "product", train=24, good=1, defective=3))
    sources = [sample.path for sample in dataset.train[:24]]
    detector = Detector.fit(sources, backbone="resnet18", weights=weights, false_alarm_rate=0.2)
    model = detector.save(folder / "part.safetensors")
    files = [export(detector, folder / name) for name in ("part.onnx", "part.xml")]
    return model, files, dataset.test[0].path


def starts(model: Path, exported: list[Path], image: Path) -> list[Start]:
    command = ("-m", "hyperspot")
    onnx, ir = exported
    return [
        Start("Python alone", ("-c", "pass")),
        Start("`import hyperspot`", ("-c", "import hyperspot"), limit=0.3),
        Start("`hyperspot --help`", (*command, "--help"), limit=0.3),
        Start("`from hyperspot import ExportedDetector`", ("-c", "from hyperspot import ExportedDetector"), limit=0.6),
        Start("`hyperspot info --engines`", (*command, "info", "--engines")),
        *(
            Start(
                f"`hyperspot predict {path.name}`, one image, {engine}",
                (*command, "predict", str(path), str(image), "--engine", engine),
                (engine,),
                1.0,
            )
            for path, engine in ((onnx, "openvino"), (ir, "openvino"), (onnx, "onnxruntime"))
        ),
        Start(
            "`hyperspot predict part.safetensors`, one image, torch",
            (*command, "predict", str(model), str(image)),
            ("torch",),
            2.0,
        ),
    ]


def disk(folder: Path) -> tuple[float, float]:
    """Return the disk space of a folder in MB (10^6 bytes): all files, and all but `TOOLS`."""
    everything, tools = 0, 0
    counted = set()
    for place, _, names in os.walk(folder):
        parts = Path(place).relative_to(folder).parts
        is_tool = any(part.partition("-")[0] in TOOLS for part in parts)
        for name in names:
            status = (Path(place) / name).lstat()
            if (status.st_dev, status.st_ino) not in counted:
                counted.add((status.st_dev, status.st_ino))
                everything += status.st_blocks * 512
                tools += status.st_blocks * 512 * is_tool
    return everything / 1e6, (everything - tools) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, action="append", default=[], help="a virtual environment; may be repeated")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--repetitions", type=int, default=9)
    given = parser.parse_args()
    environments = [Environment("this", Path(sys.executable), dict(os.environ))]
    # They use their own hyperspot, not a source tree.
    installed = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environments += [Environment(venv.name, venv.absolute() / "bin" / "python", installed) for venv in given.venv]
    with tempfile.TemporaryDirectory() as folder:
        wanted = starts(*prepare(Path(folder), given.data, given.weights))
        for environment in environments:
            environment.taken = {one: [] for one in wanted if environment.has(one.needs)}
        for repetition in range(given.repetitions + 1):
            for environment in environments:
                for one, taken in environment.taken.items():
                    seconds = environment.start(one)
                    if repetition:
                        taken.append(seconds)
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {given.repetitions} processes each")
    print()
    print("| environment | start | limit, s | minimum, s | median, s | CPU, minimum, s |")
    print("|---|---|---|---|---|---|")
    for environment in environments:
        for one, taken in environment.taken.items():
            wall, cpu = zip(*taken, strict=True)
            limit = "" if one.limit is None else f"{one.limit:g}"
            print(
                f"| {environment.name} | {one.name} | {limit} | {min(wall):.3f} | {statistics.median(wall):.3f} "
                f"| {min(cpu):.3f} |"
            )
    if given.venv:
        print()
        print("| environment | torch | on disk, MB | without pip and setuptools, MB |")
        print("|---|---|---|---|")
        for environment, venv in zip(environments[1:], given.venv, strict=True):
            everything, needed = disk(venv)
            torch = "yes" if environment.has(("torch",)) else "no"
            print(f"| {environment.name} | {torch} | {everything:.0f} | {needed:.0f} |")


if __name__ == "__main__":
    main()
