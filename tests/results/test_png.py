"""Pictures in blocks of rows, and PNG files that Pillow reads back bit by bit."""

import struct
import zlib

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hyperspot.results import png
from hyperspot.results.overlays import of_image, side_by_side
from hyperspot.results.png import Picture, write_png

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 19))
PIXELS = st.one_of(
    arrays.arrays(bool, SHAPES),
    arrays.arrays(np.uint16, SHAPES),
    arrays.arrays(np.uint8, SHAPES.map(lambda shape: (*shape, 3))),
)


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        image.verify()
    # Pillow does not check the checksum of the pixels; zlib does.
    content, place, stream = path.read_bytes(), 8, b""
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        if content[place + 4 : place + 8] == b"IDAT":
            stream += content[place + 8 : place + 8 + length]
        place += 12 + length
    zlib.decompress(stream)
    with Image.open(path) as image:
        return np.asarray(image)


@given(pixels=PIXELS, block=st.integers(1, 200))
def test_any_pixels_are_read_back(tmp_path_factory, pixels, block):
    path = tmp_path_factory.mktemp("png") / "picture.png"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "BLOCK_BYTES", block)
        write_png(path, Picture(*pixels.shape[:2], pixels.__getitem__))
    found = read(path)
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


def test_large_noise_in_many_blocks_is_read_back_and_no_larger_than_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 1100, 3), dtype=np.uint8)
    picture = Picture(1500, 1100, pixels.__getitem__)
    assert len(list(picture.blocks())) > 4
    write_png(tmp_path / "noise.png", picture)
    np.testing.assert_array_equal(read(tmp_path / "noise.png"), pixels)
    assert (tmp_path / "noise.png").stat().st_size < 1.002 * pixels.size


def test_a_plain_picture_takes_next_to_no_space(tmp_path):
    pixels = np.full((2000, 2000, 3), 77, np.uint8)
    write_png(tmp_path / "plain.png", Picture(2000, 2000, pixels.__getitem__))
    assert (tmp_path / "plain.png").stat().st_size < pixels.size / 200


def test_an_error_of_the_rows_is_raised(tmp_path):
    def rows(chosen):
        if chosen.start:
            raise MemoryError
        return np.zeros((chosen.stop - chosen.start, 4000, 3), np.uint8)

    with pytest.raises(MemoryError):
        write_png(tmp_path / "broken.png", Picture(3000, 4000, rows))


def test_pictures_of_different_heights_stand_side_by_side(tmp_path):
    first, second = Image.new("RGB", (30, 20), (9, 8, 7)), Image.new("RGB", (10, 40), (1, 2, 3))
    drawn = np.asarray(side_by_side([of_image(first), of_image(second)]).to_image())
    assert drawn.shape == (40, 30 + 2 + 10, 3)
    np.testing.assert_array_equal(drawn[:20, :30], np.asarray(first))
    np.testing.assert_array_equal(drawn[:, 32:], np.asarray(second))
    assert (drawn[20:, :30] == drawn[-1, 0]).all()
