"""The fusion of views, from photos to the verdict, against NumPy."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from hyperspot import Detector

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet."""


@pytest.fixture(scope="module")
def photos():
    """Five good photos and one that is not, of the size of the frame."""
    noise = np.random.default_rng(0).normal(size=(6, 64, 96, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 4, 4, 0))
    made = np.clip(128 + 400 * smooth + [40, 0, -40], 0, 255).astype(np.uint8)
    made[5, 20:30, 50:60] = [250, 240, 10]
    return made


def seen_by(method, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smoothed maps of a method in the pixels of what it is shown, and its image scores."""
    shown = ((photos / 255 - MEAN) / DEVIATION).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        raw, own = method(torch.tensor(shown, dtype=torch.float32))
    pixels = functional.interpolate(raw[None].double(), size=photos.shape[1:3], mode="bilinear", align_corners=False)
    maps = np.stack([ndimage.gaussian_filter(one, 4.0, mode="reflect", truncate=4) for one in pixels[0].numpy()])
    return maps, maps.max((1, 2)) if own is None else own.double().numpy()


@pytest.mark.parametrize("method", ["cfa", "spade"])
def test_fused_views_are_standardized_by_good_photos(photos, method):
    """Each view by the mean and deviation that it has over good photos; CFA has no image score of its own."""
    detector = Detector.fit(
        list(photos[:5]),
        method=method,
        method_settings={"variant": "released", "steps": 2} if method == "cfa" else {"neighbors": 3},
        backbone="resnet18",
        weights="random:0",
        short_side=64,
        crops="fused",
        calibration="none",
        background_weight=0.0,
    )
    crop, whole = detector.anomaly_model.methods
    box = (slice(4, 60), slice(8, 88))
    (inner, inner_scores), (outer, outer_scores) = seen_by(crop, photos[:, *box]), seen_by(whole, photos)
    inner, outer = ((maps - maps[:5].mean()) / maps[:5].std(ddof=1) for maps in (inner, outer))
    fused = outer.copy()
    fused[:, *box] = (inner + outer[:, *box]) / 2
    scores = fused.max((1, 2))
    if method == "spade":
        crops = [(own - own[:5].mean()) / own[:5].std() for own in (inner_scores, outer_scores)]
        scores = np.mean(crops, axis=0)
    assert detector.backbone.output_negative_slope == (0.01 if method == "cfa" else 0)
    for photo, expected, score in zip(photos, fused, scores, strict=True):
        verdict = detector.predict(photo)
        np.testing.assert_allclose(verdict.heatmap, expected, rtol=2e-3, atol=2e-3)
        assert verdict.score == pytest.approx(score, rel=2e-3, abs=2e-3)
