"""The canvas of the method pictures: three panels, and the images and marks they share, drawn by matplotlib.

Blue dots are good images, orange diamonds what is kept of them, red stars what is new; the shapes differ too, so that
color-blind readers tell them apart.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch, FancyBboxPatch, Rectangle

from hyperspot.data.demo_product.product_set import render
from hyperspot.methods.padim import whitening

GOOD, KEPT, NEW = "#0072b2", "#e69f00", "#b2182b"
INK, QUIET, RULE, GROUND = "#1f2933", "#4b5563", "#cbd5e1", "#f4f6f9"
WIDTH, HEIGHT = 960, 352
RENDERED, SHOWN = 144, 72
"""Sides of a demo image as rendered and as embedded."""
PANELS = ((8, 242), (258, 392), (658, 294))
"""Left side and width of the panels: good images, training, a new image. In hundredths of an inch."""
ROOM = (70, 242)
"""Bottom and height of what a panel shows; its title is above, its caption below."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "hyperspot",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
}
MARKS: dict[str, dict[str, Any]] = {
    "good": {"marker": "o", "color": GOOD, "s": 12, "alpha": 0.75, "linewidths": 0},
    "kept": {"marker": "D", "color": KEPT, "s": 34, "edgecolors": "white", "linewidths": 0.8, "zorder": 4},
    "new": {"marker": "*", "color": NEW, "s": 170, "edgecolors": "white", "linewidths": 0.8, "zorder": 5},
}

Point = Sequence[float] | np.ndarray


class Canvas:
    """A picture with three panels; their axes count hundredths of an inch from the lower left."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), facecolor="white")

    def panel(self, number: int, title: str, *caption: str) -> Axes:
        """Draw one of the three panels; return its axes, 0 to its width by 0 to `ROOM[1]`."""
        left, width = PANELS[number]
        whole = self.figure.add_axes(
            (left / WIDTH, 0, width / WIDTH, 1), xlim=(0, width), ylim=(0, HEIGHT), label=title
        )
        whole.axis("off")
        frame = FancyBboxPatch((0, 8), width, HEIGHT - 16, "round,pad=0,rounding_size=6", fc=GROUND, ec=RULE)
        whole.add_patch(frame)
        whole.text(12, HEIGHT - 26, title, va="center", fontsize=10.5, fontweight="bold")
        for row, words in enumerate(caption):
            whole.text(12, 48 - 18 * row, words, va="center", color=QUIET)
        room = (left + 12) / WIDTH, ROOM[0] / HEIGHT, (width - 24) / WIDTH, ROOM[1] / HEIGHT
        axes = self.figure.add_axes(room, xlim=(0, width - 24), ylim=(0, ROOM[1]), label=f"{title}, room")
        axes.axis("off")
        return axes

    def svg(self, title: str, description: str) -> str:
        """Return the file; the same bytes at each call."""
        out = io.StringIO()
        with mpl.rc_context(STYLE):
            self.figure.savefig(
                out, format="svg", metadata={"Creator": None, "Date": None, "Title": title, "Description": description}
            )
        # Without this style browsers enlarge the embedded images smoothly.
        text = out.getvalue().replace("image-rendering:crisp-edges;image-rendering:pixelated", "")
        # Two decimals suffice, and are the same on every processor.
        text = re.sub(r"(\.\d\d)\d+", r"\1", text)
        return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def field(
    axes: Axes, left: float, bottom: float, width: float, height: float, title: str = "", *, full: bool = False
) -> Axes:
    """Return a scatter field within a panel: 0..1 by 0..height/width, or 0..1 by 0..1 if `full`."""
    made = axes.inset_axes((left, bottom, width, height), transform=axes.transData)
    made.set(xlim=(0, 1), ylim=(0, 1 if full else height / width), xticks=[], yticks=[])
    for spine in made.spines.values():
        spine.set_color(RULE)
    if title:
        made.set_title(title, fontsize=9, fontweight="bold", pad=3)
    return made


def scatter(axes: Axes, points: np.ndarray, kind: str = "good", *, label: str = "", pale: bool = False) -> None:
    """Draw points as marks of a kind; `label` names them in the legend, `pale` puts them behind."""
    style = {**MARKS[kind], **({"alpha": 0.25} if pale else {})}
    axes.scatter(*np.atleast_2d(points).T, label=label or None, **style)


def legend(axes: Axes, *, columns: int = 3) -> None:
    """Name the labeled marks below a field."""
    style = {"fontsize": 8.5, "frameon": False, "handletextpad": 0.2, "columnspacing": 0.9, "borderaxespad": 0.3}
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, 0), ncols=columns, handlelength=1.2, **style)


def note(axes: Axes, at: Point, words: str, color: str = INK, *, ha: str = "center") -> None:
    """Write on top of a scatter, on a pale ground."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    axes.text(at[0], at[1], words, color=color, ha=ha, va="center", fontweight="bold", bbox=box, zorder=6)


def image(axes: Axes, pixels: np.ndarray, left: float, bottom: float, side: float, color: str = RULE) -> None:
    """Draw an image (h, w, 3; 8-bit RGB) with a frame."""
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(pixels, extent=(left, left + side, bottom, bottom + side), interpolation="none", zorder=2)
    axes.set(xlim=limits[0], ylim=limits[1], aspect="auto")
    square(axes, left, bottom, side, color, zorder=2)


