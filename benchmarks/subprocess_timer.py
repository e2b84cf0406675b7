"""An exported detector in its own process, without torch, timed there on request.

Spinning threads of torch would slow down OpenVINO in the same process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hyperspot.hardware.cpu import SWITCH

WORKER = """
import json, sys, time
sys.modules["torch"] = None
import numpy as np
from hyperspot.runtime import ExportedDetector
given = json.loads(sys.argv[1])
with np.load(given["arrays"]) as arrays:
    image, placed = arrays["image"], arrays["placed"]
exported = ExportedDetector.load(given["path"], engine=given["engine"], precision=given["precision"])
prepared = exported.preprocess(image)
maps, scores = exported.run(placed)
score = None if scores is None else float(scores[0])
np.save(given["map"], maps)
graph = getattr(exported.engine, "_compiled", None)
calls = {
    "map": lambda: exported.engine.run(placed),
    "verdict": lambda: exported.predict(image),
    "letterbox": lambda: exported.preprocess(image),
    "decision": lambda: exported.decision_rule.decide(prepared, maps[0], score),
    **(graph.parts({"frames": placed}) if graph is not None else {}),
}
print(json.dumps(list(calls)), flush=True)
for line in sys.stdin:
    call = calls[line.strip()]
    call()
    started = time.perf_counter()
    call()
    print(time.perf_counter() - started, flush=True)
"""


class Apart:
    """The process; `seconds(name)` times one call in it, `map` is its first heatmap."""

    def __init__(self, path: Path, engine: str, precision: str | None, image: np.ndarray, placed: np.ndarray) -> None:
        arrays, found = path.with_suffix(".arrays.npz"), path.with_suffix(".map.npy")
        np.savez(arrays, image=image, placed=placed)
        given: dict[str, Any] = {
            "path": str(path),
            "engine": engine,
            "precision": precision,
            "arrays": str(arrays),
            "map": str(found),
        }
        # The precision is given above; for the rest of a quantized backbone the CPU decides, as in use.
        environment = {name: value for name, value in os.environ.items() if name != SWITCH}
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "OMP_WAIT_POLICY": "PASSIVE"},
        )
        self.names: list[str] = json.loads(self._read())
        self.map: np.ndarray = np.load(found)[0]

    def seconds(self, what: str) -> float:
        """Time the second of two calls."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process with the exported detector ended")
        return line
