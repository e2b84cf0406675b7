"""Evaluation of parts: the metrics of every view, and of the parts, from one prediction of each image."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from hyperspot import metrics
from hyperspot.data import Dataset, Sample
from hyperspot.data.part_sets import Part, PartSet
from hyperspot.decision.rule import DecisionRule
from hyperspot.errors import DataError
from hyperspot.evaluation import Curve, Evaluation, ImageResult
from hyperspot.evaluation import evaluate as evaluate_images
from hyperspot.images import Crop
from hyperspot.images.reading import ImageInput
from hyperspot.parts.calibration import PartCalibration
from hyperspot.parts.inputs import missing_views, refuse_missing, refuse_unknown, view_input
from hyperspot.predictor import Predictor
from hyperspot.results.verdict import Verdict
from hyperspot.utils.progress import Progress


@runtime_checkable
class Inspecting(Protocol):
    """The part of a `PartInspector` that evaluation uses."""

    predictors: dict[str, Predictor]
    images: dict[str, tuple[str, ...]]
    calibration: PartCalibration

    def describe(self) -> dict[str, Any]:
        """Return settings, training record and versions, as JSON values."""
        ...


@dataclass(frozen=True)
class PartEvaluation:
    """The results of one evaluation of parts.

    Attributes:
        part: Metrics, thresholds and results of the parts: an `ImageResult` is that of a part, with the path and the
            pictures of the view that decides. Pixel metrics are None.
        views: Metrics and results of each view, with the labels of its own images, at the thresholds of the part.

    Examples:
        >>> from hyperspot import Evaluation, PartEvaluation, metrics
        >>> values = dict.fromkeys((metric.name for metric in metrics.registered()), 0.5)
        >>> top = Evaluation("top", values, {}, promised_false_alarm_rate=0.01, threshold=3.0)
        >>> evaluation = PartEvaluation(part=top, views={"top": top})
        >>> evaluation.to_dict()["views"]["top"]["detection_rate"]
        0.5

    """

    part: Evaluation
    views: dict[str, Evaluation]

    def to_dict(self) -> dict[str, Any]:
        """Return the names of `Evaluation.to_dict` for the parts, and `views`: the metrics of each, as JSON values."""
        views = {}
        for view, evaluation in self.views.items():
            values = evaluation.to_dict()
            kept = [*evaluation.metrics, "at_input", "threshold", "images", "problems"]
            views[view] = {name: values[name] for name in kept}
        return {**self.part.to_dict(), "views": views}


def evaluate(
    inspector: Inspecting, parts: PartSet, *, allow_missing: bool, progress: Progress, command: str
) -> PartEvaluation:
    """Predict the test parts and compute every registered metric.

    Args:
        inspector: Predictors of all views and the calibration of the part.
        parts: Labeled, with masks or without.
        allow_missing: Whether parts may lack views.
        progress: Reports how many images are done.
        command: The command line, for the report.

    Raises:
        DataError: If there is no labeled test part, or one lacks a view and may not.
        ImageError: If an image or a mask cannot be read.

    """
    started = time.perf_counter()
    if not parts.test:
        raise DataError(f"{parts.root} has no labeled test part; add some to test/good and test/DEFECT")
    missing = {part.name: missing_views(part.images, inspector.images) for part in parts.test}
    known = [name for names in inspector.images.values() for name in names]
    for part in parts.test:
        refuse_unknown(part.name, part.images, known)
        if not allow_missing or len(missing[part.name]) == len(inspector.images):
            refuse_missing(part.name, missing[part.name], "add it, or allow missing views")
    results: dict[str, dict[str, ImageResult]] = {part.name: {} for part in parts.test}
    views: dict[str, Evaluation] = {}
    for view, predictor in progress.track(inspector.predictors.items(), "evaluating views", len(inspector.predictors)):
        seen = [part for part in parts.test if view not in missing[part.name]]
        if not seen:
            continue
        samples = [_sample(part, inspector.images[view]) for part in seen]
        inputs = {
            sample.path: view_input(part.images, inspector.images[view])
            for sample, part in zip(samples, seen, strict=True)
        }
        dataset = Dataset(parts.root, parts.layout, f"{parts.name}: {view}", tuple(samples), ())
        found = evaluate_images(_View(predictor, inputs), dataset, progress=progress)
        for part, result in zip(seen, found.image_results, strict=True):
            results[part.name][view] = result
        # Its thresholds come from parts: the scores of the view alone say nothing about drift or other rates.
        views[view] = replace(found, calibration=None)
    judged = [_result(part, results[part.name], missing[part.name], inspector.calibration) for part in parts.test]
    made_by = {
        "command": command,
        "data": {"path": str(parts.root), "layout": parts.layout, "parts": len(judged)},
        **inspector.describe(),
    }
    return PartEvaluation(_of_parts(parts, judged, inspector.calibration, made_by, started), views)


class _View:
    """What evaluation uses of a predictor, which reads the lightings of an image as one input."""

    def __init__(self, predictor: Predictor, inputs: Mapping[Path, ImageInput]) -> None:
        self.crops: tuple[Crop, ...] = predictor.crops
        self.decision_rule: DecisionRule = predictor.decision_rule
        self._predictor = predictor
        self._inputs = inputs

    def predict_many(self, images: Iterable[Path], /) -> Iterator[Verdict]:
        """Yield the verdict on each image, in order."""
        return self._predictor.predict_many([self._inputs[path] for path in images])

    def describe(self) -> dict[str, Any]:
        """Return what made the predictor."""
        return self._predictor.describe()


def _sample(part: Part, images: Sequence[str]) -> Sample:
    """Return the sample of a view: that of its image, or of all its lightings with all their masks."""
    samples = [part.samples[name] for name in images]
    labels = {sample.label for sample in samples}
    # A view without a label of its own has that of its part.
    label = 1 if 1 in labels else part.label if None in labels else 0
    masks = tuple(mask for sample in samples for mask in sample.masks)
    defect = next((sample.defect for sample in samples if sample.label == label), part.defect)
    return replace(samples[0], label=label, defect=defect, masks=masks)


def _result(
    part: Part, views: Mapping[str, ImageResult], missing: Sequence[str], calibration: PartCalibration
) -> ImageResult:
    """Return the result of a part, shown by the view that decides."""
    scores = {view: calibration.standardize(view, result.score) for view, result in views.items()}
    deciding = max(scores, key=lambda view: scores[view])
    return replace(
        views[deciding],
        defect=part.defect,
        label=int(part.label or 0),
        score=scores[deciding],
        is_anomalous=any(result.is_anomalous for result in views.values()) or (None if missing else False),
        milliseconds=sum(result.milliseconds for result in views.values()),
    )


def _of_parts(
    parts: PartSet,
    results: Sequence[ImageResult],
    calibration: PartCalibration,
    made_by: dict[str, Any],
    started: float,
) -> Evaluation:
    scores = np.array([result.score for result in results], dtype=np.float64)
    labels = np.array([result.label for result in results])
    decisions = np.array([bool(result.is_anomalous) for result in results])
    absent = [name for label, name in enumerate(("good", "defective")) if label not in labels]
    return Evaluation(
        name=parts.name,
        metrics=metrics.compute({"image": (scores, labels), "decision": (decisions, labels)}),
        metrics_at_input=metrics.compute({}, at_input=True),
        promised_false_alarm_rate=calibration.calibration.false_alarm_rate,
        threshold=calibration.calibration.threshold,
        image_results=tuple(results),
        image_roc=_curve(metrics.roc_curve(scores, labels)),
        calibration=calibration.calibration,
        problems=(
            *parts.problems,
            *(f"there is no {name} test part, so that AUROC is undefined" for name in absent),
        ),
        made_by=made_by,
        seconds=time.perf_counter() - started,
    )


def _curve(points: tuple[Float[np.ndarray, "_p"], ...] | None) -> Curve | None:
    return None if points is None else (tuple(map(float, points[0])), tuple(map(float, points[1])))
