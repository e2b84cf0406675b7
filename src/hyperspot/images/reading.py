"""Reads photos and masks safely: every format, bit depth and orientation becomes plain 8-bit RGB."""

import io
import re
import threading
import warnings
from pathlib import Path
from typing import Literal

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

from hyperspot.errors import DataError, ExifWarning, ImageError, ImageWarning
from hyperspot.hardware.native import resizing
from hyperspot.images.jpeg_damage import has_hole
from hyperspot.images.pillow_warnings import heard, pillow_hushed

ImageInput = Path | str | bytes | np.ndarray | Image.Image
ChannelOrder = Literal["RGB", "BGR"]

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP")
REGISTERED = (PngImagePlugin, JpegImagePlugin, BmpImagePlugin, TiffImagePlugin, WebPImagePlugin)
"""Where one of FORMATS were not registered by its import, Pillow would load all its formats at the first photo."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".dib", ".tif", ".tiff", ".webp"})
JUNK_FOLDERS = frozenset({"__macosx", "$recycle.bin"})
MAX_PIXELS = 200_000_000
"""Photos with more pixels are refused: a small file can unfold to more than the memory holds."""

TWELVE_BITS = 4095

ORIENTATION, WIDTH, HEIGHT = 0x0112, 0x0100, 0x0101
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by the orientation that EXIF notes."""
SIDEWAYS = (5, 6, 7, 8)
OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16S"}

_opening = threading.Lock()


