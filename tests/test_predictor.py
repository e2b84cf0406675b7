"""One pipeline for every engine: predict, predict_many, stream, rates and recalibration."""

import copy
import importlib.util
import math
import re
import threading
import time

import numpy as np
import pytest

from hyperspot import Detector
from hyperspot.data import open_dataset
from hyperspot.errors import CalibrationError, CalibrationWarning, DataError, ImageError, ImageWarning
from hyperspot.images import read_image
from hyperspot.runtime import ExportedDetector, available

ENGINES = ("torch", "onnxruntime", "openvino")


@pytest.fixture(scope="module")
def exported_file(detector, tmp_path_factory):
    if importlib.util.find_spec("onnxscript") is None:
        pytest.skip("needs hyperspot[export]: onnx and onnxscript")
    from hyperspot.export.exporting import export

    return export(detector, tmp_path_factory.mktemp("exported") / "part.onnx")


@pytest.fixture(params=ENGINES)
def predictor(request, detector):
    """Return the same detector in each engine."""
    if request.param == "torch":
        return detector
    if request.param not in available():
        pytest.skip(f"{request.param} is not installed")
    return ExportedDetector.load(request.getfixturevalue("exported_file"), engine=request.param)


@pytest.fixture(scope="module")
def images(product):
    return sorted(product.glob("test/*/*.png"))


@pytest.mark.parametrize("batch_size", [2, 8, 100])
def test_the_batch_size_changes_no_verdict(predictor, images, batch_size):
    alone = [predictor.predict(image) for image in images]
    together = list(predictor.predict_many(images, batch_size=batch_size))
    assert [verdict.path for verdict in together] == images
    for found, expected in zip(together, alone, strict=True):
        assert found.score == pytest.approx(expected.score, rel=1e-5)
        assert (found.p_value, found.is_anomalous) == (expected.p_value, expected.is_anomalous)
        np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=1e-4, atol=1e-5)


def test_images_run_in_batches(detector, images, monkeypatch):
    sizes = []
    run = detector.anomaly_model.run

    def recorded(batch):
        sizes.append(len(batch))
        time.sleep(0.05)
        return run(batch)

    monkeypatch.setattr(detector.anomaly_model, "run", recorded)
    assert len(list(detector.predict_many(images, batch_size=4))) == len(images)
    assert max(sizes) == 4
    assert sum(sizes) == len(images)


