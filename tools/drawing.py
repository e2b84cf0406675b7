"""The parts that all pictures of methods share: palette, panels, points, photos; written as SVG without a library.

Blue is what good photos show, orange what is remembered of them, red what is new. Every number is rounded to a tenth of
a unit and photos are stored uncompressed, so that the same picture is the same bytes wherever it is drawn.
"""

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

WIDTH, HEIGHT = 800, 300
INK, QUIET, RULE, PAPER, GROUND = "#1f2933", "#4b5563", "#cbd5e1", "#ffffff", "#f4f6f9"
GOOD, KEPT, NEW = "#1d6fb8", "#d97706", "#c81e1e"
FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
TOP, BOTTOM = 46, 246
"""Between them lies what a panel shows; its title is above, its caption below."""
PANELS = ((12, 196), (220, 314), (546, 242))
"""Left side and width of the three panels: good photos, what is learned, a new photo."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle that data in 0..1 is drawn in, y upward."""

    left: float
    top: float
    width: float
    height: float

    def at(self, point: Sequence[float] | np.ndarray) -> Point:
        """Return where a point lies on the picture."""
        return self.left + point[0] * self.width, self.top + (1 - point[1]) * self.height

    @property
    def center(self) -> Point:
        """The middle."""
        return self.left + self.width / 2, self.top + self.height / 2


