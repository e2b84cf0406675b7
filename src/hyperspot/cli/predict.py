"""`hyperspot predict`."""

import sys
from collections import deque
from collections.abc import Sized
from pathlib import Path
from typing import Annotated

import typer

from hyperspot.choices import OverlayFormat, ResultFormat
from hyperspot.cli import console, options
from hyperspot.cli.progress import Bars
from hyperspot.errors import HyperspotError

FOUND_ANOMALIES = 3


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
    from hyperspot.cli.results import predict_paths, result_writer
    from hyperspot.decision.drift import MOST_RECENT, detect_drift
    from hyperspot.decision.planning import has_groups
    from hyperspot.model_loading import load_model

    chosen: ResultFormat = "jsonl" if json else format
    if chosen == "yolo" and out is None:
        raise typer.BadParameter("--format yolo writes label files; give --out FOLDER")
    if overlay is not None and out is None:
        raise typer.BadParameter("--overlay chooses the pictures that are written; give --out FOLDER")
    found = find_inputs(images, recursive=recursive)
    predictor = load_model(model, engine=engine, precision=precision, device=device, false_alarm_rate=false_alarm_rate)
    anomalies = unread = 0
    passed: deque[float] = deque(maxlen=MOST_RECENT)
    results = predict_paths(
        predictor, found, out, overwrite=overwrite, overlay=overlay or "outline", overlay_format=overlay_format
    )
    if not sys.stdout.isatty():
        results = Bars().track(results, "predicting", len(found) if isinstance(found, Sized) else None)
    with result_writer(chosen, out) as write:
        for result in results:
            if isinstance(result, HyperspotError):
                console.print_error(str(result))
                unread += 1
                continue
            anomalies += result.verdict.is_anomalous is True
            if result.verdict.is_anomalous is False:
                passed.append(result.verdict.score)
            write(result)
    grouped = has_groups(predictor.describe())
    drift = detect_drift(predictor.decision_rule.calibration, list(passed), grouped=grouped)
    if drift is not None and drift.is_significant:
        console.print_warning(drift.describe(f"the last {drift.images} passed images"))
    if unread:
        raise typer.Exit(1)
    if fail_on_anomaly and anomalies:
        raise typer.Exit(FOUND_ANOMALIES)
