"""What a worker returns for an image: plain values that travel between processes and into the database."""

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from hyperspot.results.verdict import Verdict


@dataclass(frozen=True)
class Outcome:
    """A verdict without the image.

    Attributes:
        score, p_value, threshold, is_anomalous, milliseconds: As in `Verdict`.
        verdict: `Verdict.to_dict()` without the path.
        rendering: What drawing the verdict again takes beside the files, as JSON values.
        height, width: Of the image, in pixels.
        input_map: Anomaly map at the input size of the model, float32.
        mask: The mask in bits, row by row as `np.packbits` makes them; None if it is empty.
        checks: Brightness, focus and position.
    """

    score: float
    p_value: float | None
    threshold: float | None
    is_anomalous: bool | None
    milliseconds: float
    verdict: dict[str, Any]
    rendering: dict[str, Any]
    height: int
    width: int
    input_map: Float32[np.ndarray, "_H _W"]
    mask: UInt8[np.ndarray, "_h _bytes"] | None
    checks: dict[str, Any]

    def columns(self) -> dict[str, Any]:
        """Return all but the arrays, by the columns of the table `inspections`."""
        arrays = ("input_map", "mask")
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in arrays}


def outcome_of(verdict: Verdict, checks: dict[str, Any]) -> Outcome:
    """Return the outcome of a verdict."""
    values = verdict.to_dict()
    del values["image"]
    letterbox = verdict.letterbox
    height, width = verdict.mask.shape
    return Outcome(
        score=float(verdict.score),
        p_value=None if verdict.p_value is None else float(verdict.p_value),
        threshold=None if verdict.threshold is None else float(verdict.threshold),
        is_anomalous=None if verdict.is_anomalous is None else bool(verdict.is_anomalous),
        milliseconds=float(verdict.milliseconds),
        verdict=values,
        rendering={
            "heat_range": [float(value) for value in verdict.heat_range],
            "mask_floor": None if verdict.mask_floor is None else float(verdict.mask_floor),
            "letterbox": asdict(letterbox) | {"input_size": letterbox.input_size.to_dict()},
        },
        height=height,
        width=width,
        input_map=np.ascontiguousarray(verdict.input_map, dtype=np.float32),
        mask=np.packbits(verdict.mask, axis=1) if verdict.mask.any() else None,
        checks=checks,
    )
