"""The report of an evaluation: one HTML file with everything in it, to be mailed or archived."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hyperspot.errors import DataError
from hyperspot.evaluation import Evaluation, Judged
from hyperspot.report.charts import rate_curve, score_histogram
from hyperspot.utils.atomic_files import check_writable, replacing

GALLERY = 300
"""Photos in the gallery; of a larger set, those nearest the threshold are kept."""
SHOWN = ("photo", "heatmap of", "found and true defects outlined in")
"""What the pictures of a photo are, in the order of `Judged.pictures`, for those who do not see them."""

_environment = Environment(
    loader=PackageLoader("hyperspot.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(evaluation: Evaluation, path: Path | str) -> Path:
    """Write the report of an evaluation as one self-contained HTML file, all of it or nothing.

    Raises DataError where the file cannot be written.
    """
    path = Path(path)
    page = render(evaluation)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise _unwritable(path, error) from None
    return path


def require_writable(path: Path) -> None:
    """Raise DataError where `write_report` could not write the file, so that nothing is judged in vain."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> DataError:
    reason = (error.strerror or str(error)).lower()
    return DataError(f"the report {path} cannot be written: {reason}; choose another --report")


def render(evaluation: Evaluation) -> str:
    """Return the report as HTML text."""
    shown = _gallery(evaluation)
    return _environment.get_template("report.html.j2").render(
        evaluation=evaluation,
        headline=_headline(evaluation),
        details=_details(evaluation),
        charts=[(name, Markup(drawn), said) for name, drawn, said in _charts(evaluation)],  # noqa: S704
        gallery=[_card(judged) for judged in shown],
        left_out=len(evaluation.judged) - len(shown),
        making=_making(evaluation.made_by),
        made_by_json=json.dumps(evaluation.made_by, indent=2, ensure_ascii=False),
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _headline(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    promised = evaluation.promised_false_alarm_rate
    return [
        ("Defects found", _percent(evaluation.detection_rate), "defective photos called anomalous"),
        (
            "False alarms",
            _percent(evaluation.observed_false_alarm_rate),
            "good photos called anomalous; "
            + ("nothing was promised" if promised is None else f"promised: at most {_percent(promised)}"),
        ),
        ("Image AUROC", _percent(evaluation.image_auroc), "good and defective photos told apart by score"),
        ("AUPRO", _percent(evaluation.pixels.aupro_30), "mean overlap with each defect, up to 30 % false positives"),
    ]


def _details(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    pixels, seen = evaluation.pixels, evaluation.pixels_at_input
    rows = [
        ("Pixel AUROC", pixels.pixel_auroc, seen.pixel_auroc),
        ("AUPRO, limit 0.30", pixels.aupro_30, seen.aupro_30),
        ("AUPRO, limit 0.05", pixels.aupro_05, seen.aupro_05),
        ("AUPIMO", pixels.aupimo, seen.aupimo),
        ("Pixel average precision", pixels.pixel_ap, seen.pixel_ap),
        ("Pixel F1 at the best threshold (oracle)", pixels.pixel_f1_max, seen.pixel_f1_max),
    ]
    table = [(name, _percent(original), _percent(at_input)) for name, original, at_input in rows]
    table.append(("Segmentation F1 of the delivered masks", _percent(evaluation.seg_f1), ""))
    table.append(("Image average precision", _percent(evaluation.image_ap), ""))
    table.append(("Image F1 at the best threshold (oracle)", _percent(evaluation.image_f1_max), ""))
    return table


def _making(made_by: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what decided the figures, to be read without unfolding anything."""
    trained = made_by["training"]["data"]
    rows = [
        ("Command", made_by["command"] or "– (from Python)"),
        ("Test photos", made_by["data"]["path"]),
        ("Learned from", f"{trained['images']} good images of {trained['name']}"),
        ("Backbone weights", made_by["training"]["backbone"]["weights_source"]),
    ]
    settings = {**made_by["settings"], **made_by["settings"]["method_settings"]}
    rows += [(name, _plain(value)) for name, value in settings.items() if name != "method_settings"]
    return rows


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _charts(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    good = [judged.score for judged in evaluation.judged if judged.label == 0]
    bad = [judged.score for judged in evaluation.judged if judged.label == 1]
    groups = [("good", "good", good), ("defective", "bad", bad)]
    drawn = [
        (
            "Scores",
            score_histogram([group for group in groups if group[2]], evaluation.threshold),
            "Right of the threshold a photo is called anomalous. The threshold was set on held-out good photos.",
        )
    ]
    if evaluation.image_roc is not None:
        drawn.append(
            (
                "ROC over photos",
                rate_curve("ROC over photos", "false alarms", "defects found", evaluation.image_roc),
                "Which share of defects is found at which share of false alarms.",
            )
        )
    if evaluation.pixel_roc is not None:
        drawn.append(
            (
                "ROC over pixels",
                rate_curve("ROC over pixels", "false-positive pixels", "defect pixels", evaluation.pixel_roc),
                "The same for single pixels at the photos' own resolution.",
            )
        )
    if evaluation.pro is not None:
        drawn.append(
            (
                "PRO",
                rate_curve("PRO", "false-positive pixels", "overlap per defect", evaluation.pro, 0.3),
                "Mean overlap with each defect, small or large, up to 30 % false-positive pixels.",
            )
        )
    return drawn


def _gallery(evaluation: Evaluation) -> Sequence[Judged]:
    """Return the photos to show, highest score first; of too many, those nearest the threshold."""
    judged = evaluation.judged
    if len(judged) > GALLERY:
        middle = evaluation.threshold
        if middle is None:
            middle = sorted(one.score for one in judged)[len(judged) // 2]
        judged = tuple(sorted(judged, key=lambda one: abs(one.score - middle))[:GALLERY])
    return sorted(judged, key=lambda one: -one.score)


def _card(judged: Judged) -> dict[str, Any]:
    if judged.is_anomalous is None:
        kind, said = "none", "no verdict"
    elif judged.is_anomalous:
        kind, said = ("hit", "found") if judged.label else ("alarm", "false alarm")
    else:
        kind, said = ("missed", "missed") if judged.label else ("pass", "passed")
    name = f"{judged.path.parent.name}/{judged.path.name}"
    return {
        "name": name,
        "defect": judged.defect,
        "score": f"{judged.score:.4g}",
        "p_value": "–" if judged.p_value is None else f"{judged.p_value:.3g}",
        "kind": kind,
        "said": said,
        "pictures": [
            (f"{shown} {name}", "data:image/jpeg;base64," + base64.b64encode(picture).decode())
            for shown, picture in zip(SHOWN, judged.pictures, strict=True)
        ],
    }


__all__ = ["render", "require_writable", "write_report"]
