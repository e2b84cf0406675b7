"""The pictures of the methods match the script, and nothing in them overlaps or leaves its panel."""

import base64
import io
import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from hyperspot.methods import METHODS
from tools import canvas, method_pictures
from tools.method_pictures import SKETCHES

EMBEDDED = re.compile(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)")
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(params=list(METHODS))
def name(request):
    return request.param


def committed(name):
    return (method_pictures.PICTURES / f"{name}.svg").read_text(encoding="utf-8")


def test_every_method_has_a_picture_and_no_other_does():
    assert set(SKETCHES) == set(METHODS)
    assert {path.stem for path in method_pictures.PICTURES.glob("*.svg")} == set(METHODS)


def test_the_script_draws_the_committed_picture(name):
    """Words and structure are equal; numbers and pixels up to the rounding of other processors."""
    found, expected = (EMBEDDED.split(text) for text in (method_pictures.svg(name), committed(name)))
    assert len(found) == len(expected), "run `python -m tools.method_pictures`"
    for new, old in zip(found[1::2], expected[1::2], strict=True):
        difference = np.abs(pixels_of(new).astype(int) - pixels_of(old))
        assert difference.max() <= 2, "run `python -m tools.method_pictures`"
    for new, old in zip(found[::2], expected[::2], strict=True):
        assert NUMBER.sub("#", ids(new)) == NUMBER.sub("#", ids(old)), "run `python -m tools.method_pictures`"
        values = [[float(one) for one in NUMBER.findall(ids(text))] for text in (new, old)]
        np.testing.assert_allclose(*values, atol=0.11, err_msg="run `python -m tools.method_pictures`")


def ids(text):
    """Return the text with the hashed identifiers left out: they depend on every digit of a path."""
    return re.sub(r"#?\b[mpC][0-9a-f]{8,}\w*", "#id", re.sub(r'id="[^"]*"', 'id=""', text))


def pixels_of(encoded):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


def texts(figure):
    """Return every visible text of a drawn figure with its box in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = [one for one in figure.findobj(Text) if one.get_visible() and one.get_text().strip()]
    return [(one.get_text(), one.get_window_extent(renderer)) for one in found]


def test_texts_stay_in_their_panel_and_do_not_overlap(name):
    figure = method_pictures.draw(name).figure
    scale = figure.dpi / 100
    panels = [
        Bbox.from_bounds(left * scale, 8 * scale, width * scale, (canvas.HEIGHT - 16) * scale)
        for left, width in canvas.PANELS
    ]
    boxes = texts(figure)
    assert len(boxes) >= 9
    for text, box in boxes:
        assert any(
            panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 <= box.y0 and box.y1 <= panel.y1 for panel in panels
        ), text
    for (first, box), (second, other) in itertools.combinations(boxes, 2):
        overlap = Bbox.intersection(box, other)
        assert overlap is None or overlap.width < 1 or overlap.height < 1, (first, second)


def test_the_test_of_overlaps_sees_one():
    drawing = method_pictures.draw("vae")
    drawing.figure.axes[0].text(14, canvas.HEIGHT - 28, "over the title")
    (_, title), *_ = [one for one in texts(drawing.figure) if one[0] == "Good images"]
    (_, other), *_ = [one for one in texts(drawing.figure) if one[0] == "over the title"]
    assert Bbox.intersection(title, other) is not None


def test_a_picture_has_a_ground_a_title_and_a_description(name):
    root = ET.parse(method_pictures.PICTURES / f"{name}.svg").getroot()
    described = {element.tag.split("}")[1]: element.text for element in root.iter() if "purl.org" in element.tag}
    assert described["title"] == SKETCHES[name][0]
    assert len(described["description"]) > 40
    assert "date" not in described
    # It brings its own white ground: legible on light and on dark pages.
    assert re.search(r'<g id="patch_1">\s*<path d="[^"]*"\s*style="fill: #ffffff', committed(name))


def test_marks_differ_in_shape_and_color():
    assert len({mark["marker"] for mark in canvas.MARKS.values()}) == len(canvas.MARKS)
    assert len({mark["color"] for mark in canvas.MARKS.values()}) == len(canvas.MARKS)
