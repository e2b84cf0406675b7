"""Draws synthetic defects on images of good parts: what is needed to estimate a detection rate without defects.

Each defect lies on the object where the image shows one: where it differs from its border or has contrast. A defect
that is hardly visible is drawn again.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from hyperspot.errors import SettingsError
from hyperspot.images.resampling import area_mean

SIZES = {"tiny": 0.02, "small": 0.04, "medium": 0.08, "large": 0.16}
"""Diameter of a defect (a third of the length of a scratch), relative to the short side of the image."""
SMALLEST = 3.0
"""Diameter in pixels that no defect falls below."""
CONTRAST = 20.0
"""Mean change of the pixels of a defect, in gray levels of 255, below which it is drawn again."""
CHANGED = 8
"""Gray levels; a pixel that changes less is not in the mask."""
ATTEMPTS = 12
PLACES = 32
"""Side of the coarse map of places."""
CANDIDATES = 24
"""Random patches, the one farthest from the object of which fills a missing part."""

Pixels = UInt8[np.ndarray, "h w 3"]


class Place(NamedTuple):
    """Center and diameter of a defect, in pixels, and its opacity in the window around it."""

    y: float
    x: float
    top: int
    left: int
    alpha: Float[np.ndarray, "_h _w"]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the window."""
        height, width = self.alpha.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def draw_defect(
    image: UInt8[np.ndarray, "h w 3"],
    kind: str,
    size: str = "medium",
    *,
    seed: int = 0,
    within: Bool[np.ndarray, "h w"] | None = None,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Return a copy of a good image with one synthetic defect, and the mask of the defect.

    Args:
        image: 8-bit RGB.
        kind: One of `KINDS`: `cut-paste` (a patch of the image, turned and mirrored), `texture` (colored noise),
            `scratch` (a thin line), `stain` (darker or brighter with a smooth edge), `missing-part` (a patch of the
            background).
        size: One of `SIZES`: `tiny`, `small`, `medium`, `large`.
        seed: The same seed draws the same defect.
        within: Where the middle of the defect lies, up to a cell of a coarse grid; default: anywhere.

    Raises:
        SettingsError: The kind or the size is unknown.

    Examples:
        >>> import numpy as np
        >>> image = np.full((128, 128, 3), 200, np.uint8)
        >>> image[32:96, 32:96] = 90
        >>> changed, mask = draw_defect(image, "scratch", "large", seed=1)
        >>> changed.shape, bool(mask.any()), bool((changed[~mask] == image[~mask]).all())
        ((128, 128, 3), True, True)

    """
    if kind not in KINDS:
        raise SettingsError(f"there is no synthetic defect '{kind}'; choose one of {', '.join(KINDS)}")
    if size not in SIZES:
        raise SettingsError(f"there is no size '{size}'; choose one of {', '.join(SIZES)}")
    rng = np.random.default_rng((seed, list(KINDS).index(kind), list(SIZES).index(size)))
    diameter = max(SMALLEST, SIZES[size] * min(image.shape[:2]))
    weights = object_weights(image)
    if within is not None:
        weights = weights * area_mean(np.ascontiguousarray(area_mean(within, PLACES).T), PLACES).T
        weights /= weights.sum()
    best, window, strongest = image, (slice(0), slice(0)), -1.0
    for _ in range(ATTEMPTS):
        y, x = _pick(weights, image.shape[:2], rng)
        alpha = _line if kind == "scratch" else _blob
        place = alpha(y, x, diameter, image.shape[:2], rng)
        drawn = _blend(image, KINDS[kind](image, place, weights, rng), place)
        inside = place.alpha > 0.5
        change = np.abs(drawn[place.window].astype(float) - image[place.window]).max(axis=2)
        contrast = float(change[inside].mean()) if inside.any() else 0.0
        if contrast > strongest:
            best, window, strongest = drawn, place.window, contrast
        if strongest >= CONTRAST:
            break
    else:
        # A flat image, or one that is all background: no patch of it differs from another.
        best, window = _blend(image, _stain(image, place, weights, rng), place), place.window
    mask = np.zeros(image.shape[:2], dtype=bool)
    mask[window] = np.abs(best[window].astype(int) - image[window]).max(axis=2) > CHANGED
    best[window] = np.where(mask[window][..., None], best[window], image[window])
    return best, mask


def object_weights(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "s s"]:
    """Return how likely a defect lies at each place of a coarse grid; the sum is 1.

    The weight is the square of the distance to the median color of the image's border plus the local contrast, so that
    most defects lie on the object if it is set apart from its background.
    """
    small = _resize(image, 4 * PLACES, 4 * PLACES).astype(float)
    border = np.concatenate([small[:4].reshape(-1, 3), small[-4:].reshape(-1, 3), small[:, :4].reshape(-1, 3),
                             small[:, -4:].reshape(-1, 3)])  # fmt: skip
    distance = np.abs(small - np.median(border, axis=0)).max(axis=2)
    cells = small.mean(axis=2).reshape(PLACES, 4, PLACES, 4)
    weights = distance.reshape(PLACES, 4, PLACES, 4).mean(axis=(1, 3)) + cells.std(axis=(1, 3))
    weights = weights**2 + 1e-6
    shares: Float[np.ndarray, "s s"] = weights / weights.sum()
    return shares


def _pick(weights: Float[np.ndarray, "s s"], shape: tuple[int, ...], rng: np.random.Generator) -> tuple[float, float]:
    row, column = divmod(int(rng.choice(weights.size, p=weights.ravel())), weights.shape[1])
    jitter = rng.uniform(0, 1, 2)
    return (row + jitter[0]) / weights.shape[0] * shape[0], (column + jitter[1]) / weights.shape[1] * shape[1]


def _window(y: float, x: float, reach: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    top, left = max(0, math.floor(y - reach)), max(0, math.floor(x - reach))
    bottom, right = min(shape[0], math.ceil(y + reach) + 1), min(shape[1], math.ceil(x + reach) + 1)
    return top, left, bottom, right


def _blob(y: float, x: float, diameter: float, shape: tuple[int, ...], rng: np.random.Generator) -> Place:
    """Return an ellipse with a wavy outline of the given diameter (of a disk of its area) and an edge of one pixel."""
    stretch, turn = math.exp(rng.uniform(-0.4, 0.4)), rng.uniform(0, math.pi)
    top, left, bottom, right = _window(y, x, diameter, shape)
    rows, columns = np.mgrid[top:bottom, left:right] + 0.5
    down, across = rows - y, columns - x
    along = (across * math.cos(turn) + down * math.sin(turn)) * stretch
    beside = (down * math.cos(turn) - across * math.sin(turn)) / stretch
    angle = np.arctan2(beside, along)
    outline = 1 + sum(
        rng.uniform(0, 0.3 / order) * np.cos(order * angle + rng.uniform(0, 2 * math.pi)) for order in (2, 3, 5)
    )
    return Place(y, x, top, left, np.clip(diameter / 2 * outline - np.hypot(along, beside) + 0.5, 0, 1))


def _line(y: float, x: float, diameter: float, shape: tuple[int, ...], rng: np.random.Generator) -> Place:
    """Return a slightly bent line, three diameters long."""
    length, width = 3 * diameter, max(1.0, diameter / 6)
    top, left, bottom, right = _window(y, x, length / 2 + width, shape)
    turn, bend, scale = rng.uniform(0, math.pi), rng.uniform(-0.2, 0.2), 4
    along = np.linspace(-0.5, 0.5, 9) * length
    beside = bend * length * (1 - (2 * along / length) ** 2)
    points = [
        (
            scale * (x + a * math.cos(turn) - b * math.sin(turn) - left),
            scale * (y + a * math.sin(turn) + b * math.cos(turn) - top),
        )
        for a, b in zip(along, beside, strict=True)
    ]
    canvas = Image.new("L", (scale * (right - left), scale * (bottom - top)))
    ImageDraw.Draw(canvas).line(points, fill=255, width=max(1, round(scale * width)), joint="curve")
    alpha = canvas.resize((right - left, bottom - top), Image.Resampling.BOX)
    return Place(y, x, top, left, np.asarray(alpha) / 255)


def _blend(image: Pixels, paint: Float[np.ndarray, "_h _w 3"], place: Place) -> Pixels:
    drawn = image.copy()
    below = image[place.window].astype(float)
    mixed = below + (paint - below) * place.alpha[..., None]
    drawn[place.window] = np.clip(np.round(mixed), 0, 255).astype(np.uint8)
    return drawn


def _cut_paste(
    image: Pixels, place: Place, _weights: Float[np.ndarray, "s s"], rng: np.random.Generator
) -> Float[np.ndarray, "_h _w 3"]:
    height, width = place.alpha.shape
    side = min(max(height, width), *image.shape[:2])
    top, left = (int(rng.integers(0, limit - side + 1)) for limit in image.shape[:2])
    patch = np.rot90(image[top : top + side, left : left + side], int(rng.integers(4)))
    # A window may be longer than the image's short side.
    mirrored = patch[:, :: int(rng.choice((-1, 1)))]
    return mirrored[np.ix_(np.arange(height) % side, np.arange(width) % side)].astype(float)


def _texture(
    image: Pixels, place: Place, _weights: Float[np.ndarray, "s s"], rng: np.random.Generator
) -> Float[np.ndarray, "_h _w 3"]:
    height, width = place.alpha.shape
    grain = int(rng.integers(1, 4))
    # Gray images stay gray: a color would be found by itself.
    tint = rng.normal(0, 12, 1 if _is_gray(image) else 3)
    noise = rng.normal(0, 45, (-(-height // grain), -(-width // grain), 1)) + tint
    noise = np.repeat(np.repeat(noise, grain, axis=0), grain, axis=1)[:height, :width]
    paint: Float[np.ndarray, "_h _w 3"] = image[place.window].mean(axis=(0, 1)) + noise
    return paint


def _scratch(
    image: Pixels, place: Place, _weights: Float[np.ndarray, "s s"], rng: np.random.Generator
) -> Float[np.ndarray, "_h _w 3"]:
    below = image[place.window].astype(float)
    bright = below.mean() < 128
    change = rng.uniform(50, 110)
    return below + change if bright else below - change


def _stain(
    image: Pixels, place: Place, _weights: Float[np.ndarray, "s s"], rng: np.random.Generator
) -> Float[np.ndarray, "_h _w 3"]:
    below = image[place.window].astype(float)
    if below.mean() < 80:
        return below + rng.uniform(40, 80)
    tint = rng.uniform(0.45, 0.7) * np.array([1.0, rng.uniform(0.9, 1.0), rng.uniform(0.75, 1.0)])
    return below * (tint[:1] if _is_gray(image) else tint)


def _missing_part(
    image: Pixels, place: Place, weights: Float[np.ndarray, "s s"], rng: np.random.Generator
) -> Float[np.ndarray, "_h _w 3"]:
    height, width = place.alpha.shape
    tops = rng.integers(0, image.shape[0] - height + 1, CANDIDATES)
    lefts = rng.integers(0, image.shape[1] - width + 1, CANDIDATES)
    rows, columns = weights.shape[0] / image.shape[0], weights.shape[1] / image.shape[1]
    seen = [
        weights[
            int(top * rows) : int((top + height - 1) * rows) + 1,
            int(left * columns) : int((left + width - 1) * columns) + 1,
        ].mean()
        for top, left in zip(tops, lefts, strict=True)
    ]
    chosen = int(np.argmin(seen))
    return image[tops[chosen] : tops[chosen] + height, lefts[chosen] : lefts[chosen] + width].astype(float)


def _is_gray(image: Pixels) -> bool:
    return bool((image[..., :1] == image).all())


def _resize(image: Pixels, height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BOX))


KINDS: dict[
    str,
    Callable[[Pixels, Place, Float[np.ndarray, "s s"], np.random.Generator], Float[np.ndarray, "_h _w 3"]],
] = {
    "cut-paste": _cut_paste,
    "texture": _texture,
    "scratch": _scratch,
    "stain": _stain,
    "missing-part": _missing_part,
}
"""What paints each kind of defect."""
