"""Finds images of one part taken twice: copies that were encoded, moved or brightened, and bursts.

They break the promised false-alarm rate like byte-identical images: one is trained on, the other calibrates. Aligned
products look alike too. Therefore two images count as near duplicates only if they share what distinguishes each of
them from the other images, after small shifts are undone.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Complex64, Float32, UInt8

from hyperspot.data.duplicates import MOST_GROUPS, find_duplicates, name_images
from hyperspot.data.layouts import Sample
from hyperspot.errors import ImageError
from hyperspot.images.thumbnails import read_thumbnail
from hyperspot.utils.prefetch import prefetch_map
from hyperspot.utils.progress import SILENT, Progress

SIDE = 128
"""Side of the thumbnails, in pixels."""
FINE, COARSE = 0.7, 2.0
"""Standard deviations, in pixels, of the band that is compared: light and shadow are coarser, noise is finer."""
REACH = 6
"""Largest shift that is undone, in pixels of the thumbnail: 5 % of a side."""
SHARED = 0.96
"""Correlation of what distinguishes two images from the others, from which they are near duplicates.

Chosen on the training images of MVTec AD's transistor and screw.
"""
EQUAL = 0.99
"""Correlation of the images themselves from which they are near duplicates.

Of a part at rest nothing but noise changes, and if all images show it, nothing distinguishes them from the others.
"""
NEIGHBORS = 4
"""Images compared with each image: those of the most similar spectrum."""
CHUNK = 1024

Spectrum = Complex64[np.ndarray, "128 65"]

_DOWN, _ACROSS = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
_BAND = np.exp(-2 * (np.pi * FINE) ** 2 * (_DOWN**2 + _ACROSS**2)) - np.exp(
    -2 * (np.pi * COARSE) ** 2 * (_DOWN**2 + _ACROSS**2)
)
# A half-plane of frequencies represents both: all columns count twice, but the first and the last.
_TWICE = np.where((_ACROSS == 0) | (_ACROSS == 0.5), 1, 2).astype(np.float32)
_WINDOW = np.sqrt(np.outer(np.hanning(SIDE + 2)[1:-1], np.hanning(SIDE + 2)[1:-1]))
_LOW = (np.abs(_DOWN) < 0.25) & (_ACROSS < 0.25)


def find_near_duplicates(
    samples: Iterable[Sample],
    *,
    progress: Progress = SILENT,
    group: Callable[[Sample], Hashable] | None = None,
) -> list[list[Sample]]:
    """Return groups of samples that show one part nearly the same; unreadable files are ignored.

    Takes a few milliseconds per image: JPEG files are decoded at a reduced size, others as a whole.

    Args:
        samples: Of one product.
        progress: Reports how many images are read.
        group: Samples of one group may look alike, and are not returned unless others do too.

    Examples:
        >>> import tempfile
        >>> from hyperspot import make_product_set, open_dataset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = open_dataset(make_product_set(folder, train=6, good=2, defective=0, size=128))
        ...     find_near_duplicates(data.samples)
        []

    """
    everything = list(samples)
    # Byte-identical images are named already; one of each group takes part.
    copies = {id(sample) for same in find_duplicates(everything) for sample in same[1:]}
    kept = [sample for sample in everything if id(sample) not in copies]
    read = list(
        progress.track(prefetch_map(_thumbnail, [sample.path for sample in kept]), "comparing images", len(kept))
    )
    readable = [(sample, gray) for sample, gray in zip(kept, read, strict=True) if gray is not None]
    if len(readable) < 2:
        return []
    pairs = similar_pairs([gray for _, gray in readable])
    found = _connected(len(readable), pairs)
    groups = [[readable[number][0] for number in numbers] for numbers in found]
    return groups if group is None else [same for same in groups if len({group(sample) for sample in same}) > 1]


def similar_pairs(thumbnails: Sequence[UInt8[np.ndarray, "128 128"]]) -> list[tuple[int, int]]:
    """Return the pairs of near duplicates among gray images of 128 x 128 pixels, the smaller index first."""
    count = len(thumbnails)
    total = np.zeros((SIDE, SIDE // 2 + 1), dtype=np.complex128)
    magnitudes = np.empty((count, int(_LOW.sum())), dtype=np.float32)
    for number, gray in enumerate(thumbnails):
        found = spectrum(gray)
        total += found
        magnitudes[number] = np.abs(found[_LOW])
    magnitudes -= magnitudes.mean(axis=0)
    magnitudes /= np.maximum(np.linalg.norm(magnitudes, axis=1, keepdims=True), 1e-12)
    cached = lru_cache(maxsize=256)(lambda number: spectrum(thumbnails[number]))
    pairs = []
    for one, other in sorted(_candidates(magnitudes)):
        first, second = cached(one), cached(other)
        others = None if count == 2 else ((total - first - second) / (count - 2)).astype(np.complex64)
        if is_near_duplicate(first, second, others):
            pairs.append((one, other))
    return pairs


def spectrum(gray: UInt8[np.ndarray, "128 128"]) -> Complex64[np.ndarray, "128 65"]:
    """Return the band-passed spectrum of an image, of norm 1, whatever its brightness and contrast; 0 if it is flat."""
    pixels = (gray - gray.mean()) * _WINDOW
    banded = np.fft.rfft2(pixels) * _BAND
    norm = np.sqrt((_TWICE * np.abs(banded) ** 2).sum())
    normed: Spectrum = (banded / norm if norm > SIDE else np.zeros_like(banded)).astype(np.complex64)
    return normed


def is_near_duplicate(
    first: Complex64[np.ndarray, "128 65"],
    second: Complex64[np.ndarray, "128 65"],
    others: Complex64[np.ndarray, "128 65"] | None,
) -> bool:
    """Return whether two spectra show one part, given the mean spectrum of the other images if there are any."""
    if not (first.any() and second.any()):
        return False  # flat images show no part
    moved = _aligned(first, second)
    if _product(first, moved) >= EQUAL:
        return True
    if others is None:
        return False  # what all images of the product share is not known
    own, own_moved = first - others, moved - others
    norms = np.sqrt(_product(own, own) * _product(own_moved, own_moved))
    return bool(norms > 0 and _product(own, own_moved) / norms >= SHARED)


def describe_near_duplicates(groups: Sequence[Sequence[Sample]], name: Callable[[Path], str]) -> list[str]:
    """Return a sentence for each of the first groups, those across splits first, and one that counts the others."""
    ordered = sorted(groups, key=lambda same: len({sample.split for sample in same}) == 1)
    sentences = []
    for same in ordered[:MOST_GROUPS]:
        named = name_images(same, lambda sample: sample.split, name)
        sentences.append(f"{named} look like one part, {_consequence(sample.split for sample in same)}")
    if len(ordered) > MOST_GROUPS:
        left = len(ordered) - MOST_GROUPS
        sentences.append(f"{left} more group{'s' * (left > 1)} of images look like one part each")
    return sentences


def _consequence(splits: Iterable[str]) -> str:
    found = set(splits)
    if found == {"train"}:
        return "so that the promised false-alarm rate does not hold; keep one, or group them with --group-by"
    if found == {"test"}:
        return "which the test counts more than once; keep one"
    return "and are training and test images at once; keep one"


def _thumbnail(path: Path) -> UInt8[np.ndarray, "128 128"] | None:
    try:
        return read_thumbnail(path, SIDE)
    except (ImageError, OSError):
        return None  # reported when the image is read


def _candidates(magnitudes: Float32[np.ndarray, "n _d"]) -> set[tuple[int, int]]:
    """Return each image with those of the most similar spectrum, which does not depend on a shift."""
    count = len(magnitudes)
    kept = min(NEIGHBORS, count - 1)
    pairs: set[tuple[int, int]] = set()
    for start in range(0, count, CHUNK):
        likeness = magnitudes[start : start + CHUNK] @ magnitudes.T
        rows = np.arange(len(likeness))
        likeness[rows, start + rows] = -np.inf
        nearest = np.argpartition(-likeness, kept - 1, axis=1)[:, :kept]
        for one, row in enumerate(nearest.tolist(), start):
            pairs |= {(min(one, other), max(one, other)) for other in row}
    return pairs


def _aligned(
    first: Complex64[np.ndarray, "128 65"], second: Complex64[np.ndarray, "128 65"]
) -> Complex64[np.ndarray, "128 65"]:
    """Return the second spectrum, moved by a fraction of a pixel to where it correlates most with the first."""
    correlation = np.fft.fftshift(np.fft.irfft2(first * second.conj()))
    middle = SIDE // 2
    near = correlation[middle - REACH : middle + REACH + 1, middle - REACH : middle + REACH + 1]
    row, column = (int(place) for place in np.unravel_index(near.argmax(), near.shape))
    down = row - REACH + _vertex(near[:, column], row)
    across = column - REACH + _vertex(near[row], column)
    turned = np.exp(-2j * np.pi * down * _DOWN) * np.exp(-2j * np.pi * across * _ACROSS)
    moved: Spectrum = (second * turned).astype(np.complex64)
    return moved


def _vertex(values: Float32[np.ndarray, "n"], place: int) -> float:
    """Return where the parabola through a maximum and its neighbors peaks, relative to it."""
    if not 0 < place < len(values) - 1:
        return 0.0
    before, top, after = (float(one) for one in values[place - 1 : place + 2])
    curvature = before - 2 * top + after
    return (before - after) / (2 * curvature) if curvature < 0 else 0.0


def _product(first: Complex64[np.ndarray, "128 65"], second: Complex64[np.ndarray, "128 65"]) -> float:
    return float((_TWICE * (first * second.conj()).real).sum())


def _connected(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components of more than one member, ascending."""
    parents = list(range(count))

    def root(number: int) -> int:
        while parents[number] != number:
            number = parents[number]
        return number

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    groups: dict[int, list[int]] = {}
    for number in range(count):
        groups.setdefault(root(number), []).append(number)
    return [group for group in groups.values() if len(group) > 1]
