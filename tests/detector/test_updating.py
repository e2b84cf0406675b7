"""Updates of a detector: equal to a training on all images, the detector before stays, and what is refused."""

import numpy as np
import pytest
import torch

from hyperspot import Detector
from hyperspot.detector.updating import fingerprint
from hyperspot.errors import CalibrationWarning, DataError, ImageError, SettingsError

SETTINGS = {"short_side": 64, "false_alarm_rate": 0.2, "device": "cpu"}
SMALL = {"patchcore": {"dimensions": 64}, "padim": {"channels": 16}, "cfa": {}}


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [
        np.clip(random.normal(120, 6, (64, 64, 3)) + random.normal(0, 4), 0, 255).astype(np.uint8) for _ in range(24)
    ]


@pytest.fixture(scope="module", params=list(SMALL))
def before(request, images):
    return Detector.fit(images[:12], method=request.param, method_settings=SMALL[request.param], **SETTINGS)


def maps_of(detector, images):
    return detector.run(np.stack(images))[0]


@pytest.mark.filterwarnings("ignore::hyperspot.errors.CalibrationWarning")
def test_an_update_learns_and_the_detector_before_stays(before, images, tmp_path):
    odd = images[12].copy()
    odd[24:40, 24:40] = 255
    maps, rule = maps_of(before, [odd]), before.decision_rule
    updated = before.update([odd, *images[13:]])
    assert np.array_equal(maps_of(before, [odd]), maps)
    assert before.decision_rule is rule
    assert "updates" not in before.record
    assert updated.new_images.odd[0] == 0
    assert maps_of(updated, [odd]).max() < maps.max() / 2
    # Scored without itself, it is as odd as it was.
    by_index = {one.index: one.score for one in updated.held_out}
    assert sorted(by_index) == list(range(12))
    assert max(by_index, key=by_index.get) == 0
    assert by_index[0] > before.decision_rule.calibration.threshold
    assert len(updated.decision_rule.calibration.scores) == 24
    assert updated.decision_rule.calibration.kind == "leave-one-out"
    loaded = Detector.load(updated.save(tmp_path / "part.safetensors"), device="cpu")
    assert np.array_equal(maps_of(loaded, images), maps_of(updated, images))
    again, expected = (one.update([images[0], images[0] + 1]) for one in (loaded, updated))
    assert np.array_equal(maps_of(again, images), maps_of(expected, images))
    assert again.decision_rule.calibration.scores.tolist() == expected.decision_rule.calibration.scores.tolist()
    assert [one["images"] for one in again.record["updates"]] == [12, 1]


def test_padim_is_that_of_all_images_in_any_order(images):
    settings = {"method": "padim", "method_settings": SMALL["padim"], **SETTINGS}
    everything = Detector.fit(images, **settings)
    expected = maps_of(everything, images)
    for order in (np.arange(24), np.arange(24)[::-1], np.random.default_rng(0).permutation(24)):
        detector = Detector.fit([images[one] for one in order[:8]], **settings)
        for start in range(8, 24, 4):
            detector = detector.update([images[one] for one in order[start : start + 4]])
        assert np.allclose(maps_of(detector, images), expected, rtol=1e-4, atol=1e-4 * expected.max())
        state, all_at_once = (one.anomaly_model.methods[0].fitted_state() for one in (detector, everything))
        assert {name: tensor.shape for name, tensor in state.items()} == {
            name: tensor.shape for name, tensor in all_at_once.items()
        }


def test_known_images_are_named_and_left_out(images):
    detector = Detector.fit(images[:12], **SETTINGS)
    with pytest.warns(CalibrationWarning, match="image 0, image 3 were learned before and are left out"):
        updated = detector.update([images[2], images[12], images[13], images[12]])
    assert updated.new_images.known == (0, 3)
    assert updated.record["updates"][0]["images"] == 2
    with pytest.raises(DataError, match="all 1 images were learned before"):
        updated.update(images[13:14])


def test_other_images_are_a_shift(images):
    detector = Detector.fit(images[:12], **SETTINGS)
    dark = [image // 3 for image in images[12:]]
    with pytest.warns(CalibrationWarning, match="the 12 new images score higher than the calibration images"):
        assert detector.update(dark).record["updates"][0]["is_shifted"]


def test_the_default_rate_follows_the_number_of_images_and_another_one_stays(images):
    settings = {**SETTINGS, "false_alarm_rate": None}
    with pytest.warns(CalibrationWarning, match="12 good images calibrate"):
        detector = Detector.fit(images[:12], **settings)
    assert detector.update(images[12:]).decision_rule.calibration.false_alarm_rate == 3 / 25
    other = detector.with_false_alarm_rate(0.3)
    assert other.update(images[12:]).decision_rule.calibration.false_alarm_rate == 0.3


def test_a_recalibrated_model_keeps_its_scores(images):
    detector = Detector.fit(images[:8], **SETTINGS).update(images[8:12])
    recalibrated = detector.recalibrate(images[12:24])
    assert recalibrated.images_known.tolist() == [12] * 12
    assert len(recalibrated.update([images[23] + 1]).decision_rule.calibration.scores) == 13


def test_groups(images):
    labels = [f"lot{index // 2}" for index in range(24)]
    detector = Detector.fit(images[:12], groups=labels[:12], **SETTINGS)
    with pytest.raises(DataError, match="name the group of each new image"):
        detector.update(images[12:])
    with pytest.raises(DataError, match="2 good images have 1 groups"):
        detector.update(images[12:14], groups=["lot6"])
    updated = detector.update(images[12:], groups=labels[12:])
    assert len(updated.decision_rule.calibration.scores) == 12
    assert sum(one.calibrates for one in updated.held_out) == 6
    alone = Detector.fit(images[:12], **SETTINGS).update(images[12:], groups=labels[12:])
    assert alone.record["data"]["groups"] == 12
    assert alone.record["updates"][0]["groups"] == 6
    assert len(alone.decision_rule.calibration.scores) == 18


def test_what_cannot_learn_more_says_so(images):
    for changes, message in (
        ({"method_settings": {"variant": "released", "steps": 2}}, "the method 'cfa' cannot learn more images"),
        ({"method": "spade"}, "choose cfa, padim or patchcore with their default settings"),
        ({"crops": "fused"}, "a model that fuses several crops or tiles cannot learn more images"),
    ):
        detector = Detector.fit(images[:8], **{**SETTINGS, **changes})
        with pytest.raises(SettingsError, match=message):
            detector.update(images[8:])


def test_fingerprints_are_those_of_files_and_pixels(images, tmp_path):
    path = tmp_path / "image.bin"
    path.write_bytes(b"some bytes")
    copy = tmp_path / "copy.bin"
    copy.write_bytes(b"some bytes")
    assert fingerprint(path) == fingerprint(str(copy))
    assert fingerprint(images[0]) != fingerprint(path)
    with pytest.raises(ImageError, match="cannot be read"):
        fingerprint(tmp_path / "missing.png")
    assert torch.tensor([fingerprint(path)]).dtype == torch.int64
