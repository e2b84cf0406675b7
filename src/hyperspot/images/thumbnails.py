"""Gray thumbnails, read as fast as the format allows: JPEG files are decoded at a reduced size."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hyperspot.images.pillow_warnings import pillow_hushed
from hyperspot.images.reading import read_image


def read_thumbnail(path: Path, side: int) -> UInt8[np.ndarray, "{side} {side}"]:
    """Return an image as a gray square of `side` pixels, stretched; raises ImageError if it cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (640, 480), (90, 90, 90)).save(f"{folder}/a.jpg")
        ...     read_thumbnail(Path(folder, "a.jpg"), 2).tolist()
        [[90, 90], [90, 90]]

    """
    gray = _reduced_jpeg(path, side)
    if gray is None:
        gray = Image.fromarray(read_image(path)).convert("L")
    return np.asarray(gray.resize((side, side), Image.Resampling.BOX))


def _reduced_jpeg(path: Path, side: int) -> Image.Image | None:
    """Return a JPEG image at the smallest scale that its format offers; none for other files, turned or damaged."""
    try:
        with pillow_hushed(), path.open("rb") as file, Image.open(file, formats=("JPEG",)) as image:
            if image.mode not in ("L", "RGB") or image.getexif().get(0x0112, 1) != 1:
                return None
            image.draft("L", (side, side))
            return image.convert("L")
    except Exception:  # noqa: BLE001 - decoders of damaged files raise anything; `read_image` names the fault
        return None
