"""Every accepted kind of input gives the same pixels; every other object is one clear error."""

import io
import os
import re
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hyperspot.errors import ImageError, ImageWarning, SettingsError
from hyperspot.images import read_image, read_mask, read_size

COLORS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = np.repeat(COLORS[..., :1], 3, axis=2)
DEEP = COLORS.astype(np.uint16) * np.uint16(257)
ALPHA = np.full((5, 7, 1), 9, np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "part.png"
    Image.fromarray(COLORS).save(path)
    return path


class Named(os.PathLike[str]):
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_encoded_images_come_as_paths_bytes_and_binary_files(path: Path) -> None:
    data = path.read_bytes()
    at_its_end = io.BytesIO()
    at_its_end.write(data)
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    with path.open("rb") as file, os.fdopen(reading, "rb") as pipe:
        sources = (path, str(path), Named(path), data, bytearray(data), memoryview(data), at_its_end, file, file, pipe)
        for source in sources:
            assert np.array_equal(read_image(source), COLORS), type(source)
    assert np.array_equal(read_image(Image.fromarray(COLORS)), COLORS)


ARRAYS = {
    "uint8": COLORS,
    "uint16": DEEP,
    "big-endian uint16": DEEP.astype(">u2"),
    "float16": (COLORS / 255).astype(np.float16),
    "float32": (COLORS / 255).astype(np.float32),
    "float64": COLORS / 255,
    "alpha": np.concatenate([COLORS, ALPHA], axis=2),
    "alpha, NaN": np.concatenate([COLORS / 255, ALPHA * np.nan], axis=2),
    "Fortran order": np.asfortranarray(COLORS),
    "a view": np.repeat(COLORS, 2, axis=1)[:, ::2],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_every_dtype_give_the_pixels_in_either_order(kind: str) -> None:
    array = ARRAYS[kind]
    before = array.copy()
    bgr = array.copy()
    bgr[..., :3] = array[..., 2::-1]
    for image in (read_image(array), read_image(bgr, channel_order="BGR")):
        assert np.array_equal(image, COLORS)
        assert image.flags.c_contiguous
        assert image.flags.writeable
        assert not np.shares_memory(image, array)
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("values", [COLORS[..., 0], DEEP[..., 0], (COLORS[..., 0] / 255).astype(np.float32)])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_gray_arrays_and_tensors_become_rgb(values: np.ndarray, order: str) -> None:
    for source in (values, values[..., None], torch.from_numpy(values), torch.from_numpy(values)[None]):
        assert np.array_equal(read_image(source, channel_order=order), GRAY)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("alpha", [False, True])
def test_tensors_hold_their_channels_first(dtype: torch.dtype, alpha: bool) -> None:
    array = np.concatenate([COLORS, ALPHA], axis=2) if alpha else COLORS
    tensor = torch.from_numpy(array.transpose(2, 0, 1).copy())
    if dtype == torch.uint16:
        tensor = torch.from_numpy(array.transpose(2, 0, 1).astype(np.uint16) * np.uint16(257))
    elif dtype.is_floating_point:
        tensor = (tensor / 255).to(dtype).requires_grad_()
    before = tensor.detach().clone()
    # bfloat16 holds 8 significant bits.
    tolerance = 1 if dtype == torch.bfloat16 else 0
    assert np.abs(read_image(tensor).astype(int) - COLORS).max() <= tolerance
    bgr = tensor.detach()[[2, 1, 0, 3][: len(tensor)]]
    assert np.abs(read_image(bgr, channel_order="BGR").astype(int) - COLORS).max() <= tolerance
    assert torch.equal(tensor, before)
    if dtype == torch.uint8:
        assert not np.shares_memory(read_image(tensor), tensor.numpy())


def test_floats_are_rounded_to_the_nearest_level() -> None:
    values = np.random.default_rng(1).random((20, 30, 3), dtype=np.float32)
    assert np.array_equal(read_image(values), np.round(values.astype(np.float64) * 255).astype(np.uint8))


BAD_ARRAYS = {
    "two channels": (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\).*pass height x width x 3"),
    "channels first": (np.zeros((3, 8, 9), np.uint8), r"array\.transpose\(1, 2, 0\)"),
    "one row": (np.zeros(4, np.uint8), r"pass height x width x 3"),
    "a batch": (np.zeros((2, 4, 4, 3), np.uint8), "batch one by one"),
    "empty": (np.zeros((0, 4, 3), np.uint8), "it has no pixels"),
    "int64": (np.zeros((4, 4), np.int64), "dtype int64 is no image; convert it to uint8, uint16 or floats"),
    "bool": (np.zeros((4, 4), bool), "dtype bool"),
    "complex": (np.zeros((4, 4), complex), "dtype complex128"),
    "objects": (np.full((4, 4), object()), "dtype object"),
    "0 .. 255": (np.full((4, 4, 3), 254.0), r"lie in 254 \.\. 254; divide it by 255"),
    "centered": (np.linspace(-1, 1, 48).reshape(4, 4, 3), r"lie in -1 \.\. 1; scale"),
    "NaN": (np.where(np.eye(4) > 0, np.nan, 0.5), "holds NaN"),
    "infinite": (np.full((4, 4), np.inf), r"inf \.\. inf"),
    "tensor, channels last": (torch.zeros(8, 9, 3), r"a tensor of shape \(8, 9, 3\) .* tensor\.permute\(2, 0, 1\)"),
    "tensor, batch": (torch.zeros(1, 3, 8, 9), "batch one by one"),
    "tensor, int64": (torch.zeros(3, 8, 9, dtype=torch.int64), "dtype int64"),
    "tensor, 0 .. 255": (torch.full((3, 8, 9), 200.0), "divide it by 255"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_other_arrays_are_one_clear_error(kind: str) -> None:
    array, message = BAD_ARRAYS[kind]
    with pytest.raises(ImageError, match=message) as caught:
        read_image(array)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", [None, 5, 2.5, {"a": COLORS}, [COLORS, COLORS], (COLORS,), COLORS.tolist(), object])
def test_other_objects_are_named_by_their_type_and_never_by_their_content(source: object) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(source)
    message = str(caught.value)
    if source is None:
        assert message.startswith("None is no image (did cv2.imread find the file?); pass a path")
    else:
        article = "an" if isinstance(source, int) else "a"
        assert message.startswith(f"{article} {type(source).__name__} is no image; pass")
    assert ("one by one" in message) == isinstance(source, list | tuple)
    assert not re.search(r"\d", message.replace("cv2", ""))
    assert "\n" not in message


def test_errors_of_streams(path: Path) -> None:
    with path.open(encoding="latin-1") as text, pytest.raises(ImageError, match=r"part\.png is a file opened as text"):
        read_image(text)
    with path.open("rb") as closed:
        pass
    with pytest.raises(ImageError, match=r"part\.png cannot be read .*pass an open binary file"):
        read_image(closed)
    with pytest.raises(ImageError, match="<stream> is empty"):
        read_image(io.BytesIO())
    with pytest.raises(ImageError, match="<bytes> is empty"):
        read_image(bytearray())
    with pytest.raises(ImageError, match="<stream> is not a PNG"):
        read_image(io.BytesIO(b"no image"))


def test_a_long_string_is_not_repeated() -> None:
    with pytest.raises(ImageError) as caught:
        read_image("A" * 5000)
    assert len(str(caught.value)) < 200


def test_channel_order_belongs_to_arrays_alone(path: Path) -> None:
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), Image.fromarray(COLORS)):
        with pytest.raises(SettingsError, match="stores its channel order"):
            read_image(source, channel_order="BGR")
    with pytest.raises(SettingsError, match="no channel order 'bgr'; choose RGB or BGR"):
        read_image(COLORS, channel_order="bgr")
    with pytest.raises(ImageError, match="an int is no image"):
        read_image(5, channel_order="BGR")


def test_dark_16_bit_tensors_are_warned_of() -> None:
    with pytest.warns(ImageWarning, match="<tensor>"):
        read_image(torch.full((4, 4), 4095, dtype=torch.uint16))


def test_torch_is_never_imported() -> None:
    script = (
        "import sys, numpy; from hyperspot.images import read_image; read_image(numpy.zeros((4, 4), 'u1'));"
        "assert 'torch' not in sys.modules; sys.modules['torch'] = None; read_image(numpy.zeros((4, 4), 'u1'))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def tiff(values: np.ndarray, compression: int, order: str, planar: bool) -> bytes:
    """Write a 16-bit RGB TIFF by hand: 1 is uncompressed, 8 is deflate."""
    height, width, channels = values.shape
    big = values.astype(f"{order}u2")
    parts = [big[..., plane].tobytes() for plane in range(channels)] if planar else [big.tobytes()]
    parts = [zlib.compress(part) if compression == 8 else part for part in parts]
    here, number = 8, "HHII"
    bits = struct.pack(f"{order}{channels}H", *[16] * channels).ljust(8, b"\0")
    starts = [here + len(bits)]
    for part in parts[:-1]:
        starts.append(starts[-1] + len(part))
    body = bits + b"".join(parts)
    tables = here + len(body)
    body += struct.pack(f"{order}{len(parts)}I", *starts)
    body += struct.pack(f"{order}{len(parts)}I", *map(len, parts))
    counts = tables + 4 * len(parts)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, here),
        (259, 4, 1, compression),
        (262, 4, 1, 2),
        (273, 4, len(parts), tables if planar else starts[0]),
        (277, 4, 1, channels),
        (278, 4, 1, height),
        (279, 4, len(parts), counts if planar else len(parts[0])),
        (284, 4, 1, 2 if planar else 1),
    ]
    directory = struct.pack(f"{order}H", len(tags))
    directory += b"".join(struct.pack(f"{order}{number}", *tag) for tag in tags) + bytes(4)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", here + len(body)) + body + directory


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
def test_16_bit_color_tiff_files_are_read_or_refused(tmp_path: Path, order: str, compression: int) -> None:
    deep = np.random.default_rng(4).integers(0, 65536, (6, 9, 3)).astype(np.uint16)
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff(deep, compression, order, planar=False))
    for source in (path, path.read_bytes()):
        assert np.array_equal(read_image(source), np.round(deep / 257).astype(np.uint8))
    path.write_bytes(tiff(deep, compression, order, planar=True))
    for read in (read_image, read_mask, read_size):
        with pytest.raises(ImageError, match=r"deep\.tif stores 16-bit colors in separate planes"):
            read(path)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_sideways_tiff_files_are_turned_as_a_whole(tmp_path: Path, mode: str, orientation: int) -> None:
    """Pillow 13 maps uncompressed ones into memory with swapped sides if it is given the path."""
    stored = Image.fromarray(np.kron(COLORS, np.ones((4, 4, 1), np.uint8)))
    stored = Image.fromarray(np.asarray(stored.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else stored
    stored = stored if mode == "I;16" else stored.convert(mode)
    upright = read_image(stored)
    expected = np.rot90(upright, {3: 2, 6: -1, 8: 1}[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "sideways.tif"
    stored.save(path, exif=exif)
    assert np.array_equal(read_image(path), expected)
    assert np.array_equal(read_image(path.read_bytes()), expected)
    assert read_size(path) == expected.shape[:2] == read_mask(path).shape


def test_a_changing_list_of_warning_filters_does_not_grow(path: Path) -> None:
    with warnings.catch_warnings():
        read_image(path)
        before = len(warnings.filters)
        for _ in range(5):
            warnings.filters.insert(0, ("ignore", None, UserWarning, None, 0))
            read_image(path)
            del warnings.filters[1]
        assert len(warnings.filters) == before
