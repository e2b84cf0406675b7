"""The choices and defaults of the settings, once for Python and the command line. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal

Aspect = Literal["keep", "square"]
Crops = Literal["full", "center", "fused"]
Tile = Literal["auto", "off"] | int
CalibrationMode = Literal["auto", "leave-one-out", "split", "cross", "none"]
ExportFormat = Literal["onnx", "openvino"]
OverlayStyle = Literal["outline", "heatmap", "side-by-side"]
LightingMode = Literal["auto", "channels", "views"]
Models = Literal["each", "shared"]
OverlayFormat = Literal["png", "jpeg"]
ResultFormat = Literal["text", "jsonl", "csv", "coco", "yolo"]


@dataclass(frozen=True)
class Defaults:
    """Default of each setting; `detector.settings.Settings` explains and validates them."""

    method: str = "cfa"
    backbone: str = "compact"
    short_side: int = 256
    aspect: Aspect = "keep"
    crops: Crops = "full"
    tile: Tile = "off"
    pixels_per_tile_pixel: float | None = None
    smallest_defect: float | None = None
    sigma: float = 4.0
    seed: int = 0
    false_alarm_rate: float | None = None
    calibration: CalibrationMode = "auto"
    background_weight: float = 0.5
    mask_false_alarm_rate: float = 0.1


DEFAULTS = Defaults()
