"""Loads training images: letterboxed once, kept in memory within a budget, in normalized batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from hyperspot.hardware.cached_tensors import cached_tensor
from hyperspot.hardware.devices import CPU
from hyperspot.images import Crop, InputSize, LetterboxedImage, prepare
from hyperspot.images.inspected_area import InspectedArea
from hyperspot.images.reading import ChannelOrder, ImageInput
from hyperspot.images.tiles import TileGrid
from hyperspot.utils.prefetch import prefetch_map

CACHE_BYTES = 400_000_000
"""Letterboxed images kept in memory between passes; the others are decoded again."""
BATCH_SIZE = 8


@dataclass
class ImageLoader:
    """Good images at the input size, decoded once where memory allows."""

    sources: Sequence[ImageInput]
    input_size: InputSize
    channel_order: ChannelOrder = "RGB"
    area: InspectedArea | None = None
    _cache: dict[int, LetterboxedImage] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.sources)

    def __getitem__(self, index: int) -> LetterboxedImage:
        """Return one letterboxed image; raises ImageError if it cannot be read."""
        if index in self._cache:
            return self._cache[index]
        prepared = prepare(self.sources[index], self.input_size, self.area, channel_order=self.channel_order)
        # Without the original pixels, which are not needed in training.
        image = LetterboxedImage(
            prepared.pixels, prepared.letterbox, inside=prepared.inside, alignment=prepared.alignment
        )
        if (len(self._cache) + 1) * image.pixels.nbytes <= CACHE_BYTES:
            self._cache[index] = image
        return image

    def load(self, indices: Sequence[int] | np.ndarray) -> Iterator[LetterboxedImage]:
        """Yield the images of some indices, in order, prefetched."""
        return prefetch_map(self.__getitem__, map(int, indices), ahead=not self.input_size.is_large)


@dataclass(frozen=True)
class BatchLoader:
    """Normalized batches of some images, cropped or cut into tiles, on a device; can be iterated repeatedly."""

    images: ImageLoader
    indices: Sequence[int]
    crop: Crop
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device = CPU
    tiles: TileGrid | None = None

    @property
    def per_image(self) -> int:
        """Inputs of the model that each image gives: 1, or its tiles."""
        return 1 if self.tiles is None else len(self.tiles)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.indices) * self.per_image // BATCH_SIZE)

    def __iter__(self) -> Iterator[Float[Tensor, "b 3 H W"]]:
        """Yield the batches, in the order of the indices."""
        batch: list[UInt8[np.ndarray, "H W 3"]] = []
        for pixels in self._inputs():
            batch.append(pixels)
            if len(batch) == BATCH_SIZE:
                yield self._normalized(batch)
                batch = []
        if batch:
            yield self._normalized(batch)

    def _inputs(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for image in self.images.load(self.indices):
            if self.tiles is None:
                yield image.pixels
            else:
                for batch in self.tiles.batches(image.pixels):
                    yield from batch

    def _normalized(self, batch: Sequence[UInt8[np.ndarray, "H W 3"]]) -> Float[Tensor, "b 3 _h _w"]:
        pixels = torch.from_numpy(np.stack(batch)).to(self.device)
        return normalize(crop_images(pixels, self.crop), self.mean, self.std)


def crop_images(images: UInt8[Tensor, "b H W 3"], crop: Crop) -> UInt8[Tensor, "b h w 3"]:
    """Return the cropped part of each image."""
    return images[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def normalize(
    images: UInt8[Tensor, "b h w 3"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "b 3 h w"]:
    """Scale pixels to 0..1, then standardize each channel as the backbone expects it."""
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    scaled = images.permute(0, 3, 1, 2).float() * scale + shift
    channels_last: Tensor = scaled.contiguous(memory_format=torch.channels_last)
    return channels_last


@cached_tensor
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Float[Tensor, "2 3 1 1"]:
    """Return a factor and a summand: equal within rounding, with half the passes over the pixels."""
    scale = [1 / (255 * one) for one in std]
    shift = [-one / other for one, other in zip(mean, std, strict=True)]
    both: Tensor = torch.tensor([scale, shift]).to(device)
    return both[:, :, None, None]
