"""The images, their checksum for the record, and the held-out ones."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

HELD_OUT = 20
"""One image in so many, chosen by its name, is never trained on."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class ImageLoader:
    """The images below a folder.

    Attributes:
        root: The folder.
        training: Paths relative to it of the images to train on, in the order of their names.
        held_out: The same of the images that only the validation sees.
        sha256: Of all images: of one line `SHA-256, two spaces, path` for each, in that order.

    """

    root: Path
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    sha256: str


def list_photos(root: Path) -> ImageLoader:
    """Return the images below a folder; raises ValueError where either part would be empty."""
    paths = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    whole = hashlib.sha256()
    for path in paths:
        with (root / path).open("rb") as opened:
            whole.update(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {path}\n".encode())
    held_out = tuple(path for path in paths if _is_held_out(path))
    training = tuple(path for path in paths if not _is_held_out(path))
    if not (training and held_out):
        raise ValueError(f"{root} holds {len(paths)} photos, too few to learn from some and validate on others")
    return ImageLoader(root, training, held_out, whole.hexdigest())


def read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels of an image, gray ones as three equal colors."""
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def _is_held_out(path: str) -> bool:
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8]) % HELD_OUT == 0
