"""Regions of interest: polygons and masks at any size, and the filled image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hyperspot.errors import SettingsError
from hyperspot.images import InputSize, prepare
from hyperspot.images.inspected_area import InspectedArea, rasterize, run_lengths
from hyperspot.images.registration import FILL

coordinates = st.floats(-5, 25, allow_nan=False).map(lambda value: round(value, 3))
polygons = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=7)


def slow_inside(polygon, x: float, y: float) -> bool:
    """Cast a ray to the right and count the edges that it crosses."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y0 > y) != (y1 > y):
            crossings += x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return crossings % 2 == 1


@given(polygons, st.integers(1, 12), st.integers(1, 12))
def test_pixels_whose_centers_lie_inside(polygon, height: int, width: int):
    mask = rasterize([tuple(polygon)], (20, 16), height, width)
    scaled = [(x * width / 20, y * height / 16) for x, y in polygon]
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            # On an edge, rounding decides.
            if slow_inside(scaled, x - 1e-6, y) == slow_inside(scaled, x + 1e-6, y):
                assert mask[row, column] == slow_inside(scaled, x, y)


def test_include_ignore_and_mask_together():
    mask = np.zeros((4, 8), bool)
    mask[:, :6] = True
    area = InspectedArea(
        (8, 4),
        include=(((0.0, 0.0), (8.0, 0.0), (8.0, 3.0), (0.0, 3.0)),),
        ignore=(((0.0, 0.0), (2.0, 0.0), (2.0, 4.0), (0.0, 4.0)),),
        runs=tuple(map(int, run_lengths(mask))),
    )
    expected = np.zeros((4, 8), bool)
    expected[:3, 2:6] = True
    np.testing.assert_array_equal(area.mask(4, 8), expected)
    np.testing.assert_array_equal(area.mask(8, 16), expected.repeat(2, 0).repeat(2, 1))


@given(st.integers(0, 2**20 - 1))
def test_run_lengths_give_the_mask_back(bits: int):
    mask = np.array([bits >> place & 1 for place in range(20)], bool).reshape(4, 5)
    area = InspectedArea((5, 4), runs=tuple(map(int, run_lengths(mask))))
    if mask.any():
        np.testing.assert_array_equal(area.mask(4, 5), mask)
    else:
        with pytest.raises(SettingsError, match="no pixel"):
            area.mask(4, 5)


def test_a_mask_image(tmp_path):
    mask = np.zeros((10, 20), np.uint8)
    mask[2:6, 3:9] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(InspectedArea.read_mask(tmp_path / "mask.png").mask(10, 20), mask > 0)


@pytest.mark.parametrize("size", [InputSize(64, 96, "contain"), InputSize(32, 32, "stretch")])
def test_pixels_outside_reach_no_pixel_of_the_input(size):
    random = np.random.default_rng(0)
    area = InspectedArea((100, 80), include=(((11.0, 9.0), (83.0, 22.0), (52.0, 71.0)),))
    image = random.integers(0, 255, (120, 150, 3), dtype=np.uint8)
    inside = area.mask(120, 150)
    changed = np.where(inside[..., None], image, random.integers(0, 255, image.shape, dtype=np.uint8))
    first, second = prepare(image, size, area), prepare(changed, size, area)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.image, image)
    np.testing.assert_array_equal(first.inside, second.inside)
    # Far outside the color is the constant.
    far = first.pixels[first.letterbox.top, first.letterbox.left]
    assert tuple(far) == FILL


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"include": (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)),)}, "need the size"),
        ({"image_size": (4, 4), "ignore": (((0.0, 0.0), (1.0, float("nan")), (1.0, 1.0)),)}, "not a finite number"),
        ({"image_size": (4, 0)}, "not positive"),
        ({"image_size": (4, 4), "runs": (3, 4)}, "do not add up"),
    ],
)
def test_malformed_areas_are_refused(fields, message):
    with pytest.raises(SettingsError, match=message):
        InspectedArea(**fields)
