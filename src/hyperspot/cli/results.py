"""Predicts named images, saves their results and prints them in the chosen format."""

import contextlib
import csv
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperspot.choices import OverlayFormat, OverlayStyle, ResultFormat
from hyperspot.cli import console, summaries
from hyperspot.cli.inputs import Input
from hyperspot.errors import DataError, ImageError
from hyperspot.predictor import Predictor
from hyperspot.results.conversions import CocoBuilder, to_yolo
from hyperspot.results.verdict import Verdict
from hyperspot.utils.atomic_files import replacing

CSV_COLUMNS = ("image", "score", "p_value", "is_anomalous", "regions", "heatmap", "mask", "milliseconds")


@dataclass(frozen=True)
class Predicted:
    """The verdict on one image, and the files written for it."""

    verdict: Verdict
    stem: str
    files: dict[str, Path] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of one image; `heatmap` and `mask` are None if no files are written."""
        files: dict[str, str | None] = {"heatmap": None, "mask": None}
        return {**self.verdict.to_dict(), **files, **{name: str(path) for name, path in self.files.items()}}


def predict_paths(
    predictor: Predictor,
    inputs: Iterable[Input],
    out: Path | None,
    *,
    overwrite: bool = False,
    overlay: OverlayStyle = "outline",
    overlay_format: OverlayFormat = "png",
) -> Iterator[Predicted | ImageError]:
    """Yield the verdict on each image, with its results saved in `out`, or the error of an unreadable image.

    Raises DataError if a result exists and `overwrite` is False, or `out` cannot be written to.
    """
    stems: deque[str] = deque()

    def path_of(one: Input) -> Path:
        # The predictor takes paths ahead of the results that it yields.
        stems.append(one.stem)
        return one.path

    paths = [path_of(one) for one in inputs] if isinstance(inputs, Sized) else map(path_of, inputs)
    for result in predictor.predict_many(paths, errors="return"):
        stem = stems.popleft()
        if isinstance(result, ImageError):
            yield result
            continue
        try:
            files = {}
            if out is not None:
                files = result.save(out, stem, overwrite=overwrite, overlay=overlay, overlay_format=overlay_format)
        except OSError as error:
            raise DataError(f"{out} cannot be written to ({error.strerror}); choose another --out") from None
        except DataError as error:
            raise DataError(f"{str(error).partition(';')[0]}; choose another --out, or pass --overwrite") from None
        yield Predicted(result, stem, files)


@contextlib.contextmanager
def result_writer(chosen: ResultFormat, out: Path | None) -> Iterator[Callable[[Predicted], None]]:
    """Give a function that prints one result; whole-run documents are printed at the end."""
    if chosen == "text":
        yield lambda one: summaries.print_verdict(one.verdict)
    elif chosen == "jsonl":
        yield lambda one: console.print_json(one.to_dict())
    elif chosen == "csv":
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(CSV_COLUMNS)
        yield lambda one: _write_row(table, one)
    elif chosen == "coco":
        coco = CocoBuilder()
        yield lambda one: coco.add(one.verdict)
        console.print_json(coco.document())
    else:
        assert out is not None
        labels = out / "labels"
        yield lambda one: _write_labels(labels, one)
        with replacing(labels.parent / "classes.txt") as partial:
            partial.write_text("anomaly\n", encoding="utf-8")


def _write_row(table: Any, one: Predicted) -> None:
    values = one.to_dict()
    table.writerow([json.dumps(values[name]) if name == "regions" else values[name] for name in CSV_COLUMNS])
    sys.stdout.flush()


def _write_labels(folder: Path, one: Predicted) -> None:
    path = folder / f"{one.stem}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(to_yolo(one.verdict), encoding="utf-8")
    summaries.print_verdict(one.verdict)
