"""The pictures of the methods are what the script draws, and say in words what they show."""

import base64
import io
import re
import struct
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
from PIL import Image

from hyperspot.methods import METHODS
from tools import drawing, method_pictures
from tools.sketches import SKETCHES

SVG = "{http://www.w3.org/2000/svg}"
PHOTO = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(params=list(METHODS))
def name(request):
    return request.param


def test_every_method_has_a_picture_and_no_other_does():
    assert set(SKETCHES) == set(METHODS)
    assert {path.stem for path in method_pictures.PICTURES.glob("*.svg")} == set(METHODS)


def test_the_script_draws_the_committed_picture(name):
    """The same words and numbers, but for what another processor rounds otherwise."""
    committed = (method_pictures.PICTURES / f"{name}.svg").read_text(encoding="utf-8")
    found, expected = (PHOTO.split(text) for text in (method_pictures.draw(name), committed))
    assert len(found) == len(expected), "run `python -m tools.method_pictures`"
    for new, old in zip(found[1::2], expected[1::2], strict=True):
        difference = np.abs(pixels_of(new).astype(int) - pixels_of(old))
        assert difference.max() <= 2, "run `python -m tools.method_pictures`"
    for new, old in zip(found[::2], expected[::2], strict=True):
        assert NUMBER.sub("#", new) == NUMBER.sub("#", old), "run `python -m tools.method_pictures`"
        values = [[float(one) for one in NUMBER.findall(text)] for text in (new, old)]
        np.testing.assert_allclose(*values, atol=0.11, err_msg="run `python -m tools.method_pictures`")


def pixels_of(encoded):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_a_picture_has_a_ground_a_title_and_nothing_outside(name):
    root = ET.parse(method_pictures.PICTURES / f"{name}.svg").getroot()
    title, about = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert about is not None
    assert title.text == SKETCHES[name][0]
    assert len(about.text) > 40
    first = root.find(f"{SVG}rect")
    # It is legible on light and on dark pages, as it brings its own ground.
    assert (first.get("width"), first.get("height"), first.get("fill")) == ("800", "300", drawing.PAPER)
    for text in root.iter(f"{SVG}text"):
        letter = 0.54 if text.get("font-weight") == "bold" else 0.48
        x, wide = float(text.get("x")), letter * float(text.get("font-size")) * len(text.text)
        left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[text.get("text-anchor")]
        panel = [(start, start + width) for start, width in drawing.PANELS if start <= x <= start + width]
        assert panel, text.text
        assert panel[0][0] <= left, text.text
        assert left + wide <= panel[0][1], text.text
        assert float(text.get("font-size")) >= 11


def test_photos_are_stored_as_they_are():
    """Read back chunk by chunk as the PNG specification has them."""
    pixels = np.random.default_rng(0).integers(0, 256, (150, 160, 3), dtype=np.uint8)
    data = drawing.png(pixels)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (160, 150, 8, 2, 0, 0, 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(150, 1 + 480)
    assert not rows[:, 0].any()
    np.testing.assert_array_equal(rows[:, 1:].reshape(150, 160, 3), pixels)
