"""Lightings of one view become the channels of one image, or views of their own."""

import io

import numpy as np
import pytest
from PIL import Image

from hyperspot import PartInspector
from hyperspot.errors import ImageError, SettingsError
from hyperspot.images import read_image
from hyperspot.images.lightings import Lightings
from hyperspot.images.reading import is_gray
from hyperspot.parts.inputs import plan_views


def test_three_lightings_are_the_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 9), dtype=np.uint8)
    paths = []
    for number, one in enumerate(pixels):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(one).save(paths[-1])
    np.testing.assert_array_equal(read_image(Lightings(tuple(paths))), np.moveaxis(pixels, 0, 2))


def test_two_lightings_leave_their_mean_between_them():
    dark, bright = np.random.default_rng(0).integers(0, 256, (2, 6, 9), dtype=np.uint8)
    stacked = read_image(Lightings((dark, bright)))
    np.testing.assert_array_equal(stacked[..., 0], dark)
    np.testing.assert_array_equal(stacked[..., 2], bright)
    assert np.abs(stacked[..., 1] - (dark.astype(float) + bright) / 2).max() <= 0.5


def test_gray_saved_as_color_stays_exact():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    color = np.repeat(gray[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(Lightings((color, color)))[..., 0], gray)


def test_what_is_no_stack_is_refused():
    with pytest.raises(ImageError, match="4 lightings are no channels"):
        Lightings((None,) * 4)
    with pytest.raises(ImageError, match="have 9 x 6 and 6 x 9 pixels"):
        read_image(Lightings((np.zeros((6, 9), np.uint8), np.zeros((9, 6), np.uint8))))


@pytest.mark.parametrize(("mode", "expected"), [("L", True), ("I;16", True), ("1", True), ("RGB", False), ("P", False)])
def test_gray_is_known_from_the_header(tmp_path, mode, expected):
    path = tmp_path / "image.png"
    Image.new(mode, (8, 8)).save(path)
    assert is_gray(path) is expected
    assert is_gray(path.read_bytes()) is expected
    assert is_gray(io.BytesIO(path.read_bytes())) is expected
    with pytest.raises(ImageError, match="does not exist"):
        is_gray(tmp_path / "no.png")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ImageError, match=r"damaged\.png"):
        is_gray(damaged)


def test_modes():
    gray, color = np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)
    four = {f"top/{number}": gray for number in range(4)}
    assert plan_views([four], "auto") == {name: (name,) for name in four}
    with pytest.raises(SettingsError, match="4 lightings and an input three channels"):
        plan_views([four], "channels")
    two = {"top/a": color, "top/b": color}
    assert plan_views([two], "channels") == {"top": ("top/a", "top/b")}
    assert plan_views([{"top/a": gray, "top/b": gray}], "views") == {"top/a": ("top/a",), "top/b": ("top/b",)}
    with pytest.raises(SettingsError, match="no mode of lightings 'mean'"):
        plan_views([two], "mean")


def test_a_defect_in_one_lighting_is_found(tmp_path):
    """From files to the verdict, which is named after the first lighting."""
    parts = []
    for number, pair in enumerate(np.random.default_rng(0).integers(100, 140, (13, 2, 64, 64), dtype=np.uint8)):
        if number == 12:
            pair[1, 24:40, 24:40] = 255
        paths = {f"top/{light}": tmp_path / f"{number}_{light}.png" for light in ("dark", "bright")}
        for path, pixels in zip(paths.values(), pair, strict=True):
            Image.fromarray(pixels).save(path)
        parts.append(paths)
    inspector = PartInspector.fit(parts[:12], short_side=64, false_alarm_rate=0.2)
    verdict = inspector.predict(parts[12])
    assert verdict.is_anomalous
    assert verdict.views["top"].path == tmp_path / "12_dark.png"
    assert verdict.views["top"].image[30, 30, 2] == 255
    with pytest.raises(Exception, match="lacks the view top"):
        inspector.predict({"top/dark": parts[12]["top/dark"]})
