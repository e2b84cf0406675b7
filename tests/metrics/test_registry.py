import re
from pathlib import Path

import numpy as np
import pytest

from hyperspot import metrics
from hyperspot.errors import SettingsError
from hyperspot.metrics import Metric, PixelStatistics
from hyperspot.metrics.registry import RESERVED

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
BUILT_IN = metrics.registered()


def metric(name: str = "toy", **changes) -> Metric:
    """Return a valid metric."""
    fields = {
        "name": name,
        "title": "Toy",
        "short_title": "toy",
        "unit": "score",
        "description": "A toy",
        "level": "image",
        "function": lambda scores, labels: 0.5,
    }
    return Metric(**{**fields, **changes})


@pytest.fixture
def toy():
    """Register a metric for one test."""
    yield metrics.register_metric(metric())
    metrics.unregister_metric("toy")


def test_a_registered_metric_is_computed_and_found_by_name(toy):
    assert metrics.get("toy") is toy
    assert metrics.registered() == (*BUILT_IN, toy)
    assert metrics.compute({"image": (np.zeros(2), np.zeros(2, dtype=int))})["toy"] == 0.5


def test_unregistered_metrics_are_gone():
    metrics.register_metric(metric())
    metrics.unregister_metric("toy")
    assert metrics.registered() == BUILT_IN
    with pytest.raises(SettingsError, match=r"'toy'.*image_auroc"):
        metrics.get("toy")
    with pytest.raises(SettingsError, match="'toy'"):
        metrics.unregister_metric("toy")


@pytest.mark.parametrize("name", ["image_auroc", "seconds", "two words", ""])
def test_a_name_that_is_taken_or_no_identifier_is_refused(name: str):
    with pytest.raises(SettingsError, match="choose another name"):
        metrics.register_metric(metric(name))
    assert metrics.registered() == BUILT_IN


def test_only_pixel_metrics_are_computed_at_the_input_size():
    with pytest.raises(SettingsError, match="pixel metrics only"):
        metrics.register_metric(metric(at_input=True))


def test_metrics_of_an_absent_level_are_none():
    pixels = PixelStatistics()
    pixels.update(np.array([[0.1, 0.9]], dtype=np.float32), np.array([[False, True]]))
    values = metrics.compute({"pixel": (pixels,)})
    assert list(values) == [one.name for one in BUILT_IN]
    for one in BUILT_IN:
        assert (values[one.name] is None) is (one.level != "pixel" or one.name == "aupimo")
    at_input = metrics.compute({"pixel": (pixels,)}, at_input=True)
    assert at_input == {one.name: values[one.name] for one in BUILT_IN if one.at_input}
    assert len(at_input) == 6


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("percent", 0.98765, "98.77 %"),
        ("percent", None, "–"),
        ("seconds", 0.01234, "0.01234 s"),
        ("score", 12345.6, "1.235e+04"),
    ],
)
def test_values_are_formatted_by_unit(unit: str, value: float | None, shown: str):
    assert metric(unit=unit).format(value) == shown


def test_first_are_the_detection_rate_and_the_false_alarm_rate():
    assert [one.name for one in BUILT_IN[:2]] == ["detection_rate", "observed_false_alarm_rate"]


def test_the_documentation_lists_every_metric_in_order():
    rows = [
        f"| `{one.name}` | {one.title} | {one.unit} | {one.level}{', at input' if one.at_input else ''} "
        f"| {one.description} |"
        for one in BUILT_IN
    ]
    section = (HOW_TO / "read-the-report.md").read_text("utf-8").partition("\n## Metrics\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `.*\|$", section, re.M) == rows, "replace the table by:\n" + "\n".join(rows)


def test_the_documentation_lists_every_json_name():
    section = (HOW_TO / "read-the-report.md").read_text("utf-8").partition("\n## JSON\n")[2].partition("\n## ")[0]
    names = re.findall(r"^\| `(\w+)`", section, re.M)
    assert sorted(names) == sorted(RESERVED)


def test_the_example_of_the_documentation_runs():
    (example,) = re.findall(r"```python\n(.*?)```", (HOW_TO / "add-a-metric.md").read_text("utf-8"), re.S)
    try:
        exec(compile(example, "add-a-metric.md", "exec"), {})
        added = [one for one in metrics.registered() if one not in BUILT_IN]
        values = metrics.compute({"image": (np.array([0.1, 0.2, 0.9]), np.array([0, 0, 1]))})
    finally:
        for one in metrics.registered():
            if one not in BUILT_IN:
                metrics.unregister_metric(one.name)
    assert [values[one.name] for one in added] == [pytest.approx(0.7)]
