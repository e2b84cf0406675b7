"""What `hyperspot train` tells about the training images: copies, images to check, and the training report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperspot.cli import console
from hyperspot.cli.progress import Bars
from hyperspot.data import Dataset
from hyperspot.data.near_duplicates import describe_near_duplicates, find_near_duplicates
from hyperspot.data.problems import relative
from hyperspot.detector.detector import Detector
from hyperspot.detector.power import PowerEstimate
from hyperspot.report.training import TrainingImage, images_to_check, training_report, write_training_report

NAMED = 5
"""Images named on one line."""


@dataclass(frozen=True)
class Told:
    """What is printed after training.

    Attributes:
        images: To check, the highest score first.
        power: Estimated detection rate; None without a report.
        page: The training report, if it was written.

    """

    images: Sequence[TrainingImage]
    power: PowerEstimate | None
    page: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "threshold_images": [one.name for one in self.images if one.sets_threshold],
            "odd_images": [one.name for one in self.images if one.is_odd],
            "estimated_power": None if self.power is None else self.power.to_dict(),
            "report": None if self.page is None else str(self.page),
        }

    def print(self) -> None:
        """Print the images to check, the estimate and the path of the report."""
        for images, do in (
            ([one for one in self.images if one.sets_threshold], "set the threshold"),
            ([one for one in self.images if not one.sets_threshold], "score far above the others"),
        ):
            if images:
                names = ", ".join(one.name for one in images[:NAMED])
                more = f" and {len(images) - NAMED} more" * (len(images) > NAMED)
                console.print_line(("check:", "bold cyan"), f" these images {do}; are they good? {names}{more}")
        if self.power is not None:
            rate, drawn = console.percent(self.power.detection_rate), len(self.power.results)
            console.print_line(f"estimated detection rate: {rate} of {drawn} synthetic defects (an estimate)")
        if self.page is not None:
            console.print_line(f"report: {self.page}")
        elif self.images:
            console.print_line("--report shows them with their heatmaps")


def find_copies(dataset: Dataset, groups: Sequence[str] | None) -> list[str]:
    """Return sentences on the training images that look like one part, unless they are in one group."""
    named = dict(zip((sample.path for sample in dataset.train), groups or (), strict=False))
    found = find_near_duplicates(
        dataset.train, progress=Bars(), group=None if groups is None else lambda sample: named[sample.path]
    )
    return describe_near_duplicates(found, lambda path: relative(path, dataset.root))


def report_on(
    detector: Detector,
    dataset: Dataset,
    groups: Sequence[str] | None,
    problems: Sequence[str],
    page: Path | None,
    command: str,
) -> Told:
    """Find the images to check and, with a page, estimate the detection rate and write the report."""
    paths = [sample.path for sample in dataset.train]
    names = [relative(path, dataset.root) for path in paths]
    if page is None:
        return Told(images_to_check(detector, names), None, None)
    power = None
    if detector.held_out:
        power = detector.estimate_power([paths[one.index] for one in detector.held_out], progress=Bars())
    report = training_report(
        detector, paths, names, name=dataset.name, power=power, groups=groups, problems=problems, command=command
    )
    return Told(report.listed, power, write_training_report(report, page))
