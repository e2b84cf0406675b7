"""The check of a received image by its first bytes and its header, before it is decoded or stored."""

import contextlib
import io
import warnings
from collections.abc import Iterator

from PIL import Image

from hyperspot.errors import ImageError
from hyperspot.images.reading import FORMATS
from hyperspot.service.records.image_store import ImageKey, key_of


class RefusedImageError(ImageError):
    """A received image that cannot be inspected or learned.

    Attributes:
        status: HTTP status of the answer: 413, 415 or 422.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@contextlib.contextmanager
def received(content: bytes, max_pixels: int) -> Iterator[tuple[ImageKey, Image.Image]]:
    """Yield the key and the opened header of an encoded image.

    Args:
        content: As it was sent.
        max_pixels: Of the image at most; a small file can decompress to more than the memory holds.

    Raises:
        RefusedImageError: 415 for another format, 413 for too many pixels, 422 for a damaged header.

    Examples:
        >>> import io
        >>> from PIL import Image
        >>> from hyperspot.service.records.receiving import received
        >>> file = io.BytesIO()
        >>> Image.new("L", (40, 30)).save(file, "PNG")
        >>> with received(file.getvalue(), max_pixels=10_000) as (key, header):
        ...     key.suffix, header.size
        ('.png', (40, 30))

    """
    key = key_of(content)
    if key is None:
        raise RefusedImageError(415, "the content is no image; send PNG, JPEG, TIFF, BMP or WebP")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as header:
                if header.width * header.height > max_pixels:
                    raise _too_many_pixels(max_pixels)
                yield key, header
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise _too_many_pixels(max_pixels) from None
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise anything
        raise RefusedImageError(422, f"the image is damaged ({type(error).__name__}); send it again") from None


def _too_many_pixels(most: int) -> RefusedImageError:
    return RefusedImageError(413, f"the image has more than {most:,} pixels; send a smaller one")