def read_image(
    source: ImageInput, *, channel_order: ChannelOrder = "RGB", max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a photo as upright 8-bit RGB.

    The orientation that a camera noted (EXIF) is applied, 16 bits are scaled to 8 (divided by 257 and rounded),
    gray and palettes become RGB, alpha is dropped, and of an animation the first picture is taken. An ImageWarning is
    given where 16 bits hold 12 or fewer: scaled as they are, such photos are all but black. An ExifWarning is given
    where the orientation is lost, because what the camera noted cannot be read: such photos are taken as upright.

    Args:
        source: A path, the bytes of a file, a Pillow image, or an array: h w 3 (8-bit RGB) or h w (8 or 16 bits).
        max_pixels: What has more pixels is refused before it is decoded.

    Raises:
        ImageError: Where it is missing, empty, truncated, not an image, or too large, or a JPEG file with a hole.

    """
    name = _name(source)
    if isinstance(source, np.ndarray):
        return _from_array(source[..., ::-1] if channel_order == "BGR" else source, name)
    try:
        if isinstance(source, Image.Image):
            _check_pixels(source, name, max_pixels)
            with pillow_hushed():
                return _to_rgb(source, name)
        with pillow_hushed(), _open(source, max_pixels) as image:
            pixels = _deep_rgb(image, source, max_pixels)
            pixels = _to_rgb(image, name) if pixels is None else pixels
            # Last, as what the decoder notices it tells more exactly.
            if image.format in ("JPEG", "MPO") and has_hole(source if isinstance(source, bytes) else _bytes(source)):
                raise ImageError(
                    f"{name} is damaged: it has a hole, zeros amid its pixels, as a copy that was cut off leaves it; "
                    "copy it again"
                )
            return pixels
    except (ImageError, ImageWarning):
        raise
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise whatever they stumble over
        raise _unreadable(name, error) from None


def read_size(source: Path | str | Image.Image) -> tuple[int, int]:
    """Return height and width of a photo as `read_image` gives it, from its header alone.

    Raises ImageError where the file is missing, empty or not an image.
    """
    try:
        if isinstance(source, Image.Image):
            with pillow_hushed():
                return _upright_size(source)
        with pillow_hushed(), _open(source, MAX_PIXELS) as image:
            return _upright_size(image)
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise whatever they stumble over
        raise _unreadable(_name(source), error) from None


def read_mask(path: Path | str) -> Bool[np.ndarray, "h w"]:
    """Return a mask: true where it is not black, so that masks of several classes are taken as one.

    In lossy files (JPEG) true is at least half bright, because compression leaves traces of gray in the black.
    Raises ImageError as `read_image` does.
    """
    try:
        with pillow_hushed(), _open(path, MAX_PIXELS) as image:
            lossy = image.format in ("JPEG", "MPO")
            upright = _upright(image, str(path))
            if upright.mode not in ("1", "L", "I", "I;16", "I;16B", "I;16L", "F"):
                upright = upright.convert("RGBA" if upright.mode in ("P", "PA") else "RGB")
            values = np.asarray(upright)
    except (ImageError, ImageWarning):
        raise
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise whatever they stumble over
        raise _unreadable(str(path), error) from None
    marked = values >= 128 if lossy else values != 0
    return np.ascontiguousarray(marked if marked.ndim == 2 else marked[..., :3].any(axis=2))


def is_image_file(path: Path | str) -> bool:
    """Return whether a path looks like a photo by its name: a known suffix, not hidden, no system's litter."""
    path = Path(path)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith((".", "~"))


def find_images(folder: Path | str, recursive: bool = False) -> list[Path]:
    """Return the image files of a folder in natural order (2.png before 10.png); hidden ones are left out.

    Raises DataError where there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the photos")
    found = [entry for place in _places(folder, recursive) for entry in place.iterdir() if _is_photo(entry)]
    return sorted(found, key=lambda path: [natural_key(part) for part in path.relative_to(folder).parts])


def _places(folder: Path, recursive: bool) -> list[Path]:
    """Return a folder and, where wanted, all in it; one that links lead to more than once, or back to, counts once."""
    places, seen, waiting = [], set(), [folder]
    while waiting:
        place = waiting.pop(0)
        real = place.resolve()
        if real not in seen:
            seen.add(real)
            places.append(place)
            waiting += find_folders(place) if recursive else []
    return places


def _is_photo(entry: Path) -> bool:
    # A broken link is listed, so that somebody is told of it.
    return is_image_file(entry) and (entry.is_file() or (entry.is_symlink() and not entry.exists()))


def find_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder in natural order; hidden ones are left out."""
    inner = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(
        (entry for entry in inner if entry.name.lower() not in JUNK_FOLDERS),
        key=lambda entry: natural_key(entry.name),
    )


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return what sorts names the way people count: 2 before 10, and case last."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def resize(image: UInt8[np.ndarray, "_h _w 3"], height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Scale a photo bilinearly; where it gets smaller, all pixels count (antialiased), the same on every machine."""
    if image.shape[:2] == (height, width):
        return image.copy()
    scaled = resizing.resize(image, height, width)
    if scaled is not None:
        return scaled
    # Asked for both at once, Pillow takes the shorter way round first, from version 13 on, and rounds otherwise.
    narrowed = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(narrowed.resize((width, height), Image.Resampling.BILINEAR)).copy()


def _open(source: Path | str | bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header of one of the known formats; never more than `max_pixels`."""
    if isinstance(source, bytes):
        if not source:
            raise ImageError("<bytes> is empty; give the bytes of an image file")
    else:
        path = Path(source)
        if not path.exists():
            what = (
                "is a link that leads nowhere; mend or remove it"
                if path.is_symlink()
                else "does not exist; check the name"
            )
            raise ImageError(f"{path} {what}")
        if path.is_dir():
            raise ImageError(f"{path} is a folder; name a photo in it")
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes); copy it again")
    # Pillow's own limit is one number per process: borrowed for the moment of opening, then put back.
    with _opening:
        usual = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = usual
    _check_pixels(image, _name(source), max_pixels)
    return image


def _check_pixels(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{name} has {image.width} x {image.height} pixels, more than the {max_pixels:,} that are read; "
            "scale it down"
        )


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation noted in the header (1 is upright); none where it is lost, as EXIF is unreadable."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1  # Pillow would decode the whole file in search of it
    before = heard()
    try:
        exif = image.getexif()
        if ORIENTATION not in exif and image.info.get("exif"):
            # Pillow may have met damage when it opened the file, and kept quiet: here it shows again.
            Image.Exif().load(image.info["exif"])
        elif ORIENTATION in exif:
            return int(exif[ORIENTATION])
    except Exception:  # noqa: BLE001 - damaged EXIF raises whatever its reader stumbles over
        return None
    return 1 if heard() == before else None


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    if image.format == "TIFF":
        # Some versions of Pillow swap the sides of a sideways TIFF when opening, some when loading.
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = tags[WIDTH], tags[HEIGHT]
    return (width, height) if _orientation(image) in SIDEWAYS else (height, width)


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Return the decoded image, turned as the camera was held."""
    # What a PNG file notes after its pixels is unknown to `read_size`; a TIFF file is turned by Pillow as it is loaded.
    noted = _orientation(image) if image.format == "PNG" else None
    image.load()
    if image.format != "PNG":
        noted = _orientation(image)
    if noted is None:
        warnings.warn(
            f"{name} holds EXIF data that cannot be read, so that it is taken as upright; if it is not, turn it and "
            "save it again",
            ExifWarning,
            stacklevel=2,
        )
        return image
    return image.transpose(TURNS[noted]) if noted in TURNS else image


def _to_rgb(image: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    image = _upright(image, name)
    if image.mode == "F":
        raise ImageError(f"{name} holds fractions, whose range is unknown; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{name} holds values beyond 16 bits; save it with 8 or 16 bits")
        return _from_array(values.astype(np.uint16), name)
    # A palette's transparency may be given per color, which Pillow only takes to RGBA without complaint.
    convertible = image.convert("RGBA") if image.mode in ("P", "PA") else image
    return np.asarray(convertible if convertible.mode == "RGB" else convertible.convert("RGB")).copy()


def _deep_rgb(
    image: ImageFile.ImageFile, source: Path | str | bytes, max_pixels: int
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Return 16-bit RGB, or gray with alpha, rounded to 8, or none for other depths.

    Pillow keeps the high bytes alone. Read once more in the other byte order the same file gives the low ones; the
    four bytes of gray with alpha are read as if they were RGBA.
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
    name = _name(source)
    with _open(source, max_pixels) as again:
        again.tile = [
            one._replace(args=(other, *one.args[1:]) if isinstance(one.args, tuple) else other) for one in again.tile
        ]
        second = np.asarray(_upright(again, name))
    if gray:
        return _from_array(second[..., 0] * np.uint16(256) + second[..., 1], name)
    high = np.asarray(_upright(image, name))[..., :3].astype(np.uint32)
    return _to_8_bits(high * 256 + second[..., :3], name)


def _from_array(values: np.ndarray, name: str) -> UInt8[np.ndarray, "h w 3"]:
    if values.size and values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8:
        return np.array(values, order="C")
    if values.size and values.ndim == 2 and values.dtype in (np.uint8, np.uint16):
        gray = values if values.dtype == np.uint8 else _to_8_bits(values, name)
        return np.repeat(gray[..., None], 3, axis=2)
    raise ImageError(
        f"an array of shape {values.shape} and type {values.dtype} is no photo; "
        "give height x width x 3 (8-bit RGB) or height x width (8 or 16 bits)"
    )


def _to_8_bits(values: np.ndarray, name: str) -> np.ndarray:
    if 0 < values.max() <= TWELVE_BITS:
        # What its camera's range is cannot be told from one photo, and guessed for each they would not be alike.
        warnings.warn(
            f"{name} has 16 bits and uses 12 of them or fewer, so that it is all but black here; if that is not how it "
            "looks, let the camera or a converter scale such photos to all 16 bits, or to 8",
            ImageWarning,
            stacklevel=2,
        )
    rounded: np.ndarray = (values.astype(np.uint32) + 128) // 257
    return rounded.astype(np.uint8)


def _bytes(source: Path | str) -> bytes:
    return Path(source).read_bytes()


def _name(source: ImageInput) -> str:
    if isinstance(source, bytes):
        return "<bytes>"
    if isinstance(source, np.ndarray):
        return "<array>"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<image>")
    return str(source)


def _unreadable(name: str, error: Exception) -> ImageError:
    if isinstance(error, UnidentifiedImageError):
        return ImageError(f"{name} is not a PNG, JPEG, BMP, TIFF or WebP image; convert or remove it")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        # Pillow's own sentence speaks of twice the limit that was asked for.
        count = re.search(r"\d+", str(error))
        pixels = f"{int(count.group()):,} pixels" if count else "more pixels than are read"
        return ImageError(f"{name} unfolds to {pixels}, too many to be read; scale it down")
    if isinstance(error, PermissionError):
        return ImageError(f"{name} may not be read; give yourself the permission")
    return ImageError(f"{name} is damaged and cannot be read ({error}); copy or save it again")
