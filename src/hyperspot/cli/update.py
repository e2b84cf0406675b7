"""`hyperspot update`."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperspot.cli import console, options
from hyperspot.cli.progress import Bars
from hyperspot.errors import ModelFileError

if TYPE_CHECKING:
    from hyperspot.data import Dataset
    from hyperspot.decision.merging import NewImages


def update(
    model: options.ModelFile,
    good_images: Annotated[
        Path | None,
        typer.Argument(
            help="A folder of new good images, or a data set with good training images.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Model file to write; default: MODEL itself, with its version before kept as "
            "MODEL.previous.safetensors.",
            show_default=False,
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Restore the version before the last update in place.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the model says about the new images, and write nothing.")
    ] = False,
    group_by: options.GroupBy = None,
    layout: options.Layout = "auto",
    category: options.Category = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Learn more images of good parts, in seconds and without the images before.

    CFA (without training), PatchCore and PaDiM. All new images are learned and calibrate; those that the model calls
    anomalous are named: remove a file that shows a defect and update again. Images that were learned before are left
    out.
    """
    previous = model.with_name(f"{model.stem}.previous{model.suffix}")
    if undo:
        if good_images is not None or output is not None or dry_run:
            raise typer.BadParameter("--undo takes the model file alone")
        _restore(model, previous)
        if json:
            console.print_json({"model": str(model), "restored": str(previous)})
        else:
            console.print_line(f"{model} is the version before its last update again; {previous} is gone")
        return
    if good_images is None:
        raise typer.BadParameter("give a folder of new good images, or --undo")
    from hyperspot.cli.models import require_trained
    from hyperspot.cli.summaries import print_problems
    from hyperspot.cli.training import find_copies
    from hyperspot.data import open_dataset
    from hyperspot.data.grouping import groups_of
    from hyperspot.detector import model_file
    from hyperspot.detector.detector import Detector
    from hyperspot.detector.updating import warn_of
    from hyperspot.results.verdict import refuse_existing
    from hyperspot.utils.atomic_files import replacing

    require_trained(model)
    if output is not None and not overwrite:
        refuse_existing([output])
    detector = Detector.load(model, device=device)
    updater = detector.updater()
    if not dry_run:
        model_file.require_writable(output or model)
    dataset = open_dataset(good_images, layout, category)
    groups = None if group_by is None else groups_of([sample.path for sample in dataset.train], group_by)
    print_problems([*dataset.problems, *find_copies(dataset, groups)])
    updated = detector
    if dry_run:
        sources = [sample.path for sample in dataset.train]
        new, _ = updater.compare(sources, "RGB", Bars(), grouped=groups is not None)
        warn_of(new, sources)
    else:
        updated = detector.update(dataset, groups=groups, progress=Bars())
        assert updated.new_images is not None
        new = updated.new_images
        if output is None:
            with replacing(previous) as partial:
                shutil.copyfile(model, partial)
        updated.save(output or model)
    calibration = updated.decision_rule.calibration
    written = None if dry_run else output or model
    summary = {
        "model": None if written is None else str(written),
        "previous": str(previous) if written == model else None,
        "images": len(new.kept),
        "known": _names(dataset, new.known),
        "odd": _names(dataset, new.odd),
        "is_shifted": new.is_shifted,
        "drift": None if new.drift is None else new.drift.p_value,
        "calibration_images": len(calibration.scores),
        "false_alarm_rate": calibration.false_alarm_rate,
        "threshold": calibration.threshold,
        "threshold_before": detector.decision_rule.calibration.threshold,
        "steadiness": calibration.steadiness(),
        "seconds": None if dry_run else updated.record["updates"][-1]["seconds"],
    }
    if json:
        console.print_json(summary)
    else:
        _print(model, summary, new, dry_run=dry_run)


def _print(model: Path, summary: dict[str, Any], new: "NewImages", *, dry_run: bool) -> None:
    from hyperspot.detector.updating import name_some

    listed = ("known", "odd", "is_shifted")
    shown = {name: value for name, value in summary.items() if name not in listed and value is not None}
    console.table(f"{model} before an update" if dry_run else f"Updated with {len(new.kept)} images", shown)
    if summary["odd"]:
        names = name_some(summary["odd"])
        console.print_line(
            ("check:", "bold cyan"),
            f" the model before calls {len(new.odd)} of {len(new.kept)} new images anomalous; are they good? {names}",
        )
    if dry_run:
        console.print_line("nothing was written (--dry-run)")
    elif summary["previous"] is not None:
        console.print_line(
            f"the version before is {summary['previous']}; `hyperspot update {model} --undo` restores it"
        )


def _names(dataset: "Dataset", indices: tuple[int, ...]) -> list[str]:
    from hyperspot.data.problems import relative

    return [relative(dataset.train[index].path, dataset.root) for index in indices]


def _restore(model: Path, previous: Path) -> None:
    """Move the version before an update back into its place; raises ModelFileError if there is none."""
    from hyperspot.detector import model_file

    if not previous.exists():
        raise ModelFileError(f"{previous} does not exist: {model} was not updated in place, or that is undone already")
    model_file.read_metadata(previous)
    previous.replace(model)
