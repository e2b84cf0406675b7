"""Every method on a card that keeps to the rules of GPUs (see `conftest`): none was at hand when this was written."""

from typing import Any

import numpy as np
import pytest

from hyperspot import Detector
from hyperspot.methods import METHODS

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS},
    "cfa default": ("cfa", {"variant": "default", "steps": 2}),
    "cfa paper": ("cfa", {"variant": "paper", "gamma_c": 4, "gamma_d": 8, "steps": 2}),
    "cfa of many steps": ("cfa", {"gamma_c": 2, "patches_per_step": 0, "images_per_step": 1}),
    "patchcore, reweighted": ("patchcore", {"image_score": "reweighted", "neighbors": 3}),
    "cutpaste, gradient": ("cutpaste", {"localisation": "gradient", "shrink": 1}),
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
    learned = there.scorer.methods[0].learned()
    assert {str(tensor.device) for tensor in learned.values()} == {"card:0"}
    # Three times one photo: as it is, recorded and replayed, replayed.
    for picture in (*pictures[-3:], pictures[0]):
        expected, found = here.predict(picture), there.predict(picture)
        largest = np.abs(expected.heatmap).max()
        np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=0, atol=2e-3 * largest)
        assert found.score == pytest.approx(expected.score, rel=2e-3)
    # One shape was recorded, and no rule of recording was broken on the way: that would have been warned of.
    assert len(there.scorer._replayed._records) == 1
    carried = Detector.load(there.save(tmp_path / "part.safetensors"), device="cpu")
    assert carried.device.type == "cpu"
    assert carried.predict(pictures[-1]).score == pytest.approx(there.predict(pictures[-1]).score, rel=1e-4)
    back = Detector.load(tmp_path / "part.safetensors", device="card")
    assert back.device == card
    assert back.predict(pictures[-1]).score == there.predict(pictures[-1]).score
