"""`hyperspot train`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from hyperspot.choices import DEFAULTS
from hyperspot.cli import console, options, summaries
from hyperspot.cli.progress import Bars
from hyperspot.cli.settings_options import settings_of


def train(
    data: options.Data,
    output: options.ModelOutput = None,
    method: options.MethodName = DEFAULTS.method,
    setting: options.MethodSetting = None,
    backbone: options.BackboneName = None,
    weights: options.Weights = None,
    short_side: options.ShortSide = DEFAULTS.short_side,
    aspect: options.AspectOption = DEFAULTS.aspect,
    crops: options.CropsOption = DEFAULTS.crops,
    tile: options.TileOption = str(DEFAULTS.tile),
    pixels_per_tile_pixel: options.PixelsPerTilePixel = None,
    smallest_defect: options.SmallestDefect = None,
    sigma: options.Sigma = DEFAULTS.sigma,
    seed: options.Seed = DEFAULTS.seed,
    false_alarm_rate: options.FalseAlarmRate = DEFAULTS.false_alarm_rate,
    calibration: options.CalibrationOption = DEFAULTS.calibration,
    background_weight: options.BackgroundWeight = DEFAULTS.background_weight,
    mask_false_alarm_rate: options.MaskFalseAlarmRate = DEFAULTS.mask_false_alarm_rate,
    group_by: options.GroupBy = None,
    roi: options.RegionOfInterest = None,
    register: Annotated[
        bool,
        typer.Option(
            "--register",
            help="Align images, by rotation and shift, to the image that the region of interest was drawn on, or else "
            "to the first good image.",
        ),
    ] = False,
    mm_per_pixel: options.MmPerPixel = None,
    min_area: options.MinArea = None,
    min_length: options.MinLength = None,
    min_width: options.MinWidth = None,
    max_count: options.MaxCount = None,
    min_distance: options.MinDistance = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Write an HTML report beside the model file: images to check, and the detection rate estimated on "
            "synthetic defects.",
        ),
    ] = False,
    layout: options.Layout = "auto",
    category: options.Category = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Train on images of good parts and write a model file."""
    from hyperspot.cli.inspection import RuleOptions, plan_of
    from hyperspot.cli.training import find_copies, report_on
    from hyperspot.data import open_dataset
    from hyperspot.data.grouping import groups_of
    from hyperspot.detector import model_file
    from hyperspot.detector.detector import Detector
    from hyperspot.hardware.devices import resolve

    resolve(device)
    inspection = plan_of(roi, mm_per_pixel, RuleOptions(min_area, min_length, min_width, max_count, min_distance))
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
        plan=inspection,
        sigma=sigma,
        seed=seed,
        false_alarm_rate=false_alarm_rate,
        calibration=calibration,
        background_weight=background_weight,
        mask_false_alarm_rate=mask_false_alarm_rate,
    )
    if output is not None:
        model_file.require_writable(output)
    dataset = open_dataset(data, layout, category)
    if output is None:
        output = Path(f"{dataset.name}.safetensors")
        model_file.require_writable(output, replace=False)
    page = output.with_name(f"{output.stem}.training.html") if report else None
    if page is not None:
        from hyperspot.report import require_writable

        require_writable(page)
    groups = None if group_by is None else groups_of([sample.path for sample in dataset.train], group_by)
    problems = [*dataset.problems, *find_copies(dataset, groups)]
    summaries.print_problems(problems)
    detector = Detector.fit(
        dataset,
        settings=settings,
        weights=weights,
        device=device,
        groups=groups,
        inspection=inspection,
        register=register,
        progress=Bars(),
    )
    detector.save(output)
    command = shlex.join(["hyperspot", *sys.argv[1:]])
    found = report_on(detector, dataset, groups, problems, page, command)
    summary = {"model": str(output), **summaries.of_training(detector)}
    if json:
        console.print_json({**summary, **found.to_dict()})
    else:
        console.table(f"Trained on {dataset.name}", summary)
        found.print()