def test_an_unreadable_image_is_raised_or_returned_in_its_place(predictor, images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    mixed = [images[0], broken, images[1]]
    found = list(predictor.predict_many(mixed, errors="return"))
    assert [isinstance(one, ImageError) for one in found] == [False, True, False]
    with pytest.raises(ImageError, match=r"broken\.png"):
        list(predictor.predict_many(mixed))


def test_a_source_that_fails_raises_in_the_callers_thread(detector, images):
    def source():
        yield images[0]
        raise RuntimeError("the camera is gone")

    found = detector.predict_many(source())
    assert next(found).path == images[0]
    with pytest.raises(RuntimeError, match="the camera is gone"):
        next(found)


def test_a_stream_is_answered_before_the_next_frame_is_taken(predictor, images):
    taken = []

    def camera():
        for image in images[:4]:
            taken.append(image)
            yield read_image(image)

    for number, verdict in enumerate(predictor.stream(camera()), 1):
        assert len(taken) == number
        assert verdict.score == pytest.approx(predictor.predict(images[number - 1]).score, rel=1e-5)


def test_a_stream_drops_frames_where_asked_to(detector, images, monkeypatch):
    frames = [read_image(image) for image in images[:6]]
    delivered = threading.Event()
    run = detector.anomaly_model.run
    order = []

    def camera():
        yield frames[0]
        started.wait(10)
        yield from frames[1:]
        delivered.set()

    started = threading.Event()

    def slow(batch):
        started.set()
        if not order:
            assert delivered.wait(10), "the camera never waits for the model"
        order.append(len(batch))
        return run(batch)

    monkeypatch.setattr(detector.anomaly_model, "run", slow)
    verdicts = list(detector.stream(camera(), latest_only=True))
    assert order == [1, 1]
    np.testing.assert_array_equal(verdicts[0].image, frames[0])
    np.testing.assert_array_equal(verdicts[1].image, frames[-1])


def test_bgr_frames_are_the_same_images(predictor, images):
    image = read_image(images[0])
    expected = predictor.predict(image)
    found = predictor.predict(image[..., ::-1], channel_order="BGR")
    assert found.score == pytest.approx(expected.score, rel=1e-6)
    np.testing.assert_array_equal(found.image, image)


def test_training_and_recalibrating_with_bgr_arrays_is_the_same(images):
    good = [read_image(image) for image in images[:10]]
    bgr = [image[..., ::-1] for image in good]
    expected = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
    found = Detector.fit(bgr, short_side=64, false_alarm_rate=0.2, channel_order="BGR")
    assert found.predict(good[0]).score == expected.predict(good[0]).score
    recalibrated = expected.recalibrate(bgr, channel_order="BGR").decision_rule.calibration
    np.testing.assert_array_equal(recalibrated.scores, expected.recalibrate(good).decision_rule.calibration.scores)
    assert found.predict(good[0], channel_order="BGR").score != expected.predict(good[0]).score


def test_another_rate_changes_decisions_and_not_scores(predictor, images):
    strict, lax = predictor.with_false_alarm_rate(0.17), predictor.with_false_alarm_rate(0.9)
    assert type(lax) is type(predictor)
    before = predictor.decision_rule
    verdicts = [(strict.predict(image), lax.predict(image)) for image in images]
    assert all(one.score == pytest.approx(other.score, rel=1e-5) for one, other in verdicts)
    assert sum(one.is_anomalous for one, _ in verdicts) < sum(other.is_anomalous for _, other in verdicts)
    assert all(other.is_anomalous == (other.p_value <= 0.9) for _, other in verdicts)
    assert predictor.decision_rule is before
    for rate in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(CalibrationError, match="between 0 and 1"):
            predictor.with_false_alarm_rate(rate)
    with pytest.raises(CalibrationError, match=r"needs at least 999 .* smallest possible rate is") as refused:
        predictor.with_false_alarm_rate(0.001)
    named = re.search(r"rate is ([\d.]+) \(1 in", str(refused.value))
    n = len(before.calibration.scores)
    assert predictor.with_false_alarm_rate(float(named[1])).decision_rule.calibration.threshold == max(
        before.calibration.scores
    )
    assert f"(1 in {n + 1})" in str(refused.value)


def test_recalibration_ranks_among_the_given_images(predictor, product):
    good = sorted((product / "test" / "good").iterdir())
    changed = predictor.recalibrate(good, false_alarm_rate=0.25)
    scores = sorted(predictor.predict(image).score for image in good)
    assert list(changed.decision_rule.calibration.scores) == pytest.approx(scores, rel=1e-5)
    assert changed.decision_rule.calibration.kind == "split"
    above = sum(changed.predict(image).is_anomalous for image in good)
    assert above <= 0.25 * (len(good) + 1)
    maxima = sorted(predictor.predict(image).input_map.max() for image in good)
    expected = maxima[math.ceil((1 - changed.decision_rule.mask_false_alarm_rate) * (len(maxima) - 1))]
    assert changed.decision_rule.mask_floor == pytest.approx(expected, rel=1e-4)
    assert predictor.recalibrate(product / "test" / "good").decision_rule.calibration.false_alarm_rate == 0.2
    with pytest.raises(DataError, match="no image was given"):
        predictor.recalibrate([])
    with pytest.raises(CalibrationError, match="needs at least"):
        predictor.recalibrate(good[:2])


def test_recalibration_knows_no_groups_and_warns(detector, product):
    good = product / "test" / "good"
    grouped = copy.copy(detector)
    grouped.record = {**detector.record, "data": {**detector.record["data"], "groups": 8}}
    with pytest.warns(CalibrationWarning, match="trained with groups .* give one image per group"):
        changed = grouped.recalibrate(good)
    expected = detector.recalibrate(good).decision_rule.calibration.scores
    np.testing.assert_array_equal(changed.decision_rule.calibration.scores, expected)


def test_a_model_without_calibration_gets_one(product):
    bare = Detector.fit(product, short_side=64, calibration="none")
    with pytest.raises(CalibrationError, match="has no calibration"):
        bare.with_false_alarm_rate(0.2)
    assert bare.predict(next((product / "test").glob("*/*.png"))).is_anomalous is None
    changed = bare.recalibrate(product / "test" / "good")
    assert changed.decision_rule.calibration.false_alarm_rate == pytest.approx(3 / 9)
    assert changed.decision_rule.mask_floor is not None


def test_what_is_exported_is_evaluated_like_what_was_trained(predictor, detector, product):
    found, expected = predictor.evaluate(product).to_dict(), detector.evaluate(product).to_dict()
    for name in ("image_auroc", "pixel_auroc", "detection_rate", "observed_false_alarm_rate", "seg_f1"):
        assert found[name] == pytest.approx(expected[name], abs=1e-4), name
    dataset = open_dataset(product)
    assert found["images"] == len(dataset.test)


def test_a_changed_rule_is_saved_and_read_again(predictor, tmp_path, images):
    if isinstance(predictor, Detector):
        path = predictor.with_false_alarm_rate(0.5).save(tmp_path / "changed.safetensors")
        loaded = Detector.load(path)
    else:
        path = predictor.with_false_alarm_rate(0.5).save(tmp_path / "changed.onnx")
        loaded = ExportedDetector.load(path, engine=predictor.engine.name)
    assert loaded.decision_rule.calibration.false_alarm_rate == 0.5
    assert loaded.predict(images[0]).score == predictor.predict(images[0]).score


def test_threads_share_one_detector(predictor, images):
    """Each thread gets the verdict on its own image; with shared inference requests it would get another's."""
    expected = {image: predictor.predict(image).score for image in images}
    wrong = []

    def work(number):
        for step in range(15):
            image = images[(number * 5 + step) % len(images)]
            score = predictor.predict(image).score
            if score != pytest.approx(expected[image], rel=1e-5):
                wrong.append((image, score))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_fit_refuses_to_do_nothing_on_an_instance(detector, product):
    with pytest.raises(AttributeError, match=r"call `Detector\.fit\(\.\.\.\)`"):
        detector.fit(product)


def test_a_path_given_twice_is_used_once(product):
    good = sorted((product / "train" / "good").iterdir())[:10]
    with pytest.warns(ImageWarning, match=r"000\.png is given more than once; it is used once"):
        fitted = Detector.fit([*good, good[0]], short_side=64, false_alarm_rate=0.2)
    assert fitted.record["data"]["images"] == 10


def test_an_image_at_the_input_size_is_not_copied(detector):
    height, width = detector.input_size.height, detector.input_size.width
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    prepared = detector.preprocess(image)
    assert prepared.pixels is prepared.image
    np.testing.assert_array_equal(prepared.image, image)
    detector.predict(image)
