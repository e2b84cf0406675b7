"""`hyperspot recalibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from hyperspot.cli import console, options, summaries
from hyperspot.cli.progress import Bars


def recalibrate(
    model: options.Model,
    good_images: options.GoodImages,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write, of the same kind as the model.", show_default=False),
    ],
    false_alarm_rate: options.OtherFalseAlarmRate = None,
    roi: options.RegionOfInterest = None,
    mm_per_pixel: options.MmPerPixel = None,
    min_area: options.MinArea = None,
    min_length: options.MinLength = None,
    min_width: options.MinWidth = None,
    max_count: options.MaxCount = None,
    min_distance: options.MinDistance = None,
    layout: options.Layout = "auto",
    category: options.Category = None,
    overwrite: options.Overwrite = False,
    engine: options.Engine = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Set the thresholds of a model with other good images, in seconds and without training.

    The promised false-alarm rate is exact for images that the model was not trained on. Each image calibrates by
    itself: give one image per group to a model that was trained with --group-by.
    """
    from hyperspot.cli.inspection import RuleOptions, plan_of, with_rules
    from hyperspot.cli.models import save_predictor
    from hyperspot.data import open_dataset
    from hyperspot.model_loading import load_model
    from hyperspot.results.verdict import refuse_existing

    if not overwrite:
        refuse_existing([output])
    predictor = load_model(model, engine=engine, device=device)
    dataset = open_dataset(good_images, layout, category)
    summaries.print_problems(dataset.problems)
    rules = RuleOptions(min_area, min_length, min_width, max_count, min_distance)
    inspection = None if roi is None else plan_of(roi, mm_per_pixel, rules)
    changed = predictor.recalibrate(dataset, false_alarm_rate=false_alarm_rate, inspection=inspection, progress=Bars())
    if roi is None:
        changed = with_rules(changed, mm_per_pixel, rules)
    save_predictor(changed, output)
    calibration = changed.decision_rule.calibration
    summary = {
        "model": str(output),
        "images": len(calibration.scores),
        "false_alarm_rate": calibration.false_alarm_rate,
        "threshold": calibration.threshold,
        "threshold_before": predictor.decision_rule.calibration.threshold,
    }
    if json:
        console.print_json(summary)
    else:
        console.table("Recalibrated", summary)
