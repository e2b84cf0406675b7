"""What a person is told of a result in the terminal: which figures, under which names, in which order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hyperspot.cli import console

if TYPE_CHECKING:
    from hyperspot.detector.detector import Detector
    from hyperspot.evaluation import Evaluation
    from hyperspot.results.verdict import Verdict

CALLED = {True: ("ANOMALOUS", "bold red"), False: ("good     ", "green"), None: ("no verdict", "dim")}
TOLD_ASIDE = ("problems", "damaged")
IN_ROWS = {
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
"""What is told of each of several products, and the title of its column."""


def of_training(detector: "Detector") -> dict[str, Any]:
    """Return what was learned from, by what means, and what is promised."""
    frame = detector.input_size
    return {
        "images": detector.record["data"]["images"],
        "method": detector.settings.method,
        "backbone": detector.record["backbone"]["name"],
        "weights": detector.record["backbone"]["weights_source"],
        "input_size": f"{frame.width} x {frame.height}",
        "calibration": detector.decision_rule.calibration.kind,
        "false_alarm_rate": detector.decision_rule.calibration.false_alarm_rate,
        "threshold": detector.decision_rule.calibration.threshold,
        "seconds": detector.record["seconds"],
    }


def of_evaluation(evaluation: "Evaluation") -> dict[str, Any]:
    """Return the figures that matter most, as per cent."""
    pixels = evaluation.pixels
    return {
        "photos": len(evaluation.judged),
        "image AUROC": console.percent(evaluation.image_auroc),
        "pixel AUROC": console.percent(pixels.pixel_auroc),
        "AUPRO (0.30 / 0.05)": f"{console.percent(pixels.aupro_30)} / {console.percent(pixels.aupro_05)}",
        "AUPIMO": console.percent(pixels.aupimo),
        "defects found": console.percent(evaluation.detection_rate),
        "false alarms": f"{console.percent(evaluation.observed_false_alarm_rate)} observed, "
        f"{console.percent(evaluation.promised_false_alarm_rate)} promised",
        "segmentation F1": console.percent(evaluation.seg_f1),
        "seconds": evaluation.seconds,
    }


def say_verdict(verdict: "Verdict") -> None:
    """Print the verdict on one photo on one line."""
    p_value = "" if verdict.p_value is None else f"  p {verdict.p_value:.3g}"
    regions = f"  {len(verdict.regions)} region(s)" if verdict.regions else ""
    console.say(CALLED[verdict.is_anomalous], f"  score {verdict.score:.4g}{p_value}{regions}  {verdict.path}")


def say_model(name: str, metadata: Mapping[str, Any]) -> None:
    """Print how a model was made, its settings, and what its verdicts rest on."""
    console.table(name, {"format": metadata["format"], **metadata["record"]})
    console.table("Settings", metadata["settings"])
    verdict = {**metadata["calibration"], "pixel_threshold": metadata["pixel_threshold"]}
    verdict.pop("scores", None)
    console.table("Verdict", verdict)


def say_data(name: str, described: Sequence[Mapping[str, Any]]) -> None:
    """Print what was recognized in a data set, or in several a row each, and warn of what is amiss."""
    if len(described) == 1:
        (only,) = described
        shown = {key: value for key, value in only.items() if key not in TOLD_ASIDE}
        console.table(name, shown)
    elif described:
        console.grid(name, [{title: one[key] for key, title in IN_ROWS.items() if key in one} for one in described])
    for one in described:
        before = "" if len(described) == 1 else f"{one['name']}: "
        tell_problems(before + problem for problem in one["problems"])
        for sentence in one.get("damaged", ()):
            console.complain(sentence)


def tell_problems(problems: Iterable[str]) -> None:
    """Print one warning for each thing that is amiss."""
    for problem in problems:
        console.warn(problem)
