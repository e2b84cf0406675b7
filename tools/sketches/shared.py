"""What several pictures show: photos, scatters, Gaussians, and what marks mean."""

import numpy as np
import torch

from hyperspot.data.demo_product.product_set import render
from hyperspot.methods.padim import whitening
from tools.drawing import INK, KEPT, PAPER, QUIET, RULE, Box, Drawing, Point, ellipse

RENDERED, SHOWN = 144, 72
"""Sides of a demo photo as it is rendered, and as it is embedded."""
STAINED = 46
"""A photo with a stain that is seen at this size."""


def photo(kind: str = "good", number: int = 0) -> np.ndarray:
    """Return a photo of the demo's product, 144 pixels to a side."""
    return render(kind, RENDERED, (7, number)).image()


def small(pixels: np.ndarray) -> np.ndarray:
    """Return a photo as it is embedded: means of 2 x 2 pixels."""
    step = len(pixels) // SHOWN
    means = pixels.reshape(SHOWN, step, SHOWN, step, 3).mean((1, 3), dtype=np.float64)
    rounded: np.ndarray = np.floor(means + 0.5).astype(np.uint8)
    return rounded


def points(seed: int, *clusters: tuple[float, float, float, float, float, int]) -> np.ndarray:
    """Return made-up features in 0..1: for each cluster center (2), deviations along two axes, turn and number."""
    random = np.random.default_rng(seed)
    made = []
    for x, y, long, short, turn, count in clusters:
        around = random.normal(0, 1, (count, 2)) * (long, short)
        cos, sin = np.cos(turn), np.sin(turn)
        made.append((x, y) + around @ np.array([[cos, sin], [-sin, cos]]))
    return np.concatenate(made)


def floats(values: np.ndarray) -> torch.Tensor:
    """Return the values as our functions want them."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def stack(drawing: Drawing, room: Box, *, cells: int = 6) -> None:
    """Draw a stack of good photos, the first with a grid of places."""
    shown = small(photo())
    for step in (3, 2, 1):
        back = Box(room.left + 8 + 10 * step, room.top + 34 - 10 * step, 128, 128)
        drawing.square(back, RULE, width=1, fill=PAPER)
    front = Box(room.left + 8, room.top + 34, 128, 128)
    drawing.photo(shown, front)
    drawing.grid(front, cells)
    drawing.square(front, RULE, width=1)


def legend(drawing: Drawing, room: Box, *entries: tuple[str, str]) -> None:
    """Say what marks mean, along the lower edge of a panel's room."""
    x, y = room.left + 4, room.top + room.height - 4
    for kind, words in entries:
        if kind == "good":
            drawing.dots([(x + 4, y - 4)], radius=3)
        elif kind == "line":
            drawing.line((x - 3, y - 4), (x + 9, y - 4), KEPT)
        elif kind == "kept":
            drawing.diamonds([(x + 4, y - 4)], 5)
        else:
            drawing.star((x + 4, y - 4), 6)
        drawing.text((x + 13, y), words, size=12, color=QUIET)
        x += 26 + 6.4 * len(words)


def plot(room: Box, *, lift: float = 0) -> Box:
    """Return the field of a scatter above a legend; 0..1 x 0..0.6 of it is in view.

    Both axes have the same scale, so that distances are what they seem.
    """
    low = room.top + room.height - 22 - lift
    return Box(room.left, low - room.width, room.width, room.width)


def label(drawing: Drawing, at: Point, words: str, *, color: str = INK, anchor: str = "start") -> None:
    """Write on top of a scatter, with a pale ground so that it can be read."""
    width = 6.4 * len(words) + 6
    left = at[0] - {"start": 3.0, "middle": width / 2, "end": width - 3}[anchor]
    drawing.add("rect", x=left, y=at[1] - 12, width=width, height=16, rx=3, fill=PAPER, opacity="0.85")
    drawing.text(at, words, color=color, anchor=anchor, bold=True)


def gaussian(made: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, the Cholesky factor of the covariance and the whitening that PaDiM takes of it."""
    covariance = np.cov(made.T)
    white = whitening(torch.from_numpy(covariance)[None], 1e-6)[0].double().numpy()
    return made.mean(0), np.linalg.inv(white), white


def draw_gaussian(drawing: Drawing, field: Box, made: np.ndarray, *, pale: bool = False) -> np.ndarray:
    mean, factor, white = gaussian(made)
    for reach in (1, 2, 3):
        outline = ellipse(mean, factor, reach, field)
        drawing.polygon(outline, KEPT, stroke=KEPT, opacity=0.16)
        drawing.curve(outline, KEPT)
    drawing.dots([field.at(point) for point in made], opacity=0.3 if pale else 0.75)
    drawing.diamonds([field.at(mean)])
    return white
