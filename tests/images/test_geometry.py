"""Letterbox, its exact inverse, and crops."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hyperspot.errors import DataError, ImageError
from hyperspot.images import Crop, InputSize, Letterbox

sides = st.integers(8, 160)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(1024, 1024)], (256, 256)),
        ([(480, 640)], (256, 352)),
        ([(400, 157)], (640, 256)),
        ([(100, 200), (100, 200), (300, 100)], (256, 512)),
        ([(100, 103)], (256, 256)),
    ],
)
def test_the_input_size_has_the_median_shape(sizes: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    input_size = InputSize.for_sizes(sizes)
    assert (input_size.height, input_size.width) == expected
    assert InputSize.for_sizes(sizes, aspect="square") == InputSize(256, 256, "stretch")
    assert InputSize.from_dict(input_size.to_dict()) == input_size


def test_an_input_size_needs_images_and_positive_sides() -> None:
    with pytest.raises(DataError, match="at least one"):
        InputSize.for_sizes([])
    with pytest.raises(ValueError, match="no input size"):
        InputSize.from_dict({"height": 0, "width": 3, "fit": "stretch"})


@given(st.integers(64, 4000), st.integers(64, 4000))
def test_images_of_one_shape_are_never_padded(height: int, width: int) -> None:
    assume(max(height, width) <= 31 * min(height, width))
    input_size = InputSize.for_sizes([(height, width)] * 2)
    letterbox = input_size.letterbox(height, width)
    assert (letterbox.content_height, letterbox.content_width) == (input_size.height, input_size.width)
    assert min(input_size.height, input_size.width) == 256


@given(sides, sides, sides, sides)
def test_a_contained_image_keeps_its_shape_in_the_middle(height: int, width: int, H: int, W: int) -> None:
    letterbox = InputSize(H, W, "contain").letterbox(height, width)
    content_height, content_width = letterbox.content_height, letterbox.content_width
    assert (content_height == H) or (content_width == W)
    rows, columns = letterbox.content
    assert abs(rows.start - (H - rows.stop)) <= 1
    assert abs(columns.start - (W - columns.stop)) <= 1
    if (content_height, content_width) != (H, W):
        scale = min(H / height, W / width)
        assert abs(content_height - height * scale) <= 1
        assert abs(content_width - width * scale) <= 1


def test_padding_repeats_the_edge() -> None:
    image = np.zeros((40, 20, 3), np.uint8)
    image[:, 0], image[:, -1] = 50, 200
    framed = InputSize(40, 60, "contain").letterbox(40, 20).apply(image)
    assert (framed[:, :21] == 50).all()
    assert (framed[:, 39:] == 200).all()
    assert np.array_equal(framed[:, 20:40], image)


def bilinear_slowly(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate pixel by pixel: the center of pixel i lies at i + 1/2, outside the edge goes on."""
    result = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            y = min(max((row + 0.5) * values.shape[0] / height - 0.5, 0), values.shape[0] - 1)
            x = min(max((column + 0.5) * values.shape[1] / width - 0.5, 0), values.shape[1] - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
            above = values[top, left] * (1 - (x - left)) + values[top, right] * (x - left)
            below = values[bottom, left] * (1 - (x - left)) + values[bottom, right] * (x - left)
            result[row, column] = above * (1 - (y - top)) + below * (y - top)
    return result


@pytest.mark.parametrize("size", [(31, 40), (9, 11), (12, 16), (50, 8), (7, 30)])
@pytest.mark.parametrize("fit", ["stretch", "contain"])
def test_the_inverse_is_bilinear_between_centers(size: tuple[int, int], fit: str) -> None:
    letterbox = InputSize.from_dict({"height": 12, "width": 16, "fit": fit}).letterbox(*size)
    heatmap = np.random.default_rng(0).random((12, 16), dtype=np.float32)
    back = letterbox.invert(heatmap)
    assert back.dtype == np.float32
    assert np.abs(back - bilinear_slowly(heatmap[letterbox.content], *size)).max() < 1e-6


@settings(max_examples=40)
@given(sides, sides, st.sampled_from(["stretch", "contain"]), st.data())
def test_a_spot_comes_back_to_where_it_was(height: int, width: int, fit: str, data: st.DataObject) -> None:
    letterbox = InputSize.from_dict({"height": 64, "width": 96, "fit": fit}).letterbox(height, width)
    assert isinstance(letterbox, Letterbox)
    y, x = data.draw(st.integers(2, height - 3)), data.draw(st.integers(2, width - 3))
    image = np.zeros((height, width, 3), np.uint8)
    image[y - 2 : y + 3, x - 2 : x + 3] = 255
    heat = letterbox.invert(letterbox.apply(image)[..., 0].astype(np.float32))
    rows, columns = np.indices(heat.shape)
    # Where the spot touches the border its light is cut off on one side, so the middle moves a little.
    slack = 0.5 * max(1, height / letterbox.content_height, width / letterbox.content_width)
    assert abs((rows * heat).sum() / heat.sum() - y) <= slack
    assert abs((columns * heat).sum() / heat.sum() - x) <= slack


@pytest.mark.parametrize(("size", "fit"), [((23, 31), "stretch"), ((9, 40), "contain"), ((5, 6), "stretch")])
def test_a_mask_is_true_where_half_of_the_area_is_covered(size: tuple[int, int], fit: str) -> None:
    letterbox = InputSize.from_dict({"height": 8, "width": 12, "fit": fit}).letterbox(*size)
    mask = np.random.default_rng(3).random(size) < 0.5
    # Every pixel split so finely that the borders of the pixels fall on borders of the parts.
    fine = np.repeat(np.repeat(mask, letterbox.content_height, axis=0), letterbox.content_width, axis=1)
    blocks = fine.reshape(letterbox.content_height, size[0], letterbox.content_width, size[1])
    expected = np.zeros((8, 12), dtype=bool)
    expected[letterbox.content] = blocks.mean(axis=(1, 3)) >= 0.5
    assert np.array_equal(letterbox.apply_to_mask(mask), expected)


def test_another_size_is_refused() -> None:
    letterbox = InputSize(32, 32, "stretch").letterbox(40, 50)
    with pytest.raises(ImageError, match="50 x 40"):
        letterbox.apply(np.zeros((50, 40, 3), np.uint8))
    with pytest.raises(ImageError, match="40 x 50"):
        letterbox.apply_to_mask(np.zeros((32, 32), bool))
    with pytest.raises(ImageError, match="32 x 32"):
        letterbox.invert(np.zeros((40, 50), np.float32))


@pytest.mark.parametrize(
    ("input_size", "crop"),
    [
        (InputSize(256, 256, "stretch"), Crop(16, 16, 224, 224)),
        (InputSize(640, 256, "contain"), Crop(40, 16, 560, 224)),
    ],
)
def test_the_center_crop_is_that_of_the_papers(input_size: InputSize, crop: Crop) -> None:
    assert Crop.central(input_size) == crop
    assert Crop.full(input_size) == Crop(0, 0, input_size.height, input_size.width)


def test_an_input_size_too_large_for_the_memory_is_refused() -> None:
    assert InputSize.for_sizes([(32, 1024)], 256).width == 8192
    with pytest.raises(DataError, match="33 times as long"):
        InputSize.for_sizes([(1, 33)], 256)
    with pytest.raises(ValueError, match="is no input size"):
        InputSize.from_dict({"height": 9000, "width": 64, "fit": "contain"})
