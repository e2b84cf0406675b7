"""RD-MVTec AD: one draw for image and mask, equal everywhere."""

import hashlib

import numpy as np
import pytest

from hyperspot.data.rd_mvtec import rd
from hyperspot.errors import ImageError


def blot(height: int = 256, width: int = 256) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices((height, width))
    mask = np.hypot(rows - 0.4 * height, columns - 0.6 * width) < 0.15 * min(height, width)
    return np.where(mask[..., None], np.uint8(250), np.uint8(90)).repeat(3, axis=2), mask


def test_image_and_mask_move_together_and_keep_seven_eighths() -> None:
    image, mask = blot(256, 320)
    for version in range(5):
        turned, turned_mask = rd(image, mask, key="test/crack/000.png", version=version)
        assert turned.shape == (224, 280, 3)
        assert turned_mask is not None
        bright = turned[..., 0] > 170
        assert (bright & turned_mask).sum() / (bright | turned_mask).sum() > 0.97


def test_the_draw_depends_on_key_and_version_alone() -> None:
    image, _ = blot()
    first, nothing = rd(image, None, key="a.png", version=0)
    assert nothing is None
    assert np.array_equal(first, rd(image, None, key="a.png", version=0)[0])
    assert not np.array_equal(first, rd(image, None, key="a.png", version=1)[0])
    assert not np.array_equal(first, rd(image, None, key="b.png", version=0)[0])


def test_the_fixed_versions_never_change() -> None:
    rows, columns = np.indices((64, 64))
    mask = (rows + 2 * columns) % 23 < 9
    _, turned = rd(np.zeros((64, 64, 3), np.uint8), mask, key="frozen", version=3)
    assert turned is not None
    assert hashlib.sha256(np.packbits(turned)).hexdigest()[:16] == "8d57407deefda662"


def test_angles_fill_ten_degrees_either_way() -> None:
    line = np.zeros((257, 257), dtype=bool)
    line[127:130] = True
    image = np.zeros((257, 257, 3), np.uint8)
    angles = []
    for number in range(60):
        _, turned = rd(image, line, key=str(number), version=0)
        assert turned is not None
        rows, columns = np.nonzero(turned)
        angles.append(np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0])))
    assert max(np.abs(angles)) < 10.1
    assert min(angles) < -7
    assert max(angles) > 7


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match="scale the mask"):
        rd(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9), bool), key="x", version=0)
