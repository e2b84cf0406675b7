"""What the commands print about results: which values, under which names, in which order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hyperspot.cli import console

if TYPE_CHECKING:
    from hyperspot.decision.operating_points import OperatingPoint
    from hyperspot.detector.detector import Detector
    from hyperspot.evaluation import Evaluation
    from hyperspot.results import Verdict

DECISIONS = {True: ("ANOMALOUS", "bold red"), False: ("good     ", "green"), None: ("no verdict", "dim")}
PRINTED_BELOW = ("problems", "damaged")
PRINTED_ALIKE = 3
"""Problems of one kind that are printed in full."""
COLUMNS = {
    "name": "product",
    "layout": "layout",
    "train_good": "train good",
    "test_good": "test good",
    "test_defective": "test defective",
    "with_mask": "with mask",
    "unused": "unused",
    "decoded": "decoded",
    "sizes": "sizes",
}
"""Columns of the table of several products, by their keys."""


def of_training(detector: "Detector") -> dict[str, Any]:
    """Return the facts about a trained detector: data, model, promise."""
    calibration, size = detector.decision_rule.calibration, detector.input_size
    return {
        "images": detector.record["data"]["images"],
        "method": detector.settings.method,
        "backbone": detector.record["backbone"]["name"],
        "weights": detector.record["backbone"]["weights_source"],
        "input_size": f"{size.width} x {size.height}",
        "tiles": detector.record.get("tiles"),
        "calibration": calibration.kind,
        "false_alarm_rate": calibration.false_alarm_rate,
        "threshold": calibration.threshold,
        "steadiness": calibration.steadiness(),
        "seconds": detector.record["seconds"],
    }


def of_evaluation(evaluation: "Evaluation") -> dict[str, Any]:
    """Return every metric by title, the detection rate at the promised false-alarm rate first."""
    from hyperspot import metrics

    shown = {name: metrics.get(name).format(value) for name, value in evaluation.metrics.items()}
    if evaluation.promised_false_alarm_rate is not None:
        promised = console.percent(evaluation.promised_false_alarm_rate)
        shown["detection_rate"] += f" at a promised false-alarm rate of {promised}"
        shown["observed_false_alarm_rate"] += f"{_interval(evaluation)}, promised: at most {promised}"
    titled = {metrics.get(name).title: value for name, value in shown.items()}
    if evaluation.steadiness is not None:
        titled["Steadiness"] = evaluation.steadiness
    return {**titled, "Test images": len(evaluation.image_results), "Seconds": evaluation.seconds}


def _interval(evaluation: "Evaluation") -> str:
    point = evaluation.operating_point
    ends = None if point is None else point.observed_false_alarm_interval
    return "" if ends is None else f" (95 % interval {console.percent(ends[0])} to {console.percent(ends[1])})"


def print_evaluation(evaluation: "Evaluation") -> None:
    """Print the metrics, the operating points and the advice."""
    console.table(f"Evaluated on {evaluation.name}", of_evaluation(evaluation))
    points = evaluation.operating_points
    if points:
        console.grid(
            "Operating points (* this model)",
            [_operating_row(one, one == evaluation.operating_point) for one in points],
        )
    for sentence in evaluation.advice:
        console.print_line(("advice:", "bold cyan"), f" {sentence}")


def _operating_row(point: "OperatingPoint", current: bool) -> dict[str, str]:
    return {
        "promised rate": f"{console.percent(point.false_alarm_rate)}{' *' if current else ''}",
        "threshold": f"{point.threshold:.5g}",
        "found": f"{point.detected} of {point.defective}",
        "detection rate": console.percent(point.detection_rate),
        "false alarms": f"{point.false_alarms} of {point.good}",
        "observed rate": console.percent(point.observed_false_alarm_rate),
    }


def print_verdict(verdict: "Verdict") -> None:
    """Print the verdict on one image on one line."""
    p_value = "" if verdict.p_value is None else f"  p {verdict.p_value:.3g}"
    regions = f"  {len(verdict.regions)} region(s)" if verdict.regions else ""
    sizes = _sizes(verdict)
    reasons = f"  ({'; '.join(verdict.reasons)})" if verdict.reasons else ""
    if verdict.statistical_is_anomalous and verdict.is_anomalous is False:
        reasons = "  (accepted by the rules)"
    console.print_line(
        DECISIONS[verdict.is_anomalous],
        f"  score {verdict.score:.4g}{p_value}{regions}{sizes}  {verdict.path}{reasons}",
    )


def _sizes(verdict: "Verdict") -> str:
    """Return length, width and area in millimeters of the region with the highest score, if there is a scale."""
    first = next(iter(verdict.regions), None)
    if first is None or first.length_mm is None:
        return ""
    return f"  {first.length_mm:.3g} x {first.width_mm:.3g} mm, {first.area_mm2:.3g} mm2"


def print_model(name: str, metadata: Mapping[str, Any]) -> None:
    """Print how a model was made, its settings that have an effect, and its decision rule."""
    record = dict(metadata["record"])
    unused = record.pop("unused_settings", ())
    updates = record.pop("updates", ())
    console.table(name, {"format": metadata["format"], **record})
    if updates:
        console.grid("Updates", [_update_row(one) for one in updates])
    inner = {key: value for key, value in metadata["settings"]["method_settings"].items() if key not in unused}
    console.table("Settings", {**metadata["settings"], "method_settings": inner})
    rule = dict(metadata["decision_rule"])
    scores = rule.pop("scores", None)
    if scores is not None:
        rule["calibration_images"] = len(scores)
    if inspection := rule.pop("inspection", None):
        rule["inspection"] = _without_pixels(inspection)
    console.table("Decision rule", rule)


def _without_pixels(inspection: Mapping[str, Any]) -> dict[str, Any]:
    """Return an inspection plan with polygons and pixels counted instead of listed."""
    shown = dict(inspection)
    for name in ("include", "ignore", "zones"):
        if name in shown:
            shown[name] = len(shown[name])
    if "mask" in shown:
        shown["mask"] = f"{sum(shown['mask'][1::2])} pixels"
    if "registration" in shown:
        shown["registration"] = {"lowest_correlation": shown["registration"]["lowest_correlation"]}
    return shown


def _update_row(update: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "created": update["created"],
        "images": update["images"],
        "known before": update["images_known"],
        "odd": update["images_odd"],
        "shifted": "yes" if update["is_shifted"] else "no",
        "data": update["name"],
    }


def print_data(name: str, described: Sequence[Mapping[str, Any]]) -> None:
    """Print what was recognized in a data set, or in several as a table, and the problems."""
    if len(described) == 1:
        (only,) = described
        shown = {key: value for key, value in only.items() if key not in PRINTED_BELOW}
        console.table(name, shown)
    elif described:
        console.grid(name, [{title: one[key] for key, title in COLUMNS.items() if key in one} for one in described])
    for one in described:
        before = "" if len(described) == 1 else f"{one['name']}: "
        print_problems(before + problem for problem in one["problems"])
        for sentence in one.get("damaged", ()):
            console.print_error(sentence)


def print_problems(problems: Iterable[str]) -> None:
    """Print one warning per problem; of many that differ in their first word, the path, only the first."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.partition(" ")[2], []).append(problem)
    for kind, alike in kinds.items():
        shown = len(alike) if len(alike) <= PRINTED_ALIKE + 1 else PRINTED_ALIKE
        for problem in alike[:shown]:
            console.print_warning(problem)
        if shown < len(alike):
            console.print_warning(f"{len(alike) - shown} more: {kind}")
