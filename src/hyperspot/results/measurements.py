"""Sizes of regions: longest and shortest caliper and area, in pixels and in millimeters, and distances."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int

from hyperspot.images.masks import Runs, connected_runs
from hyperspot.results.regions import Region


@dataclass(frozen=True)
class Scale:
    """From the pixels of an image to pixels of the product and to millimeters.

    Attributes:
        x, y: Width and height of a pixel of the image, in pixels of the reference image.
        mm_per_pixel: Side of a pixel of the reference image; None leaves millimeters out.

    """

    x: float = 1.0
    y: float = 1.0
    mm_per_pixel: float | None = None


@dataclass(frozen=True)
class Measured:
    """A region's place in the mask and its corners, from which its sizes follow.

    Attributes:
        region: With its sizes.
        runs: Rows, first columns and columns after the last of its pixels.

    """

    region: Region
    runs: Int[np.ndarray, "3 _runs"]


def measure_regions(
    mask: Bool[np.ndarray, "h w"], regions: Sequence[Region], scale: Scale | None = None
) -> tuple[Measured, ...]:
    """Return the regions of a mask with their sizes, in the same order.

    Length and width are the longest and the shortest caliper: the largest and the smallest distance of two parallel
    lines that touch the region from both sides. Corners of pixels count, so that a single pixel is one pixel wide.

    Args:
        mask: Whose connected parts the regions are.
        regions: From `find_regions`.
        scale: Of the image; default: pixels alone.

    Examples:
        >>> from hyperspot.results.regions import find_regions
        >>> mask = np.zeros((9, 9), bool)
        >>> mask[4, 1:8] = True
        >>> (one,) = measure_regions(mask, find_regions(mask, mask.astype(float)), Scale(mm_per_pixel=0.5))
        >>> round(one.region.length_px, 2), one.region.width_px, one.region.width_mm, one.region.area_mm2
        (7.07, 1.0, 0.5, 1.75)

    """
    if not regions:
        return ()
    scale = scale or Scale()
    # Two connected components never have the same box: they would cross.
    parts = {}
    for runs in _by_part(connected_runs(mask)):
        rows, starts, stops = runs
        parts[int(starts.min()), int(rows[0]), int(stops.max()), int(rows[-1]) + 1] = runs
    return tuple(_measured(one, parts[one.xyxy], scale) for one in regions)


def gap(one: Measured, other: Measured, scale: Scale) -> float:
    """Return the distance between the nearest pixels of two regions, in pixels of the reference image.

    Regions that touch at a corner have the distance 0.
    """
    (rows, starts, stops), (others, from_, to) = one.runs, other.runs
    nearest = np.inf
    for row, start, stop in zip(rows, starts, stops, strict=True):
        down = np.maximum(np.abs(others - row) - 1, 0) * scale.y
        right = np.maximum(np.maximum(from_ - stop, start - to), 0) * scale.x
        nearest = min(nearest, float((down**2 + right**2).min()))
    return float(np.sqrt(nearest))


def calipers(points: Float64[np.ndarray, "n 2"]) -> tuple[float, float]:
    """Return the longest and the shortest caliper of points.

    Examples:
        >>> calipers(np.array([[0.0, 0], [4, 0], [4, 3], [0, 3], [1, 1]]))
        (5.0, 3.0)

    """
    hull = np.array(_hull(points))
    differences = hull[:, None] - hull[None]
    longest = float(np.sqrt((differences**2).sum(axis=2).max()))
    if len(hull) < 3:
        return longest, 0.0
    edges = np.roll(hull, -1, axis=0) - hull
    normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / np.linalg.norm(edges, axis=1, keepdims=True)
    # A shortest caliper lies along an edge of the convex hull.
    distances = hull @ normals.T
    return longest, float(np.ptp(distances, axis=0).min())


def _by_part(runs: Runs) -> list[Int[np.ndarray, "3 _runs"]]:
    order = np.argsort(runs.parts, kind="stable")
    bounds = np.searchsorted(runs.parts[order], np.arange(int(runs.parts.max()) + 2))
    columns = np.stack([runs.rows, runs.starts, runs.stops]).astype(np.intp)[:, order]
    return [columns[:, first:last] for first, last in pairwise(bounds)]


def _measured(region: Region, runs: Int[np.ndarray, "3 _runs"], scale: Scale) -> Measured:
    # Of a noisy image thousands of regions have the same few shapes.
    shape = np.ascontiguousarray(runs - np.array([[region.top], [region.left], [region.left]])).tobytes()
    length, width = _calipers(shape, 1.0, 1.0)
    sized = replace(region, length_px=length, width_px=width)
    if scale.mm_per_pixel is not None:
        if (scale.x, scale.y) != (1.0, 1.0):
            length, width = _calipers(shape, scale.x, scale.y)
        sized = replace(
            sized,
            length_mm=length * scale.mm_per_pixel,
            width_mm=width * scale.mm_per_pixel,
            area_mm2=region.area * scale.x * scale.y * scale.mm_per_pixel**2,
        )
    return Measured(sized, runs)


@functools.lru_cache(maxsize=4096)
def _calipers(shape: bytes, x: float, y: float) -> tuple[float, float]:
    """Return the calipers of runs, given by their bytes, in pixels of a width and a height."""
    rows, starts, stops = np.frombuffer(shape, dtype=np.intp).reshape(3, -1)
    corners = [np.stack([columns * x, row * y], axis=1) for row in (rows, rows + 1) for columns in (starts, stops)]
    return calipers(np.concatenate(corners).astype(np.float64))


def _hull(points: Float64[np.ndarray, "n 2"]) -> list[tuple[float, float]]:
    """Return the corners of the convex hull (Andrew's monotone chain)."""
    # Of each row only the outermost points can be corners.
    xs, ys = points.T
    rows, number = np.unique(ys, return_inverse=True)
    first, last = np.full(len(rows), np.inf), np.full(len(rows), -np.inf)
    np.minimum.at(first, number, xs)
    np.maximum.at(last, number, xs)
    outermost = np.concatenate([np.stack([first, rows], axis=1), np.stack([last, rows], axis=1)])
    ordered = [(float(x), float(y)) for x, y in np.unique(outermost, axis=0)]
    if len(ordered) < 3:
        return ordered
    chains = []
    for along in (ordered, ordered[::-1]):
        chain: list[tuple[float, float]] = []
        for x, y in along:
            while len(chain) > 1 and (chain[-1][0] - chain[-2][0]) * (y - chain[-2][1]) <= (
                chain[-1][1] - chain[-2][1]
            ) * (x - chain[-2][0]):
                chain.pop()
            chain.append((x, y))
        chains.append(chain[:-1])
    return chains[0] + chains[1]
