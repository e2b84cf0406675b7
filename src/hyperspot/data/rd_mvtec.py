"""RD-MVTec AD: photos turned and cropped at random, to test how much a method leans on aligned parts."""

import hashlib

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from hyperspot.errors import ImageError

LARGEST_ANGLE = 10.0
"""In degrees, either way."""
KEPT = 224 / 256
"""Of each side, by the crop."""
VERSIONS = 5
"""Frozen versions of the set; figures are given as mean and deviation over them."""


def rd(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "_h _w"] | None, *, key: str, version: int
) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"] | None]:
    """Turn a photo by up to 10 degrees about its center and crop 7/8 of each side, its mask by the same draw.

    As in PaDiM (Defard et al. 2020) and CFA (Lee et al. 2022), where turning bares a corner it stays black. Unlike in
    their code the draw is made once per photo and version, from a hash, and not anew at every access.

    Args:
        image: The photo.
        mask: Of its defect, if there is one.
        key: Names the photo the same on every machine, for example its path below the data set.
        version: Which of the frozen versions, 0 to 4 by custom.

    Returns:
        The cropped photo and mask, of 7/8 of the sides.

    Raises:
        ImageError: Where the mask has not the size of the photo.

    """
    height, width = image.shape[:2]
    if mask is not None and mask.shape != (height, width):
        raise ImageError(
            f"the mask of {key} has {mask.shape[1]} x {mask.shape[0]} pixels, its photo {width} x {height}; "
            "scale the mask to the size of the photo"
        )
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
    """Return three numbers in [0, 1) that look random and are the same on every machine."""
    digest = hashlib.sha256(f"{version}:{key}".encode()).digest()
    first, second, third = (int.from_bytes(digest[start : start + 8], "big") >> 11 for start in (0, 8, 16))
    return first / 2**53, second / 2**53, third / 2**53
