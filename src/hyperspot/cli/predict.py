"""`hyperspot predict`."""

import sys
from collections.abc import Sized
from pathlib import Path
from typing import Annotated

import typer

from hyperspot.choices import OverlayFormat, ResultFormat
from hyperspot.cli import console, options
from hyperspot.cli.progress import Bars
from hyperspot.errors import HyperspotError


def predict(
    model: options.Model,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders or patterns such as 'line/*.png'; - reads paths from stdin, one per line, and "
            "answers each at once.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the overlay, heatmap, mask and JSON of each image.", show_default=False),
    ] = None,
    overlay: options.Overlay = None,
    overlay_format: Annotated[
        OverlayFormat,
        typer.Option(
            help="Of the overlays; for large images jpeg takes a quarter of the time of png and a tenth of the space."
        ),
    ] = "png",
    overwrite: options.Overwrite = False,
    format: Annotated[  # noqa: A002
        ResultFormat,
        typer.Option(
            help="Output on stdout: text; jsonl, one object per line; csv; coco, one JSON document of all images; "
            "yolo, label files in --out/labels."
        ),
    ] = "text",
    json: Annotated[bool, typer.Option("--json", help="Short for --format jsonl.")] = False,
    false_alarm_rate: options.OtherFalseAlarmRate = None,
    mm_per_pixel: options.MmPerPixel = None,
    min_area: options.MinArea = None,
    min_length: options.MinLength = None,
    min_width: options.MinWidth = None,
    max_count: options.MaxCount = None,
    min_distance: options.MinDistance = None,
    engine: options.Engine = None,
    precision: options.PrecisionOption = None,
    device: options.Device = "auto",
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help="Exit with 3 if an image is anomalous.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Include sub-folders.")] = False,
) -> None:
    """Predict images: score, p-value, decision, heatmap, mask and regions.

    An unreadable image is reported on stderr and the run continues; the exit code is then 1.
    """
    from hyperspot.cli.inputs import find_inputs
    from hyperspot.cli.inspection import RuleOptions, with_rules
    from hyperspot.cli.results import predict_paths, result_writer
    from hyperspot.cli.tally import Tally
    from hyperspot.decision.planning import has_groups
    from hyperspot.model_loading import load_model

    chosen: ResultFormat = "jsonl" if json else format
    if chosen == "yolo" and out is None:
        raise typer.BadParameter("--format yolo writes label files; give --out FOLDER")
    if overlay is not None and out is None:
        raise typer.BadParameter("--overlay chooses the pictures that are written; give --out FOLDER")
    found = find_inputs(images, recursive=recursive)
    predictor = load_model(model, engine=engine, precision=precision, device=device, false_alarm_rate=false_alarm_rate)
    predictor = with_rules(
        predictor, mm_per_pixel, RuleOptions(min_area, min_length, min_width, max_count, min_distance)
    )
    tally = Tally()
    results = predict_paths(
        predictor, found, out, overwrite=overwrite, overlay=overlay or "outline", overlay_format=overlay_format
    )
    if not sys.stdout.isatty():
        results = Bars().track(results, "predicting", len(found) if isinstance(found, Sized) else None)
    with result_writer(chosen, out) as write:
        for result in results:
            if isinstance(result, HyperspotError):
                console.print_error(str(result))
                tally.failed += 1
                continue
            tally.add(result.verdict.is_anomalous, result.verdict.score)
            write(result)
    grouped = has_groups(predictor.describe())
    calibration = predictor.decision_rule.calibration
    tally.end(calibration, "images", grouped=grouped, fail_on_anomaly=fail_on_anomaly)
