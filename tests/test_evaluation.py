"""Evaluation with a predictor whose scores are known."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import hyperspot
from hyperspot import metrics
from hyperspot.cli import summaries
from hyperspot.data import open_dataset
from hyperspot.decision.calibration import Calibration
from hyperspot.errors import DataError
from hyperspot.evaluation import DefectResult, evaluate
from hyperspot.metrics import registry
from hyperspot.metrics.intervals import wilson_interval
from hyperspot.report import render
from hyperspot.utils.progress import SILENT
from tests.brightness import SIZE, BrightnessPredictor, write_part

DEFECTS = {"crack": [0.9, 0.6, 0.4, 0.3], "stain": [0.8, 0.7]}
GOOD = [0.2, 0.3, 0.55, 0.1]


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    return write_part(tmp_path_factory.mktemp("data") / "part", DEFECTS, GOOD)


@pytest.fixture(scope="module")
def evaluation(part):
    return evaluate(BrightnessPredictor(), open_dataset(part), progress=SILENT, command="hyperspot evaluate")


def test_decisions_are_counted_at_the_threshold_of_the_calibration(evaluation):
    assert evaluation.threshold == 0.5
    assert evaluation.promised_false_alarm_rate == 0.2
    assert evaluation.detection_rate == 4 / 6
    assert evaluation.observed_false_alarm_rate == 1 / 4


def test_operating_points_hold_the_promised_rate_and_those_that_four_images_support(evaluation):
    (point,) = evaluation.operating_points
    assert point == evaluation.operating_point
    assert (point.false_alarm_rate, point.threshold) == (0.2, 0.5)
    assert (point.detected, point.defective, point.false_alarms, point.good) == (4, 6, 1, 4)
    assert evaluation.to_dict()["operating_points"] == [point.to_dict()]
    assert evaluation.advice == ()


def test_advice_reaches_json_and_the_terminal(tmp_path, capsys):
    predictor = BrightnessPredictor()
    calibration = Calibration.from_scores("split", 0.05, [*np.linspace(0.05, 0.25, 18), 0.95])
    predictor.decision_rule = replace(predictor.decision_rule, calibration=calibration)
    part = write_part(tmp_path / "part", DEFECTS, [0.2, 0.3, 0.1, 0.15])
    found = evaluate(predictor, open_dataset(part), progress=SILENT)
    assert found.detection_rate == 0
    assert len(found.operating_points) == 2
    assert "1 of the 19 good calibration images sets the threshold so high" in found.advice[2]
    assert found.to_dict()["advice"] == list(found.advice)
    summaries.print_evaluation(found)
    printed = capsys.readouterr().out
    assert [line.removeprefix("advice: ") for line in printed.splitlines() if line.startswith("advice: ")] == list(
        found.advice
    )
    table = printed.partition("Operating points")[2].partition("advice:")[0].splitlines()
    rows = [re.split(r"\s{2,}", line.strip()) for line in table[-2:]]
    assert rows == [
        ["5.00 % *", "0.95", "0 of 6", "0.00 %", "0 of 4", "0.00 %"],
        ["10.00 %", "0.25", "6 of 6", "100.00 %", "1 of 4", "25.00 %"],
    ]


def test_image_metrics_rank_the_images(evaluation):
    bad, good = [0.9, 0.6, 0.4, 0.3, 0.8, 0.7], GOOD
    pairs = [(one > other) + 0.5 * (one == other) for one in bad for other in good]
    assert evaluation.image_auroc == pytest.approx(np.mean(pairs))
    assert [result.score for result in evaluation.image_results] == pytest.approx(
        [*GOOD, *DEFECTS["crack"], *DEFECTS["stain"]], abs=2e-3
    )


def test_pixel_metrics_are_those_of_the_heatmaps(evaluation):
    hits, false, missed = 4 * 64, 64, 2 * 64
    assert evaluation.seg_f1 == 2 * hits / (2 * hits + false + missed)
    # Normal pixels: the background of 10 images and the squares of good ones; the levels tie with no defect but 0.3.
    background, squares = 10 * (SIZE**2 - 64), np.repeat(GOOD, 64)
    scores = np.repeat([0.9, 0.6, 0.4, 0.3, 0.8, 0.7], 64)
    below = background + (squares < scores[:, None]).sum(1) + 0.5 * (squares == scores[:, None]).sum(1)
    assert evaluation.pixel_auroc == pytest.approx((below / (background + 4 * 64)).mean())
    assert evaluation.metrics_at_input == {
        metric.name: evaluation.metrics[metric.name] for metric in metrics.registered() if metric.at_input
    }


def test_pixels_at_the_input_size_are_those_inside_the_crops(part):
    predictor = BrightnessPredictor()
    predictor.crops = (replace(predictor.crops[0], top=8, left=8, height=8, width=8),)
    cropped = evaluate(predictor, open_dataset(part), progress=SILENT)
    pairs = [(one > other) + 0.5 * (one == other) for one in [0.9, 0.6, 0.4, 0.3, 0.8, 0.7] for other in GOOD]
    assert cropped.metrics_at_input["pixel_auroc"] == pytest.approx(np.mean(pairs))


def test_defect_types_are_listed_with_the_lowest_detection_rate_first(evaluation):
    crack, stain = evaluation.defect_results
    assert (crack.defect, crack.images, crack.detected, crack.detection_rate) == ("crack", 4, 2, 0.5)
    assert crack.mean_score == pytest.approx(0.55, abs=2e-3)
    assert (stain.defect, stain.images, stain.detected, stain.detection_rate) == ("stain", 2, 2, 1.0)


def test_json_has_all_metrics_and_the_detection_rate_first(evaluation, part):
    values = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert list(values)[:4] == [
        "name",
        "detection_rate",
        "promised_false_alarm_rate",
        "observed_false_alarm_rate",
    ]
    names = [metric.name for metric in metrics.registered()]
    assert set(values) == {*names, *registry.RESERVED} - {"report"}
    assert {name: values[name] for name in names} == evaluation.metrics
    assert values["at_input"] == evaluation.metrics_at_input
    assert values["images"] == 10
    assert values["made_by"] == {
        "command": "hyperspot evaluate",
        "data": {"path": str(part), "layout": "mvtec", "images": 10},
        **BrightnessPredictor().describe(),
    }


def test_pictures_are_small_jpeg_files(evaluation):
    for result in evaluation.image_results:
        assert [Image.open(io.BytesIO(picture)).size for picture in result.pictures] == [(SIZE, SIZE)] * 3
        assert str(result.pictures[0]) not in repr(result)


def test_without_calibration_there_are_no_decisions(part):
    found = evaluate(BrightnessPredictor(calibrated=False), open_dataset(part), progress=SILENT)
    assert found.detection_rate is found.observed_false_alarm_rate is found.seg_f1 is None
    assert found.threshold is found.promised_false_alarm_rate is found.operating_point is None
    assert found.operating_points == found.advice == ()
    assert found.image_auroc is not None
    assert found.defect_results[0] == DefectResult("crack", 4, None, found.defect_results[0].mean_score)
    assert found.defect_results[0].detection_rate is None
    assert "no decision" in render(found)
    assert summaries.of_evaluation(found)["Detection rate"] == "–"


def test_without_masks_pixel_metrics_are_undefined(tmp_path):
    data = open_dataset(write_part(tmp_path / "part", DEFECTS, GOOD, masks=False))
    found = evaluate(BrightnessPredictor(), data, progress=SILENT)
    assert found.pixel_auroc is found.aupro_30 is found.seg_f1 is found.pixel_roc is found.pro is None
    assert "6 defective images have no mask; pixel metrics exclude them" in found.problems


def test_a_defective_image_with_an_empty_mask_is_excluded_from_pixel_metrics(tmp_path):
    root = write_part(tmp_path / "part", DEFECTS, GOOD)
    mask = root / "ground_truth" / "crack" / "000_mask.png"
    Image.fromarray(np.zeros((SIZE, SIZE), dtype=np.uint8)).save(mask)
    emptied = evaluate(BrightnessPredictor(), open_dataset(root), progress=SILENT)
    (problem,) = [problem for problem in emptied.problems if "mask is empty" in problem]
    assert "crack" in problem
    (root / "test" / "crack" / "000.png").unlink()
    mask.unlink()
    without = evaluate(BrightnessPredictor(), open_dataset(root), progress=SILENT)
    assert emptied.metrics["aupro_30"] == without.metrics["aupro_30"]
    assert emptied.detection_rate != without.detection_rate


@pytest.mark.parametrize(("defects", "good", "missing"), [({}, GOOD, "defective"), (DEFECTS, [], "good")])
def test_a_missing_class_is_a_problem(tmp_path, defects, good, missing):
    found = evaluate(BrightnessPredictor(), open_dataset(write_part(tmp_path / "part", defects, good)), progress=SILENT)
    assert found.image_auroc is found.image_roc is None
    assert any(f"there is no {missing} test image" in problem for problem in found.problems)


def test_a_data_set_without_test_images_is_refused(tmp_path):
    data = open_dataset(write_part(tmp_path / "part", {}, []) / "train" / "good")
    with pytest.raises(DataError, match="no labeled test image"):
        evaluate(BrightnessPredictor(), data, progress=SILENT)


def test_a_registered_metric_reaches_json_report_terminal_and_tables(part):
    def gap(scores, labels):
        return scores[labels == 1].mean() - scores[labels == 0].mean()

    def highest(pixels):
        return 0.0 if pixels.pixel_auroc is None else 0.125

    image = hyperspot.Metric("gap", "Gap <of> scores", "gap", "score", "Difference of mean scores", "image", gap)
    pixel = hyperspot.Metric("toy", "Toy of pixels", "toy", "percent", "A toy", "pixel", highest, at_input=True)
    hyperspot.register_metric(image)
    hyperspot.register_metric(pixel)
    try:
        found = evaluate(BrightnessPredictor(), open_dataset(part), progress=SILENT)
        page = render(found)
        shown = summaries.of_evaluation(found)
        assert metrics.get("gap").short_title == "gap"
    finally:
        metrics.unregister_metric("gap")
        metrics.unregister_metric("toy")
    value = found.to_dict()["gap"]
    assert value == pytest.approx(np.mean([*DEFECTS["crack"], *DEFECTS["stain"]]) - np.mean(GOOD), abs=2e-3)
    assert found.to_dict()["at_input"]["toy"] == found.to_dict()["toy"] == 0.125
    assert shown["Gap <of> scores"] == f"{value:.4g}"
    assert "Gap &lt;of&gt; scores<small>Difference of mean scores.</small></th><td>" + f"{value:.4g}" in page
    assert "Toy of pixels<small>A toy.</small></th><td>12.5 %</td><td>12.5 %</td>" in page


def test_the_terminal_shows_the_detection_rate_first(evaluation):
    shown = list(summaries.of_evaluation(evaluation).items())
    assert shown[0] == ("Detection rate", "66.67 % at a promised false-alarm rate of 20.00 %")
    low, high = wilson_interval(1, 4)
    interval = f"95 % interval {100 * low:.2f} % to {100 * high:.2f} %"
    assert shown[1] == ("Observed false-alarm rate", f"25.00 % ({interval}), promised: at most 20.00 %")
    assert len(shown) == len(metrics.registered()) + 3


def test_steadiness_reaches_json_terminal_and_report(part, evaluation):
    said = evaluation.calibration.steadiness()
    assert "threshold from 4 good images" in said
    assert evaluation.to_dict()["steadiness"] == said
    assert summaries.of_evaluation(evaluation)["Steadiness"] == said
    assert f"Steadiness: {said}." in render(evaluation)
    without = evaluate(BrightnessPredictor(calibrated=False), open_dataset(part), progress=SILENT)
    assert without.to_dict()["steadiness"] is None
    assert "Steadiness" not in summaries.of_evaluation(without)
    assert "Steadiness" not in render(without)
