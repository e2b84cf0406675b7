"""Pictures computed and written in blocks of rows: an image of many megapixels is never in memory a second time.

Pillow encodes PNG from a whole picture at four bytes per pixel, and tries five filters on every row, which costs more
than the compression. Here one filter serves all rows, and worker threads compress the blocks.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from hyperspot.utils.prefetch import prefetch_map

BLOCK_BYTES = 2**19
"""Pixels of a block; each is compressed by itself, which costs less than a thousandth of the file. Many are in
memory on machines with many cores."""
MOST_ROWS = 256
ADLER = 65521
RAW_DEFLATE, MOST_MEMORY = -15, 9
LAST_BLOCK = b"\x03\x00"
"""An empty block of deflate that ends the stream."""
FORMATS = {"uint8": (8, 2), "uint16": (16, 0), "bool": (1, 0)}
"""Bits and color type of PNG by the pixels: RGB, gray and black and white."""
UP = 2
"""The filter of PNG that stores the difference to the row above."""


@dataclass(frozen=True)
class Picture:
    """A picture whose rows are computed when they are needed.

    Attributes:
        height: In pixels.
        width: In pixels.
        rows: Returns the pixels of rows in 0 .. `height`: 8-bit RGB, 16-bit gray or bool.

    Examples:
        >>> pixels = np.zeros((4, 6, 3), np.uint8)
        >>> Picture(4, 6, lambda rows: pixels[rows]).to_image().size
        (6, 4)

    """

    height: int
    width: int
    rows: Callable[[slice], Shaped[np.ndarray, "..."]]

    def blocks(self) -> Iterator[slice]:
        """Yield all rows in blocks."""
        step = min(MOST_ROWS, max(1, BLOCK_BYTES // (3 * self.width)))
        for start in range(0, self.height, step):
            yield slice(start, min(start + step, self.height))

    def to_image(self) -> Image.Image:
        """Return the picture as an RGB image."""
        image = Image.new("RGB", (self.width, self.height))
        for rows in self.blocks():
            image.paste(Image.fromarray(self.rows(rows)), (0, rows.start))
        return image


def write_png(path: Path, picture: Picture) -> None:
    """Write a picture as a PNG file, losslessly.

    Raises:
        OSError: If the file cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "ramp.png")
        ...     write_png(path, Picture(3, 9, lambda rows: np.arange(27, dtype=np.uint16).reshape(3, 9)[rows]))
        ...     np.asarray(Image.open(path))[2].tolist()
        [18, 19, 20, 21, 22, 23, 24, 25, 26]

    """
    bits, color = FORMATS[str(picture.rows(slice(0, 1)).dtype)]
    checksum = zlib.adler32(b"")
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _write_chunk(file.write, b"IHDR", struct.pack(">IIBBBBB", picture.width, picture.height, bits, color, 0, 0, 0))
        _write_chunk(file.write, b"IDAT", zlib.compress(b"")[:2])
        for compressed, own, length in prefetch_map(lambda rows: _encoded(picture.rows(rows)), picture.blocks()):
            checksum = _joined(checksum, own, length)
            _write_chunk(file.write, b"IDAT", compressed)
        _write_chunk(file.write, b"IDAT", LAST_BLOCK + struct.pack(">I", checksum))
        _write_chunk(file.write, b"IEND", b"")


def _encoded(pixels: Shaped[np.ndarray, "..."]) -> tuple[bytes, int, int]:
    """Return filtered rows, compressed so that blocks may follow each other, and their checksum and length."""
    if pixels.dtype == np.bool_:
        samples = np.packbits(pixels, axis=1)
    else:
        samples = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(len(pixels), -1)
    filtered = np.empty((len(samples), 1 + samples.shape[1]), np.uint8)
    # The first row of a block is stored as it is, so that no block needs another.
    filtered[0, 0], filtered[1:, 0] = 0, UP
    filtered[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=filtered[1:, 1:])
    # Differences of camera pixels are noise: searching for repeated strings takes twice the time and finds few.
    encoder = zlib.compressobj(1, zlib.DEFLATED, RAW_DEFLATE, MOST_MEMORY, zlib.Z_RLE)
    compressed = encoder.compress(filtered.data) + encoder.flush(zlib.Z_FULL_FLUSH)
    return compressed, zlib.adler32(filtered.data), filtered.size


def _joined(first: int, second: int, length: int) -> int:
    """Return the Adler-32 checksum of two strings of bytes, given that of each and the length of the second."""
    low, high = first & 0xFFFF, first >> 16
    own_low, own_high = second & 0xFFFF, second >> 16
    return (high + own_high + length * (low - 1)) % ADLER << 16 | (low + own_low - 1) % ADLER


def _write_chunk(write: Callable[[bytes], object], kind: bytes, content: bytes) -> None:
    write(struct.pack(">I", len(content)) + kind)
    write(content)
    write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
