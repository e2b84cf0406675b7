"""What a person is told of a result."""

from dataclasses import replace

import pytest

from hyperspot import metrics
from hyperspot.cli import summaries


def test_training_and_evaluation_are_told_by_their_own_figures(detector, product):
    told = summaries.of_training(detector)
    assert told["images"] == 24
    assert told["input_size"] == "128 x 128"
    assert told["threshold"] == detector.decision_rule.calibration.threshold
    evaluation = detector.evaluate(product)
    shown = summaries.of_evaluation(evaluation)
    assert shown["Image AUROC"] == f"{100 * evaluation.image_auroc:.2f} %"
    assert shown["Observed false-alarm rate"].endswith("promised: at most 20.00 %")
    undefined = replace(evaluation, metrics=evaluation.metrics | {"image_auroc": None}, promised_false_alarm_rate=None)
    shown = summaries.of_evaluation(undefined)
    assert shown["Image AUROC"] == "–"
    assert "promised" not in shown["Observed false-alarm rate"]


@pytest.mark.parametrize(("called", "said"), [(True, "ANOMALOUS"), (False, "good"), (None, "no verdict")])
def test_a_verdict_is_one_line(detector, product, capsys, called, said):
    verdict = detector.predict(product / "test" / "good" / "000.png")
    p_value = None if called is None else verdict.p_value
    summaries.print_verdict(replace(verdict, is_anomalous=called, p_value=p_value))
    out = capsys.readouterr().out
    assert out.startswith(said)
    assert out.endswith("000.png\n")
    assert ("  p " in out) is (called is not None)


def test_problems_are_told_beside_the_data_and_the_description_is_left_whole(capsys):
    described = {"name": "part", "problems": ["a mask is missing"]}
    summaries.print_data("parts", [described])
    printed = capsys.readouterr()
    assert "part" in printed.out
    assert "problems" not in printed.out
    assert printed.err == "warning: a mask is missing\n"
    assert described["problems"] == ["a mask is missing"]


def test_many_problems_of_one_kind_are_counted(capsys):
    many = [f"ground_truth/{number}.png is a mask without an image" for number in range(24)]
    summaries.print_problems([*many, "other.png is empty"])
    printed = capsys.readouterr()
    lines = (printed.out + printed.err).splitlines()
    assert len(lines) == 5
    assert "21 more: is a mask without an image" in lines[3]
    assert "other.png is empty" in lines[4]
    summaries.print_problems(many[:4])
    printed = capsys.readouterr()
    assert len((printed.out + printed.err).splitlines()) == 4


def test_an_area_ratio_is_shown_as_times():
    assert metrics.get("mask_area_ratio").format(2.1306) == "2.13 times"
