"""The words of the command line: choices with a fixed set of values, and what several commands take alike.

Like the rest of the command line this imports no heavy library: help is made of it.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Aspect(StrEnum):
    """How photos are placed in the common frame."""

    KEEP = "keep"
    SQUARE = "square"


class Crops(StrEnum):
    """What of the frame is looked at."""

    FULL = "full"
    CENTER = "center"
    FUSED = "fused"


class ExportFormat(StrEnum):
    """What a detector is exported as."""

    ONNX = "onnx"
    OPENVINO = "openvino"


class Numbers(StrEnum):
    """What the backbone computes in."""

    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"


class CalibrationMode(StrEnum):
    """Where the good photos that set the threshold come from."""

    AUTO = "auto"
    SPLIT = "split"
    CROSS = "cross"
    NONE = "none"


Data = Annotated[
    Path,
    typer.Argument(
        help="A folder of good photos, a data set (MVTec AD, VisA, BTAD, MPDD, KolektorSDD/2) or a CSV manifest.",
        show_default=False,
    ),
]
ModelFile = Annotated[Path, typer.Argument(help="A model file made by `hyperspot train`.", show_default=False)]
Layout = Annotated[str, typer.Option(help="The layout of the data; recognized where not given.")]
Category = Annotated[str | None, typer.Option(help="Which category of a data set with several.", show_default=False)]
Weights = Annotated[
    str | None,
    typer.Option(
        help="A safetensors file of backbone weights, or random:SEED; compact has its own in the package.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|cuda:N",
        help="Where to compute: the CPU or a GPU by CUDA; auto takes a GPU where torch finds one.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line on stdout, nothing else.")]
OpenReport = Annotated[bool, typer.Option("--open", help="Open the report in the browser.")]

ModelOutput = Annotated[Path, typer.Option("--output", "-o", help="Where the model file goes.")]
MethodName = Annotated[str, typer.Option(help="The method that learns.")]
MethodSetting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the method, as often as wanted, e.g. --set variant=released --set gamma_c=4.",
        show_default=False,
    ),
]
BackboneName = Annotated[
    str | None,
    typer.Option(help="The frozen feature extractor; compact where the method uses one.", show_default=False),
]
ShortSide = Annotated[int, typer.Option(help="Pixels of the short side of the common frame.")]
AspectChoice = Annotated[Aspect, typer.Option(help="Keep the photos' aspect ratio, or stretch to a square.")]
CropsChoice = Annotated[Crops, typer.Option(help="Look at the whole frame, its central 7/8, or both (CFA++).")]
Sigma = Annotated[float, typer.Option(help="Smoothing of the heatmap in frame pixels.")]
Seed = Annotated[int, typer.Option(help="Decides every random choice.")]
FalseAlarmRate = Annotated[
    float | None,
    typer.Option(
        help="The promised share of good parts called anomalous; without it 0.01, or what the photos support.",
        show_default=False,
    ),
]
Calibration = Annotated[
    CalibrationMode, typer.Option(help="Hold good photos out (split), cross-fit, or give no verdict.")
]
PixelFalseAlarmRate = Annotated[
    float, typer.Option(help="The share of pixels of good parts above the threshold of the mask.")
]
