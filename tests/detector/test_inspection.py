"""Regions of interest, zones, rules and registration from training to the verdict, for every engine."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hyperspot import Detector, ExportedDetector, InspectionPlan, RegionRules, open_dataset
from hyperspot.errors import CalibrationError, SettingsError
from hyperspot.export import export
from hyperspot.images.synthetic_defects import draw_defect

SIDE = 96
INCLUDE = [[16, 16], [80, 16], [80, 80], [16, 80]]
ROI = {"image_size": [SIDE, SIDE], "include": [INCLUDE]}


def goods(count=16, seed=0, outside=None):
    """Return good images with a texture inside the square; `outside` seeds what lies outside of it."""
    random = np.random.default_rng(seed)
    images = random.integers(110, 130, (count, SIDE, SIDE, 3), dtype=np.uint8)
    if outside is not None:
        disturbed = np.random.default_rng(outside).integers(0, 255, images.shape, dtype=np.uint8)
        disturbed[:, 16:80, 16:80] = images[:, 16:80, 16:80]
        images = disturbed
    return list(images)


def numbers(verdict):
    values = verdict.to_dict()
    del values["milliseconds"]
    return values


@pytest.fixture(scope="module")
def trained():
    return Detector.fit(goods(), short_side=SIDE, false_alarm_rate=0.2, inspection=InspectionPlan.from_dict(ROI))


@pytest.mark.parametrize("method", ["cfa", "padim"])
def test_pixels_outside_change_nothing_in_training(method):
    first, second = (
        Detector.fit(
            goods(outside=seed),
            method=method,
            short_side=SIDE,
            false_alarm_rate=0.2,
            inspection=InspectionPlan.from_dict(ROI),
        )
        for seed in (1, 2)
    )
    assert first.decision_rule.to_dict() == second.decision_rule.to_dict()
    image = goods(1, seed=3)[0]
    assert numbers(first.predict(image)) == numbers(second.predict(image))


def test_pixels_outside_change_no_number_of_a_verdict(trained):
    bad = goods(1, seed=5)[0]
    bad[40:52, 40:52] = 255
    expected = trained.predict(bad)
    assert expected.is_anomalous
    for seed in range(3):
        changed = np.random.default_rng(seed).integers(0, 255, bad.shape, dtype=np.uint8)
        changed[16:80, 16:80] = bad[16:80, 16:80]
        verdict = trained.predict(changed)
        assert numbers(verdict) == numbers(expected)
        for name in ("heatmap", "mask", "input_map"):
            np.testing.assert_array_equal(getattr(verdict, name), getattr(expected, name))
    assert not expected.mask[:16].any()
    assert (expected.heatmap[:16] == trained.decision_rule.heat_range[0]).all()


def test_a_defect_outside_alarms_only_without_the_region_of_interest(trained):
    bad = goods(1, seed=6)[0]
    bad[0:12, 0:12] = 255
    assert trained.predict(bad).is_anomalous is False
    assert Detector.fit(goods(), short_side=SIDE, false_alarm_rate=0.2).predict(bad).is_anomalous


def test_synthetic_defects_are_drawn_inside(trained):
    whole = Detector.fit(goods(), short_side=SIDE, false_alarm_rate=0.2)
    estimates = [one.estimate_power(goods(seed=11), count=20) for one in (trained, whole)]
    assert estimates[0].by_size()["large"][0] == 5
    inside = trained.decision_rule.inspection.area.mask(SIDE, SIDE)
    for seed in range(20):
        _, mask = draw_defect(goods(1)[0], "stain", "small", seed=seed, within=inside)
        rows, columns = np.nonzero(mask)
        assert 8 <= rows.mean() <= 88
        assert 8 <= columns.mean() <= 88


def test_files_keep_the_plan(trained, tmp_path):
    bad = goods(1, seed=5)[0]
    bad[40:52, 40:52] = 255
    ruled = trained.with_rules(RegionRules(min_length="0.5mm"), mm_per_pixel=0.05)
    expected = ruled.predict(bad)
    assert expected.reasons[0].startswith("region 1: length")
    loaded = Detector.load(ruled.save(tmp_path / "part.safetensors"))
    exported = ExportedDetector.load(export(ruled, tmp_path / "part.onnx"))
    recalibrated = exported.recalibrate(goods(seed=9), false_alarm_rate=0.2).save(tmp_path / "again.onnx")
    for predictor in (loaded, exported, ExportedDetector.load(recalibrated)):
        assert predictor.decision_rule.inspection.to_dict() == ruled.decision_rule.inspection.to_dict()
        found = predictor.predict(bad)
        assert found.is_anomalous
        assert found.regions[0].length_mm == pytest.approx(expected.regions[0].length_mm, rel=0.1)
    values = trained.decision_rule.to_dict()
    del values["inspection"], values["zones"]
    assert type(trained.decision_rule).from_dict(values).inspection.is_empty


def test_rules_only_remove_alarms_and_the_statistical_decision_stays(trained):
    ruled = trained.with_rules(RegionRules(min_area="30px2", max_count=0))
    images = goods(6, seed=7)
    for size, image in enumerate(images):
        image[40 : 40 + size, 40 : 44 + size] = 255
    for before, after in zip(trained.predict_many(images), ruled.predict_many(images), strict=True):
        assert after.statistical_is_anomalous == before.is_anomalous
        assert (after.score, after.p_value) == (before.score, before.p_value)
        if after.is_anomalous:
            assert before.is_anomalous
            assert after.reasons
        large = any(region.area >= 30 for region in after.regions)
        assert after.is_anomalous == (bool(before.is_anomalous) and (large or not after.regions))


def test_zones_have_thresholds_of_their_own():
    """One half is coarse, the other fine: a faint defect of the fine half is found by its own threshold."""
    images = goods(40)
    random = np.random.default_rng(1)
    for image in images:
        image[:, :48] = random.integers(60, 200, (SIDE, 48, 3))
    fine = {"name": "fine", "polygons": [[[52, 0], [96, 0], [96, 96], [52, 96]]], "false_alarm_rate": 0.05}
    plan = InspectionPlan.from_dict({"image_size": [SIDE, SIDE], "zones": [fine]})
    options = {"method": "padim", "short_side": SIDE, "false_alarm_rate": 0.1, "calibration": "cross"}
    zoned = Detector.fit(images, inspection=plan, **options)
    bad = goods(1, seed=8)[0]
    bad[:, :48] = random.integers(60, 200, (SIDE, 48, 3))
    bad[30:60, 60:90] = 60
    verdict = zoned.predict(bad)
    assert verdict.is_anomalous
    assert verdict.reasons[0].startswith("zone fine: score")
    assert verdict.score == max(verdict.zone_scores.values()) == verdict.zone_scores["fine"]
    assert "fine" in {region.zone for region in verdict.regions}
    assert list(verdict.to_dict()["zones"]) == ["fine", "elsewhere"]
    scores = sorted(one.score for one in zoned.held_out if one.calibrates)
    assert scores == pytest.approx(list(zoned.decision_rule.calibration.scores))


def test_rates_that_cannot_be_kept_are_refused_before_training():
    zone = {"name": "a", "polygons": [INCLUDE], "false_alarm_rate": 0.01}
    plan = InspectionPlan.from_dict({"image_size": [SIDE, SIDE], "zones": [zone]})

    def never(*_):
        raise AssertionError

    with pytest.raises(CalibrationError, match="the zone 'a'"):
        Detector.fit(goods(20), short_side=SIDE, false_alarm_rate=0.3, inspection=plan, before_training=never)


def test_methods_with_image_scores_refuse_zones_with_rates():
    zone = {"name": "a", "polygons": [INCLUDE], "false_alarm_rate": 0.1}
    plan = InspectionPlan.from_dict({"image_size": [SIDE, SIDE], "zones": [zone]})
    with pytest.raises(SettingsError, match="scores images as a whole"):
        Detector.fit(goods(20), method="spade", short_side=SIDE, false_alarm_rate=0.3, inspection=plan)


def drawn(degrees=0.0, right=0.0, down=0.0, seed=0, scratch=False) -> np.ndarray:
    """Return a part that is turned and shifted, on a noisy background."""
    image = Image.new("RGB", (SIDE, SIDE), (90, 90, 90))
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 30, 66, 60), fill=(200, 180, 160))
    draw.ellipse((33, 33, 43, 43), fill=(30, 30, 30))
    draw.rectangle((54, 46, 74, 54), fill=(240, 240, 240))
    if scratch:
        draw.rectangle((46, 36, 62, 42), fill=(0, 0, 120))
    turned = image.rotate(degrees, Image.Resampling.BILINEAR, translate=(right, down), fillcolor=(90, 90, 90))
    noise = np.random.default_rng(seed).integers(-6, 7, (SIDE, SIDE, 3))
    return (np.asarray(turned).astype(int) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def registered():
    random = np.random.default_rng(0)
    moves = [(0.0, 0.0, 0.0), *((random.uniform(-180, 180), *random.uniform(-9, 9, 2)) for _ in range(19))]
    roi = {"image_size": [SIDE, SIDE], "include": [[[27, 27], [77, 27], [77, 63], [27, 63]]]}
    return Detector.fit(
        [drawn(*move, seed=number) for number, move in enumerate(moves)],
        short_side=SIDE,
        false_alarm_rate=0.2,
        inspection=InspectionPlan.from_dict(roi),
        register=True,
    )


def test_a_defect_is_outlined_where_it_is_in_the_image(registered):
    degrees, right, down = 70.0, 6.0, -4.0
    verdict = registered.predict(drawn(degrees, right, down, seed=99, scratch=True))
    assert verdict.is_anomalous
    assert verdict.part_found
    assert verdict.alignment.degrees == pytest.approx(degrees, abs=1.5)
    # The middle of the scratch, turned counterclockwise about the middle of the image, then shifted.
    x, y, angle = 54 - 48, 39 - 48, np.deg2rad(degrees)
    place = np.array(
        [48 + x * np.cos(angle) + y * np.sin(angle) + right, 48 - x * np.sin(angle) + y * np.cos(angle) + down]
    )
    rows, columns = np.nonzero(verdict.mask)
    assert np.hypot(*(place - (columns.mean(), rows.mean()))) < 6
    assert registered.predict(drawn(-30.0, 3.0, 3.0, seed=98)).is_anomalous is False


def test_a_missing_part_is_named_and_never_passes(registered, tmp_path):
    empty = np.random.default_rng(0).integers(84, 97, (SIDE, SIDE, 3), dtype=np.uint8)
    lenient = registered.with_rules(RegionRules(min_area="9000px2"))
    for predictor in (registered, lenient, Detector.load(registered.save(tmp_path / "part.safetensors"))):
        verdict = predictor.predict(empty)
        assert (verdict.is_anomalous, verdict.part_found, verdict.regions) == (True, False, ())
        assert verdict.reasons[0].startswith("part not found: correlation")
        assert verdict.score > verdict.threshold
    none = Detector.fit([drawn(seed=number) for number in range(6)], short_side=SIDE, calibration="none", register=True)
    assert none.predict(empty).is_anomalous is True
    assert none.predict(drawn(seed=9)).is_anomalous is None


def test_only_defects_inside_are_evaluated(product):
    dataset = open_dataset(product)
    without = Detector.fit(dataset, short_side=128, false_alarm_rate=0.2)
    corner = {"image_size": [128, 128], "include": [[[0, 0], [64, 0], [64, 128], [0, 128]]]}
    inside = Detector.fit(dataset, short_side=128, false_alarm_rate=0.2, inspection=InspectionPlan.from_dict(corner))
    whole, half = without.evaluate(dataset), inside.evaluate(dataset)
    outside = [problem for problem in half.problems if "only outside the region of interest" in problem]
    assert len(whole.image_results) - len(half.image_results) == len(outside) > 0
    assert half.metrics["pixel_auroc"] is not None
    left = {result.path for result in whole.image_results} - {result.path for result in half.image_results}
    assert all(any(str(path) in problem for problem in outside) for path in left)


def test_accepted_images_pass_at_every_operating_point(product):
    dataset = open_dataset(product)
    detector = Detector.fit(dataset, short_side=128, false_alarm_rate=0.2)
    evaluation = detector.with_rules(RegionRules(min_area="99999px2")).evaluate(dataset)
    accepted = sum(result.within_rules is True for result in evaluation.image_results)
    point = evaluation.operating_point
    assert accepted > 0
    assert point.detected + point.false_alarms == sum(result.is_anomalous for result in evaluation.image_results)
