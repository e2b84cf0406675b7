"""`hyperspot export`."""

from pathlib import Path
from typing import Annotated

import typer

from hyperspot.choices import ExportFormat
from hyperspot.cli import console, options
from hyperspot.cli.progress import Bars


def export(
    model: options.ModelFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .onnx, or .xml for OpenVINO.", show_default=False)
    ],
    format: Annotated[  # noqa: A002
        ExportFormat | None,
        typer.Option("--format", help="Default: inferred from the file extension.", show_default=False),
    ] = None,
    int8: Annotated[
        Path | None,
        typer.Option(
            metavar="GOOD_IMAGES",
            help="Quantize the backbone to 8-bit integers with the model's training data (OpenVINO only).",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Export a model to one ONNX file or OpenVINO IR that predicts without torch."""
    from hyperspot.cli.models import require_trained
    from hyperspot.detector.detector import Detector
    from hyperspot.export.exporting import export as write
    from hyperspot.export.exporting import summary

    detector = Detector.load(require_trained(model), device="cpu")
    written = write(detector, output, format, int8=int8, progress=Bars())
    if json:
        console.print_json(summary(written))
    else:
        console.table("Exported", summary(written))
