"""Small pictures of a verdict for the report."""

import io

import numpy as np
from jaxtyping import Bool
from PIL import Image

from hyperspot.images.resampling import resize
from hyperspot.results.drawing import TRUTH_COLOR, outline, overlay_heatmap
from hyperspot.results.verdict import Verdict

PICTURE_SIDE = 384
"""Longest side in pixels."""


def report_pictures(verdict: Verdict, truth: Bool[np.ndarray, "h w"] | None) -> tuple[bytes, ...]:
    """Return JPEG files of the image, the heatmap over it, and the outlines of the predicted and the true mask."""
    height, width = verdict.image.shape[:2]
    scale = min(1.0, PICTURE_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = resize(verdict.image, *size)
    heatmap = np.asarray(Image.fromarray(verdict.heatmap).resize(size[::-1], Image.Resampling.BILINEAR))
    outlined = outline(small, small_mask(verdict.mask, size))
    if truth is not None:
        outlined = outline(outlined, small_mask(truth, size), TRUTH_COLOR)
    return tuple(_jpeg(picture) for picture in (small, overlay_heatmap(small, heatmap, verdict.heat_range), outlined))


def small_mask(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "_H _W"]:
    """Shrink a mask without losing defects smaller than a pixel of the picture."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    return np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)


def _jpeg(picture: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()
