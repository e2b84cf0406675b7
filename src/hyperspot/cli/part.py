"""`hyperspot part train | predict | evaluate | recalibrate | export | info`: parts that are seen in several views."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperspot.choices import DEFAULTS, LightingMode, Models
from hyperspot.cli import console, options, part_summaries, summaries
from hyperspot.cli.progress import Bars
from hyperspot.cli.settings_options import settings_of
from hyperspot.errors import DataError, HyperspotError

if TYPE_CHECKING:
    from hyperspot.data.part_sets import PartSet
    from hyperspot.parts import PartInspector, PartVerdict

part = typer.Typer(
    help="Inspect parts that several cameras see: one verdict per part, whose promised false-alarm rate accounts for "
    "the number of views.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[
    Path,
    typer.Argument(
        help="Parts: VIEW/train/good/ID.png, train/good/ID/VIEW.png, ID/VIEW.png, Real-IAD, or a CSV table with the "
        "columns part, view and path.",
        show_default=False,
    ),
]
PartFile = Annotated[
    Path, typer.Argument(help="A file made by `hyperspot part train` or `hyperspot part export`.", show_default=False)
]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write (.hyperspot).", show_default=False)]
Pattern = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="Regular expression with the groups part and view, and optionally light, found in the path of an image "
        r"below DATA, e.g. '(?P<part>\d+)_(?P<view>[a-z]+)'.",
        show_default=False,
    ),
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="Decide about parts without all views by those they have: anomalous, or no decision, never good.",
    ),
]


@part.command(short_help="Train on good parts.")
def train(
    data: Data,
    output: Output,
    pattern: Pattern = None,
    models: Annotated[
        Models, typer.Option(help="A model for each view, or one shared by all, for views that look alike.")
    ] = "each",
    lightings: Annotated[
        LightingMode,
        typer.Option(
            help="Two or three lightings of a view as the channels of one input, or each as a view of its own; auto: "
            "as channels if they are gray."
        ),
    ] = "auto",
    method: options.MethodName = DEFAULTS.method,
    setting: options.MethodSetting = None,
    backbone: options.BackboneName = None,
    weights: options.Weights = None,
    short_side: options.ShortSide = DEFAULTS.short_side,
    aspect: options.AspectOption = DEFAULTS.aspect,
    crops: options.CropsOption = DEFAULTS.crops,
    tile: options.TileOption = str(DEFAULTS.tile),
    pixels_per_tile_pixel: options.PixelsPerTilePixel = None,
    smallest_defect: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH",
            help="Width of the smallest defect of interest in pixels, for example 8px; it sets the scale of the tiles.",
            show_default=False,
        ),
    ] = None,
    sigma: options.Sigma = DEFAULTS.sigma,
    seed: options.Seed = DEFAULTS.seed,
    false_alarm_rate: options.FalseAlarmRate = DEFAULTS.false_alarm_rate,
    calibration: options.CalibrationOption = DEFAULTS.calibration,
    background_weight: options.BackgroundWeight = DEFAULTS.background_weight,
    mask_false_alarm_rate: options.MaskFalseAlarmRate = DEFAULTS.mask_false_alarm_rate,
    group_by: options.GroupBy = None,
    layout: options.Layout = "auto",
    category: options.Category = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Train a model for each view, or one for all, on good parts, and write one file."""
    from hyperspot.data.grouping import groups_of
    from hyperspot.data.part_sets import open_part_set
    from hyperspot.hardware.devices import resolve
    from hyperspot.parts import PartInspector, part_file

    resolve(device)
    settings = settings_of(
        method=method,
        setting=setting,
        backbone=backbone,
        short_side=short_side,
        aspect=aspect,
        crops=crops,
        tile=tile,
        pixels_per_tile_pixel=pixels_per_tile_pixel,
        smallest_defect=smallest_defect,
        plan=None,
        sigma=sigma,
        seed=seed,
        false_alarm_rate=false_alarm_rate,
        calibration=calibration,
        background_weight=background_weight,
        mask_false_alarm_rate=mask_false_alarm_rate,
    )
    part_file.require_writable(output)
    parts = open_part_set(data, pattern=pattern, layout=layout, category=category)
    summaries.print_problems(parts.problems)
    groups = None
    if group_by is not None:
        groups = groups_of([next(iter(one.images.values())) for one in parts.train], group_by)
    inspector = PartInspector.fit(
        parts,
        models=models,
        lightings=lightings,
        settings=settings,
        weights=weights,
        device=device,
        groups=groups,
        progress=Bars(),
    )
    inspector.save(output)
    part_summaries.print_values(
        {"model": str(output), **part_summaries.of_training(inspector)}, f"Trained on {parts.name}", json
    )


