"""Every method on a card that keeps to the rules of GPUs (see `conftest`): none was at hand when this was written."""

from typing import Any

import numpy as np
import pytest
import torch

from hyperspot import Detector
from hyperspot.benchmark import measuring
from hyperspot.benchmark.protocol import Run
from hyperspot.detector.settings import make_settings
from hyperspot.export.exporting import _on_the_cpu
from hyperspot.methods import METHODS
from hyperspot.utils.progress import SILENT

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS},
    "cfa default": ("cfa", {"variant": "default", "steps": 2}),
    "cfa paper": ("cfa", {"variant": "paper", "gamma_c": 4, "gamma_d": 8, "steps": 2}),
    "cfa of many steps": ("cfa", {"gamma_c": 2, "patches_per_step": 0, "images_per_step": 1}),
    "patchcore, reweighted": ("patchcore", {"image_score": "reweighted", "neighbors": 3}),
    "cutpaste, gradient": ("cutpaste", {"localization": "gradient", "shrink": 1}),
    "cutpaste, by place": ("cutpaste", {"density": "place"}),
    "spade, few": ("spade", {"images": 2, "neighbors": 3}),
}


def fitted(quick, pictures, variant, device, **changes):
    method, settings = VARIANTS[variant]
    uses_backbone = METHODS[method].uses_backbone
    return Detector.fit(
        pictures[:6],
        method=method,
        method_settings={**quick.get(method, {}), **settings},
        weights="random:0" if uses_backbone else None,
        short_side=64,
        device=device,
        **{"false_alarm_rate": 0.5, **changes},
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_learning_and_judging_there_is_as_on_the_cpu(card, quick, pictures, variant, tmp_path):
    there, here = (fitted(quick, pictures, variant, device) for device in ("card", "cpu"))
    assert there.device == card
    fitted_state = there.anomaly_model.methods[0].fitted_state()
    assert {str(tensor.device) for tensor in fitted_state.values()} == {"card:0"}
    # The same image three times: eager, captured and replayed, replayed.
    for picture in (*pictures[-3:], pictures[0]):
        expected, found = here.predict(picture), there.predict(picture)
        largest = np.abs(expected.heatmap).max()
        np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=0, atol=2e-3 * largest)
        assert found.score == pytest.approx(expected.score, rel=2e-3)
    # One shape was captured without a warning, so no rule of capturing was broken.
    assert len(there.anomaly_model._graphed._graphs) == 1
    carried = Detector.load(there.save(tmp_path / "part.safetensors"), device="cpu")
    assert carried.device.type == "cpu"
    assert carried.predict(pictures[-1]).score == pytest.approx(there.predict(pictures[-1]).score, rel=1e-4)
    back = Detector.load(tmp_path / "part.safetensors", device="card")
    assert back.device == card
    assert back.predict(pictures[-1]).score == there.predict(pictures[-1]).score


def test_several_views_are_weighed_there_and_a_detector_goes_to_and_fro(card, quick, pictures):
    there = fitted(quick, pictures, "cfa", "card", crops="fused")
    here = fitted(quick, pictures, "cfa", "cpu", crops="fused")
    for found, expected in zip(there.anomaly_model.score_stats, here.anomaly_model.score_stats, strict=True):
        assert vars(found) == pytest.approx(vars(expected), rel=1e-3)
    score = there.predict(pictures[-1]).score
    assert score == pytest.approx(here.predict(pictures[-1]).score, rel=2e-3)
    with _on_the_cpu(there):
        assert there.device.type == "cpu"
        assert there.predict(pictures[-1]).score == pytest.approx(score, rel=1e-4)
    assert there.device == card
    assert there.predict(pictures[-1]).score == score
    assert there.to("cpu").device.type == "cpu"
    assert there.to("card").predict(pictures[-1]).score == score


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_half_precision_there_is_near(card, quick, pictures, precision, tmp_path):
    here = fitted(quick, pictures, "padim", "cpu")
    path = here.save(tmp_path / "part.safetensors")
    there = Detector.load(path, device="card", precision=precision)
    assert there.anomaly_model.precision == precision
    expected = here.predict(pictures[-1]).heatmap
    for _ in range(3):
        found = there.predict(pictures[-1]).heatmap
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.15 * np.abs(expected).max())
        assert not np.array_equal(found, expected)


def test_features_that_go_to_a_file_come_back_to_the_card(card, quick, pictures, monkeypatch):
    here = fitted(quick, pictures, "cfa default", "cpu")
    monkeypatch.setattr("hyperspot.features.patches.CACHE_BUDGET_BYTES", 1000)
    there = fitted(quick, pictures, "cfa default", "card")
    for name in ("cflow", "spade"):
        assert fitted(quick, pictures, name, "card", calibration="none").device == card
    expected = here.predict(pictures[-1])
    # Clusters of features in half precision are others, about as good.
    assert there.predict(pictures[-1]).score == pytest.approx(expected.score, rel=0.1)


def test_a_benchmark_there_is_watched_as_on_the_cpu_and_tells_no_times(card, product, monkeypatch):
    monkeypatch.setattr(measuring, "resolve", lambda named: card if named == "card" else torch.device(named))
    settings = make_settings(
        {
            "short_side": 64,
            "crops": "center",
            "calibration": "none",
            "method_settings": {"variant": "released", "steps": 10, "gamma_d": 8},
        }
    )
    run = Run("cfa released", "product", settings, fingerprint="", weights="random:0", oracle=True)
    there, here = (
        measuring.measure(run, product, None, "random:0", SILENT, device=device) for device in ("card", "cpu")
    )
    assert there["training_seconds"] is None
    assert "latency_ms" in here
    assert "latency_ms" not in there
    assert there["checkpoints"] == here["checkpoints"] == 10
    for metric in ("image_auroc", "pixel_auroc"):
        assert there["last"][metric] == pytest.approx(here["last"][metric], abs=0.02)
        assert there["oracle"][metric] == pytest.approx(here["oracle"][metric], abs=0.02)
