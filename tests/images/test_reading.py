"""Images and masks of every format, whole and damaged."""

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from hyperspot.errors import DataError, ExifWarning, ImageError, ImageWarning
from hyperspot.images import find_images, is_image_file, read_image, read_mask, read_size, resize
from hyperspot.images.pillow_warnings import pillow_hushed

COLORS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
EXIF_ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(values: np.ndarray, color_type: int) -> bytes:
    """Write a 16-bit PNG by hand: Pillow cannot write one in color."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("kind", "lossless"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_back_the_pixels(tmp_path: Path, kind: str, lossless: dict[str, bool]) -> None:
    path = tmp_path / f"photo.{kind.lower()}"
    Image.fromarray(COLORS).save(path, kind, **lossless)
    assert np.array_equal(read_image(path), COLORS)
    assert np.array_equal(read_image(str(path)), COLORS)
    assert np.array_equal(read_image(path.read_bytes()), COLORS)
    assert read_size(path) == (5, 7)


def test_every_mode_becomes_rgb() -> None:
    gray = COLORS[..., 0]
    opaque = Image.fromarray(COLORS)
    with_alpha = opaque.copy()
    with_alpha.putalpha(Image.fromarray(COLORS[..., 1]))
    palette = Image.fromarray(gray, "L").convert("P")
    palette.info["transparency"] = bytes(range(256))
    expected = np.repeat(gray[..., None], 3, axis=2)
    assert np.array_equal(read_image(encoded(Image.fromarray(gray), "PNG")), expected)
    assert np.array_equal(read_image(Image.fromarray(gray).convert("LA")), expected)
    assert np.array_equal(read_image(encoded(palette, "PNG")), expected)
    assert np.array_equal(read_image(encoded(with_alpha, "PNG")), COLORS), "alpha is dropped, not blended"
    assert np.array_equal(read_image(encoded(Image.fromarray(gray > 99), "PNG")), (expected > 99) * np.uint8(255))
    flat = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(read_image(encoded(flat, "JPEG")).astype(int) - (255, 0, 0)).max() <= 4


def test_16_bits_are_rounded_to_8_in_gray_and_in_color() -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (6, 9, 4)).astype(np.uint16)
    rounded = np.round(deep / 257).astype(np.uint8)
    gray = np.repeat(rounded[..., :1], 3, axis=2)
    assert np.array_equal(read_image(png16(deep[..., :1], 0)), gray)
    assert np.array_equal(read_image(deep[..., 0]), gray)
    assert np.array_equal(read_image(encoded(Image.fromarray(deep[..., 0]), "TIFF")), gray)
    assert np.array_equal(read_image(png16(deep[..., :3], 2)), rounded[..., :3])
    assert np.array_equal(read_image(png16(deep, 6)), rounded[..., :3])
    assert np.array_equal(read_image(png16(deep[..., :2], 4)), gray), "alpha is dropped, the gray before it whole"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_known_from_the_header(tmp_path: Path, kind: str, orientation: int) -> None:
    stored = np.zeros((16, 48, 3), dtype=np.uint8)
    stored[:8, :16] = 255  # a bright corner tells all eight apart
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = tmp_path / f"photo.{kind.lower()}"
    Image.fromarray(stored).save(path, kind, exif=exif.tobytes())
    image = read_image(path)
    assert read_size(path) == image.shape[:2] == upright.shape[:2]
    assert np.array_equal(image > 127, upright > 127)
    with Image.open(path) as opened:
        assert read_size(opened) == upright.shape[:2]
        assert np.array_equal(read_image(opened), image)


SIDEWAYS = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
"""EXIF data with one tag: turned to the right."""
UNREADABLE_EXIF = {
    "no header": b"Exif\0\0nothing that EXIF begins with",
    "no directory": SIDEWAYS[:15],
    "half a tag": SIDEWAYS[:20],
    "text for a number": SIDEWAYS.replace(b"\x12\0\x03", b"\x12\0\x02"),
}


@pytest.mark.parametrize("damage", UNREADABLE_EXIF)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {}), ("JPEG", {}), ("JPEG", {"dpi": (72, 72)})])
def test_an_image_with_unreadable_exif_is_taken_as_upright(
    tmp_path: Path, damage: str, kind: str, options: dict[str, object]
) -> None:
    path = tmp_path / "photo"
    image = Image.fromarray(np.tile(COLORS, (2, 2, 1)))
    image.save(path, kind, exif=SIDEWAYS, **options)
    assert read_image(path).shape == (14, 10, 3), "this is how it is where it can be read"
    image.save(path, kind, exif=UNREADABLE_EXIF[damage], **options)
    with pytest.warns(ExifWarning, match=r"photo has unreadable EXIF data") as caught:
        pixels = read_image(path)
    assert len(caught) == 1
    assert np.array_equal(pixels, read_image(encoded(image, kind, **options)))
    assert read_size(path) == (10, 14)
    with pytest.warns(ExifWarning, match="taken as upright"):
        assert read_mask(path).shape == (10, 14)


DAMAGED_TIFF = encoded(Image.fromarray(COLORS), "TIFF")[:-150]
"""Cut off in its directory: Pillow warns of that, and cannot identify it."""


def test_pillow_warnings_are_suppressed_in_decoding_threads_alone(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tiff"
    damaged.write_bytes(DAMAGED_TIFF)
    decodes, other_is_done = threading.Event(), threading.Event()

    def decode() -> None:
        with pillow_hushed():
            decodes.set()
            other_is_done.wait(60)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for read in (read_image, read_size, read_mask):
            with pytest.raises(ImageError, match="is not a PNG"):
                read(damaged)
        warnings.simplefilter("always")
        with pytest.raises(ImageError, match="is not a PNG"):
            read_image(DAMAGED_TIFF)
        assert not caught
        thread = threading.Thread(target=decode)
        thread.start()
        assert decodes.wait(60)
        with pytest.raises(UnidentifiedImageError):
            Image.open(damaged)
        other_is_done.set()
        thread.join()
        assert {str(one.message) for one in caught} == {"Truncated File Read"}
        with pillow_hushed():
            warnings.warn("of ours", stacklevel=1)
        assert str(caught[-1].message) == "of ours"


@pytest.mark.parametrize("usual", ["ignore", "always", "error"])
def test_too_many_pixels_are_an_error_whatever_the_warning_filters(usual: str) -> None:
    """Pillow only warns up to twice the limit."""
    data = encoded(Image.fromarray(COLORS), "PNG")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(usual)  # type: ignore[arg-type]
        for limit in (34, 20, 2):
            with pytest.raises(ImageError, match="pixels"):
                read_image(data, max_pixels=limit)
        assert read_image(data, max_pixels=35).shape == (5, 7, 3)
    assert not caught


def test_an_animation_gives_its_first_picture() -> None:
    second = Image.new("RGB", (7, 5))
    data = encoded(Image.fromarray(COLORS), "WEBP", save_all=True, append_images=[second], lossless=True)
    assert np.array_equal(read_image(data), COLORS)


def test_arrays_are_copied_so_that_a_camera_may_reuse_its_buffer() -> None:
    buffer = COLORS.copy()
    image = read_image(buffer)
    buffer[:] = 0
    assert np.array_equal(image, COLORS)


def test_errors_of_files_are_one_sentence(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(np.tile(COLORS, (40, 40, 1))), "JPEG")
    files = {
        "empty.png": (b"", "is empty"),
        "text.png": (b"no image", "is not a PNG, JPEG"),
        "cut.jpg": (whole[: len(whole) // 2], "is damaged"),
        "fractions.tiff": (encoded(Image.fromarray(np.zeros((3, 3), np.float32)), "TIFF"), "8 or 16 bits"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=message) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_size(tmp_path)
    with pytest.raises(ImageError, match="<bytes>"):
        read_image(b"no image")


@pytest.mark.parametrize("options", [{}, {"quality": 95}, {"subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_hole_in_a_jpeg_file_is_noticed(tmp_path: Path, options: dict[str, object], mode: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise).convert(mode), "JPEG", **options)
    path = tmp_path / "photo.jpg"
    path.write_bytes(whole + bytes(5000))
    assert read_image(path).shape == (200, 300, 3), "bytes after the image are none of its pixels"
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(512) + whole[middle + 512 :])
    if "progressive" in options:
        assert read_image(path).shape == (200, 300, 3), "undecidable"
        return
    for source in (path, str(path), path.read_bytes()):
        with pytest.raises(ImageError, match="zeros stand amid its pixels"):
            read_image(source)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_jpeg_file_has_no_hole(optimize: bool, level: int) -> None:
    flat = np.full((3000, 3000), level, dtype=np.uint8)
    flat[100:140, 100:140] = np.random.default_rng(3).integers(0, 256, (40, 40))
    for mode in ("L", "RGB"):
        content = encoded(Image.fromarray(flat).convert(mode), "JPEG", optimize=optimize)
        assert read_image(content).shape == (3000, 3000, 3)
    if optimize and mode == "RGB":
        assert bytes(1000) in content, "here zeros are a plain surface"


def test_12_bits_in_16_are_read_with_a_warning(tmp_path: Path) -> None:
    deep = np.random.default_rng(1).integers(0, 4096, (6, 9, 3)).astype(np.uint16)
    (tmp_path / "color.png").write_bytes(png16(deep, 2))
    full = np.full_like(deep[..., :1], 65535)
    (tmp_path / "gray_alpha.png").write_bytes(png16(np.concatenate([deep[..., :1], full], axis=2), 4))
    Image.fromarray(deep[..., 0]).save(tmp_path / "gray.tiff")
    for name in ("color.png", "gray.tiff", "gray_alpha.png"):
        source = tmp_path / name
        with pytest.warns(ImageWarning, match=rf"{name} has 16 bits and uses 12"):
            image = read_image(source)
        assert image.max() == round(deep[..., : 3 if "color" in name else 1].max() / 257)
    with pytest.warns(ImageWarning, match="<array>"):
        read_image(deep[..., 0])
    read_image(np.zeros((4, 4), np.uint16))
    read_image(deep[..., 0] * np.uint16(16))


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb.write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(4) + b"IDAT"
    )
    usual = Image.MAX_IMAGE_PIXELS
    for read in (read_image, read_size, read_mask):
        with pytest.raises(ImageError, match="decompresses to 3,600,000,000 pixels"):
            read(bomb)
    assert usual == Image.MAX_IMAGE_PIXELS, "Pillow's own limit is left as it was"
    with pytest.raises(ImageError, match=r"pixels.*scale it down"):
        read_image(Image.new("1", (100, 100)), max_pixels=9_999)


WHOLE = {kind: encoded(Image.fromarray(np.tile(COLORS, (3, 3, 1))), kind) for kind in ("PNG", "JPEG", "BMP", "TIFF")}


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 10**6))
def test_damage_ends_in_an_image_or_an_image_error(kind: str, place: int, value: int, end: int) -> None:
    damaged = bytearray(WHOLE[kind])
    damaged[place % len(damaged)] = value
    try:
        image = read_image(bytes(damaged[: max(1, end % (2 * len(damaged)))]), max_pixels=10**6)
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


def test_masks_are_true_where_they_are_not_black(tmp_path: Path) -> None:
    truth = np.zeros((40, 32), dtype=bool)
    truth[8:24, 8:16] = True
    classes = truth * np.arange(32, dtype=np.uint8)
    colored = np.zeros((40, 32, 3), np.uint8)
    colored[truth, 2] = 1
    palette = Image.fromarray(truth.astype(np.uint8), "L").convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    masks = {
        "bits.png": Image.fromarray(truth),
        "classes.png": Image.fromarray(classes),
        "deep.png": Image.fromarray(truth.astype(np.uint16)),
        "color.bmp": Image.fromarray(colored),
        "palette.png": palette,
        "lossy.jpg": Image.fromarray(truth.astype(np.uint8) * 255),
    }
    for name, mask in masks.items():
        mask.save(tmp_path / name)
        assert np.array_equal(read_mask(tmp_path / name), truth), name


@pytest.mark.parametrize(
    ("kind", "options", "lossy"),
    [
        ("JPEG", {}, True),
        ("WEBP", {}, True),
        ("WEBP", {"exif": Image.Exif()}, True),
        ("WEBP", {"lossless": True}, False),
        ("WEBP", {"lossless": True, "exif": Image.Exif()}, False),
        ("TIFF", {"compression": "jpeg"}, True),
        ("TIFF", {"compression": "tiff_lzw"}, False),
        ("PNG", {}, False),
    ],
)
def test_masks_of_lossy_formats_are_true_where_they_are_bright(
    tmp_path: Path, kind: str, options: dict[str, object], lossy: bool
) -> None:
    levels = np.zeros((64, 96, 3), np.uint8)
    levels[:, 32:64], levels[:, 64:] = 60, 250
    if "exif" in options:
        options["exif"][EXIF_ORIENTATION] = 1  # makes an extended file of several chunks
    path = tmp_path / "mask"
    Image.fromarray(levels).save(path, kind, **options)
    assert np.array_equal(read_mask(path), levels[..., 0] >= (128 if lossy else 1))


def test_images_are_found_in_natural_order_without_junk(tmp_path: Path) -> None:
    for name in (
        "10.png",
        "2.JPG",
        "1.webp",
        ".hidden.png",
        "._1.png",
        "Thumbs.db",
        "notes.txt",
        "b/3.png",
        ".c/4.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["1.webp", "2.JPG", "10.png"]
    assert [path.name for path in find_images(tmp_path, recursive=True)] == ["1.webp", "2.JPG", "10.png", "3.png"]
    assert is_image_file("x.TIFF")
    assert is_image_file("x.JFIF")
    assert not is_image_file("x.gif")
    with pytest.raises(DataError, match="not a folder"):
        find_images(tmp_path / "missing")


def test_shrinking_counts_every_pixel() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = resize(np.repeat(checks[..., None], 3, axis=2), 8, 16)
    assert small.shape == (8, 16, 3)
    assert np.abs(small.astype(int) - 127).max() < 16, "without antialiasing this would be black or white"


def test_large_images_are_copied_in_bands(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    path = tmp_path / "large.png"
    Image.fromarray(pixels).save(path)
    for size in (10**9, 200, 1):
        monkeypatch.setattr("hyperspot.images.reading.BAND_PIXELS", size)
        found = read_image(path)
        np.testing.assert_array_equal(found, pixels)
        assert found.flags.writeable
