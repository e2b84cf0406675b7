"""Synthetic defects: on the object, visible, of the asked size, the same for the same seed."""

import numpy as np
import pytest

from hyperspot.errors import SettingsError
from hyperspot.images.synthetic_defects import CHANGED, KINDS, SIZES, SMALLEST, draw_defect, object_weights

HEIGHT, WIDTH = 160, 240


@pytest.fixture
def part() -> np.ndarray:
    """Return a textured disk on a bright, slightly noisy background."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disk = np.hypot(rows - 80, columns - 120) < 50
    image = rng.normal(200, 2, (HEIGHT, WIDTH, 3))
    image[disk] = 90 + 20 * np.sin(columns[disk] / 3)[:, None] + rng.normal(0, 4, (disk.sum(), 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_defect_has_the_asked_size_and_changes_its_mask_alone(part: np.ndarray, kind: str, size: str):
    before = part.copy()
    changed, mask = draw_defect(part, kind, size, seed=3)
    assert np.array_equal(part, before)
    assert changed.shape == part.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(changed[~mask], part[~mask])
    assert np.abs(changed[mask].astype(int) - part[mask]).max(axis=1).min() > CHANGED
    diameter = max(SMALLEST, SIZES[size] * HEIGHT)
    # A scratch is three diameters long; the mask leaves out what happens to be equal.
    assert 1 <= mask.sum() <= 2.5 * np.pi * (diameter / 2 + 1) ** 2
    rows, columns = np.nonzero(mask)
    assert max(np.ptp(rows), np.ptp(columns)) <= 3.2 * diameter + 2


@pytest.mark.parametrize("kind", KINDS)
def test_defects_are_visible_and_most_lie_on_the_object(part: np.ndarray, kind: str):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    near = np.hypot(rows - 80, columns - 120) < 60
    on_object, contrast = [], []
    for seed in range(30):
        changed, mask = draw_defect(part, kind, "medium", seed=seed)
        on_object.append(near[mask].mean())
        contrast.append(np.abs(changed[mask].astype(int) - part[mask]).max(axis=1).mean())
    assert np.mean(on_object) > 0.8
    assert min(contrast) > 15


def test_the_seed_decides(part: np.ndarray):
    one, same, other = (draw_defect(part, "stain", seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(40, 40), (24, 300), (300, 24)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_and_narrow_images_get_a_defect_too(kind: str, shape: tuple[int, int], level: int):
    image = np.full((*shape, 3), level, np.uint8)
    for size in SIZES:
        assert draw_defect(image, kind, size)[1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_gray_images_stay_gray(part: np.ndarray, kind: str):
    gray = np.repeat(part[..., :1], 3, axis=2)
    changed, _ = draw_defect(gray, kind, "large")
    assert (changed == changed[..., :1]).all()


def test_weights_are_a_distribution_on_the_object(part: np.ndarray):
    weights = object_weights(part)
    assert weights.sum() == pytest.approx(1)
    assert weights[16, 16] > 20 * weights[2, 2]


def test_unknown_names_are_refused(part: np.ndarray):
    with pytest.raises(SettingsError, match="no synthetic defect 'dent'; choose one of cut-paste, texture"):
        draw_defect(part, "dent")
    with pytest.raises(SettingsError, match="no size 'huge'; choose one of tiny"):
        draw_defect(part, "stain", "huge")
