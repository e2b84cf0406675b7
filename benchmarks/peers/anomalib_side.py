"""The peer's half of `anomalib_cfa`: runs in the peer's own environment and knows nothing of hyperspot.

Takes one JSON object a line on stdin, and answers each with one on stdout.
"""

import functools
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

# OpenVINO would report its use to the vendor.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
# The index has no torchvision built for the CPU wheel of torch, so its compiled operators cannot be loaded. CFA needs
# none of them, but importing torchvision registers shapes for these two and fails where they are not declared.
operators = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import torchvision  # noqa: E402
from anomalib.models import Cfa  # noqa: E402

SIDE = 224
PACKAGES = ("anomalib", "torch", "torchvision", "openvino")


class Peer:
    """anomalib's CFA with one backbone, on weights and images that are random: for timing alone."""

    def __init__(self) -> None:
        self.runs: dict[str, Callable[[], Any]] = {}

    def build(self, backbone: str) -> dict[str, Any]:
        torch.manual_seed(0)
        # It asks for pretrained weights by name, which would be downloaded; the time does not depend on them.
        original = getattr(torchvision.models, backbone)
        setattr(torchvision.models, backbone, lambda weights: original(weights=None))  # noqa: ARG005
        try:
            model = Cfa(backbone=backbone, pre_processor=Cfa.configure_pre_processor((SIDE, SIDE)))
        finally:
            setattr(torchvision.models, backbone, original)
        batches: Any = [SimpleNamespace(image=torch.rand(2, 3, SIDE, SIDE))]
        model.model.initialize_centroid(batches)
        model.eval()
        image = torch.rand(1, 3, SIDE, SIDE)
        # Its network alone, without resizing and normalizing before it and thresholds after it: in its favor.
        self.runs = {"torch": functools.partial(self._forward, model.model, image)}
        problem = self._add_openvino(model, image)
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        return {"versions": versions, "threads": torch.get_num_threads(), "openvino_problem": problem}

    def time(self, engine: str, calls: int) -> dict[str, Any]:
        """Return the milliseconds of some calls after one that does not count."""
        taken = []
        for _ in range(calls + 1):
            started = time.perf_counter()
            self.runs[engine]()
            taken.append((time.perf_counter() - started) * 1000)
        return {"milliseconds": taken[1:]}

    def _add_openvino(self, model: Any, image: torch.Tensor) -> str | None:
        """Export by its own exporter; return what it says where that fails."""
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            try:
                written: Path = model.to_openvino(folder, input_size=(SIDE, SIDE))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what a user of the peer would meet
                return f"{type(error).__name__}: {error}".splitlines()[0]
            compiled = openvino.Core().compile_model(written, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        pixels = image.numpy()
        self.runs["openvino"] = lambda: compiled([pixels])
        return None

    @staticmethod
    @torch.inference_mode()
    def _forward(model: Any, image: torch.Tensor) -> Any:
        return model(image)


def main() -> None:
    # What libraries print goes to stderr; stdout is for answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    peer = Peer()
    actions = {"build": peer.build, "time": peer.time}
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(actions[asked.pop("do")](**asked)), file=answers, flush=True)


if __name__ == "__main__":
    main()