@part.command(short_help="Predict parts.")
def predict(
    model: PartFile,
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the contact sheet and JSON of each part, and results of its views."),
    ] = None,
    overlay: options.Overlay = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    pattern: Pattern = None,
    allow_missing: AllowMissing = False,
    false_alarm_rate: options.OtherFalseAlarmRate = None,
    layout: options.Layout = "auto",
    category: options.Category = None,
    engine: options.Engine = None,
    precision: options.PrecisionOption = None,
    device: options.Device = "auto",
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help="Exit with 3 if a part is anomalous.")
    ] = False,
) -> None:
    """Predict all parts of a folder or a table: score, p-value, decision, and the verdicts on the views.

    A part with a missing view or an unreadable image, or whose results cannot be written, is reported on stderr and the
    run continues; the exit code is then 1.
    """
    from hyperspot.cli.tally import Tally
    from hyperspot.decision.planning import has_groups

    if overlay is not None and out is None:
        raise typer.BadParameter("--overlay chooses the pictures that are written; give --out FOLDER")
    inspector = _load(model, engine, precision, device, false_alarm_rate)
    parts = _open(inspector, data, pattern, layout, category)
    tally = Tally()
    results = inspector.predict_many(parts.parts, allow_missing=allow_missing, errors="return")
    for result in Bars().track(results, "predicting parts", len(parts.parts)) if _is_piped() else results:
        if isinstance(result, HyperspotError):
            console.print_error(str(result))
            tally.failed += 1
            continue
        tally.add(result.is_anomalous, result.score)
        files = {}
        if out is not None:
            try:
                files = _save(result, out, overwrite, overlay or "outline")
            except DataError as error:
                console.print_error(f"the part {result.part} was not saved: {error}")
                tally.failed += 1
        if json:
            console.print_json({**result.to_dict(), **{name: str(path) for name, path in files.items()}})
        else:
            part_summaries.print_verdict(result)
    grouped = has_groups(inspector.describe())
    calibration = inspector.calibration.calibration
    tally.end(calibration, "parts", grouped=grouped, fail_on_anomaly=fail_on_anomaly)


