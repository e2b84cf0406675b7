"""The registry of metrics: one entry names, describes and computes a metric.

Evaluation, report, command line and benchmark tables read the metrics from here, in the order of registration. The
built-in ones are registered where they are computed: `decisions`, `ranking`, `pixels`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hyperspot.errors import SettingsError

Level = Literal["decision", "mask", "image", "pixel"]
Unit = Literal["percent", "seconds", "ratio", "score"]

RESERVED = frozenset(
    {
        "name",
        "promised_false_alarm_rate",
        "threshold",
        "steadiness",
        "operating_points",
        "advice",
        "drift",
        "at_input",
        "images",
        "seconds",
        "problems",
        "made_by",
        "report",
    }
)
"""The other JSON names of an evaluation."""


@dataclass(frozen=True)
class Metric:
    """A metric of an evaluation.

    The level decides the arguments of the function, which returns None if the metric is undefined on them:

    - `decision`: `is_anomalous` (bool, one per test image) and `labels` (int, 0 is good and 1 defective). Computed
      for calibrated detectors only.
    - `mask`: the `MaskCounts` of the predicted masks. Computed for calibrated detectors only.
    - `image`: `scores` (float, higher is more anomalous) and `labels`, as above.
    - `pixel`: the `PixelStatistics` of the heatmaps and the ground-truth masks.

    Attributes:
        name: JSON name.
        title: Name in the report and in the terminal.
        short_title: Column title of benchmark tables.
        unit: `percent` for rates in 0..1 that are shown as percentages; `seconds`; `ratio`, shown as times; `score` for
            plain numbers.
        description: One sentence, without a period.
        level: What it is computed from.
        function: Computes it.
        at_input: Whether it is computed at the input size too, as published figures are; `pixel` metrics only.

    Examples:
        >>> from hyperspot.metrics import get
        >>> metric = get("aupro_30")
        >>> metric.title, metric.short_title, metric.unit, metric.level
        ('AUPRO, limit 0.30', 'AUPRO', 'percent', 'pixel')

    """

    name: str
    title: str
    short_title: str
    unit: Unit
    description: str
    level: Level
    function: Callable[..., float | None]
    at_input: bool = False

    def format(self, value: float | None, digits: int = 2) -> str:
        """Return a value with its unit, or a dash for None; `digits` is the number of decimals of a percentage.

        Examples:
            >>> from hyperspot.metrics import get
            >>> get("image_auroc").format(0.98765)
            '98.77 %'

        """
        if value is None:
            return "–"
        if self.unit == "percent":
            return f"{100 * value:.{digits}f} %"
        if self.unit == "ratio":
            return f"{value:.3g} times"
        return f"{value:.4g} s" if self.unit == "seconds" else f"{value:.4g}"


_METRICS: dict[str, Metric] = {}


def register_metric(metric: Metric) -> Metric:
    """Add a metric to evaluations, reports, the command line and benchmark tables; return it.

    Raises:
        SettingsError: If the name is taken or not an identifier, or `at_input` is set for another level than `pixel`.

    Examples:
        >>> from hyperspot import Metric, metrics, register_metric
        >>> def score_gap(scores, labels):
        ...     good, defective = scores[labels == 0], scores[labels == 1]
        ...     return defective.min() - good.max() if len(good) and len(defective) else None
        >>> metric = register_metric(
        ...     Metric(
        ...         name="score_gap",
        ...         title="Score gap",
        ...         short_title="gap",
        ...         unit="score",
        ...         description="Lowest score of a defective image minus the highest score of a good image",
        ...         level="image",
        ...         function=score_gap,
        ...     )
        ... )
        >>> metrics.unregister_metric("score_gap")

    """
    if not metric.name.isidentifier() or metric.name in RESERVED or metric.name in _METRICS:
        raise SettingsError(f"the metric name '{metric.name}' is taken or not an identifier; choose another name")
    if metric.at_input and metric.level != "pixel":
        raise SettingsError(f"the metric {metric.name} is of level {metric.level}; at_input is for pixel metrics only")
    _METRICS[metric.name] = metric
    return metric


def unregister_metric(name: str) -> None:
    """Remove a metric; raises SettingsError if it is not registered."""
    del _METRICS[get(name).name]


def get(name: str) -> Metric:
    """Return a metric by its JSON name; raises SettingsError if it is not registered.

    Examples:
        >>> get("pixel_auroc").short_title
        'P-AUROC'

    """
    if name not in _METRICS:
        raise SettingsError(f"there is no metric '{name}'; choose one of {', '.join(_METRICS)}")
    return _METRICS[name]


def registered() -> tuple[Metric, ...]:
    """Return all metrics in the order of registration.

    Examples:
        >>> [metric.name for metric in registered()][:2]
        ['detection_rate', 'observed_false_alarm_rate']

    """
    return tuple(_METRICS.values())


def compute(arguments: Mapping[Level, tuple[Any, ...]], *, at_input: bool = False) -> dict[str, float | None]:
    """Return the value of every registered metric by name, in the order of registration.

    Args:
        arguments: The arguments of the functions of each level (see `Metric`); metrics of an absent level are None.
        at_input: Compute only metrics that are computed at the input size too.

    Examples:
        >>> import numpy as np
        >>> values = compute({"image": (np.array([0.1, 0.9]), np.array([0, 1]))})
        >>> values["image_auroc"], values["pixel_auroc"]
        (1.0, None)

    """
    values: dict[str, float | None] = {}
    for metric in registered():
        if at_input and not metric.at_input:
            continue
        value = metric.function(*arguments[metric.level]) if metric.level in arguments else None
        values[metric.name] = None if value is None else float(value)
    return values
