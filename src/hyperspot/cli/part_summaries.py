"""What the commands `hyperspot part` print about models, parts and evaluations."""

from typing import TYPE_CHECKING, Any

from hyperspot.cli import console, summaries

if TYPE_CHECKING:
    from hyperspot.evaluation import Evaluation
    from hyperspot.parts import PartEvaluation, PartInspector, PartVerdict


def print_values(values: dict[str, Any], title: str, json: bool) -> None:
    """Print the results of a command as a table or as one JSON object."""
    if json:
        console.print_json(values)
    else:
        console.table(title, values)


def of_training(inspector: "PartInspector") -> dict[str, Any]:
    """Return what `hyperspot part train` prints."""
    calibration, described = inspector.calibration.calibration, inspector.describe()
    training = described["training"]
    return {
        "parts": training["data"]["parts"],
        "views": {view: list(names) for view, names in inspector.images.items()},
        "tiles": {view: one["tiles"] for view, one in training["views"].items() if one.get("tiles")} or None,
        "models": training["models"],
        "method": described["settings"]["method"],
        "backbone": training["backbone"]["name"],
        "weights": training["backbone"]["weights_source"],
        "calibration": calibration.kind,
        "false_alarm_rate": calibration.false_alarm_rate,
        "threshold": calibration.threshold,
        "steadiness": _of_parts(calibration.steadiness()),
        "seconds": training["seconds"],
    }


def print_verdict(verdict: "PartVerdict") -> None:
    """Print the line of one part."""
    missing = f"  missing {', '.join(verdict.missing)}" if verdict.missing else ""
    p_value = "" if verdict.p_value is None else f"  p {verdict.p_value:.3g}"
    console.print_line(
        summaries.DECISIONS[verdict.is_anomalous],
        f"  score {verdict.score:.4g}{p_value}  view {verdict.deciding_view}{missing}  {verdict.part}",
    )


def print_evaluation(evaluation: "PartEvaluation") -> None:
    """Print the table of the part and its views, and what follows from the calibration of the part."""
    whole = evaluation.part
    rows = [_row("part", whole), *(_row(view, found) for view, found in evaluation.views.items())]
    console.grid(f"Evaluated on {whole.name}", rows)
    console.print_line(
        f"promised for the part: at most {console.percent(whole.promised_false_alarm_rate)} false alarms"
    )
    console.print_line(_of_parts(str(whole.steadiness)))
    for sentence in whole.advice:
        console.print_line(("advice:", "bold cyan"), f" {_of_parts(sentence)}")


def _of_parts(sentence: str) -> str:
    """Return a sentence on images as one on parts: what is counted and calibrated here."""
    return sentence.replace("image", "part").replace("hyperspot recalibrate", "hyperspot part recalibrate")


def _row(name: str, evaluation: "Evaluation") -> dict[str, str]:
    results = evaluation.image_results
    alarms = {label: sum(one.is_anomalous is True for one in results if one.label == label) for label in (0, 1)}
    counts = {label: sum(one.label == label for one in results) for label in (0, 1)}
    auroc = evaluation.image_auroc
    return {
        "view": name,
        "found": f"{alarms[1]} of {counts[1]}",
        "detection rate": console.percent(evaluation.detection_rate),
        "false alarms": f"{alarms[0]} of {counts[0]}",
        "observed rate": console.percent(evaluation.observed_false_alarm_rate),
        "AUROC": "–" if auroc is None else f"{100 * auroc:.2f} %",
    }
