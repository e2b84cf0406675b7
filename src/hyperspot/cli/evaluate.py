"""`hyperspot evaluate`, and the report that the demo writes as well."""

import shlex
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyperspot.cli import console, options, summaries
from hyperspot.cli.progress import Bars

if TYPE_CHECKING:
    from hyperspot.data import Dataset
    from hyperspot.predictor import Predictor


def evaluate(
    model: options.Model,
    data: options.Data,
    report: Annotated[
        Path | None,
        typer.Option(help="HTML report to write; default: beside the model file.", show_default=False),
    ] = None,
    layout: options.Layout = "auto",
    category: options.Category = None,
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
    json: options.Json = False,
    open_report: options.OpenReport = False,
) -> None:
    """Evaluate a model on labeled images, with thresholds from good images only, and write an HTML report."""
    from hyperspot.cli.inspection import RuleOptions, with_rules
    from hyperspot.data import open_dataset
    from hyperspot.model_loading import load_model
    from hyperspot.report import require_writable

    predictor = load_model(model, engine=engine, precision=precision, device=device, false_alarm_rate=false_alarm_rate)
    predictor = with_rules(
        predictor, mm_per_pixel, RuleOptions(min_area, min_length, min_width, max_count, min_distance)
    )
    dataset = open_dataset(data, layout, category)
    page = report or model.with_name(f"{model.stem}.{dataset.name}.report.html")
    require_writable(page)
    evaluate_and_report(predictor, dataset, page, json=json, open_report=open_report)


def evaluate_and_report(
    predictor: "Predictor", dataset: "Dataset", page: Path, *, json: bool, open_report: bool
) -> None:
    """Evaluate, write the report and print the metrics."""
    from hyperspot.report import write_report

    summaries.print_problems(dataset.problems)
    command = shlex.join(["hyperspot", *sys.argv[1:]])
    evaluation = predictor.evaluate(dataset, progress=Bars(), command=command)
    summaries.print_problems(problem for problem in evaluation.problems if problem not in dataset.problems)
    write_report(evaluation, page)
    if json:
        console.print_json({**evaluation.to_dict(), "report": str(page)})
    else:
        summaries.print_evaluation(evaluation)
        console.print_line(f"report: {page}")
    if open_report:
        webbrowser.open(page.resolve().as_uri())
