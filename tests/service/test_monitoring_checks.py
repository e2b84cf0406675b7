"""Checks of images: they see a change of light, focus and position, and are seldom wrong."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from hyperspot.service.monitoring.image_checks import CHANCE, checks_of, limits_of, training_statistics, unusual


def photo(rng, *, shift=0, light=1.0, blur=0.0):
    """A bright textured part on a dark ground, with noise."""
    texture = np.random.default_rng(7).normal(0, 25, (200, 300))
    pixels = np.full((480, 640), 30.0)
    pixels[140:340, 170 + shift : 470 + shift] = 150 + texture
    pixels = pixels * light * rng.normal(1, 0.01)
    if blur:
        pixels = np.asarray(
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur)), float
        )
    pixels = pixels + rng.normal(0, 2, pixels.shape)
    return np.repeat(pixels.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def statistics():
    rng = np.random.default_rng(1)
    return training_statistics([checks_of(photo(rng, shift=int(rng.integers(-3, 4)))) for _ in range(40)])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, set()),
        ({"light": 0.6}, {"brightness"}),
        ({"blur": 2.0}, {"focus"}),
        ({"shift": 60}, {"position_x"}),
    ],
)
def test_each_check_sees_its_change(statistics, change, expected):
    found = set(unusual(checks_of(photo(np.random.default_rng(2), **change)), statistics))
    assert found & {"brightness", "focus", "position_x"} >= expected
    if not expected:
        assert found == set()


def test_they_are_seldom_unusual_for_images_like_the_training_images():
    rng = np.random.default_rng(3)
    for images in (12, 40, 200):
        wrong = total = 0
        for _ in range(300):
            training = [{"brightness": value} for value in rng.normal(100, 5, images)]
            low, high = limits_of("brightness", training_statistics(training))
            new = rng.normal(100, 5, 1000)
            wrong += int(((new < low) | (new > high)).sum())
            total += len(new)
        assert wrong / total < 3 * CHANCE


def test_one_odd_training_image_does_not_move_the_spread():
    values = [100.0 + number % 5 for number in range(50)]
    usual = training_statistics([{"focus": value} for value in values])["focus"]
    odd = training_statistics([{"focus": value} for value in [*values, 5000.0]])["focus"]
    assert odd["spread"] <= 2 * usual["spread"]


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 700, 3), (47, 48, 3), (3000, 4000, 3)])
def test_any_size_gives_numbers(shape):
    checks = checks_of(np.full(shape, 90, np.uint8))
    assert checks == {"brightness": 90.0, "focus": 0.0, "position_x": 0.5, "position_y": 0.5}


def test_without_training_images_nothing_is_unusual():
    assert training_statistics([]) == {}
    assert unusual({"brightness": 0.0}, {}) == []
