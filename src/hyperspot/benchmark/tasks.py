"""A run with what it takes to make it here: where its photos and weights are."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperspot.backbones import NONE
from hyperspot.benchmark.protocol import Run
from hyperspot.detector.settings import make_settings


@dataclass(frozen=True)
class Task:
    """A run to be made on this machine.

    Attributes:
        run: What is to be done.
        data: The folder of the data set.
        chosen: The product, where the folder holds several.
        weights: As given by the person; none looks in the usual places.
        timed: Whether its times are wanted, so that it should have the machine for itself.
        device: Where it computes.

    """

    run: Run
    data: Path
    chosen: str | None
    weights: str | None
    timed: bool = False
    device: str = "cpu"

    def message(self, threads: int) -> dict[str, Any]:
        """Return what the worker is told."""
        return {
            **self.run.to_dict(),
            "oracle": self.run.oracle,
            "data": str(self.data),
            "chosen": self.chosen,
            "run_weights": self.run.weights,
            "weights": self.weights,
            "device": self.device,
            "threads": threads,
        }

    def command(self, table: int) -> str:
        """Return the command that makes this run, DATA and WEIGHTS standing for the paths of whoever runs it."""
        run = self.run
        words = ["hyperspot", "benchmark", "DATA", "--table", str(table), "--category", run.category]
        words += ["--method", run.settings.method]
        if run.settings.backbone != NONE:
            words += ["--backbone", run.settings.backbone]
        words += ["--seeds", str(run.settings.seed), "--budget", run.budget]
        for name, value in run.changes:
            words += ["--set", f"{name}={value}"]
        if self.weights is not None:
            words += ["--weights", self.weights if self.weights.startswith("random:") else "WEIGHTS"]
        if run.oracle:
            words.append("--oracle")
        if self.device != "cpu":
            words += ["--device", self.device]
        return shlex.join(words)


def run_of(message: Mapping[str, Any]) -> Run:
    """Return the run that a message tells of."""
    return Run(
        recipe=message["recipe"],
        category=message["category"],
        settings=make_settings(message["settings"]),
        fingerprint=message["fingerprint"],
        weights=message["run_weights"],
        changes=tuple(sorted(message["changes"].items())),
        version=message["version"],
        train_images=message["train_images"],
        budget=message["budget"],
        reduced=tuple((name, old, new) for name, old, new in message["reduced"]),
        measure=message["measure"],
        oracle=message["oracle"],
    )
