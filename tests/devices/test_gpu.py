"""On a real GPU. None was at hand when this was written: whoever has one runs `pytest -m gpu` first."""

import warnings

import numpy as np
import pytest
import torch

from hyperspot import Detector
from hyperspot.backbones import create, names
from hyperspot.hardware.cuda_graphs import GraphCapturer, GraphedCallable
from hyperspot.hardware.devices import computing_on, resolve
from hyperspot.methods import METHODS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here that torch can use"),
]

TOLERANCE = 2e-3
"""Of the largest value of a map, in f32: the same numbers, summed in another order."""
HALF_TOLERANCE = 0.15
"""The same with features in half precision, as `benchmarks.inference_speed` allows bf16 on the CPU."""


def fitted(quick, pictures, name, device="cpu", **changes):
    return Detector.fit(
        pictures[:6],
        method=name,
        method_settings=quick.get(name, {}),
        weights="random:0" if METHODS[name].uses_backbone else None,
        short_side=64,
        device=device,
        **{"false_alarm_rate": 0.5, **changes},
    )


@pytest.fixture(scope="module", params=METHODS)
def detector(request, quick, pictures):
    return fitted(quick, pictures, request.param)


def frames_of(detector, pictures, count):
    return np.stack(
        [detector.anomaly_model.input_size.letterbox(*one.shape[:2]).apply(one) for one in pictures[-count:]]
    )


def test_a_model_file_gives_the_maps_of_the_cpu(detector, pictures, tmp_path):
    path = detector.save(tmp_path / "part.safetensors")
    there = Detector.load(path, device="cuda", precision="f32")
    assert there.device.type == "cuda"
    for frames in (frames_of(detector, pictures, 1), frames_of(detector, pictures, 3)):
        expected, scores = detector.anomaly_model.run(frames)
        for _ in range(3):
            found, own = there.anomaly_model.run(frames)
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
            assert (own is None) == (scores is None)
            if own is not None:
                np.testing.assert_allclose(own, scores, rtol=TOLERANCE)


def test_half_precision_is_near(detector, pictures, tmp_path):
    path = detector.save(tmp_path / "part.safetensors")
    frames = frames_of(detector, pictures, 2)
    expected, _ = detector.anomaly_model.run(frames)
    for precision in {"f16", "bf16"} if torch.cuda.is_bf16_supported() else {"f16"}:
        there = Detector.load(path, device="cuda", precision=precision)
        found, _ = there.anomaly_model.run(frames)
        np.testing.assert_allclose(found, expected, rtol=0, atol=HALF_TOLERANCE * np.abs(expected).max())


def test_every_method_can_be_captured_and_a_replay_equals_eager_mode(detector, pictures, tmp_path):
    there = Detector.load(detector.save(tmp_path / "part.safetensors"), device="cuda")
    anomaly_model = there.anomaly_model
    # Alternating shapes: each runs eagerly, is captured and replayed between the others.
    for count in (1, 3, 2) * 3:
        frames = frames_of(detector, pictures, count)
        with torch.inference_mode(), computing_on(anomaly_model.device):
            maps, own = anomaly_model(torch.from_numpy(frames).to(anomaly_model.device))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found, score = anomaly_model.run(frames)
        np.testing.assert_allclose(found, maps.cpu().numpy(), rtol=1e-5, atol=1e-6)
        if own is not None:
            np.testing.assert_allclose(score, own.cpu().numpy(), rtol=1e-5)
    assert len(anomaly_model._graphed._graphs) == 3


def test_a_replay_reads_the_new_image(detector, pictures, tmp_path):
    there = Detector.load(detector.save(tmp_path / "part.safetensors"), device="cuda")
    first, second = (frames_of(detector, pictures[: 1 + which], 1) for which in range(2))
    maps = [there.anomaly_model.run(frames)[0].copy() for frames in (first, first, second, first)]
    assert np.array_equal(maps[1], maps[3])
    assert not np.array_equal(maps[1], maps[2])


@pytest.mark.parametrize("name", METHODS)
def test_a_detector_trained_on_a_gpu_predicts_on_the_cpu(quick, pictures, name, tmp_path):
    here, there = fitted(quick, pictures, name), fitted(quick, pictures, name, "cuda")
    assert {tensor.device.type for tensor in there.anomaly_model.state_dict().values()} == {"cuda"}
    carried = Detector.load(there.save(tmp_path / "part.safetensors"), device="cpu", precision="f32")
    for picture in pictures[-2:]:
        expected = here.predict(picture)
        largest = np.abs(expected.heatmap).max()
        for one in (carried, there):
            # Some hundredths: rounding grows from step to step of training.
            np.testing.assert_allclose(one.predict(picture).heatmap, expected.heatmap, rtol=0, atol=0.05 * largest)
    both = np.array([[one.predict(picture).score for picture in pictures] for one in (carried, there)])
    np.testing.assert_allclose(both[0], both[1], rtol=TOLERANCE)


@pytest.mark.parametrize("name", names())
def test_every_backbone_gives_the_features_of_the_cpu(name):
    backbone = create(name, "random:0")
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    expected = backbone(images)
    device = resolve("cuda")
    with computing_on(device):
        backbone.to(device)
        placed = images.to(device).contiguous(memory_format=torch.channels_last)
        for precision, tolerance in (("f32", 1e-4), ("f16", 2e-2), ("bf16", 1e-1)):
            backbone.precision = precision
            for found, wanted in zip(backbone(placed), expected, strict=True):
                assert found.dtype == torch.float32
                error = (found.cpu() - wanted).abs().max() / wanted.abs().max()
                assert error < tolerance, (precision, float(error))


def test_a_detector_moves_between_devices_and_is_exported_from_a_gpu(quick, pictures, tmp_path):
    pytest.importorskip("onnxscript", reason="needs hyperspot[export]")
    from hyperspot.export.exporting import export

    detector = fitted(quick, pictures, "cfa", "cuda")
    expected = detector.predict(pictures[-1]).score
    export(detector, tmp_path / "part.onnx")
    assert detector.device.type == "cuda"
    assert detector.predict(pictures[-1]).score == pytest.approx(expected, rel=1e-5)
    assert detector.to("cpu").predict(pictures[-1]).score == pytest.approx(expected, rel=TOLERANCE)
    assert detector.to("cuda").predict(pictures[-1]).score == pytest.approx(expected, rel=1e-5)


def test_work_that_synchronizes_runs_eagerly_with_one_warning():
    device = resolve("cuda")

    def waits(frames):
        maps = frames[..., 0].float()
        return maps * float(maps.sum()), None

    graphed = GraphedCallable(waits, GraphCapturer(device))
    frames = torch.ones(1, 4, 4, 3, dtype=torch.uint8)
    with torch.inference_mode(), computing_on(device):
        assert float(graphed(frames)[0][0, 0, 0]) == 16.0
        with pytest.warns(UserWarning, match="no CUDA graph can be captured"):
            assert float(graphed(frames)[0][0, 0, 0]) == 16.0
        assert float(graphed(frames)[0][0, 0, 0]) == 16.0


def test_out_of_memory_is_one_clear_error():
    from hyperspot.errors import DeviceError

    device = resolve("cuda")
    with pytest.raises(DeviceError, match="out of memory"), computing_on(device):
        torch.empty(2**50, dtype=torch.uint8, device=device)