def square(
    axes: Axes, left: float, bottom: float, side: float, color: str, *, width: float = 1.5, zorder: float = 3
) -> None:
    """Draw the outline of a square; those behind images are filled white."""
    fill = "none" if zorder > 1 else "white"
    axes.add_patch(
        Rectangle((left, bottom), side, side, edgecolor=color, facecolor=fill, linewidth=width, zorder=zorder)
    )


def line(
    axes: Axes,
    start: Point,
    end: Point,
    color: str = INK,
    width: float = 1.5,
    style: str = "-",
) -> None:
    """Draw a straight line."""
    axes.plot(*zip(start, end, strict=True), style, color=color, linewidth=width, zorder=3)


def arrow(axes: Axes, start: Point, end: Point, color: str = INK, *, width: float = 1.3) -> None:
    """Draw an arrow."""
    ends = (float(start[0]), float(start[1])), (float(end[0]), float(end[1]))
    size = 6 + 3 * width
    patch = FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=size, shrinkA=0, shrinkB=0, linewidth=width)
    patch.set(color=color, zorder=3)
    axes.add_patch(patch)


def circle(axes: Axes, at: Point, radius: float, *, fill: float = 0.1, color: str = KEPT) -> None:
    """Draw a circle, filled thinly."""
    axes.add_patch(Circle(tuple(at), radius, facecolor=(color, fill), edgecolor=color, linewidth=0.9))


def ellipses(axes: Axes, mean: np.ndarray, covariance: np.ndarray, label: str) -> None:
    """Draw a Gaussian: its outlines at one to three deviations."""
    values, vectors = np.linalg.eigh(covariance)
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    for reach in (3, 2, 1):
        long, short = 2 * reach * np.sqrt(values[1]), 2 * reach * np.sqrt(values[0])
        patch = Ellipse(
            (mean[0], mean[1]), long, short, angle=angle, facecolor=(KEPT, 0.14), edgecolor=KEPT, linewidth=1
        )
        patch.set_label(label if reach == 1 else None)
        axes.add_patch(patch)


def trapezoid(axes: Axes, left: float, right: float, heights: tuple[float, float], middle: float, *words: str) -> None:
    """Draw a network as a trapezoid with words in it: the first bold."""
    first, last = heights
    corners = [(left, middle - first / 2), (left, middle + first / 2), (right, middle + last / 2)]
    axes.fill(
        *zip(*corners, (right, middle - last / 2), strict=True), facecolor="white", edgecolor=QUIET, clip_on=False
    )
    for row, text in enumerate(words):
        at = (left + right) / 2, middle + 8 * (len(words) - 1) - 17 * row
        style = {"fontsize": 8.5} if row else {"fontweight": "bold"}
        axes.text(*at, text, ha="center", va="center", **style)


def demo(kind: str = "good", number: int = 0) -> np.ndarray:
    """Return an image of the demo product (144, 144, 3)."""
    return render(kind, RENDERED, (7, number)).image()


def small(pixels: np.ndarray) -> np.ndarray:
    """Return an image as embedded: means of 2 x 2 pixels."""
    means = pixels.reshape(SHOWN, 2, SHOWN, 2, 3).mean((1, 3), dtype=np.float64)
    rounded: np.ndarray = np.floor(means + 0.5).astype(np.uint8)
    return rounded


def to_pixels(values: torch.Tensor) -> np.ndarray:
    """Return values in 0..1 as 8-bit pixels."""
    rounded: np.ndarray = np.floor(values.double().numpy() * 255 + 0.5).astype(np.uint8)
    return rounded


def points(seed: int, *clusters: tuple[float, float, float, float, float, int]) -> np.ndarray:
    """Return made-up features in 0..1; each cluster: center (2), deviations of two axes, rotation, count."""
    random = np.random.default_rng(seed)
    made = []
    for x, y, long, short, turn, count in clusters:
        cos, sin = np.cos(turn), np.sin(turn)
        made.append((x, y) + random.normal(0, 1, (count, 2)) * (long, short) @ np.array([[cos, sin], [-sin, cos]]))
    return np.concatenate(made)


def floats(values: np.ndarray) -> torch.Tensor:
    """Return values as 32-bit floats, as the methods' functions take them."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def stack(canvas: Canvas, *caption: str) -> Axes:
    """Draw the first panel as a stack of good images, the front one with a grid of places."""
    axes = canvas.panel(0, "Good images", *caption)
    for step in (3, 2, 1):
        square(axes, 8 + 14 * step, 40 + 14 * step, 150, RULE, width=1, zorder=1 - step / 10)
    grid_image(axes, demo(), 8, 40, 150)
    return axes


def grid_image(axes: Axes, pixels: np.ndarray, left: float, bottom: float, side: float) -> None:
    """Draw an image with a grid of 6 x 6 places."""
    image(axes, small(pixels), left, bottom, side)
    for cell in range(1, 6):
        at = side * cell / 6
        line(axes, (left + at, bottom), (left + at, bottom + side), "white", 0.7)
        line(axes, (left, bottom + at), (left + side, bottom + at), "white", 0.7)


def gaussian(axes: Axes, made: np.ndarray, *, pale: bool = False) -> np.ndarray:
    """Draw points and their Gaussian; return the whitening matrix that PaDiM computes from it."""
    covariance = np.cov(made.T)
    ellipses(axes, made.mean(0), covariance, "" if pale else "1 to 3 deviations")
    scatter(axes, made, label="" if pale else "good image", pale=pale)
    scatter(axes, made.mean(0), "kept")
    white: np.ndarray = whitening(torch.from_numpy(covariance)[None], 1e-6)[0].double().numpy()
    return white
