"""Registration: the rotation and the shift that align an image to a reference image.

The reference is rotated in steps, and each rotation is compared with the image at every shift by normalized
cross-correlation (Lewis, Fast Normalized Cross-Correlation, 1995), on small gray images: first coarsely over all
angles, then finely around the best ones. Only pixels of the reference's region of interest are correlated, and neither
brightness nor contrast of the image matters.
"""

import base64
import functools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Complex64, Float, Float32, Shaped, UInt8
from PIL import Image

from hyperspot.errors import SettingsError

FILL = (124, 116, 104)
"""Color of pixels that no model sees: the mean of ImageNet, from which the backbones subtract it."""
FINE, COARSE = 192, 64
"""Long side of the gray images, in pixels."""
STEP = 5.0
"""Degrees from one coarse rotation to the next."""
CANDIDATES = 3
"""Coarse rotations that are refined."""
COARSE_STEPS, FINE_STEPS = (2.5, 1.2), (1.0, 0.4)
"""Degrees to either side of the best rotation that are tried, one after another."""
FOUND = 0.5
"""Share of the lowest correlation of good images that a part has. On the development categories good images correlate
by 0.8 or more with their reference, and images without the part by less than 0.1."""
FLAT = 1e-3
"""Standard deviation of gray values, in 0..1, below which nothing correlates."""


