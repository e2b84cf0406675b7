"""RD-MVTec AD: images rotated and cropped at random, to test how much a method depends on aligned parts."""

import hashlib

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from hyperspot.data.problems import mask_mismatch
from hyperspot.errors import ImageError

LARGEST_ANGLE = 10.0
"""In degrees, in either direction."""
KEPT = 224 / 256
"""Fraction of each side kept by the crop."""
VERSIONS = 5
"""Fixed versions of the set; metrics are reported as mean and standard deviation over them."""


def rd(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "_h _w"] | None, *, key: str, version: int
) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"] | None]:
    """Rotate an image by up to 10 degrees about its center and crop 7/8 of each side, its mask by the same draw.

    As in PaDiM (Defard et al. 2020) and CFA (Lee et al. 2022), corners bared by the rotation are black. Unlike in their
    code, the draw is made once per image and version, from a hash, and not at every access.

    Args:
        image: The image.
        mask: The mask of its defect, if there is one.
        key: A name of the image that is equal on every machine, for example its path relative to the data set.
        version: Which of the fixed versions, usually 0 to 4.

    Returns:
        The cropped image and mask, 7/8 of the sides.

    Raises:
        ImageError: The mask has another size than the image.

    """
    height, width = image.shape[:2]
    if mask is not None and mask.shape != (height, width):
        raise ImageError(mask_mismatch(f"of {key}", mask.shape, (height, width)))
    for_angle, for_top, for_left = _draw(key, version)
    angle = (2 * for_angle - 1) * LARGEST_ANGLE
    kept_height, kept_width = max(1, round(height * KEPT)), max(1, round(width * KEPT))
    top = int(for_top * (height - kept_height + 1))
    left = int(for_left * (width - kept_width + 1))
    crop = (slice(top, top + kept_height), slice(left, left + kept_width))
    turned = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
    if mask is None:
        return turned[crop].copy(), None
    turned_mask = np.asarray(Image.fromarray(mask.astype(np.uint8)).rotate(angle, Image.Resampling.NEAREST))
    return turned[crop].copy(), turned_mask[crop] != 0


def _draw(key: str, version: int) -> tuple[float, float, float]:
    """Return three pseudo-random numbers in [0, 1), equal on every machine."""
    digest = hashlib.sha256(f"{version}:{key}".encode()).digest()
    first, second, third = (int.from_bytes(digest[start : start + 8], "big") >> 11 for start in (0, 8, 16))
    return first / 2**53, second / 2**53, third / 2**53
