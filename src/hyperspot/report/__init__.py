"""The report of an evaluation: one self-contained HTML file."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hyperspot import metrics
from hyperspot.errors import DataError
from hyperspot.evaluation import Evaluation, ImageResult
from hyperspot.report.charts import rate_curve, score_histogram
from hyperspot.utils.atomic_files import check_writable, replacing

GALLERY = 200
"""Most images in the gallery; of a larger test set, those nearest the threshold are kept."""
PICTURES = ("image", "heatmap of", "predicted and true defects outlined in")
"""Alternative texts of `ImageResult.pictures`, before the name of the image."""

_environment = Environment(
    loader=PackageLoader("hyperspot.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(evaluation: Evaluation, path: Path | str) -> Path:
    """Write the report of an evaluation as one self-contained HTML file, atomically, and return its path.

    Raises:
        DataError: If the file cannot be written.

    Examples:
        >>> import tempfile
        >>> from hyperspot import Evaluation, metrics, write_report
        >>> evaluation = Evaluation(
        ...     name="screw",
        ...     metrics={metric.name: None for metric in metrics.registered()},
        ...     metrics_at_input={},
        ...     promised_false_alarm_rate=None,
        ...     threshold=None,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_report(evaluation, f"{folder}/report.html").name
        'report.html'

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
    """Raise DataError if `write_report` could not write the file; called before a long evaluation."""
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
        defects=[
            (one.defect, one.images, _plain(one.detected), _percent(one.detection_rate), f"{one.mean_score:.4g}")
            for one in evaluation.defect_results
        ],
        metrics=_metric_rows(evaluation),
        charts=[(title, Markup(svg), caption) for title, svg, caption in _charts(evaluation)],  # noqa: S704
        gallery=[_card(result) for result in shown],
        left_out=len(evaluation.image_results) - len(shown),
        provenance=_provenance(evaluation.made_by),
        made_by_json=json.dumps(evaluation.made_by, indent=2, ensure_ascii=False),
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _headline(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return title, value and caption of the first figures."""
    promised = evaluation.promised_false_alarm_rate
    rate = f"at a promised false-alarm rate of {_percent(promised)}"
    captions = {
        "detection_rate": "no decisions without calibration"
        if promised is None
        else f"of defective images called anomalous {rate}",
        "observed_false_alarm_rate": "no promise without calibration"
        if promised is None
        else f"of good images called anomalous; promised: at most {_percent(promised)}",
        "image_auroc": "good and defective images ranked by score; 50 % is chance",
        "aupro_30": "overlap with each defect region, over false-positive rates up to 30 %",
    }
    return [
        (metrics.get(name).title, metrics.get(name).format(evaluation.metrics[name], 1), caption)
        for name, caption in captions.items()
    ]


def _metric_rows(evaluation: Evaluation) -> list[tuple[str, str, str, str]]:
    """Return title, description, value and value at the input size of every metric."""
    rows = []
    for name, value in evaluation.metrics.items():
        metric = metrics.get(name)
        at_input = metric.format(evaluation.metrics_at_input.get(name), 1) if metric.at_input else ""
        rows.append((metric.title, metric.description, metric.format(value, 1), at_input))
    return rows


def _provenance(made_by: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the command, the data, the weights and every setting."""
    training = made_by.get("training", {})
    trained, backbone = training.get("data"), training.get("backbone")
    settings = dict(made_by.get("settings", {}))
    settings |= settings.pop("method_settings", None) or {}
    return [
        ("Command", made_by.get("command") or "– (from Python)"),
        ("Test images", _plain(made_by.get("data", {}).get("path"))),
        ("Training images", f"{trained['images']} good images of {trained['name']}" if trained else "–"),
        ("Backbone weights", _plain(backbone["weights_source"] if backbone else None)),
        *((name, _plain(value)) for name, value in settings.items()),
    ]


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _charts(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return title, SVG and caption of each chart."""
    groups = [
        (name, css, [result.score for result in evaluation.image_results if result.label == label])
        for name, css, label in (("good", "good", 0), ("defective", "bad", 1))
    ]
    groups = [group for group in groups if group[2]]
    charts = []
    if groups:
        caption = "Images right of the threshold are called anomalous. Held-out good images set the threshold."
        if evaluation.threshold is None:
            caption = "Without calibration there is no threshold."
        charts.append(("Scores", score_histogram(groups, evaluation.threshold), caption))
    for title, points, x_name, y_name, limit, caption in (
        (
            "ROC of images",
            evaluation.image_roc,
            "false-alarm rate",
            "detection rate",
            1.0,
            "Detection rate against false-alarm rate, at every image threshold.",
        ),
        (
            "ROC of pixels",
            evaluation.pixel_roc,
            "false-positive rate",
            "true-positive rate",
            1.0,
            "The rates of pixels at every pixel threshold, at the size of the images.",
        ),
        (
            "PRO",
            evaluation.pro,
            "false-positive rate",
            "per-region overlap",
            0.3,
            "Mean overlap with each defect region, small or large, at false-positive rates up to 30 %.",
        ),
    ):
        if points is not None:
            charts.append((title, rate_curve(title, x_name, y_name, points, limit), caption))
    return charts


def _gallery(evaluation: Evaluation) -> Sequence[ImageResult]:
    """Return the results to show, highest score first; of too many, those nearest the threshold."""
    results = evaluation.image_results
    if len(results) > GALLERY:
        middle = evaluation.threshold
        if middle is None:
            middle = sorted(result.score for result in results)[len(results) // 2]
        results = tuple(sorted(results, key=lambda result: abs(result.score - middle))[:GALLERY])
    return sorted(results, key=lambda result: -result.score)


OUTCOMES = {
    (True, 1): ("hit", "found"),
    (False, 1): ("missed", "missed"),
    (True, 0): ("alarm", "false alarm"),
    (False, 0): ("pass", "passed"),
}
"""CSS class and text by decision and label."""


def _card(result: ImageResult) -> dict[str, Any]:
    name = f"{result.path.parent.name}/{result.path.name}"
    outcome = ("none", "no decision")
    if result.is_anomalous is not None:
        outcome = OUTCOMES[result.is_anomalous, result.label]
    return {
        "name": name,
        "score": f"{result.score:.4g}",
        "p_value": "–" if result.p_value is None else f"{result.p_value:.3g}",
        "kind": outcome[0],
        "outcome": outcome[1],
        "pictures": [
            (f"{content} {name}", "data:image/jpeg;base64," + base64.b64encode(picture).decode())
            for content, picture in zip(PICTURES, result.pictures, strict=True)
        ],
    }


__all__ = ["render", "require_writable", "write_report"]
