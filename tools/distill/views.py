"""Augmented square views of an image: scale, shape, color, blur, noise and pasted parts.

The teacher sees what the student sees, so an augmentation need not keep what the image shows; it has only to
look like something a camera could deliver, or like a defect in it.
"""

import math

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageFilter

SMALLEST = 0.25
"""Side of the smallest crop, in short sides of the photo."""
GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def augmented(
    photo: UInt8[np.ndarray, "h w 3"], size: int, generator: np.random.Generator
) -> UInt8[np.ndarray, "size size 3"]:
    """Return a random view of an image; the same generator state gives the same view."""
    crop = _crop(photo, size, generator)
    if generator.random() < 0.3:
        crop = crop.filter(ImageFilter.GaussianBlur(generator.uniform(0.3, 2.0)))
    pixels = _turned(np.asarray(crop, dtype=np.float32) / 255, generator)
    if generator.random() < 0.25:
        pixels = _pasted(pixels, generator)
    if generator.random() < 0.8:
        pixels = _recolored(pixels, generator)
    if generator.random() < 0.2:
        pixels = pixels + generator.standard_normal(pixels.shape, dtype=np.float32) * generator.uniform(0.0, 0.05)
    rounded: np.ndarray = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    return rounded


def central(photo: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Return the largest central square, scaled."""
    height, width = photo.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    cut = Image.fromarray(photo).crop((left, top, left + side, top + side))
    return np.array(cut.resize((size, size), Image.Resampling.BICUBIC))


def _crop(photo: UInt8[np.ndarray, "h w 3"], size: int, generator: np.random.Generator) -> Image.Image:
    height, width = photo.shape[:2]
    side = min(height, width) * math.exp(generator.uniform(math.log(SMALLEST), 0))
    stretch = math.exp(generator.uniform(-0.2, 0.2))
    wide, high = min(width, side * stretch), min(height, side / stretch)
    left, top = generator.uniform(0, width - wide), generator.uniform(0, height - high)
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    return Image.fromarray(photo).resize(
        (size, size), filters[generator.integers(3)], box=(left, top, left + wide, top + high)
    )


def _turned(pixels: Float32[np.ndarray, "s s 3"], generator: np.random.Generator) -> Float32[np.ndarray, "s s 3"]:
    if generator.random() < 0.5:
        pixels = pixels[:, ::-1]
    if generator.random() < 0.3:
        pixels = np.rot90(pixels, int(generator.integers(1, 4)))
    return pixels


def _pasted(pixels: Float32[np.ndarray, "s s 3"], generator: np.random.Generator) -> Float32[np.ndarray, "s s 3"]:
    # Edges that are in no image, as scratches, chips and foreign parts make them.
    size = pixels.shape[0]
    pixels = pixels.copy()
    for _ in range(generator.integers(1, 4)):
        area = math.exp(generator.uniform(math.log(0.002), math.log(0.08))) * size * size
        shape = math.exp(generator.uniform(-1.5, 1.5))
        high = int(min(size, max(2, math.sqrt(area * shape))))
        wide = int(min(size, max(2, math.sqrt(area / shape))))
        top, to_top = generator.integers(0, size - high + 1, 2)
        left, to_left = generator.integers(0, size - wide + 1, 2)
        part = pixels[top : top + high, left : left + wide]
        part = part * np.float32(generator.uniform(0.5, 1.4)) + np.float32(generator.uniform(-0.2, 0.2))
        pixels[to_top : to_top + high, to_left : to_left + wide] = part
    return pixels


def _recolored(pixels: Float32[np.ndarray, "s s 3"], generator: np.random.Generator) -> Float32[np.ndarray, "s s 3"]:
    gray = (pixels @ GRAY)[..., None]
    saturation = 0.0 if generator.random() < 0.3 else generator.uniform(0.4, 1.5)
    pixels = gray + np.float32(saturation) * (pixels - gray)
    gains = np.exp(generator.uniform(-0.1, 0.1, 3)) * math.exp(generator.uniform(-0.4, 0.3))
    pixels = pixels * gains.astype(np.float32)
    center = pixels.mean()
    pixels = center + np.float32(math.exp(generator.uniform(-0.7, 0.4))) * (pixels - center)
    if generator.random() < 0.3:
        pixels = pixels.clip(0, 1) ** np.float32(math.exp(generator.uniform(-0.5, 0.5)))
    return pixels