@dataclass
class Drawing:
    """A picture in the making."""

    title: str
    about: str
    parts: list[str] = field(default_factory=list)
    _photos: dict[bytes, str] = field(default_factory=dict)

    def add(self, tag: str, content: str | None = None, **attributes: str | float) -> None:
        """Add an element; underscores in the names of attributes stand for hyphens."""
        written = "".join(f' {name.replace("_", "-")}="{_number(value)}"' for name, value in attributes.items())
        self.parts.append(f"<{tag}{written}/>" if content is None else f"<{tag}{written}>{content}</{tag}>")

    def text(
        self, at: Point, words: str, *, size: float = 12, color: str = INK, anchor: str = "start", bold: bool = False
    ) -> None:
        """Write a line of text; `at` is its baseline's start, middle or end, as the anchor says."""
        weight = {"font_weight": "bold"} if bold else {}
        self.add("text", escape(words), x=at[0], y=at[1], font_size=size, fill=color, text_anchor=anchor, **weight)

    def panel(self, number: int, title: str, caption: Iterable[str]) -> Box:
        """Draw one of the three panels; returns the room for what it shows."""
        left, width = PANELS[number]
        self.add("rect", x=left, y=10, width=width, height=HEIGHT - 20, rx=6, fill=GROUND, stroke=RULE)
        self.text((left + 10, 31), title, size=14, bold=True)
        for row, words in enumerate(caption):
            self.text((left + 10, 263 + 16 * row), words, color=QUIET)
        return Box(left + 10, TOP, width - 20, BOTTOM - TOP)

    def line(self, start: Point, end: Point, color: str = INK, *, width: float = 1.5, dashed: bool = False) -> None:
        """Draw a straight line."""
        dash = {"stroke_dasharray": "4 3"} if dashed else {}
        self.add("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], stroke=color, stroke_width=width, **dash)

    def arrow(self, start: Point, end: Point, color: str = INK, *, width: float = 1.5, head: float = 6) -> None:
        """Draw a line with a head at its end."""
        there, here = np.array(end, dtype=float), np.array(start, dtype=float)
        along = (there - here) / max(float(np.hypot(*(there - here))), 1e-9)
        across = np.array([-along[1], along[0]])
        base = there - head * along
        self.line(start, _pair(base), color, width=width)
        self.polygon([end, _pair(base + head / 2 * across), _pair(base - head / 2 * across)], color)

    def polygon(self, corners: Sequence[Point], fill: str, *, stroke: str = "none", opacity: float = 1) -> None:
        """Draw a filled outline."""
        points = " ".join(f"{_number(x)},{_number(y)}" for x, y in corners)
        self.add("polygon", points=points, fill=fill, stroke=stroke, **_opacity(opacity))

    def curve(self, points: Sequence[Point], color: str, *, width: float = 1.2, opacity: float = 1) -> None:
        """Draw a line through points."""
        written = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self.add("polyline", points=written, fill="none", stroke=color, stroke_width=width, **_opacity(opacity))

    def dots(self, points: Iterable[Point], *, color: str = GOOD, radius: float = 2.0, opacity: float = 0.75) -> None:
        """Draw small discs."""
        for x, y in points:
            self.add("circle", cx=x, cy=y, r=radius, fill=color, **_opacity(opacity))

    def diamonds(self, points: Iterable[Point], size: float = 5.5) -> None:
        """Draw what is remembered."""
        for x, y in points:
            self.polygon([(x, y - size), (x + size, y), (x, y + size), (x - size, y)], KEPT, stroke=PAPER)

    def star(self, at: Point, size: float = 8) -> None:
        """Draw what is new."""
        angles = np.arange(10) * np.pi / 5 - np.pi / 2
        reach = np.where(np.arange(10) % 2, size * 0.42, size)
        corners = [(at[0] + r * np.cos(a), at[1] + r * np.sin(a)) for a, r in zip(angles, reach, strict=True)]
        self.polygon(corners, NEW, stroke=PAPER)

    def ring(
        self, at: Point, radius: float, color: str = KEPT, *, fill: float = 0.1, width: float = 1, dashed: bool = False
    ) -> None:
        """Draw a circle, filled thinly."""
        dash = {"stroke_dasharray": "4 3"} if dashed else {}
        self.add(
            "circle",
            cx=at[0],
            cy=at[1],
            r=radius,
            fill=color,
            fill_opacity=f"{fill:g}",
            stroke=color,
            stroke_width=width,
            **dash,
        )

    def square(self, box: Box, color: str, *, width: float = 2, fill: str = "none") -> None:
        """Draw the outline of a rectangle."""
        self.add(
            "rect",
            x=box.left,
            y=box.top,
            width=box.width,
            height=box.height,
            fill=fill,
            stroke=color,
            stroke_width=width,
        )

    def grid(self, box: Box, cells: int, color: str = PAPER) -> None:
        """Draw a grid over a photo."""
        for cell in range(1, cells):
            share = cell / cells
            self.line(box.at((share, 0)), box.at((share, 1)), color, width=0.7)
            self.line(box.at((0, share)), box.at((1, share)), color, width=0.7)

    def photo(self, pixels: np.ndarray, box: Box) -> None:
        """Draw a photo (h w 3, 8 bit); one that is drawn several times is kept once."""
        data = png(pixels)
        if data not in self._photos:
            self._photos[data] = f"photo{len(self._photos)}"
            where = {"width": 1, "height": 1, "preserveAspectRatio": "none"}
            content = base64.b64encode(data).decode()
            written = "".join(f' {name}="{value}"' for name, value in where.items())
            image = f'<image id="{self._photos[data]}"{written} href="data:image/png;base64,{content}"/>'
            self.parts.insert(0, f"<defs>{image}</defs>")
        place = f"translate({_number(box.left)} {_number(box.top)}) scale({_number(box.width)} {_number(box.height)})"
        self.add("use", href=f"#{self._photos[data]}", transform=place)

    def svg(self) -> str:
        """Return the file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'role="img" aria-labelledby="title about" font-family="{FONT}">\n'
            f'<title id="title">{escape(self.title)}</title>\n<desc id="about">{escape(self.about)}</desc>\n'
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{PAPER}"/>\n'
        )
        return head + "\n".join(self.parts) + "\n</svg>\n"


def png(pixels: np.ndarray) -> bytes:
    """Return an 8-bit RGB PNG whose pixels are stored as they are: no compressor's version can change a byte."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels, dtype=np.uint8))
    pieces = [rows[start : start + 65535] for start in range(0, len(rows), 65535)]
    stored = b"".join(
        struct.pack("<BHH", number == len(pieces) - 1, len(piece), len(piece) ^ 0xFFFF) + piece
        for number, piece in enumerate(pieces)
    )
    data = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def ellipse(mean: np.ndarray, factor: np.ndarray, reach: float, box: Box) -> list[Point]:
    """Return the outline at a Mahalanobis distance from a mean; `factor` is the covariance's lower Cholesky factor."""
    angles = np.linspace(0, 2 * np.pi, 49)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [box.at(point) for point in mean + reach * circle @ factor.T]


def _opacity(value: float) -> dict[str, str]:
    return {} if value == 1 else {"opacity": f"{value:g}"}


def _pair(point: np.ndarray) -> Point:
    return float(point[0]), float(point[1])


def _number(value: str | float) -> str:
    if isinstance(value, str):
        return value
    # Adding zero takes the sign off what rounds to nothing.
    return f"{round(float(value), 1) + 0.0:g}"
