"""Options that several commands share. Imports no heavy library: help is made of it."""

from pathlib import Path
from typing import Annotated

import typer

from hyperspot.choices import Aspect, CalibrationMode, Crops, OverlayStyle

Data = Annotated[
    Path,
    typer.Argument(
        help="A folder of good images, a data set (MVTec AD, VisA, BTAD, MPDD, KolektorSDD/2) or a CSV manifest.",
        show_default=False,
    ),
]
GoodImages = Annotated[
    Path, typer.Argument(help="A folder of good images, or a data set with good training images.", show_default=False)
]
Model = Annotated[
    Path,
    typer.Argument(
        help="A model file made by `hyperspot train`, or an exported file (.onnx, .xml), which needs no torch.",
        show_default=False,
    ),
]
ModelFile = Annotated[Path, typer.Argument(help="A model file made by `hyperspot train`.", show_default=False)]
Layout = Annotated[str, typer.Option(help="Layout of the data; auto recognizes it.")]
Category = Annotated[str | None, typer.Option(help="Category of a data set with several.", show_default=False)]
Weights = Annotated[
    str | None,
    typer.Option(
        help="A safetensors file of backbone weights, or random:SEED; the package contains those of compact.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(metavar="auto|cpu|cuda|cuda:N", help="Device to compute on; auto takes a GPU if torch finds one."),
]
Engine = Annotated[
    str | None,
    typer.Option(help="Engine for an exported file: openvino or onnxruntime; default: the first installed.",
                 show_default=False),
]  # fmt: skip
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        metavar="f32|bf16|f16",
        help="Precision of the backbone (f16 on a GPU only); default: what suits the device.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line on stdout, nothing else.")]
OpenReport = Annotated[bool, typer.Option("--open", help="Open the report in the browser.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]

ModelOutput = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Model file to write (.safetensors); default: DATA's name, never replaced.",
                 show_default=False),
]  # fmt: skip
MethodName = Annotated[
    str, typer.Option(help="Method: cfa, patchcore, padim, spade, cflow, cutpaste, patch_svdd, vae.")
]
MethodSetting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the method; may be repeated, e.g. --set variant=released --set gamma_c=4.",
        show_default=False,
    ),
]
BackboneName = Annotated[
    str | None,
    typer.Option(help="Frozen feature extractor; default: compact if the method uses one.", show_default=False),
]
ShortSide = Annotated[int, typer.Option(help="Short side of the input size, in pixels; a multiple of 32.")]
AspectOption = Annotated[Aspect, typer.Option(help="Keep the aspect ratio of the images, or stretch to a square.")]
CropsOption = Annotated[Crops, typer.Option(help="Use the full input, its central 7/8, or both fused (CFA++).")]
TileOption = Annotated[
    str,
    typer.Option(
        "--tile",
        metavar="auto|off|SIZE",
        help="Cut each image into overlapping tiles of this side, in input pixels; auto: if the images are much larger "
        "than --short-side.",
    ),
]
PixelsPerTilePixel = Annotated[
    float | None,
    typer.Option(
        help="Scale of the tiles: image pixels per tile pixel, at least 1; default: from --smallest-defect, else 1 "
        "(auto: at most twice --short-side).",
        show_default=False,
    ),
]
SmallestDefect = Annotated[
    str | None,
    typer.Option(
        metavar="LENGTH",
        help="Width of the smallest defect of interest, for example 8px, or 0.5mm with a scale; it sets the scale of "
        "the tiles.",
        show_default=False,
    ),
]
Sigma = Annotated[float, typer.Option(help="Smoothing of the anomaly map: standard deviation in input pixels.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
FalseAlarmRate = Annotated[
    float | None,
    typer.Option(
        help="Promised share of good parts called anomalous; default: 0.01, or 3 / (n + 1) with n images, if higher.",
        show_default=False,
    ),
]
OtherFalseAlarmRate = Annotated[
    float | None,
    typer.Option(
        "--false-alarm-rate",
        help="Promised share of good parts called anomalous, at least 1 / (calibration images + 1); default: that of "
        "the model.",
        show_default=False,
    ),
]
Overlay = Annotated[
    OverlayStyle | None,
    typer.Option(
        help="Overlays in --out: outlines of the regions; heatmap with a color bar; side-by-side: the image, the "
        "heatmap and the mask; default: outline.",
        show_default=False,
    ),
]
CalibrationOption = Annotated[
    CalibrationMode,
    typer.Option(help="Leave each image out, hold images out (split), cross-fit (cross), or make no decisions (none)."),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="folder|REGEX|TABLE.csv:COLUMN",
        help="Calibrate by groups of images, such as lots or bursts: the folder of an image, a regular expression with "
        "one group found in its name, or a column of a CSV table.",
        show_default=False,
    ),
]
BackgroundWeight = Annotated[
    float, typer.Option(help="Share of the median of an anomaly map that its maximum, the image score, is reduced by.")
]
MaskFalseAlarmRate = Annotated[
    float, typer.Option(help="Share of images of good parts whose anomaly map exceeds the floor of masks.")
]

RegionOfInterest = Annotated[
    Path | None,
    typer.Option(
        "--roi",
        metavar="FILE.json|MASK.png",
        help="Region of interest, zones and rules made by `hyperspot roi`, or a mask image whose black pixels do not "
        "count.",
        show_default=False,
    ),
]
MmPerPixel = Annotated[
    float | None,
    typer.Option(help="Side of a pixel in mm: of the image that the region of interest was drawn on, or else of each "
                 "image.", show_default=False),
]  # fmt: skip
MinArea = Annotated[
    str | None, typer.Option(help="Smallest area of a region that counts, such as 40px or 0.3mm2.", show_default=False)
]
MinLength = Annotated[
    str | None,
    typer.Option(help="Smallest length, the longest caliper, such as 8px or 0.3mm.", show_default=False),
]
MinWidth = Annotated[
    str | None, typer.Option(help="Smallest width, the shortest caliper, such as 2px or 0.1mm.", show_default=False)
]
MaxCount = Annotated[
    int | None, typer.Option(help="Accepted number of regions that count; default: 0.", show_default=False, min=0)
]
MinDistance = Annotated[
    str | None,
    typer.Option(help="Smallest accepted distance between two regions that count, such as 1mm.", show_default=False),
]
