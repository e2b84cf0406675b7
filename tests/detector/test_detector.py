"""The whole path of an image, and the model file."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from hyperspot import Detector
from hyperspot.data import open_dataset
from hyperspot.detector import model_file as model_files
from hyperspot.errors import CalibrationError, DataError, ImageError, ModelFileError, SettingsError, WeightsError
from hyperspot.images import find_images, read_mask


@pytest.fixture(scope="module")
def photo(product):
    return open_dataset(product).test[0].path


def test_verdict_is_in_the_photos_own_pixels(detector, photo, tmp_path):
    image = Image.open(photo).convert("RGB")
    wide = tmp_path / "wide.png"
    image.resize((301, 173)).save(wide)
    verdict = detector.predict(wide)
    assert verdict.heatmap.shape == verdict.mask.shape == (173, 301)
    assert verdict.image.shape == (173, 301, 3)
    assert verdict.overlay(caption=False).size == (301, 173)
    assert np.isfinite(verdict.heatmap).all()
    assert verdict.path == wide


@pytest.mark.parametrize("given", ["path", "str", "bytes", "array", "pillow"])
def test_every_kind_of_photo_gets_the_same_verdict(detector, photo, given):
    image = Image.open(photo).convert("RGB")
    sources = {
        "path": photo,
        "str": str(photo),
        "bytes": photo.read_bytes(),
        "array": np.asarray(image),
        "pillow": image,
    }
    assert detector.predict(sources[given]).score == detector.predict(photo).score


def test_many_photos_keep_their_order(detector, product):
    photos = [photo.path for photo in open_dataset(product).test]
    judged = list(detector.predict_many(photos))
    assert [verdict.path for verdict in judged] == photos
    assert judged[3].score == pytest.approx(detector.predict(photos[3]).score, rel=1e-5)


def test_a_verdict_is_what_calibration_says(detector, product):
    for photo in open_dataset(product).test[:6]:
        verdict = detector.predict(photo.path)
        assert (
            verdict.is_anomalous
            == (verdict.p_value <= 0.2)
            == (verdict.score > detector.decision_rule.calibration.threshold)
        )
        if not verdict.is_anomalous:
            assert not verdict.mask.any()
            assert verdict.regions == ()


def test_saved_verdict_can_be_read_back(detector, photo, tmp_path):
    verdict = detector.predict(photo)
    files = verdict.save(tmp_path / "out")
    assert np.array_equal(read_mask(files["mask"]), verdict.mask)
    assert json.loads(files["json"].read_text())["score"] == verdict.score
    with Image.open(files["heatmap"]) as heatmap:
        assert heatmap.size == verdict.image.shape[1::-1]


def test_a_verdict_is_saved_whole_or_not_at_all(detector, photo, tmp_path, monkeypatch):
    verdict = detector.predict(photo)
    verdict.save(tmp_path, "it")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, _):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hyperspot.results.verdict.write_png", full)
    with pytest.raises(OSError, match="No space left"):
        detector.predict(photo).save(tmp_path, "it", overwrite=True)
    with pytest.raises(OSError, match="No space left"):
        detector.predict(photo).save(tmp_path, "new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_model_file_carries_everything(detector, model_file, product):
    loaded = Detector.load(model_file)
    for photo in open_dataset(product).test[:3]:
        first, second = detector.predict(photo.path), loaded.predict(photo.path)
        assert first.score == second.score
        assert first.p_value == second.p_value
        assert np.array_equal(first.heatmap, second.heatmap)
        assert np.array_equal(first.mask, second.mask)
    assert loaded.settings == detector.settings
    assert loaded.record == detector.record
    assert loaded.save(model_file.with_name("again.safetensors")).read_bytes() == model_file.read_bytes()


def test_the_same_seed_gives_the_same_file(product, tmp_path):
    def fitted_state():
        detector = Detector.fit(product, weights="random:0", short_side=64, seed=5, method_settings={"steps": 2})
        return detector.anomaly_model.state_dict(), detector.decision_rule.calibration.scores

    (first, scores), (second, again) = fitted_state(), fitted_state()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert np.array_equal(scores, again)


def test_fused_views_see_the_whole_frame(product, tmp_path):
    detector = Detector.fit(
        product, weights="random:0", short_side=64, crops="fused", method_settings={"steps": 2}, false_alarm_rate=0.2
    )
    photo = open_dataset(product).test[0].path
    loaded = Detector.load(detector.save(tmp_path / "fused.safetensors"))
    assert loaded.predict(photo).score == detector.predict(photo).score
    assert len(loaded.anomaly_model.score_stats) == 2


def test_crop_sees_its_part_only(product):
    detector = Detector.fit(
        product, weights="random:0", short_side=64, crops="center", method_settings={"steps": 0}, calibration="none"
    )
    image = np.asarray(Image.open(open_dataset(product).test[0].path).convert("RGB").resize((64, 64))).copy()
    edge = image.copy()
    edge[:3] = 255
    assert detector.predict(edge).score == detector.predict(image).score
    assert detector.predict(image).is_anomalous is None


def test_one_photo_needs_calibration_none(product, tmp_path):
    photo = find_images(product / "train" / "good")[0]
    with pytest.raises(CalibrationError, match="calibration none"):
        Detector.fit([photo], weights="random:0", short_side=64)
    detector = Detector.fit(
        [photo], weights="random:0", short_side=64, calibration="none", method_settings={"steps": 2}
    )
    assert detector.predict(photo).p_value is None
    loaded = Detector.load(detector.save(tmp_path / "part.safetensors"))
    assert loaded.predict(photo).score == detector.predict(photo).score


SCRATCH = {
    "cutpaste": {"steps": 1, "images_per_step": 2, "patch_steps": 1, "patches_per_step": 2},
    "patch_svdd": {"steps": 1, "crops_per_step": 1},
    "vae": {"steps": 1, "images_per_step": 2},
}


@pytest.mark.parametrize("method", list(SCRATCH))
def test_a_method_with_its_own_network_needs_no_weights_and_keeps_none(product, tmp_path, monkeypatch, method):
    def refused(*_arguments):
        raise AssertionError("weights were looked for")

    monkeypatch.setattr("hyperspot.backbones.registry.fetch", refused)
    monkeypatch.setenv("HYPERSPOT_WEIGHTS", str(tmp_path / "nowhere"))
    photos = find_images(product / "train" / "good")[:3]
    detector = Detector.fit(photos, method=method, method_settings=SCRATCH[method], short_side=64, calibration="none")
    assert detector.settings.backbone == detector.record["backbone"]["name"] == "none"
    saved = detector.save(tmp_path / "part.safetensors")
    with safe_open(saved, framework="pt") as opened:
        assert not any(name.startswith("backbone.") for name in opened.keys())  # noqa: SIM118
    loaded = Detector.load(saved)
    assert loaded.settings == detector.settings
    assert loaded.predict(photos[0]).score == detector.predict(photos[0]).score


def test_mistakes_are_named(product, detector, tmp_path):
    with pytest.raises(DataError, match="no image was given"):
        Detector.fit([])
    with pytest.raises(SettingsError, match="methd"):
        Detector.fit(product, methd="cfa")
    with pytest.raises(SettingsError, match="magic"):
        Detector.fit(product, method="magic")
    with pytest.raises(SettingsError, match="'cfa' needs a backbone; choose one of compact"):
        Detector.fit(product, backbone="none")
    with pytest.raises(SettingsError, match=r"'vae' trains its own network .* leave 'resnet18' out"):
        Detector.fit(product, method="vae", backbone="resnet18")
    with pytest.raises(WeightsError, match="no backbone is used; leave them out"):
        Detector.fit(product, method="vae", weights="random:0")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        detector.predict(broken)
    with pytest.raises(ModelFileError, match="choose another place"):
        detector.save(tmp_path / "missing" / "part.safetensors")


def damaged(kind, whole: bytes) -> bytes:
    return {
        "empty": b"",
        "cut short": whole[: len(whole) // 2],
        "text": b"hello",
        "one bit flipped": whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:],
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "cut short", "text", "one bit flipped"])
def test_damaged_model_files_are_refused(model_file, tmp_path, kind):
    path = tmp_path / "part.safetensors"
    path.write_bytes(damaged(kind, model_file.read_bytes()))
    with pytest.raises(ModelFileError, match=r"part\.safetensors"):
        Detector.load(path)


def test_foreign_newer_and_missing_model_files_are_refused(model_file, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    with pytest.raises(ModelFileError, match="not a hyperspot model"):
        Detector.load(foreign)
    newer = tmp_path / "newer.safetensors"
    save_file({"weight": torch.zeros(3)}, newer, metadata={"hyperspot": json.dumps({"format": 999})})
    with pytest.raises(ModelFileError, match="newer"):
        Detector.load(newer)
    older = tmp_path / "older.safetensors"
    save_file({"weight": torch.zeros(3)}, older, metadata={"hyperspot": json.dumps({"format": 4})})
    with pytest.raises(ModelFileError, match=r"older hyperspot \(format 4, this one reads 5\); train it again$"):
        Detector.load(older)
    with pytest.raises(ModelFileError, match="does not exist"):
        Detector.load(tmp_path / "none.safetensors")


def reseal(model_file, path, change):
    """Write a model file anew, with right checksums, after a change to its tensors and metadata."""
    tensors, metadata = model_files.read(model_file)
    change(tensors, metadata)
    model_files.write(path, tensors, metadata)


def test_damage_to_the_metadata_is_noticed(model_file, tmp_path):
    path = tmp_path / "part.safetensors"
    whole = model_file.read_bytes()
    place = whole.index(b"mask_floor") + len(b"mask_floor") + 6
    assert whole[place : place + 1].isdigit(), "a digit of the number, so that the text stays JSON"
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for read in (Detector.load, model_files.read_metadata):
        with pytest.raises(ModelFileError, match=r"part\.safetensors is damaged"):
            read(path)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("input_size", "height"), 10**9), (("input_size", "height"), 64.5), (("input_size",), None), (("crops",), []),
        (("crops", 0, "top"), -5), (("score_stats",), None), (("decision_rule", "false_alarm_rate"), 1e-9),
        (("decision_rule", "kind"), None), (("decision_rule", "mask_floor"), "x"), (("decision_rule",), None),
        (("decision_rule", "mask_floor"), None), (("decision_rule", "heat_range"), [5, 1]),
        (("decision_rule", "mask_false_alarm_rate"), 2),
        (("settings",), []), (("settings", "method_settings"), None), (("settings", "sigma"), 1e9), (("record",), None),
        (("record", "backbone", "name"), "vgg19_bn"),
    ],
)  # fmt: skip
def test_metadata_that_fit_nothing_are_refused(model_file, tmp_path, where, value):
    def change(tensors, metadata):
        for name in where[:-1]:
            metadata = metadata[name]
        metadata[where[-1]] = value

    reseal(model_file, tmp_path / "part.safetensors", change)
    with pytest.raises(ModelFileError, match=r"part\.safetensors does not hold a whole detector"):
        Detector.load(tmp_path / "part.safetensors")


@pytest.mark.parametrize("name", ["backbone.stem.weight", "crops.0.bank", "crops.0.weight", "calibration.scores"])
@pytest.mark.parametrize("kind", ["missing", "nan", "empty", "another shape"])
def test_tensors_that_fit_nothing_are_refused(model_file, tmp_path, name, kind):
    def change(tensors, metadata):
        tensor = tensors.pop(name)
        if kind == "nan":
            tensors[name] = torch.full_like(tensor, torch.nan)
        elif kind == "empty":
            tensors[name] = tensor.flatten()[:0]
        elif kind == "another shape":
            tensors[name] = tensor[None]

    reseal(model_file, tmp_path / "part.safetensors", change)
    with pytest.raises(ModelFileError, match=r"part\.safetensors"):
        Detector.load(tmp_path / "part.safetensors")


@pytest.mark.parametrize("text", ['{"format": 1e400}', "[" * 100_000, "[]", '{"format": 3}', '{"format": 1}'])
def test_metadata_of_any_text_are_refused(tmp_path, text):
    path = tmp_path / "part.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"hyperspot": text})
    for read in (Detector.load, model_files.read_metadata):
        with pytest.raises(ModelFileError, match=r"part\.safetensors"):
            read(path)


def test_a_black_mask_counts_for_nothing(detector, product, tmp_path):
    data = shutil.copytree(product, tmp_path / "data")
    mask = next((data / "ground_truth").glob("*/*.png"))
    photo = data / "test" / mask.parent.name / f"{mask.stem.removesuffix('_mask')}.png"
    Image.fromarray(np.zeros_like(read_mask(mask))).save(mask)
    blackened = detector.evaluate(data)
    assert any(str(photo) in problem and "mask is empty" in problem for problem in blackened.problems)
    mask.unlink()
    without = detector.evaluate(data)
    assert blackened.metrics == without.metrics
    shutil.rmtree(data / "test" / "good")
    assert any("no good test image" in problem for problem in detector.evaluate(data).problems)


def test_a_killed_training_leaves_the_previous_file(product, model_file, tmp_path):
    path = tmp_path / "part.safetensors"
    path.write_bytes(model_file.read_bytes())
    before = path.read_bytes()
    command = [sys.executable, "-m", "hyperspot", "train", str(product), "-o", str(path), "--weights", "random:0"]
    # Tests that a shell runs in the background inherit that SIGINT is ignored.
    running = subprocess.Popen(
        [*command, "--set", "steps=100000"],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in running.stderr:
            if b"cross-fitting" in line:
                break
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=120)
    finally:
        running.kill()
        running.wait()
        running.stderr.close()
    assert running.returncode == 130
    assert b"unchanged" in told
    assert b"Traceback" not in told
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("backbone", ["compact", "resnet18"])
def test_evaluation_on_real_photos_is_as_good_as_published(real_data, real_weights, backbone):
    """MVTec bottle, released variant as in the paper; the last checkpoint, nothing chosen on test photos."""
    detector = Detector.fit(
        real_data / "bottle",
        backbone=backbone,
        weights=real_weights,
        aspect="square",
        crops="center",
        method_settings={"variant": "released", "steps": 50},
    )
    found = detector.evaluate(real_data / "bottle")
    assert found.image_auroc > 0.995
    assert found.metrics_at_input["pixel_auroc"] > 0.975
    assert found.metrics_at_input["aupro_30"] > 0.90
    assert found.detection_rate > 0.9
