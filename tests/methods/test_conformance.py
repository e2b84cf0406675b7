"""What every method must do, whatever it is: run over the registry, so a new method is covered by its line there."""

import importlib.util

import numpy as np
import pytest
import torch

from hyperspot import Detector
from hyperspot.backbones import DEFAULT, NONE, create
from hyperspot.detector.heatmaps import smooth
from hyperspot.errors import SettingsError
from hyperspot.methods import METHODS
from hyperspot.runtime import ExportedDetector, available
from hyperspot.runtime.engines import TorchEngine
from hyperspot.utils.progress import SILENT

QUICK = {
    "cfa": {"steps": 5},
    "cflow": {"steps": 20, "blocks": 2, "places_per_step": 64},
    "cutpaste": {
        "steps": 3,
        "images_per_step": 2,
        "localization": "patches",
        "patch_steps": 3,
        "patches_per_step": 2,
    },
    "patch_svdd": {"steps": 3, "crops_per_step": 1, "pairs_per_crop": 8},
    "vae": {"steps": 5, "images_per_step": 2},
}
"""Settings that keep a method's training short; they change no rule below."""

TRAINED = {"cfa", "cflow", "cutpaste", "patch_svdd", "vae"}
"""Methods that train, and tell each step."""

NOT_EXPORTED = {"spade"}
"""Methods whose computation depends on the photo; all others must give the same numbers when exported."""

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module", params=list(METHODS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def photos():
    """Good photos: a bright disc on a shaded ground, with a little noise."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc = ((rows - HEIGHT / 2) ** 2 + (columns - WIDTH / 2) ** 2) < 20**2
    base = 0.3 * rows / HEIGHT - 0.5 + disc
    return torch.tensor(base + generator.normal(0, 0.05, (8, 3, HEIGHT, WIDTH)), dtype=torch.float32)


def make(name):
    owner = METHODS[name]
    settings = owner.Settings(**QUICK.get(name, {}))
    if not owner.uses_backbone:
        return owner(create(NONE), settings)
    return owner(create(DEFAULT, **owner.backbone_options(settings)), settings)


def fit(name, photos, seed=0):
    method = make(name)
    method.fit([photos[:5], photos[5:]] if len(photos) > 5 else [photos], seed=seed, progress=SILENT)
    return method.eval()


@pytest.fixture(scope="module")
def method(name, photos):
    return fit(name, photos)


@torch.inference_mode()
def judge(method, images):
    raw, own = method(images)
    maps = smooth(raw, *images.shape[-2:], 4.0)
    return maps, maps.amax((1, 2)) if own is None else own


def test_map_has_a_value_for_each_image_and_is_not_square(method, photos):
    maps, scores = judge(method, photos)
    assert maps.shape == (8, HEIGHT, WIDTH)
    assert scores.shape == (8,)
    assert torch.isfinite(maps).all()
    assert torch.isfinite(scores).all()


def test_batch_size_changes_no_result(method, photos):
    # Mirrored, so that none is a training photo: a distance of zero is nothing but the rounding of the batch.
    unseen = photos[:3].flip(3)
    together = judge(method, unseen)
    for number in range(3):
        alone = judge(method, unseen[number : number + 1])
        torch.testing.assert_close(alone[0][0], together[0][number], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone[1][0], together[1][number], rtol=1e-4, atol=1e-5)


def test_forward_changes_no_state(method, photos):
    before = {name: value.clone() for name, value in method.state_dict().items()}
    first, second = judge(method, photos[:2]), judge(method, photos[:2])
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_same_seed_gives_the_same_result_and_fit_starts_over(name, method, photos):
    again = fit(name, photos)
    again.fit([photos[:5], photos[5:]], seed=0, progress=SILENT)
    assert again.fitted_state().keys() == method.fitted_state().keys()
    for key, value in method.fitted_state().items():
        assert torch.equal(again.fitted_state()[key], value), key


class Checkpoints:
    """Judges photos at every step that is told, as whoever looks for the best checkpoint does."""

    def __init__(self, method, images):
        self.method, self.images, self.found = method, images, []

    def track(self, items, stage, total=None):
        yield from items

    def note(self, **values):
        if "step" in values:
            if self.method.finalize_for_inference is not None:
                with torch.no_grad():
                    self.method.finalize_for_inference()
            self.found.append(judge(self.method, self.images))


def test_judging_at_checkpoints_changes_nothing_and_the_last_one_is_the_result(name, method, photos):
    watched = make(name)
    checkpoints = Checkpoints(watched, photos[:2].flip(3))
    watched.fit([photos[:5], photos[5:]], seed=0, progress=checkpoints)
    assert watched.finalize_for_inference is None
    for key, value in method.fitted_state().items():
        assert torch.equal(watched.fitted_state()[key], value), key
    if name not in TRAINED:
        assert not checkpoints.found
        return
    for found, expected in zip(checkpoints.found[-1], judge(method, photos[:2].flip(3)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(checkpoints.found[0][0], checkpoints.found[-1][0])


def test_fit_leaves_global_random_state_alone_and_fills_every_tensor(name, photos):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    method = fit(name, photos[:2])
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert all(value.numel() and not value.is_meta for value in method.fitted_state().values())
    assert not any(value.requires_grad for value in method.fitted_state().values())


def test_what_was_learned_can_be_restored_bit_by_bit(name, method, photos):
    other = make(name)
    other.load_fitted_state(method.fitted_state())
    assert torch.equal(judge(other.eval(), photos[:2])[0], judge(method, photos[:2])[0])
    with pytest.raises(KeyError):
        other.load_fitted_state({"no_such_tensor": torch.zeros(1)})


def test_score_rises_where_a_defect_is_pasted_in(method, photos):
    good = photos[-1:].clone()
    bad = good.clone()
    bad[:, :, 24:40, 40:56] = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 4 - 2
    maps, scores = judge(method, torch.cat([good, bad]))
    assert scores[1] > scores[0]
    assert maps[1, 24:40, 40:56].mean() > maps[0, 24:40, 40:56].mean()


@pytest.mark.parametrize("case", ["one image", "identical images", "constant images"])
def test_poor_training_photos_give_finite_scores(name, photos, case):
    poor = {
        "one image": photos[:1],
        "identical images": photos[:1].expand(4, -1, -1, -1).contiguous(),
        "constant images": torch.full((4, 3, HEIGHT, WIDTH), 0.5),
    }[case]
    maps, scores = judge(fit(name, poor), torch.cat([photos[:1], torch.zeros(1, 3, HEIGHT, WIDTH)]))
    assert torch.isfinite(maps).all()
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("level", [-2.0, 0.0, 0.5, 3.0])
def test_a_constant_photo_gets_finite_scores(method, level):
    maps, scores = judge(method, torch.full((2, 3, HEIGHT, WIDTH), level))
    assert torch.isfinite(maps).all()
    assert torch.isfinite(scores).all()


@pytest.fixture(scope="module")
def pictures(photos):
    """Return the photos as a camera gives them, and one of a defect."""
    frames = ((photos * 0.2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    bad = frames[-1].copy()
    bad[24:40, 40:56] = np.random.default_rng(1).integers(0, 256, (16, 16, 3))
    return [*frames, bad]


@pytest.fixture(scope="module")
def detector(name, pictures):
    """Return a whole detector by the method, whose frame is not square."""
    fitted = Detector.fit(
        pictures[:6],
        method=name,
        method_settings=QUICK.get(name, {}),
        # A method may learn a network of its own, and refuses weights then.
        weights="random:0" if getattr(METHODS[name], "uses_backbone", True) else None,
        short_side=HEIGHT,
        false_alarm_rate=0.5,
    )
    assert (fitted.anomaly_model.input_size.height, fitted.anomaly_model.input_size.width) == (HEIGHT, WIDTH)
    return fitted


def test_a_model_file_gives_the_same_verdicts_bit_by_bit(detector, pictures, tmp_path):
    path = detector.save(tmp_path / "part.safetensors")
    loaded = Detector.load(path)
    for picture in pictures[-3:]:
        expected, found = detector.predict(picture), loaded.predict(picture)
        assert np.array_equal(found.heatmap, expected.heatmap)
        assert np.array_equal(found.mask, expected.mask)
        assert (found.score, found.p_value, found.is_anomalous, found.regions) == (
            expected.score,
            expected.p_value,
            expected.is_anomalous,
            expected.regions,
        )
    assert loaded.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_what_is_exported_gives_the_numbers_of_torch_or_says_that_it_cannot_be(name, detector, pictures, tmp_path):
    """Engines, formats, whole verdicts and damage are tested once for all methods, in `tests/runtime`."""
    if importlib.util.find_spec("onnxscript") is None:
        pytest.skip("needs hyperspot[export]: onnx and onnxscript")
    from hyperspot.export.exporting import export

    path = tmp_path / "part.onnx"
    if name in NOT_EXPORTED:
        with pytest.raises(SettingsError, match=f"'{name}' cannot be exported") as caught:
            export(detector, path)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []
        return
    export(detector, path)
    if "onnxruntime" not in available():
        pytest.skip("needs hyperspot[runtime]: onnxruntime is not installed")
    engine = ExportedDetector.load(path, engine="onnxruntime").engine
    # None is a training photo: a distance of zero is nothing but the rounding of the engine.
    for frames in (np.stack(pictures[-1:]), np.stack(pictures[-3:])):
        maps, scores = TorchEngine(detector.anomaly_model).run(frames)
        found_maps, found_scores = engine.run(frames)
        np.testing.assert_allclose(found_maps, maps, rtol=0, atol=1e-4 * np.abs(maps).max())
        np.testing.assert_allclose(found_scores, scores, rtol=1e-4)


def test_settings_refuse_unknown_names(name):
    with pytest.raises(ValueError, match="no_such_setting"):
        METHODS[name].Settings(no_such_setting=1)
