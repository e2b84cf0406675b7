"""The one way an image enters: in fitting, in prediction, in evaluation and in export.

A photo is decoded, placed in the common frame and kept as 8-bit pixels; `AnomalyModel` does the rest. Decoding runs
in worker threads ahead of the model, in order, a bounded number of photos at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from hyperspot.hardware.cached_tensors import cached_tensor
from hyperspot.hardware.devices import CPU
from hyperspot.images import Crop, InputSize, read_image
from hyperspot.utils.prefetch import prefetch_map

ImageInput = Path | str | bytes | np.ndarray | Image.Image

KEPT_BYTES = 400_000_000
"""Placed photos kept in memory between passes; what exceeds it is decoded again."""
BATCH = 8


@dataclass
class ImageLoader:
    """Good photos placed in the common frame: decoded once where memory allows."""

    sources: Sequence[ImageInput]
    input_size: InputSize
    _kept: dict[int, UInt8[np.ndarray, "H W 3"]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Return how many photos there are."""
        return len(self.sources)

    def placed(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return one photo in the frame; raises ImageError where it cannot be read."""
        if index in self._kept:
            return self._kept[index]
        image = read_image(self.sources[index])
        placed: UInt8[np.ndarray, "H W 3"] = self.input_size.letterbox(*image.shape[:2]).apply(image)
        if (len(self._kept) + 1) * placed.nbytes <= KEPT_BYTES:
            self._kept[index] = placed
        return placed


@dataclass(frozen=True)
class BatchLoader:
    """Normalized batches of some photos as one view sees them, on a device; iterated as often as wanted."""

    photos: ImageLoader
    chosen: Sequence[int]
    crop: Crop
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device = CPU

    def __len__(self) -> int:
        """Return how many batches there are."""
        return -(-len(self.chosen) // BATCH)

    def __iter__(self) -> Iterator[Float[Tensor, "b 3 H W"]]:
        """Yield one batch after the other, in the order of the photos."""
        batch: list[UInt8[np.ndarray, "H W 3"]] = []
        for placed in prefetch_map(self.photos.placed, self.chosen):
            batch.append(placed)
            if len(batch) == BATCH:
                yield self._seen(batch)
                batch = []
        if batch:
            yield self._seen(batch)

    def _seen(self, placed: Sequence[UInt8[np.ndarray, "H W 3"]]) -> Float[Tensor, "b 3 _h _w"]:
        frames = torch.from_numpy(np.stack(placed)).to(self.device)
        return normalize(crop_images(frames, self.crop), self.mean, self.std)


def crop_images(frames: UInt8[Tensor, "b H W 3"], crop: Crop) -> UInt8[Tensor, "b h w 3"]:
    """Return what a view sees of the frames."""
    return frames[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def normalize(
    frames: UInt8[Tensor, "b h w 3"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "b 3 h w"]:
    """Scale pixels to 0..1, subtract the mean and divide by the deviation of the backbone's training set."""
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), frames.device)
    scaled = frames.permute(0, 3, 1, 2).float() * scale + shift
    seen: Tensor = scaled.contiguous(memory_format=torch.channels_last)
    return seen


@cached_tensor
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Float[Tensor, "2 3 1 1"]:
    """Return a factor and a summand: the same within rounding, and half the passes over the pixels."""
    scale = [1 / (255 * one) for one in std]
    shift = [-one / other for one, other in zip(mean, std, strict=True)]
    both: Tensor = torch.tensor([scale, shift]).to(device)
    return both[:, :, None, None]
