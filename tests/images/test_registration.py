"""Registration: known rotations and shifts are found, and what is no part does not correlate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from hyperspot.errors import SettingsError
from hyperspot.images.registration import Alignment, Reference, lowest_correlation

SIZE = 240, 200


def part() -> Image.Image:
    """Return a drawn part without symmetry."""
    image = Image.new("RGB", SIZE, (90, 90, 90))
    draw = ImageDraw.Draw(image)
    draw.rectangle((80, 60, 160, 140), fill=(200, 180, 160))
    draw.ellipse((90, 70, 115, 95), fill=(30, 30, 30))
    draw.rectangle((130, 110, 185, 130), fill=(240, 240, 240))
    return image


def moved(image: Image.Image, degrees: float, right: float, down: float) -> np.ndarray:
    """Turn the part counterclockwise about the center of the image, then shift it, by Pillow's own rotation."""
    turned = image.rotate(degrees, Image.Resampling.BICUBIC, translate=(right, down), fillcolor=(90, 90, 90))
    return np.asarray(turned)


@pytest.mark.parametrize(
    ("degrees", "right", "down"), [(0, 0, 0), (0, 31, -17), (90, 5, 5), (-137.3, -20, 12), (179, 0, 9), (3.3, 14, 2)]
)
def test_known_moves_are_found(degrees, right, down):
    reference = Reference.from_image(np.asarray(part()))
    found = reference.locate(moved(part(), degrees, right, down))
    assert abs((found.degrees - degrees + 180) % 360 - 180) < 0.4
    assert (found.shift[0] * SIZE[0], found.shift[1] * SIZE[1]) == pytest.approx((right, down), abs=0.7)
    assert found.correlation > 0.9


def test_the_aligned_image_is_the_reference():
    image = moved(part(), 33.0, 10, -8)
    found = Reference.from_image(np.asarray(part())).locate(image)
    difference = np.abs(found.apply(image).astype(float) - np.asarray(part()))[40:160, 60:200]
    assert difference.mean() < 4
    assert np.abs(image.astype(float) - np.asarray(part()))[40:160, 60:200].mean() > 20


def test_brightness_and_contrast_change_nothing():
    image = moved(part(), 20.0, 12, 4)
    reference = Reference.from_image(np.asarray(part()))
    first, second = reference.locate(image), reference.locate((image * 0.5 + 40).astype(np.uint8))
    assert second.degrees == pytest.approx(first.degrees, abs=0.2)
    assert second.correlation == pytest.approx(first.correlation, abs=0.01)


def test_an_empty_image_does_not_correlate():
    reference = Reference.from_image(np.asarray(part()))
    noise = np.random.default_rng(0).integers(80, 100, (200, 240, 3), dtype=np.uint8)
    for image in (noise, np.full_like(noise, 90)):
        assert reference.locate(image).correlation < 0.4


def test_only_the_region_of_interest_is_compared():
    inside = np.zeros((200, 240), bool)
    inside[50:150, 70:195] = True
    image = np.array(part())
    disturbed = image.copy()
    disturbed[:40, :60] = np.random.default_rng(0).integers(0, 255, (40, 60, 3))
    whole, cut = Reference.from_image(image), Reference.from_image(image, inside)
    assert whole.locate(disturbed).correlation < 0.96
    assert cut.locate(disturbed).correlation > 0.999


@given(st.floats(-180, 180), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_maps_and_masks_come_back(degrees: float, right: float, down: float):
    """What is warm in the aligned image is warm at the place that it came from."""
    alignment = Alignment(degrees, (right, down), 1.0)
    mask = np.zeros((60, 60), bool)
    mask[27:33, 27:33] = True
    there = alignment.apply(np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255)[..., 0] == 255
    if there[3:-3, 3:-3].sum() < 30:
        return
    back = alignment.back(there, (60, 60), beyond=0.0)
    assert (back & mask).sum() >= 0.7 * mask.sum()
    warm = alignment.back(there.astype(np.float32), (60, 60), beyond=0.0)
    assert warm.shape == mask.shape
    assert warm[mask].mean() > 0.6
    assert alignment.back(np.full((60, 60), 5, np.float32), (60, 60), beyond=5.0) == pytest.approx(np.full((60, 60), 5))


def test_json_and_malformed_references():
    reference = Reference.from_image(np.asarray(part()), np.asarray(part())[..., 0] > 100)
    values = reference.to_dict()
    back = Reference.from_dict(values)
    np.testing.assert_array_equal(back.gray, reference.gray)
    np.testing.assert_array_equal(back.inside, reference.inside)
    for changed in ({"gray": "AAAA"}, {"size": [9999, 9999]}, {"size": None}, {"gray": None}):
        with pytest.raises(SettingsError, match="malformed"):
            Reference.from_dict({**values, **changed})


def test_the_lowest_correlation_is_half_of_that_of_good_images():
    assert lowest_correlation(np.array([0.9, 0.8, 0.95])) == pytest.approx(0.4)
