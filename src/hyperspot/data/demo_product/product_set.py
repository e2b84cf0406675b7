"""Renders the demo data set: good flanges, and flanges with a scratch, a stain or a missing bolt, with exact masks."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image
from scipy import ndimage

from hyperspot.data.demo_product.rendering import (
    BOLTS,
    BORE,
    BORE_EDGE,
    FACE,
    GROOVE,
    HUB_TOP,
    OVERSAMPLING,
    SEAT,
    STEEL_TINT,
    Canvas,
    Scene,
    bore_distance,
    paint,
    without_specks,
)
from hyperspot.errors import DataError, SettingsError
from hyperspot.images.finding import find_images

KINDS = ("missing_bolt", "scratch", "stain")
SMALLEST = 64
"""Smallest side in pixels that shows the screws."""
OIL, RUST = (0.34, 0.26, 0.15), (0.66, 0.30, 0.12)
CHAMFER = BORE_EDGE - BORE

Place = tuple[float, float]


def make_product_set(
    root: Path | str, *, seed: int = 0, train: int = 40, good: int = 16, defective: int = 24, size: int = 256
) -> Path:
    """Write images of a rendered product in the layout of MVTec AD; the same seed gives the same images.

    Args:
        root: The folder to write to; images of an earlier call with the same numbers are replaced.
        seed: Seed of all random numbers.
        train: Number of good training images.
        good: Number of good test images.
        defective: Number of defective test images, spread evenly over the kinds of defect.
        size: Side of the images, in pixels.

    Returns:
        The folder.

    Raises:
        DataError: The folder holds other images or cannot be written to.
        SettingsError: A number is out of its range.

    Examples:
        >>> import tempfile
        >>> from hyperspot import make_product_set, open_dataset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = open_dataset(make_product_set(folder, train=4, good=2, defective=3, size=64))
        >>> len(data.train), len(data.test)
        (4, 5)

    """
    root = Path(root)
    if min(seed, train, good, defective) < 0:
        raise SettingsError("the seed and the numbers of images cannot be negative; give 0 or more")
    if size < SMALLEST:
        raise SettingsError(f"an image of {size} pixels is too small to show the product; give {SMALLEST} or more")
    jobs = [(root / "train" / "good" / f"{number:03}.png", "good", (seed, 0, number)) for number in range(train)]
    jobs += [(root / "test" / "good" / f"{number:03}.png", "good", (seed, 1, number)) for number in range(good)]
    for number in range(defective):
        kind = KINDS[number % len(KINDS)]
        jobs.append((root / "test" / kind / f"{number // len(KINDS):03}.png", kind, (seed, 2, number)))
    _refuse_others(root, {path for path, _, _ in jobs})
    try:
        for folder in {path.parent for path, _, _ in jobs}:
            folder.mkdir(parents=True, exist_ok=True)
            if folder.name in KINDS:
                (root / "ground_truth" / folder.name).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            list(pool.map(partial(_write, root, size), jobs))
    except OSError as error:
        raise DataError(f"{root} cannot be written to ({error.strerror}); choose another folder") from None
    return root


def render(kind: str, size: int, seed: tuple[int, ...]) -> Canvas:
    """Return one part, `good` or with a kind of defect; take its `image()` and `mask()`."""
    scene = Scene.draw(size, seed)
    random = np.random.default_rng((*seed, 3))
    if kind == "missing_bolt":
        return paint(scene, missing=int(random.integers(BOLTS)))
    while True:
        canvas = paint(scene)
        if kind == "scratch":
            _scratch(canvas, random)
        elif kind == "stain":
            _stain(canvas, random)
        # A defect without a visible pixel is none: another is drawn.
        if kind == "good" or canvas.mask().any():
            return canvas


def _write(root: Path, size: int, job: tuple[Path, str, tuple[int, ...]]) -> None:
    path, kind, seed = job
    canvas = render(kind, size, seed)
    Image.fromarray(canvas.image()).save(path)
    if kind != "good":
        mask = canvas.mask().astype(np.uint8) * 255
        Image.fromarray(mask).save(root / "ground_truth" / kind / f"{path.stem}_mask.png")


def _refuse_others(root: Path, ours: set[Path]) -> None:
    """Raise DataError if the folder holds other images."""
    others = [path for path in find_images(root, recursive=True) if path not in ours] if root.is_dir() else []
    others = [path for path in others if root / "ground_truth" not in path.parents]
    if others:
        raise DataError(f"{root} already holds other images ({others[0].name}); choose an empty folder")


def _scratch(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw a scratch: a thin bright furrow of varying depth with a dark flank."""
    path = _path(canvas.scene, random)
    width = random.uniform(0.0055, 0.0095)
    _furrow(canvas, random, path, width, random.uniform(0.75, 1.0))
    if random.random() < 0.5:
        aside = random.uniform(0.02, 0.035)
        along = (path[-1] - path[0]) / math.dist(path[0], path[-1])
        shifted = path[len(path) // 4 :] + np.array([-along[1], along[0]]) * aside
        _furrow(canvas, random, shifted, 0.6 * width, random.uniform(0.5, 0.75))


def _path(scene: Scene, random: np.random.Generator) -> Float[np.ndarray, "_n 2"]:
    """Return the vertices of a long, slightly bent line that avoids the screws and the bore."""
    while True:
        length, heading, bend = random.uniform(0.35, 0.75), random.uniform(0, 2 * math.pi), random.normal(0, 0.025)
        headings = heading + np.cumsum(random.normal(bend, 0.012, 16))
        steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * (length / 16)
        path = np.array(_free_place(scene, random, 0.02)) + np.cumsum(steps, axis=0)
        if all(_is_free(scene, (x, y), 0.02) for x, y in path.tolist()):
            return path


def _furrow(
    canvas: Canvas, random: np.random.Generator, path: Float[np.ndarray, "_n 2"], width: float, depth: float
) -> None:
    middle = path.mean(axis=0)
    reach = float(np.abs(path - middle).max()) + 4 * width + 4 * canvas.pixel
    box = canvas.near((float(middle[0]), float(middle[1])), reach)
    x, y = canvas.x[box], canvas.y[box]
    distance, along = np.full(x.shape, np.inf, dtype=np.float32), np.zeros(x.shape, dtype=np.float32)
    for number, ((ax, ay), (bx, by)) in enumerate(zip(path[:-1].tolist(), path[1:].tolist(), strict=True)):
        share = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
        share = np.clip(share, 0, 1)
        to_piece = np.hypot(x - ax - share * (bx - ax), y - ay - share * (by - ay))
        along = np.where(to_piece < distance, (number + share) / (len(path) - 1), along)
        distance = np.minimum(distance, to_piece)
    pressure = ndimage.gaussian_filter1d(random.standard_normal(64, dtype=np.float32), 3) * 3
    pressed = np.clip(1 + 0.25 * pressure[(along * 63).astype(np.intp)], 0.45, 1.2)
    taper = np.clip(np.minimum(along, 1 - along) * 8, 0.3, 1)
    local = np.maximum(width * pressed * taper, 0.35 * canvas.pixel)
    # It skips the groove below the hub and ends at the rim.
    radius = np.hypot(x, y)
    jumped = canvas.inside(np.abs(radius - (HUB_TOP + GROOVE) / 2), (GROOVE - HUB_TOP) / 2 + 0.015)
    touched = (1 - jumped) * canvas.inside(radius, FACE) * (1 - canvas.inside(bore_distance(canvas, box), CHAMFER))
    flank = canvas.inside(distance - 2.0 * local, 0.0) * touched
    flank *= without_specks(flank > 0, 12 * OVERSAMPLING**2)
    core = np.minimum(canvas.inside(distance - local, 0.0), flank)
    canvas.shade(1 - 0.55 * depth * flank, box)
    canvas.lay(0.66 + 0.25 * pressed, depth * core * pressed.clip(0, 1), STEEL_TINT, box)
    canvas.defect[box] = np.maximum(canvas.defect[box], flank)


def _stain(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw a stain of oil or rust: a blot with a ragged border and some drops beside it."""
    tint = OIL if random.random() < 0.5 else RUST
    size = random.uniform(0.075, 0.14)
    x, y = _free_place(canvas.scene, random, 0.02)
    _blot(canvas, random, (x, y), size, tint)
    for _ in range(int(random.integers(2, 6))):
        angle, away = random.uniform(0, 2 * math.pi), random.uniform(1.15, 1.7) * size
        drop = x + away * math.cos(angle), y + away * math.sin(angle)
        if _is_free(canvas.scene, drop, 0.0):
            _blot(canvas, random, drop, random.uniform(0.012, 0.026), tint)


def _blot(
    canvas: Canvas, random: np.random.Generator, place: Place, size: float, tint: tuple[float, float, float]
) -> None:
    box = canvas.near(place, 2 * size + 4 * canvas.pixel)
    x, y = canvas.x[box] - place[0], canvas.y[box] - place[1]
    ragged = _clouds(x.shape, 0.45 * size / canvas.pixel, random)
    edge = size * (1 + 0.28 * ragged)
    border = np.hypot(x, y * random.uniform(0.85, 1.35)) - edge
    on_part = np.hypot(canvas.x[box], canvas.y[box])
    there = canvas.inside(on_part, FACE) * (1 - canvas.inside(bore_distance(canvas, box), CHAMFER))
    cover = canvas.inside(border, 0.0, 0.25 * size) * there
    cover *= without_specks(cover > 0, 6 * OVERSAMPLING**2)
    mottled = 0.5 + 0.10 * _clouds(x.shape, max(1.0, 0.12 * size / canvas.pixel), random)
    rim = np.exp(-((border / (0.12 * size)) ** 2))
    strength = cover * np.clip(0.80 + 0.06 * ragged, 0, 0.95)
    thin = 1 - 0.22 * rim
    for plane, share in zip(canvas.picture, tint, strict=True):
        part = plane[box]
        part += strength * ((0.45 * part + 0.16 * mottled) * share * thin * 1.25 - part)
    canvas.defect[box] = np.maximum(canvas.defect[box], cover)


def _clouds(shape: tuple[int, int], wide: float, random: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    """Return smooth noise of deviation 1 whose clouds are some pixels wide."""
    clouds = ndimage.gaussian_filter(random.standard_normal(shape, dtype=np.float32), wide, mode="wrap")
    scaled: Float32[np.ndarray, "h w"] = clouds / max(float(clouds.std()), 1e-6)
    return scaled


def _free_place(scene: Scene, random: np.random.Generator, margin: float) -> Place:
    """Return a place on the metal beside screws and edges."""
    while True:
        angle, radius = random.uniform(0, 2 * math.pi), random.uniform(BORE_EDGE, FACE)
        place = radius * math.cos(angle), radius * math.sin(angle)
        if _is_free(scene, place, margin):
            return place


def _is_free(scene: Scene, place: Place, margin: float) -> bool:
    radius = math.hypot(*place)
    on_metal = BORE_EDGE + margin < radius < FACE - margin
    clear = all(math.dist(place, scene.bolt(number)) > SEAT + margin for number in range(BOLTS))
    return on_metal and clear
