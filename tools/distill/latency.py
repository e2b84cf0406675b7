"""What each student costs beside the teacher: one thread, batch 1, turn by turn in one process."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hyperspot import Detector
from hyperspot.backbones import Backbone, create
from hyperspot.backbones.weights import randomize
from hyperspot.data import open_dataset
from hyperspot.hardware.cpu import Precision
from hyperspot.images import read_image
from tools.distill.students import STUDENTS, plain

TURNS, WARM_UP = 60, 5
CROPPED = {"aspect": "square", "crops": "center"}
DETECTORS: dict[str, dict[str, Any]] = {
    "cfa default": {},
    "cfa released": {**CROPPED, "method_settings": {"variant": "released", "steps": 1}},
    "patchcore": {**CROPPED, "method": "patchcore"},
}
"""What is timed from a decoded image to its verdict; how long it was trained does not change the time."""
FORMATS: tuple[Precision, ...] = ("f32", "bf16")
PHOTOS = 100


class Summed(nn.Module):
    """A pyramid and a little that uses it, so that no engine rearranges whole levels for the caller."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean of each channel."""
        return torch.cat([level.mean((2, 3)) for level in self.backbone.pyramid(images)], dim=1)


def main(teacher: Path, size: int) -> None:
    """Print a table of milliseconds, and of their ratios to the teacher's in the same turn."""
    torch.set_num_threads(1)
    networks = {"resnet18": create("resnet18", teacher)}
    networks |= {name: randomize(plain(name), "random:0") for name in STUDENTS}
    images = torch.randn(1, 3, size, size)
    engines = {"torch f32": _torch, "openvino f32": _openvino("f32"), "openvino bf16": _openvino("bf16")}
    print("| network | multiplications, M | " + " | ".join(f"{name}, ms (ratio)" for name in engines) + " |")
    print("|---|---|" + "---|" * len(engines))
    rows = {name: [name, f"{multiplications(network, images) / 1e6:.0f}"] for name, network in networks.items()}
    for prepare in engines.values():
        for name, cell in compared({name: prepare(network, images) for name, network in networks.items()}).items():
            rows[name].append(cell)
    for row in rows.values():
        print("| " + " | ".join(row) + " |")


def detectors(teacher: Path, product: Path) -> None:
    """Print a table of milliseconds of whole detectors in torch, with either backbone."""
    torch.set_num_threads(1)
    dataset = open_dataset(product)
    sources, photo = [one.path for one in dataset.train[:PHOTOS]], read_image(dataset.test[0].path)
    backbones = {"resnet18": teacher, "compact": None}
    print("| detector | number format | " + " | ".join(f"{name}, ms (ratio)" for name in backbones) + " |")
    print("|---|---|" + "---|" * len(backbones))
    with tempfile.TemporaryDirectory() as folder:
        for recipe, options in DETECTORS.items():
            files = {
                name: Detector.fit(sources, backbone=name, weights=weights, calibration="none", **options).save(
                    Path(folder) / f"{name}.safetensors"
                )
                for name, weights in backbones.items()
            }
            for precision in FORMATS:
                loaded = {name: Detector.load(path, precision=precision) for name, path in files.items()}
                cells = compared({name: lambda one=one: one.predict(photo) for name, one in loaded.items()})  # type: ignore[misc]
                print(f"| {recipe} | {precision} | " + " | ".join(cells.values()) + " |", flush=True)


def compared(runs: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """Return for each run its median milliseconds, and its ratio to the first one in the same turn."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(TURNS + WARM_UP):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn >= WARM_UP:
                taken[name].append(time.perf_counter() - started)
    first = next(iter(taken.values()))
    ratios = {name: statistics.median(a / b for a, b in zip(mine, first, strict=True)) for name, mine in taken.items()}
    return {name: f"{statistics.median(mine) * 1e3:.2f} ({ratios[name]:.2f})" for name, mine in taken.items()}


def multiplications(network: nn.Module, images: Tensor) -> int:
    """Return the multiplications of all convolutions."""
    total = 0

    def count(module: nn.Conv2d, _given: object, result: Tensor) -> None:
        nonlocal total
        total += result[0].numel() * module.weight[0].numel()

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, nn.Conv2d)]
    with torch.inference_mode():
        network(images)
    for hook in hooks:
        hook.remove()
    return total


def _torch(network: Backbone, images: Tensor) -> Callable[[], object]:
    model = Summed(network)
    placed = images.to(memory_format=torch.channels_last)

    def run() -> Tensor:
        with torch.inference_mode():
            result: Tensor = model(placed)
        return result

    return run


def _openvino(precision: str) -> Callable[[Backbone, Tensor], Callable[[], object]]:
    import openvino

    def prepare(network: Backbone, images: Tensor) -> Callable[[], object]:
        converted = openvino.convert_model(Summed(network), example_input=images, input=[*images.shape])
        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        request = openvino.Core().compile_model(converted, "CPU", options).create_infer_request()
        given = images.numpy()
        return lambda: request.infer([given])

    return prepare
