"""One verdict per part, from fitting to the file and to exported models."""

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hyperspot import Detector, Part, PartInspector, open_part_set, write_report
from hyperspot.detector.settings import Settings
from hyperspot.errors import CalibrationError, CalibrationWarning, DataError, ImageError, SettingsError
from hyperspot.parts.fitting import fit_views
from hyperspot.utils.progress import SILENT


def test_a_view_above_its_threshold_makes_the_part_anomalous(inspector, part_folder):
    for part in open_part_set(part_folder).test:
        verdict = inspector.predict(part)
        views = verdict.views
        assert verdict.part == part.name
        assert verdict.is_anomalous == any(one.is_anomalous for one in views.values())
        assert verdict.p_value == min(one.p_value for one in views.values())
        assert verdict.p_value == views[verdict.deciding_view].p_value
        assert verdict.is_anomalous == (verdict.score > verdict.threshold)
        assert verdict.is_anomalous == (verdict.p_value <= 0.2)


def test_views_score_as_detectors_do(inspector, part_folder):
    """The models are those of `Detector.fit`, and their held-out scores calibrate the part."""
    parts = open_part_set(part_folder)
    for view in inspector.views:
        alone = Detector.fit([part.images[view] for part in parts.train], short_side=64, false_alarm_rate=0.2)
        column = inspector.calibration.scores[:, inspector.views.index(view)]
        np.testing.assert_allclose(column, [one.score for one in alone.held_out])
        image = parts.test[0].images[view]
        assert inspector.predictors[view].predict(image).score == pytest.approx(alone.predict(image).score)


def test_a_shared_model_never_knows_another_view_of_the_part(random_parts):
    """Each part shows the same pixels in both views: a model that knew one would score the other as zero."""
    parts = [{"top": part["top"], "side": part["top"].copy()} for part in random_parts(12)]
    inspector = PartInspector.fit(parts, models="shared", short_side=64, false_alarm_rate=0.2)
    assert inspector.predictors["top"].anomaly_model is inspector.predictors["side"].anomaly_model
    scores = inspector.calibration.scores
    assert scores.shape == (12, 2)
    assert scores.min() > 0.5 * scores.max()


@pytest.mark.parametrize("models", ["each", "shared"])
@pytest.mark.parametrize("calibration", ["leave-one-out", "split", "cross"])
def test_every_kind_of_calibration(random_parts, models, calibration):
    parts = random_parts(16)
    inspector = PartInspector.fit(
        parts, models=models, calibration=calibration, method="padim", short_side=64, false_alarm_rate=0.25
    )
    whole = inspector.calibration.calibration
    assert whole.kind == calibration
    assert len(whole.scores) == (4 if calibration == "split" else 16)
    assert inspector.false_alarm_rate == 0.25


def test_groups_of_parts_calibrate_once(random_parts):
    lots = [f"lot {number // 3}" for number in range(18)]
    inspector = PartInspector.fit(random_parts(18), groups=lots, method="padim", short_side=64, false_alarm_rate=0.2)
    assert len(inspector.calibration.scores) == 6
    assert inspector.describe()["training"]["data"]["groups"] == 6
    with pytest.warns(CalibrationWarning, match="trained with groups of parts"):
        inspector.recalibrate(random_parts(9, seed=1))
    with pytest.raises(DataError, match="18 good parts have 2 groups"):
        PartInspector.fit(random_parts(18), groups=["a", "b"])


def test_many_parts_are_those_one_by_one(inspector, part_folder):
    parts = open_part_set(part_folder).test[:6]
    for part, verdict in zip(parts, inspector.predict_many(parts), strict=True):
        assert verdict.score == pytest.approx(inspector.predict(part).score, rel=1e-5)


