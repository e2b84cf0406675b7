"""What each student costs beside the teacher: one thread, batch 1, turn by turn in one process."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from hyperspot.backbones import Backbone, create
from hyperspot.backbones.weights import randomise
from tools.distill.students import STUDENTS, plain

TURNS = 60


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
    networks |= {name: randomise(plain(name), "random:0") for name in STUDENTS}
    images = torch.randn(1, 3, size, size)
    engines = {"torch f32": _torch, "openvino f32": _openvino("f32"), "openvino bf16": _openvino("bf16")}
    print("| network | multiplications, M | " + " | ".join(f"{name}, ms (ratio)" for name in engines) + " |")
    print("|---|---|" + "---|" * len(engines))
    taken: dict[tuple[str, str], list[float]] = {}
    for engine, prepare in engines.items():
        runs = {name: prepare(network, images) for name, network in networks.items()}
        for turn in range(TURNS + 5):
            for name, run in runs.items():
                started = time.perf_counter()
                run()
                if turn >= 5:
                    taken.setdefault((name, engine), []).append(time.perf_counter() - started)
    for name, network in networks.items():
        cells = [name, f"{multiplications(network, images) / 1e6:.0f}"]
        for engine in engines:
            mine, theirs = taken[name, engine], taken["resnet18", engine]
            ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
            cells.append(f"{statistics.median(mine) * 1e3:.2f} ({ratio:.2f})")
        print("| " + " | ".join(cells) + " |")


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