@dataclass(frozen=True)
class Alignment:
    """A rotation about the center of the image and a shift, which bring the reference onto the image.

    Attributes:
        degrees: Counterclockwise.
        shift: To the right and down, relative to the width and the height of the image.
        correlation: Of the reference with the image, in -1..1.
        is_found: Whether the correlation reaches the level that good images have.

    """

    degrees: float
    shift: tuple[float, float]
    correlation: float
    is_found: bool = True

    def apply(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image as it would lie in the reference; what was not seen is filled with one color.

        Examples:
            >>> image = np.zeros((32, 32, 3), np.uint8)
            >>> image[4:8, 4:8] = 255
            >>> aligned = Alignment(0.0, (0.25, 0.0), 1.0).apply(np.roll(image, 8, axis=1))
            >>> bool((aligned[:, :24] == image[:, :24]).all())
            True

        """
        size = image.shape[1], image.shape[0]
        coefficients = self._coefficients(*size)
        drawn = Image.fromarray(image).transform(
            size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=FILL
        )
        return np.asarray(drawn).copy()

    def back(
        self, values: Shaped[np.ndarray, "h w"], size: tuple[int, int], beyond: float
    ) -> Shaped[np.ndarray, "h w"]:
        """Return a map or a mask of the aligned image in the pixels of the image.

        Args:
            values: Of the whole image, at any size: 32-bit floats, interpolated bilinearly, or bool.
            size: Height and width of the image, in pixels.
            beyond: Value where the aligned image ends.

        Examples:
            >>> mask = np.zeros((4, 8), bool)
            >>> mask[:, 0] = True
            >>> Alignment(0.0, (0.5, 0.0), 1.0).back(mask, (40, 80), 0.0)[0].astype(int).tolist()
            [0, 0, 0, 0, 1, 0, 0, 0]

        """
        height, width = values.shape
        x, y = width / size[1], height / size[0]
        a, b, c, d, e, f = self._inverse(size[1], size[0])
        scaled = a, b * x / y, c * x, d * y / x, e, f * y
        if values.dtype == np.bool_:
            drawn = Image.fromarray(values.astype(np.uint8)).transform(
                (width, height), Image.Transform.AFFINE, scaled, Image.Resampling.NEAREST, fillcolor=int(beyond)
            )
            mask: Shaped[np.ndarray, "h w"] = np.asarray(drawn) > 0
            return mask
        # Shifted, because Pillow gives zero to pixels from beyond.
        drawn = Image.fromarray(values - np.float32(beyond)).transform(
            (width, height), Image.Transform.AFFINE, scaled, Image.Resampling.BILINEAR
        )
        moved: Shaped[np.ndarray, "h w"] = np.asarray(drawn) + np.float32(beyond)
        return moved

    def _coefficients(self, width: int, height: int) -> tuple[float, ...]:
        """Return Pillow's coefficients: from a place in the aligned image to the place in the image."""
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        x, y = width / 2, height / 2
        right, down = self.shift[0] * width, self.shift[1] * height
        return cos, sin, x + right - cos * x - sin * y, -sin, cos, y + down + sin * x - cos * y

    def _inverse(self, width: int, height: int) -> tuple[float, ...]:
        a, b, c, d, e, f = self._coefficients(width, height)
        return a, d, -(a * c + d * f), b, e, -(b * c + e * f)


@dataclass(frozen=True, eq=False)
class Reference:
    """A small gray picture of a good image, to which others are aligned.

    Attributes:
        gray: 8-bit, 192 pixels on its long side.
        inside: Pixels that are compared; None compares all.
        lowest: Correlation below which the part counts as not found; None before calibration.

    Examples:
        >>> random = np.random.default_rng(0)
        >>> image = np.full((96, 96, 3), 200, np.uint8)
        >>> image[30:60, 40:70] = random.integers(0, 255, (30, 30, 1), dtype=np.uint8)
        >>> found = Reference.from_image(image).locate(np.roll(image, 12, axis=1))
        >>> [round(96 * one, 1) + 0.0 for one in found.shift], abs(round(found.degrees, 1))
        ([12.0, 0.0], 0.0)

    """

    gray: UInt8[np.ndarray, "h w"]
    inside: Bool[np.ndarray, "h w"] | None = None
    lowest: float | None = None

    @classmethod
    def from_image(
        cls, image: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"] | None = None
    ) -> "Reference":
        """Return the reference of an image, and of its region of interest."""
        scale = FINE / max(image.shape[:2])
        width, height = (max(8, round(side * scale)) for side in image.shape[1::-1])
        gray = Image.fromarray(image).convert("L").resize((width, height), Image.Resampling.BOX)
        return cls(np.asarray(gray), None if inside is None else _resized(inside, height, width) >= 0.5)

    def locate(self, image: UInt8[np.ndarray, "h w 3"]) -> Alignment:
        """Return how an image lies against the reference."""
        height, width = self.gray.shape
        gray = Image.fromarray(image).convert("L")
        pictures = {
            FINE: _scaled(np.asarray(gray.resize((width, height), Image.Resampling.BOX))),
            COARSE: _scaled(np.asarray(gray.resize(_coarse(width, height), Image.Resampling.BOX))),
        }
        search = _Search(pictures[COARSE])
        angles = np.arange(0.0, 360.0, STEP)
        coarse = [search.best(template)[0] for template in _templates(self)]
        order = np.argsort([-one for one in coarse], kind="stable")[:CANDIDATES]
        rough = [self._refine(search, float(angles[number]), COARSE_STEPS, fine=False) for number in order]
        search = _Search(pictures[FINE])
        # Parts that look alike upside down differ on the fine images only.
        tried = [(search.best(_rotated(self, one.degrees, fine=True))[0], one.degrees) for one in rough]
        best = self._refine(search, max(tried)[1], FINE_STEPS, fine=True)
        found = self.lowest is None or best.correlation >= self.lowest
        return Alignment(
            (best.degrees + 180) % 360 - 180, (best.right / width, best.down / height), best.correlation, found
        )

    def _refine(self, search: "_Search", degrees: float, steps: Sequence[float], *, fine: bool) -> "_Match":
        """Return the best match around a rotation: steps to either side, then the peak of a parabola."""
        tried: dict[float, _Match] = {}

        def at(angle: float) -> float:
            if angle not in tried:
                correlation, (right, down) = search.best(_rotated(self, angle, fine=fine))
                tried[angle] = _Match(correlation, angle, right, down)
            return tried[angle].correlation

        best = degrees
        for step in steps:
            best = max((best, best - step, best + step), key=at)
        step = steps[-1]
        low, middle, high = at(best - step), at(best), at(best + step)
        bend = low - 2 * middle + high
        if bend < 0:
            at(best + step * min(1.0, max(-1.0, 0.5 * (low - high) / bend)))
        return max(tried.values(), key=lambda match: match.correlation)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, the pixels compressed in base 64."""

        def packed(values: np.ndarray) -> str:
            return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()

        inside = None if self.inside is None else packed(np.packbits(self.inside))
        height, width = self.gray.shape
        return {"size": [width, height], "gray": packed(self.gray), "inside": inside, "lowest_correlation": self.lowest}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Reference":
        """Return the reference that `to_dict` described; raises SettingsError if it is malformed."""
        try:
            width, height = map(int, values["size"])
            gray, inside = (
                None if values.get(name) is None else _unpacked(values[name], width * height)
                for name in ("gray", "inside")
            )
            assert gray is not None
            bits = None if inside is None else np.unpackbits(inside)[: width * height].reshape(height, width) > 0
            lowest = values.get("lowest_correlation")
            return cls(gray.reshape(height, width), bits, None if lowest is None else float(lowest))
        except (AssertionError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise SettingsError(f"the reference image of the registration is malformed ({error})") from None


def lowest_correlation(correlations: Float[np.ndarray, "n"]) -> float:
    """Return the level below which a part counts as not found: a share of the lowest correlation of good images.

    A part with a defect correlates less than good ones, and should be outlined, not lost.
    """
    return FOUND * float(np.min(correlations))


class _Search:
    """Finds templates in one gray image, at every shift up to half of its sides."""

    def __init__(self, image: Float32[np.ndarray, "h w"]) -> None:
        self.shape = image.shape
        # Zeros, its mean, beyond its borders: a template that sticks out correlates less.
        self.padded = _padded(image.shape)
        centered = image - image.mean()
        self.image = np.fft.rfft2(centered, self.padded)
        self.square = np.fft.rfft2(centered**2, self.padded)

    def best(self, template: "_Template") -> tuple[float, tuple[float, float]]:
        """Return the highest correlation, and its shift in pixels to the right and down, with fractions."""
        products, sums, squares = (
            np.fft.irfft2(one * other, self.padded)
            for one, other in (
                (self.image, template.values),
                (self.image, template.mask),
                (self.square, template.mask),
            )
        )
        variance = squares / template.count - (sums / template.count) ** 2
        spread = np.sqrt(np.maximum(variance, FLAT**2) * template.count)
        correlation = products / (spread * template.norm)
        reach = [side // 2 for side in self.shape]
        correlation[reach[0] + 1 : self.padded[0] - reach[0]] = -1
        correlation[:, reach[1] + 1 : self.padded[1] - reach[1]] = -1
        row, column = np.unravel_index(int(correlation.argmax()), self.padded)
        shift = []
        for axis, place in ((1, column), (0, row)):
            side = self.padded[axis]
            line = correlation[row] if axis == 1 else correlation[:, column]
            low, middle, high = (float(line[(place + step) % side]) for step in (-1, 0, 1))
            bend = low - 2 * middle + high
            peak = 0.5 * (low - high) / bend if bend < 0 and min(low, high) > -1 else 0.0
            shift.append(int(place) - (side if place > side // 2 else 0) + peak)
        return float(correlation[row, column]), (shift[0], shift[1])


class _Match(NamedTuple):
    """Correlation, rotation in degrees, and shift in pixels of the gray image."""

    correlation: float
    degrees: float
    right: float
    down: float


@dataclass(frozen=True, eq=False)
class _Template:
    """The reference at one rotation: values with mean zero inside its mask, and zeros outside.

    Attributes:
        values, mask: Conjugated spectra.
        count: Pixels in the mask.
        norm: Of the values.

    """

    values: Complex64[np.ndarray, "_h _w"]
    mask: Complex64[np.ndarray, "_h _w"]
    count: float
    norm: float


def _coarse(width: int, height: int) -> tuple[int, int]:
    scale = COARSE / max(width, height)
    return max(8, round(width * scale)), max(8, round(height * scale))


@functools.lru_cache(maxsize=2)
def _templates(reference: Reference) -> list[_Template]:
    return [_rotated(reference, float(angle), fine=False) for angle in np.arange(0.0, 360.0, STEP)]


def _rotated(reference: Reference, degrees: float, *, fine: bool) -> _Template:
    gray, inside = _pictures(reference, fine)
    turned = gray.rotate(degrees, Image.Resampling.BILINEAR)
    mask = (np.asarray(inside.rotate(degrees, Image.Resampling.BILINEAR)) > 0.5).astype(np.float32)
    values = np.asarray(turned)
    count = max(1.0, float(mask.sum()))
    values = (values - float((values * mask).sum()) / count) * mask
    norm = max(float(np.sqrt((values**2).sum())), FLAT * math.sqrt(count))
    spectra = [np.conj(np.fft.rfft2(one, _padded(values.shape))) for one in (values, mask)]
    return _Template(spectra[0], spectra[1], count, norm)


def _padded(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape of the spectra: zeros beyond the borders, so that shifts do not wrap around."""
    return 2 * shape[0], 2 * shape[1]


@functools.lru_cache(maxsize=4)
def _pictures(reference: Reference, fine: bool) -> tuple[Image.Image, Image.Image]:
    """Return the gray values and the compared pixels of the reference, as floats."""
    height, width = reference.gray.shape
    inside = np.ones((height, width), np.float32) if reference.inside is None else reference.inside.astype(np.float32)
    pictures = Image.fromarray(_scaled(reference.gray)), Image.fromarray(inside)
    if fine:
        return pictures
    gray, mask = (one.resize(_coarse(width, height), Image.Resampling.BOX) for one in pictures)
    return gray, mask


def _scaled(gray: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    scaled: Float32[np.ndarray, "h w"] = gray.astype(np.float32) / np.float32(255)
    return scaled


def _resized(mask: Bool[np.ndarray, "h w"], height: int, width: int) -> Float32[np.ndarray, "_H _W"]:
    picture = Image.fromarray(mask.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def _unpacked(text: str, most: int) -> UInt8[np.ndarray, "_n"]:
    # At most the pixels that the size announces: a damaged file cannot fill the memory.
    return np.frombuffer(zlib.decompressobj().decompress(base64.b64decode(text), most), dtype=np.uint8)