def test_what_fails_is_returned_in_its_place(inspector, part_folder, tmp_path):
    whole, incomplete, damaged = open_part_set(part_folder).test[:3]
    lacking = Part(incomplete.name, {"left": incomplete.samples["left"]})
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    bad = Part(damaged.name, {**damaged.samples, "right": replace(damaged.samples["right"], path=broken)})
    results = list(inspector.predict_many([lacking, bad, whole], errors="return"))
    assert isinstance(results[0], DataError)
    assert str(results[0]).startswith(f"the part {lacking.name} lacks the view right")
    assert isinstance(results[1], ImageError)
    assert "broken.png" in str(results[1])
    assert results[2].part == whole.name
    with pytest.raises(DataError, match="lacks the view right"):
        list(inspector.predict_many([lacking]))
    with pytest.raises(ImageError, match="broken"):
        inspector.predict(bad)
    with pytest.raises(
        DataError, match="has the view front, which the model does not know; its images are left, right"
    ):
        inspector.predict({**whole.images, "front": broken})


def test_a_missing_view_never_makes_a_part_good(inspector, part_folder):
    parts = open_part_set(part_folder).test
    decisions = set()
    for part in parts:
        verdict = inspector.predict({"left": part.images["left"]}, name=part.name, allow_missing=True)
        assert verdict.missing == ("right",)
        assert (verdict.part, list(verdict.views)) == (part.name, ["left"])
        assert verdict.is_anomalous is (True if verdict.views["left"].is_anomalous else None)
        decisions.add(verdict.is_anomalous)
        assert verdict.overlay().size
    assert decisions == {True, None}
    with pytest.raises(DataError, match="lacks the views left, right"):
        inspector.predict({}, allow_missing=True)


def test_results_are_saved(inspector, part_folder, tmp_path):
    part = next(part for part in open_part_set(part_folder).test if part.defect == "stain")
    verdict = inspector.predict(part)
    paths = verdict.save(tmp_path)
    assert paths["overlay"] == tmp_path / f"{part.name}.overlay.png"
    assert sorted(path.name for path in (tmp_path / part.name).glob("*.overlay.png")) == [
        "left.overlay.png",
        "right.overlay.png",
    ]
    with Image.open(paths["overlay"]) as sheet:
        assert sheet.width > 2 * 64
        assert sheet.height > verdict.overlay(caption=False).height
    with pytest.raises(DataError, match="already exists"):
        verdict.save(tmp_path)
    verdict.save(tmp_path, overwrite=True, overlay="heatmap")
    assert f"part={part.name!r}" in repr(verdict)


def test_results_are_saved_in_their_folder_and_whole_or_not_at_all(inspector, part_folder, tmp_path):
    verdict = inspector.predict(open_part_set(part_folder).test[0], name="7")
    out = tmp_path / "out"
    renamed = {f"../{view}": one for view, one in verdict.views.items()}
    for bad in (
        replace(verdict, part="../7"),
        replace(verdict, part=str(tmp_path / "7")),
        replace(verdict, views=renamed),
    ):
        with pytest.raises(DataError, match="leads out of the folder"):
            bad.save(out)
    assert not list(tmp_path.rglob("*"))
    (out / "7").mkdir(parents=True)
    (out / "7" / "right.mask.png").touch()
    with pytest.raises(DataError, match=r"right\.mask\.png already exists"):
        verdict.save(out)
    assert [path.name for path in out.rglob("*.*")] == ["right.mask.png"]


def test_another_rate(inspector):
    looser = inspector.with_false_alarm_rate(0.4)
    assert looser.false_alarm_rate == 0.4
    for view in inspector.views:
        before = inspector.predictors[view].decision_rule.calibration
        after = looser.predictors[view].decision_rule.calibration
        assert after.threshold < before.threshold
    with pytest.raises(CalibrationError, match="the smallest possible rate is"):
        inspector.with_false_alarm_rate(0.001)


