"""Reads images and masks safely: every format, bit depth and orientation becomes upright 8-bit RGB."""

import io
import os
import re
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from hyperspot.errors import ExifWarning, HyperspotError, ImageError, ImageWarning, SettingsError
from hyperspot.images.arrays import array_to_rgb, is_array, to_8_bits
from hyperspot.images.jpeg_damage import has_hole
from hyperspot.images.lightings import Lightings, stack
from hyperspot.images.pillow_warnings import heard, pillow_hushed

if TYPE_CHECKING:
    from torch import Tensor

    ImageInput = (
        str
        | os.PathLike[str]
        | bytes
        | bytearray
        | memoryview
        | BinaryIO
        | Image.Image
        | np.ndarray[Any, Any]
        | Tensor
        | Lightings
    )
    ChannelOrder = Literal["RGB", "BGR"]
else:
    # Unchecked at run time: torch must not be imported here, and `read_image` reports wrong types itself.
    ImageInput, ChannelOrder = Any, Any

ACCEPTED = "a path, bytes, a binary file, a Pillow image, a NumPy array or a torch tensor"
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP")
REGISTERED = (PngImagePlugin, JpegImagePlugin, BmpImagePlugin, TiffImagePlugin, WebPImagePlugin)
"""Imported to register FORMATS: if one were missing, Pillow would import all its formats at the first image."""
BAND_PIXELS = 4_000_000
"""Pixels that are copied at a time."""
MAX_PIXELS = 200_000_000
"""Larger images are refused: a small file can decompress to more than the memory holds."""
LONGEST_NAME = 300

ORIENTATION, WIDTH, HEIGHT, BITS_PER_SAMPLE, PLANAR_CONFIGURATION = 0x0112, 0x0100, 0x0101, 0x0102, 0x011C
PLANAR = 2
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image upright, by EXIF orientation."""
SIDEWAYS = (5, 6, 7, 8)
GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of one channel, with or without alpha."""
OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
"""Pillow's raw modes of 16 bits, and the mode that reads the low bytes instead of the high ones."""

_opening = threading.Lock()


