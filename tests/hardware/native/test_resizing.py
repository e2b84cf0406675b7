"""Compiled scaling against Pillow's, bit by bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hyperspot import images as decode
from hyperspot.hardware.native import resizing

compiled = pytest.mark.skipif(resizing._library() is None, reason="nothing was compiled, or the CPU has no AVX2")
sides = st.integers(1, 90)


def by_pillow(image, height, width):
    """Along the rows, then along the columns."""
    narrowed = Image.fromarray(image).resize((width, len(image)), Image.Resampling.BILINEAR)
    return np.asarray(narrowed.resize((width, height), Image.Resampling.BILINEAR))


def photo(height, width, seed, kind="noise"):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return {"noise": noise, "extremes": (noise > 127) * np.uint8(255), "white": np.full_like(noise, 255)}[kind]


@compiled
@settings(max_examples=300, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 99), st.sampled_from(["noise", "extremes", "white"]))
def test_every_pixel_is_pillows(height, width, new_height, new_width, seed, kind):
    image = photo(height, width, seed, kind)
    found = resizing.resize(image, new_height, new_width)
    if found is None:
        assert width < 2 * np.ceil(max(1, width / new_width)) + 10
    else:
        np.testing.assert_array_equal(found, by_pillow(image, new_height, new_width))


@compiled
@pytest.mark.parametrize(
    "sizes", [((400, 400), (256, 256)), ((1024, 1024), (256, 256)), ((700, 1900), (224, 608)), ((97, 2500), (300, 201))]
)
def test_photos_of_usual_sizes_are_scaled_here(sizes):
    (height, width), new = sizes
    image = photo(height, width, 0)
    np.testing.assert_array_equal(resizing.resize(image, *new), by_pillow(image, *new))


@compiled
def test_a_part_of_a_photo_need_not_lie_in_one_piece():
    image = photo(80, 120, 1)[10:70, 20:90]
    np.testing.assert_array_equal(resizing.resize(image, 40, 40), by_pillow(image.copy(), 40, 40))


@pytest.mark.parametrize("size", [((60, 80), (32, 40)), ((60, 80), (20, 100)), ((3, 2), (40, 40)), ((50, 40), (50, 1))])
def test_without_it_all_is_the_same(size, monkeypatch):
    (height, width), new = size
    image = photo(height, width, 2)
    here = decode.resize(image, *new)
    monkeypatch.setattr(resizing, "_library", lambda: None)
    assert resizing.resize(image, *new) is None
    np.testing.assert_array_equal(decode.resize(image, *new), here)


def test_it_brings_no_threads_into_the_process():
    if resizing._library() is not None:
        assert b"libgomp" not in resizing.LIBRARY.read_bytes()


def test_weights_add_up_to_one():
    for before, after in ((400, 256), (7, 90), (90, 7), (5, 1), (1, 5)):
        starts, held = resizing.weights(before, after)
        assert np.abs(held.sum(1) - (1 << resizing.BITS)).max() <= held.shape[1]
        assert ((starts >= 0) & (starts < before)).all()
