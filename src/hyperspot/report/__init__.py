"""The report of an evaluation: one self-contained HTML file."""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from hyperspot import metrics
from hyperspot.errors import DataError
from hyperspot.evaluation import Evaluation, ImageResult
from hyperspot.report.charts import rate_curve, score_histogram
from hyperspot.report.trade_off import OUTCOMES, image_name, interval, percent, trade_off
from hyperspot.results.overlays import GRAY, bar_colors
from hyperspot.utils.atomic_files import check_writable, replacing

GALLERY = 200
"""Most images in the gallery; of a larger test set, those nearest the threshold are kept."""
PICTURES = ("image", "heatmap of", "predicted and true defects outlined in")
"""Alternative texts of `ImageResult.pictures`, before the name of the image."""

environment = Environment(
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
    return write_page(render(evaluation), Path(path))


def write_page(page: str, path: Path) -> Path:
    """Write a page atomically and return its path; raises DataError if it cannot be written."""
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
    smallest = None if evaluation.calibration is None else 1 / (len(evaluation.calibration.scores) + 1)
    return environment.get_template("report.html.j2").render(
        evaluation=evaluation,
        headline=_headline(evaluation),
        defects=[
            (one.defect, one.images, _plain(one.detected), percent(one.detection_rate), f"{one.mean_score:.4g}")
            for one in evaluation.defect_results
        ],
        metrics=_metric_rows(evaluation),
        charts=[(title, Markup(svg), caption) for title, svg, caption in _charts(evaluation)],  # noqa: S704
        advice=[_code(sentence) for sentence in evaluation.advice],
        trade_off=trade_off(evaluation),
        gallery=[_card(index, result, smallest) for index, result in shown],
        color_bar=_color_bar(evaluation),
        left_out=len(evaluation.image_results) - len(shown),
        p_value_note=_p_value_note(evaluation),
        provenance=_provenance(evaluation.made_by),
        made_by_json=json.dumps(evaluation.made_by, indent=2, ensure_ascii=False),
    )


def _code(sentence: str) -> Markup:
    """Mark up what stands between backticks."""
    return Markup(re.sub(r"`(.*?)`", r"<code>\1</code>", str(escape(sentence))))  # noqa: S704


def _headline(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return title, value and caption of the first figures."""
    point = evaluation.operating_point
    detected, observed = "no decisions without calibration", "no promise without calibration"
    if evaluation.promised_false_alarm_rate is not None:
        promised = percent(evaluation.promised_false_alarm_rate)
        detected = f"of defective images called anomalous at a promised false-alarm rate of {promised}"
        observed = f"of good images called anomalous; promised: at most {promised}"
    if point is not None:
        detected = f"{point.detected} of {point.defective} defective images called anomalous at a promised "
        detected += f"false-alarm rate of {promised}; 95 % interval {interval(point.detection_interval)}"
        observed = f"{point.false_alarms} of {point.good} good images called anomalous; promised: at most {promised}; "
        observed += f"95 % interval {interval(point.observed_false_alarm_interval)}"
    captions = {
        "detection_rate": detected,
        "observed_false_alarm_rate": observed,
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


def _gallery(evaluation: Evaluation) -> list[tuple[int, ImageResult]]:
    """Return the results to show with their indices, highest score first; of too many, those nearest the threshold."""
    results = list(enumerate(evaluation.image_results))
    if len(results) > GALLERY:
        middle = evaluation.threshold
        if middle is None:
            middle = sorted(result.score for _, result in results)[len(results) // 2]
        results = sorted(results, key=lambda one: abs(one[1].score - middle))[:GALLERY]
    return sorted(results, key=lambda one: -one[1].score)


def _card(index: int, result: ImageResult, smallest: float | None) -> dict[str, Any]:
    """Return what the template shows of one image; `smallest` is the smallest possible p-value."""
    name = image_name(result)
    outcome = ("none", "no decision")
    if result.is_anomalous is not None:
        outcome = OUTCOMES[result.is_anomalous, result.label]
    p_value = "–" if result.p_value is None else f"{result.p_value:.3g}"
    return {
        "index": index,
        "name": name,
        "score": f"{result.score:.4g}",
        "p_value": f"{p_value} (smallest)" if result.p_value is not None and result.p_value == smallest else p_value,
        "kind": outcome[0],
        "outcome": outcome[1],
        "pictures": [
            (f"{content} {name}", "data:image/jpeg;base64," + base64.b64encode(picture).decode())
            for content, picture in zip(PICTURES, result.pictures, strict=True)
        ],
    }


def _color_bar(evaluation: Evaluation) -> tuple[str, str, str] | None:
    """Return the lower end, the CSS gradient and the upper end of the color bar of the heatmaps."""
    if evaluation.heat_range is None:
        return None
    cold, hot = evaluation.heat_range
    stops = ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in bar_colors(9, GRAY))
    return f"{cold:.3g}", f"linear-gradient(to right, {stops})", f"{hot:.3g}+"


def _p_value_note(evaluation: Evaluation) -> str:
    """Return the meaning of the p-values, and of the one that most found images have."""
    if evaluation.calibration is None:
        return ""
    n = len(evaluation.calibration.scores)
    return (
        f"p is the estimated share of good images with at least this score. {1 / (n + 1):.3g} = 1 / ({n} + 1) is the "
        f"smallest possible p-value with {n} calibration images: the score is higher than those of all of them."
    )


__all__ = ["render", "require_writable", "write_report"]