def test_recalibration(random_parts):
    inspector = PartInspector.fit(random_parts(12), models="shared", short_side=64, false_alarm_rate=0.2)
    fresh = random_parts(24, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        changed = inspector.recalibrate(fresh, false_alarm_rate=0.1)
    expected = [[inspector.predictors[view].predict(part[view]).score for view in inspector.views] for part in fresh]
    np.testing.assert_allclose(changed.calibration.scores, expected, rtol=1e-5)
    assert changed.calibration.calibration.kind == "split"
    assert changed.predictors["top"].decision_rule.mask_floor != inspector.predictors["top"].decision_rule.mask_floor
    with pytest.raises(CalibrationError, match="needs at least 99"):
        inspector.recalibrate(fresh, false_alarm_rate=0.01)
    with pytest.raises(DataError, match="the part 0 lacks the view side"):
        inspector.recalibrate([{"top": part["top"]} for part in fresh])


def test_evaluation_counts_parts_and_views(inspector, part_folder, tmp_path):
    evaluation = inspector.evaluate(part_folder)
    parts = open_part_set(part_folder)
    verdicts = {part.name: inspector.predict(part) for part in parts.test}
    assert [one.is_anomalous for one in evaluation.part.image_results] == [
        one.is_anomalous for one in verdicts.values()
    ]
    np.testing.assert_allclose(
        [one.score for one in evaluation.part.image_results], [one.score for one in verdicts.values()], rtol=1e-4
    )
    assert [one.label for one in evaluation.part.image_results] == [part.label for part in parts.test]
    assert evaluation.part.detection_rate >= max(one.detection_rate for one in evaluation.views.values())
    assert evaluation.part.promised_false_alarm_rate == 0.2
    assert evaluation.part.pixel_auroc is None
    assert all(one.pixel_auroc > 0.5 for one in evaluation.views.values())
    assert all(one.operating_points == () for one in evaluation.views.values())
    assert evaluation.part.operating_points
    described = evaluation.to_dict()
    assert described["images"] == 17
    assert set(described["views"]) == {"left", "right"}
    page = write_report(evaluation.part, tmp_path / "report.html").read_text("utf-8")
    assert "stain" in page


def test_evaluation_with_missing_views(inspector, part_folder):
    parts = open_part_set(part_folder)
    only_left = tuple(Part(part.name, {"left": part.samples["left"]}) for part in parts.parts)
    halved = replace(parts, parts=only_left)
    with pytest.raises(DataError, match="lacks the view right; add it, or allow missing views"):
        inspector.evaluate(halved)
    evaluation = inspector.evaluate(halved, allow_missing=True)
    assert list(evaluation.views) == ["left"]
    assert {one.is_anomalous for one in evaluation.part.image_results} == {True, None}
    wider = tuple(Part(part.name, {**part.samples, "front": part.samples["left"]}) for part in parts.parts)
    with pytest.raises(DataError, match="has the view front, which the model does not know"):
        inspector.evaluate(replace(parts, parts=wider))
    with pytest.raises(DataError, match="has the view front, which the model does not know"):
        inspector.recalibrate(replace(parts, parts=wider))
    with pytest.raises(DataError, match="has no labeled test part"):
        inspector.evaluate(replace(parts, parts=tuple(parts.train)))
    defective = tuple(part for part in parts.test if part.label == 1)
    evaluation = inspector.evaluate(replace(parts, parts=defective))
    assert "there is no good test part, so that AUROC is undefined" in evaluation.part.problems


def test_what_cannot_be_trained_is_refused(random_parts, part_folder):
    with pytest.raises(DataError, match="there is no good training part"):
        PartInspector.fit([])
    lacking = [*random_parts(3), {"top": random_parts(1)[0]["top"]}]
    with pytest.raises(DataError, match="the part number 3 lacks the view side; add it or remove the part"):
        PartInspector.fit(lacking)
    with pytest.raises(SettingsError, match="choose another one than none"):
        PartInspector.fit(random_parts(3), calibration="none")
    parts = open_part_set(part_folder)
    with pytest.raises(DataError, match="has no good training part"):
        PartInspector.fit(replace(parts, parts=tuple(parts.test)))
    with pytest.raises(SettingsError, match="no choice of models 'both'"):
        fit_views("nut", [], {}, Settings(), "both", None, "RGB", SILENT)


def test_it_predicts_without_torch(inspector, part_folder, tmp_path):
    path = inspector.export(tmp_path / "line.hyperspot")
    part = open_part_set(part_folder).test[0]
    script = (
        "import sys\nsys.modules['torch'] = sys.modules['scipy'] = None\n"
        "from hyperspot import PartInspector, open_part_set\n"
        "inspector = PartInspector.load(sys.argv[1])\n"
        "assert inspector.evaluate(sys.argv[2]).part.detection_rate > 0\n"
        "print(repr(inspector.predict(open_part_set(sys.argv[2]).test[0]).score))"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(path), str(part_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(inspector.predict(part).score, rel=1e-3)
