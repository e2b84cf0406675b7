"""Defects as annotation tools mark them: polygons, boxes and run lengths, drawn into masks at the size of the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool

Number: TypeAlias = float | int
Point: TypeAlias = tuple[Number, Number]
"""Column and row; whole numbers are the corners of pixels."""
CIRCLE_CORNERS = 72


@dataclass(frozen=True)
class Polygon:
    """A closed outline; with one or two points a dot or a line.

    Attributes:
        points: Column and row of each corner, in pixels of the image.

    """

    points: tuple[Point, ...]

    def draw(self, mask: Bool[np.ndarray, "h w"]) -> None:
        """Set the pixels of a mask whose centers lie in the polygon; parts outside of the image are cut off.

        Examples:
            >>> mask = np.zeros((6, 8), bool)
            >>> Polygon(((1, 1), (5, 1), (5, 4), (1, 4))).draw(mask)
            >>> np.argwhere(mask)[[0, -1]].tolist(), int(mask.sum())
            ([[1, 1], [3, 4]], 12)

        """
        height, width = mask.shape
        columns, rows = np.array(self.points, dtype=np.float64).T
        next_columns, next_rows = np.roll(columns, -1), np.roll(rows, -1)
        found = False
        for row in range(max(0, math.ceil(rows.min() - 0.5)), min(height, math.ceil(rows.max() - 0.5))):
            middle = row + 0.5
            cut = (rows <= middle) != (next_rows <= middle)
            slopes = (next_columns[cut] - columns[cut]) / (next_rows[cut] - rows[cut])
            edges = np.sort(columns[cut] + (middle - rows[cut]) * slopes)
            ends = np.clip(np.ceil(edges - 0.5), 0, width).astype(np.intp)
            for left, right in zip(ends[::2], ends[1::2], strict=True):
                mask[row, left:right] = True
                found = found or bool(left < right)
        if not found:
            # Thinner than the distance of the centers of pixels: its outline is left.
            for start, stop in zip(self.points, (*self.points[1:], self.points[0]), strict=True):
                _trace(mask, start, stop)


@dataclass(frozen=True)
class Box:
    """An upright box, in pixels of the image; right and bottom lie one pixel outside."""

    left: Number
    top: Number
    right: Number
    bottom: Number

    def draw(self, mask: Bool[np.ndarray, "h w"]) -> None:
        """Set the pixels of the box in a mask, at least one if it lies in the image.

        Examples:
            >>> mask = np.zeros((4, 8), bool)
            >>> Box(1, 1, 3, 9).draw(mask)
            >>> int(mask.sum())
            6

        """
        height, width = mask.shape
        if self.left >= width or self.top >= height or self.right <= 0 > self.left or self.bottom <= 0 > self.top:
            return
        left, top = min(max(0, round(self.left)), width - 1), min(max(0, round(self.top)), height - 1)
        mask[top : max(top + 1, round(self.bottom)), left : max(left + 1, round(self.right))] = True


@dataclass(frozen=True)
class RunLengths:
    """A mask as COCO encodes it: lengths of runs column by column, first of zeros.

    Attributes:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        counts: The lengths; their sum is the number of pixels.

    """

    height: int
    width: int
    counts: tuple[int, ...]

    @classmethod
    def from_coco(cls, height: int, width: int, counts: str | Sequence[int]) -> "RunLengths":
        """Return the run lengths of a COCO annotation, compressed or not; raises ValueError if they do not fit.

        Examples:
            >>> RunLengths.from_coco(2, 3, [1, 2, 3])
            RunLengths(height=2, width=3, counts=(1, 2, 3))
            >>> RunLengths.from_coco(10, 10, "0:j2").counts
            (0, 10, 90)

        """
        lengths = tuple(_decompressed(counts)) if isinstance(counts, str) else tuple(int(one) for one in counts)
        if sum(lengths) != height * width or min(lengths, default=0) < 0:
            raise ValueError(f"run lengths of {sum(lengths)} pixels do not fit {width} x {height}")
        return cls(height, width, lengths)

    def draw(self, mask: Bool[np.ndarray, "h w"]) -> None:
        """Set the pixels in a mask; raises ValueError if it has another size.

        Examples:
            >>> mask = np.zeros((2, 3), bool)
            >>> RunLengths(2, 3, (1, 2, 3)).draw(mask)
            >>> mask.tolist()
            [[False, True, False], [True, False, False]]

        """
        if mask.shape != (self.height, self.width):
            raise ValueError(f"the image has {mask.shape[1]} x {mask.shape[0]} pixels")
        values = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        mask |= values.reshape(self.width, self.height).T


Shape: TypeAlias = Polygon | Box | RunLengths


def circle(center: Point, radius: Number) -> Polygon:
    """Return a circle as a polygon.

    Examples:
        >>> mask = np.zeros((40, 40), bool)
        >>> circle((20.0, 20.0), 10.0).draw(mask)
        >>> abs(int(mask.sum()) - 314) < 20
        True

    """
    angles = [2 * math.pi * number / CIRCLE_CORNERS for number in range(CIRCLE_CORNERS)]
    return Polygon(tuple((center[0] + radius * math.cos(one), center[1] + radius * math.sin(one)) for one in angles))


def strip(points: Sequence[Point]) -> tuple[Polygon, ...]:
    """Return a line through points as polygons of two points each, one pixel wide."""
    return tuple(Polygon((points[at], points[at + 1])) for at in range(len(points) - 1))


def _trace(mask: Bool[np.ndarray, "h w"], start: Point, stop: Point) -> None:
    """Set the pixels along a line."""
    height, width = mask.shape
    steps = math.ceil(2 * max(abs(stop[0] - start[0]), abs(stop[1] - start[1]))) + 1
    columns = np.floor(np.linspace(start[0], stop[0], steps)).astype(np.intp)
    rows = np.floor(np.linspace(start[1], stop[1], steps)).astype(np.intp)
    seen = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    mask[rows[seen], columns[seen]] = True


def _decompressed(text: str) -> list[int]:
    """Return the run lengths of a compressed COCO mask: groups of five bits, differences to the last but one."""
    lengths: list[int] = []
    number = shift = 0
    for letter in text:
        value = ord(letter) - 48
        number |= (value & 0x1F) << shift
        shift += 5
        if not value & 0x20:
            if value & 0x10:
                number -= 1 << shift
            lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
            number = shift = 0
    return lengths