def read_image(
    source: ImageInput, *, channel_order: ChannelOrder = "RGB", max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
    """Return an image as upright 8-bit RGB.

    The EXIF orientation is applied, 16 bits are scaled to 8 (divided by 257 and rounded), floats in 0 .. 1 are
    multiplied by 255 and rounded, gray and palettes become RGB, alpha is dropped, and the first frame of an animation
    is taken. The result is a new array: it shares no memory with `source`, whose buffer may be reused.

    An ImageWarning is issued if a 16-bit image uses 12 bits or fewer, since it becomes nearly black, and an ExifWarning
    if the EXIF data are unreadable, since the image is taken as upright.

    Args:
        source: A path; the bytes of an image file (bytes, bytearray, memoryview); a binary file, read from its start if
            it is seekable; a Pillow image; a NumPy array of shape h w 3 (or h w 1, or h w 4 with alpha) or h w; or a
            torch tensor of shape 3 h w (or 1 h w, or 4 h w with alpha) or h w. Arrays and tensors are uint8, uint16
            or floats in 0 .. 1.
        channel_order: Channel order of an array or a tensor; images of OpenCV are `BGR`. Encoded and Pillow images know
            their order: `BGR` is an error for them.
        max_pixels: Encoded and Pillow images with more pixels are refused before they are decoded.

    Raises:
        ImageError: The source is no image: missing, empty, truncated, damaged (a JPEG file with a hole), too large, or
            an object of a wrong type, shape, dtype or range.
        SettingsError: `channel_order` is unknown, or `BGR` for an encoded or Pillow image.

    Examples:
        >>> import numpy as np
        >>> from hyperspot.images import read_image
        >>> blue = np.zeros((2, 4, 3), np.float32)
        >>> blue[..., 0] = 1  # as OpenCV orders the channels
        >>> image = read_image(blue, channel_order="BGR")
        >>> image.shape, image.dtype, image[0, 0].tolist()
        ((2, 4, 3), dtype('uint8'), [0, 0, 255])

    """
    if channel_order not in ("RGB", "BGR"):
        raise SettingsError(f"there is no channel order '{channel_order}'; choose RGB or BGR")
    if is_array(source):
        return array_to_rgb(source, channel_order)
    if isinstance(source, Lightings):
        read = [read_image(one, channel_order=channel_order, max_pixels=max_pixels) for one in source.images]
        return stack(read, ", ".join(map(_name, source.images)))
    name = _name(source)
    try:
        data = source if isinstance(source, Image.Image) else _encoded(source, name)
        if channel_order == "BGR":
            raise SettingsError(
                f"{name} stores its channel order; channel_order='BGR' is for arrays and tensors, leave it out here"
            )
        if isinstance(data, Image.Image):
            _check_header(data, name, max_pixels)
            with pillow_hushed():
                return _to_rgb(data, name)
        with pillow_hushed(), _open(io.BytesIO(data), name, max_pixels) as image:
            pixels = _deep_rgb(image, data, name, max_pixels)
            pixels = _to_rgb(image, name) if pixels is None else pixels
            # Last, because the decoder reports other damage more precisely.
            if image.format in ("JPEG", "MPO") and has_hole(data):
                raise ImageError(
                    f"{name} is damaged: zeros stand amid its pixels, as an interrupted copy leaves them; copy it again"
                )
            return pixels
    except (HyperspotError, ImageWarning, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise anything
        raise _unreadable(name, error) from None


def read_size(source: Path | str | Image.Image) -> tuple[int, int]:
    """Return height and width of an image as `read_image` returns it, from its header alone.

    Raises ImageError if the file is missing, empty or not an image.

    Examples:
        >>> from PIL import Image
        >>> from hyperspot.images import read_size
        >>> read_size(Image.new("L", (40, 30)))
        (30, 40)

    """
    name = _name(source)
    try:
        if isinstance(source, Image.Image):
            with pillow_hushed():
                return _upright_size(source)
        path = _existing(source)
        with pillow_hushed(), path.open("rb") as file, _open(file, name, MAX_PIXELS) as image:
            return _upright_size(image)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise anything
        raise _unreadable(name, error) from None


def is_gray(source: ImageInput) -> bool:
    """Return whether an image has one channel, by its header; raises ImageError if it cannot be read.

    Examples:
        >>> is_gray(np.zeros((2, 4), np.uint8)), is_gray(Image.new("RGB", (4, 2)))
        (True, False)

    """
    if is_array(source):
        shape = np.shape(source)  # type: ignore[arg-type]
        return len(shape) == 2 or 1 in (shape[0], shape[-1])
    if isinstance(source, Image.Image):
        return source.mode in GRAY_MODES
    name = _name(source)
    try:
        if isinstance(source, str | os.PathLike):
            opened: io.BytesIO | io.BufferedReader = _existing(source).open("rb")
        else:
            opened = io.BytesIO(_encoded(source, name))
        with pillow_hushed(), opened as file, _open(file, name, MAX_PIXELS) as image:
            return image.mode in GRAY_MODES
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise anything
        raise _unreadable(name, error) from None


def read_mask(path: Path | str) -> Bool[np.ndarray, "h w"]:
    """Return a mask: true where it is not black, so that masks of several classes become one.

    In lossy files (JPEG, lossy WebP, TIFF with JPEG compression) true is at least half bright, because compression
    leaves traces of gray in the black. Alpha is ignored. Raises ImageError as `read_image` does.
    """
    name = _name(path)
    try:
        data = _existing(path).read_bytes()
        with pillow_hushed(), _open(io.BytesIO(data), name, MAX_PIXELS) as image:
            lossy = _is_lossy(image, data)
            upright = _upright(image, name)
            if upright.mode not in ("1", "L", "I", "I;16", "I;16B", "I;16L", "F"):
                upright = upright.convert("RGBA" if upright.mode in ("P", "PA") else "RGB")
            values = np.asarray(upright)
    except (ImageError, ImageWarning, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise anything
        raise _unreadable(name, error) from None
    marked = values >= 128 if lossy else values != 0
    return np.ascontiguousarray(marked if marked.ndim == 2 else marked[..., :3].any(axis=2))


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    if image.format != "WEBP":
        return image.format in ("JPEG", "MPO") or "jpeg" in str(image.info.get("compression", ""))
    place = 12  # of the first chunk, after RIFF, size and WEBP
    while place + 8 <= len(data):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8 "
        place += 8 + size + size % 2
    return True  # an animation, which holds its frames in chunks of its own


def _name(source: object) -> str:
    """Return how messages name a source; never its content."""
    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        return name if len(name) <= LONGEST_NAME else f"{name[:60]}..."
    if isinstance(source, bytes | bytearray | memoryview):
        return "<bytes>"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<image>")
    named = getattr(source, "name", None)
    return named if isinstance(named, str) else "<stream>"


def _encoded(source: Any, name: str) -> bytes:
    """Return the bytes of an image file."""
    if isinstance(source, str | os.PathLike):
        return _existing(source).read_bytes()
    if isinstance(source, bytes | bytearray | memoryview):
        data: object = bytes(source)
    elif callable(getattr(source, "read", None)) and not isinstance(source, type):
        data = _read_stream(source, name)
    else:
        raise _wrong_type(source)
    if not isinstance(data, bytes):
        raise ImageError(f"{name} is a file opened as text; open it in binary mode: open(path, 'rb')")
    if not data:
        raise ImageError(f"{name} is empty; give the bytes of an image file")
    return data


def _read_stream(stream: Any, name: str) -> object:
    try:
        if getattr(stream, "seekable", lambda: False)():
            stream.seek(0)
        return None if isinstance(stream, io.TextIOBase) else stream.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read ({error}); pass an open binary file") from None


def _existing(source: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can hold an image."""
    path, name = Path(os.fsdecode(source)), _name(source)
    if not path.exists():
        if path.is_symlink():
            raise ImageError(f"{name} is a broken link; repair or remove it")
        raise ImageError(f"{name} does not exist; check the name")
    if path.is_dir():
        raise ImageError(f"{name} is a folder; name an image in it")
    if path.stat().st_size == 0:
        raise ImageError(f"{name} is empty (0 bytes); copy it again")
    return path


def _wrong_type(source: object) -> ImageError:
    if source is None:
        return ImageError(f"None is no image (did cv2.imread find the file?); pass {ACCEPTED}")
    kind = type(source).__name__
    article = "an" if kind[:1].lower() in "aeiou" else "a"
    several = " its images one by one, each as" if isinstance(source, list | tuple | set | frozenset) else ""
    return ImageError(f"{article} {kind} is no image; pass{several} {ACCEPTED}")


def _open(stream: io.BytesIO | io.BufferedReader, name: str, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header of one of the known formats with at most `max_pixels`."""
    # Pillow's own limit is one number per process: it is changed for the moment of opening.
    with _opening:
        usual = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            # From a stream, never from a path: Pillow 13 maps sideways TIFF files into memory with swapped sides.
            image = Image.open(stream, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = usual
    _check_header(image, name, max_pixels)
    return image


def _check_header(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{name} has {image.width} x {image.height} pixels, more than the limit of {max_pixels:,}; scale it down"
        )
    tags = getattr(image, "tag_v2", {})
    if tags.get(PLANAR_CONFIGURATION) == PLANAR and max(tags.get(BITS_PER_SAMPLE, (8,))) > 8:
        # Pillow reads them as 8 bits: noise.
        raise ImageError(
            f"{name} stores 16-bit colors in separate planes, which is not supported; save it with interleaved colors"
        )


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation in the header (1: upright), none if the EXIF data are unreadable."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1  # Pillow would decode the whole file in search of it
    before = heard()
    try:
        exif = image.getexif()
        if ORIENTATION not in exif and image.info.get("exif"):
            # Pillow may have hidden damage when it opened the file: it shows again here.
            Image.Exif().load(image.info["exif"])
        elif ORIENTATION in exif:
            return int(exif[ORIENTATION])
    except Exception:  # noqa: BLE001 - damaged EXIF data raise anything
        return None
    return 1 if heard() == before else None


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    if image.format == "TIFF":
        # Some versions of Pillow swap the sides of a sideways TIFF file when opening, some when loading.
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = tags[WIDTH], tags[HEIGHT]
    return (width, height) if _orientation(image) in SIDEWAYS else (height, width)


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Return the decoded image with its EXIF orientation applied."""
    # `read_size` does not see EXIF data after the pixels of a PNG file; Pillow turns a TIFF file while loading it.
    noted = _orientation(image) if image.format == "PNG" else None
    image.load()
    if image.format != "PNG":
        noted = _orientation(image)
    if noted is None:
        warnings.warn(
            f"{name} has unreadable EXIF data and is taken as upright; if it is not, turn it and save it again",
            ExifWarning,
            stacklevel=2,
        )
        return image
    return image.transpose(TURNS[noted]) if noted in TURNS else image


def _to_rgb(image: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    image = _upright(image, name)
    if image.mode == "F":
        raise ImageError(f"{name} holds floats of unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{name} holds values beyond 16 bits; save it with 8 or 16 bits")
        return _gray(to_8_bits(values.astype(np.uint16), name))
    # A palette may have an alpha value per color, which Pillow converts without a warning only to RGBA.
    convertible = image.convert("RGBA") if image.mode in ("P", "PA") else image
    return _pixels(convertible if convertible.mode == "RGB" else convertible.convert("RGB"))


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels of an RGB image, copied in bands: at once Pillow would hold them twice more."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _deep_rgb(image: ImageFile.ImageFile, data: bytes, name: str, max_pixels: int) -> UInt8[np.ndarray, "h w 3"] | None:
    """Return 16-bit RGB, or gray with alpha, rounded to 8 bits; none for other depths.

    Pillow keeps the high bytes alone. Decoded again in the other byte order, the same file gives the low bytes; the
    four bytes of gray with alpha are read as RGBA.
    """
    if image.mode not in ("RGB", "RGBA", "RGBX") or not image.tile:
        return None
    tile = image.tile[0]
    raw = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
    layout, _, order = raw.partition(";") if isinstance(raw, str) else ("", "", "")
    gray = (image.mode, layout, order) == ("RGBA", "LA", "16B")
    if not gray and (layout not in ("RGB", "RGBA", "RGBX") or order not in OTHER_BYTE):
        return None
    other = "RGBA" if gray else f"{layout};{OTHER_BYTE[order]}"
    with _open(io.BytesIO(data), name, max_pixels) as again:
        again.tile = [
            one._replace(args=(other, *one.args[1:]) if isinstance(one.args, tuple) else other) for one in again.tile
        ]
        second = np.asarray(_upright(again, name))
    if gray:
        return _gray(to_8_bits(second[..., 0] * np.uint16(256) + second[..., 1], name))
    high = np.asarray(_upright(image, name))[..., :3].astype(np.uint32)
    return to_8_bits(high * 256 + second[..., :3], name)


def _gray(values: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.repeat(values[..., None], 3, axis=2)


def _unreadable(name: str, error: Exception) -> ImageError:
    if isinstance(error, UnidentifiedImageError):
        return ImageError(f"{name} is not a PNG, JPEG, BMP, TIFF or WebP image; convert or remove it")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        # Pillow's own message names twice the limit.
        count = re.search(r"\d+", str(error))
        pixels = f"{int(count.group()):,} pixels" if count else "too many pixels"
        return ImageError(f"{name} decompresses to {pixels}, more than the limit; scale it down")
    if isinstance(error, PermissionError):
        return ImageError(f"{name}: permission denied; check the file permissions")
    if isinstance(error, OSError) and error.errno is not None:
        return ImageError(f"{name} cannot be opened ({error.strerror}); check the name and the disk")
    return ImageError(f"{name} is damaged and cannot be read ({error}); copy or save it again")