@part.command(short_help="Evaluate a model on labeled parts.")
def evaluate(
    model: PartFile,
    data: Data,
    report: Annotated[
        Path | None,
        typer.Option(help="HTML report to write; it shows each part by the view that decides.", show_default=False),
    ] = None,
    pattern: Pattern = None,
    allow_missing: AllowMissing = False,
    false_alarm_rate: options.OtherFalseAlarmRate = None,
    layout: options.Layout = "auto",
    category: options.Category = None,
    engine: options.Engine = None,
    precision: options.PrecisionOption = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Evaluate a model on labeled parts: found defects and false alarms of the parts, and of each view."""
    from hyperspot.report import require_writable, write_report

    if report is not None:
        require_writable(report)
    inspector = _load(model, engine, precision, device, false_alarm_rate)
    parts = _open(inspector, data, pattern, layout, category)
    command = shlex.join(["hyperspot", *sys.argv[1:]])
    evaluation = inspector.evaluate(parts, allow_missing=allow_missing, progress=Bars(), command=command)
    summaries.print_problems(problem for problem in evaluation.part.problems if problem not in parts.problems)
    if report is not None:
        write_report(evaluation.part, report)
    if json:
        console.print_json({**evaluation.to_dict(), "report": None if report is None else str(report)})
        return
    part_summaries.print_evaluation(evaluation)
    if report is not None:
        console.print_line(f"report: {report}")


@part.command(short_help="Set the thresholds of a model with other good parts.")
def recalibrate(
    model: PartFile,
    data: Data,
    output: Output,
    pattern: Pattern = None,
    false_alarm_rate: options.OtherFalseAlarmRate = None,
    layout: options.Layout = "auto",
    category: options.Category = None,
    overwrite: options.Overwrite = False,
    engine: options.Engine = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Set the thresholds of a model with other good parts, in seconds and without training."""
    from hyperspot.parts import part_file
    from hyperspot.results.verdict import refuse_existing

    part_file.require_writable(output)
    if not overwrite:
        refuse_existing([output])
    inspector = _load(model, engine, None, device, None)
    parts = _open(inspector, data, pattern, layout, category)
    changed = inspector.recalibrate(parts, false_alarm_rate=false_alarm_rate, progress=Bars())
    changed.save(output)
    calibration = changed.calibration.calibration
    summary = {
        "model": str(output),
        "parts": len(calibration.scores),
        "false_alarm_rate": calibration.false_alarm_rate,
        "threshold": calibration.threshold,
        "threshold_before": inspector.calibration.calibration.threshold,
    }
    part_summaries.print_values(summary, "Recalibrated", json)


@part.command(short_help="Export a model to a file that needs no torch.")
def export(model: PartFile, output: Output, json: options.Json = False) -> None:
    """Write a file with ONNX models, which predicts without torch."""
    inspector = _load(model, None, None, "cpu", None)
    inspector.export(output)
    summary = {"model": str(output), "views": list(inspector.views), "megabytes": round(output.stat().st_size / 1e6, 3)}
    part_summaries.print_values(summary, "Exported", json)


@part.command(short_help="Describe a model file or a set of parts.")
def info(
    path: Annotated[Path, typer.Argument(help="A file made by `hyperspot part train`, or parts.", show_default=False)],
    pattern: Pattern = None,
    layout: options.Layout = "auto",
    category: options.Category = None,
    json: options.Json = False,
) -> None:
    """Describe a model file and how it was made, or what was recognized in a set of parts."""
    from hyperspot.data.part_sets import open_part_set
    from hyperspot.parts import part_file

    if path.is_file() and path.suffix.lower() == part_file.SUFFIX:
        manifest = part_file.read_manifest(path)
        if json:
            console.print_json({"model": str(path), **manifest})
            return
        calibration = dict(manifest["calibration"])
        calibration["parts"] = len(calibration.pop("scores"))
        inputs = {view: ", ".join(values["images"]) for view, values in manifest["views"].items()}
        part_summaries.print_values(
            {**manifest["record"], "views": inputs, "calibration": calibration}, str(path), False
        )
        return
    described = open_part_set(path, pattern=pattern, layout=layout, category=category).describe()
    if json:
        console.print_json(described)
    else:
        summaries.print_data(str(path), [described])


def _load(
    model: Path, engine: str | None, precision: str | None, device: str, false_alarm_rate: float | None
) -> "PartInspector":
    from hyperspot.parts import PartInspector

    return PartInspector.load(
        model, engine=engine, precision=precision, device=device, false_alarm_rate=false_alarm_rate
    )


def _open(inspector: "PartInspector", data: Path, pattern: str | None, layout: str, category: str | None) -> "PartSet":
    from hyperspot.data.part_sets import open_part_set

    parts = open_part_set(data, pattern=pattern, layout=layout, category=category, views=inspector.image_names)
    summaries.print_problems(parts.problems)
    return parts


def _is_piped() -> bool:
    return not sys.stdout.isatty()


def _save(verdict: "PartVerdict", out: Path, overwrite: bool, overlay: Any) -> dict[str, Path]:
    try:
        return verdict.save(out, overwrite=overwrite, overlay=overlay)
    except OSError as error:
        raise DataError(f"{out} cannot be written to ({error.strerror}); choose another --out") from None
    except DataError as error:
        raise DataError(f"{str(error).partition(';')[0]}; choose another --out, or pass --overwrite") from None
