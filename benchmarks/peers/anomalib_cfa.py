"""Our CFA against anomalib's, which runs in its own environment and process: both timed in turn on the same machine.

    python -m benchmarks.peers.anomalib_cfa

The first run makes a virtual environment (about 2.5 GB) beside this file and installs the versions pinned in
`anomalib-requirements.txt`. Batch 1, 224 x 224 pixels, all cores, random weights: timing alone. Theirs is timed from
a tensor to heatmap and score, ours from 8-bit pixels. `released` computes what theirs computes (gamma 1, a bank of 56 x
56 vectors); `default` is what hyperspot's user gets. Its OpenVINO export is the file its own exporter writes. Each side
in turn makes one call that does not count and a few that do; medians over all turns are given.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperspot import Detector
from hyperspot.export.exporting import export
from hyperspot.runtime import open_engine
from hyperspot.runtime.engines import TorchEngine

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "anomalib-requirements.txt"
BACKBONES = ("resnet18", "wide_resnet50_2")
RECIPES: dict[str, dict[str, Any]] = {"released": {"variant": "released", "steps": 1}, "default": {}}
IMAGES = 32
"""Random training images: fewer would give the default a smaller memory than in use."""
SECONDS_BETWEEN = 0.25
"""Between two turns: threads that wait for work keep a core busy for a while."""

Turn = Callable[[int], list[float]]


class Peer:
    """The other process."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [python, HERE / "anomalib_side.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **asked: Any) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit(f"the peer ended with {process.wait()}; what it said stands above")
        return dict(json.loads(answer))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def installed(folder: Path) -> Path:
    """Return the interpreter of the peer's environment, made where there is none of these versions."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    mark = folder / "installed.txt"
    pinned = REQUIREMENTS.read_text(encoding="utf-8")
    if not mark.is_file() or mark.read_text(encoding="utf-8") != pinned:
        print(f"installing the peer in {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS], check=True)
        mark.write_text(pinned, encoding="utf-8")
    return python


def ours(backbone: str) -> dict[str, Turn]:
    """Return our contenders, in the number format that suits this CPU and, for the same work, in f32."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(IMAGES)]
    frames = images[0][None]
    turns: dict[str, Turn] = {}
    for recipe, changes in RECIPES.items():
        detector = Detector.fit(
            images, backbone=backbone, weights="random:0", crops="center", calibration="none", method_settings=changes
        )
        native = detector.anomaly_model.precision
        with tempfile.TemporaryDirectory() as folder:
            written = export(detector, Path(folder) / "part.xml")
            compiled = {one: open_engine(written, precision=one) for one in dict.fromkeys((native, "f32"))}
        for precision, engine in compiled.items():
            turns[f"hyperspot {recipe}, openvino {precision}"] = _turn(partial(engine.run, frames))
            turns[f"hyperspot {recipe}, torch {precision}"] = _turn(partial(_in_torch, detector, precision, frames))
    return turns


def _in_torch(detector: Detector, precision: Any, frames: np.ndarray) -> Any:
    detector.anomaly_model.precision = precision
    return TorchEngine(detector.anomaly_model).run(frames)


def _turn(call: Callable[[], Any]) -> Turn:
    def timed(calls: int) -> list[float]:
        taken = []
        for _ in range(calls + 1):
            started = time.perf_counter()
            call()
            taken.append((time.perf_counter() - started) * 1000)
        return taken[1:]

    return timed


def compare(peer: Peer, backbone: str, rounds: int, calls: int) -> None:
    built = peer.ask(do="build", backbone=backbone)
    turns: dict[str, Turn] = {
        f"anomalib, {engine}": lambda n, e=engine: list(peer.ask(do="time", engine=e, calls=n)["milliseconds"])
        for engine in ("torch", "openvino")
        if engine == "torch" or built["openvino_problem"] is None
    }
    turns |= ours(backbone)
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        turn(1)
    for _ in range(rounds):
        for name, turn in turns.items():
            time.sleep(SECONDS_BETWEEN)
            taken[name] += turn(calls)
    versions = ", ".join(f"{name} {version}" for name, version in built["versions"].items())
    medians = {name: statistics.median(values) for name, values in taken.items()}
    print(f"\n{backbone}; peer: {versions}, {built['threads']} threads; ours: {torch.get_num_threads()} threads\n")
    if built["openvino_problem"] is not None:
        print(f"The peer's export to OpenVINO fails: {built['openvino_problem']}\n")
    references = [name for name in taken if name.startswith("anomalib")]
    print("| | ms, median | 10 % | 90 % |", " | ".join(f"{name}: ratio" for name in references), "|")
    print("|---|---|---|---|" + "---|" * len(references))
    for name, values in taken.items():
        low, high = np.percentile(values, [10, 90])
        ratios = " | ".join(f"{medians[one] / medians[name]:.1f}" for one in references)
        print(f"| {name} | {medians[name]:.1f} | {low:.1f} | {high:.1f} | {ratios} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, action="append", help="both where not given")
    parser.add_argument("--venv", type=Path, default=HERE / ".venv", help="where the peer is installed")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--calls", type=int, default=4, help="timed calls in each turn")
    given = parser.parse_args()
    loads = f"load of the machine {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    peer = Peer(installed(given.venv))
    try:
        for backbone in given.backbone or BACKBONES:
            compare(peer, backbone, given.rounds, given.calls)
    finally:
        peer.close()
    if loads:
        print(f"\n{loads}, {os.getloadavg()[0]:.1f} after (this benchmark included), {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
