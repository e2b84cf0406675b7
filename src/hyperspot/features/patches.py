"""From a feature pyramid to a grid of patch features: pool, align, concatenate.

The grid is that of the finest level. Pooling is a zero-padded 3 x 3 mean, as in the released code; alignment is
bilinear with half-pixel centers. Both are linear and act per channel, so a 1 x 1 projection may be applied to each
level at its own resolution first (see `methods.cfa`).
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from hyperspot.hardware.devices import CPU

CACHE_BUDGET_BYTES = 600_000_000
"""Above this size a `PatchCache` stores half precision (relative rounding 5e-4); if that exceeds it too, a file."""

EVERYWHERE = slice(None)


def pool(level: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Average each 3 x 3 neighborhood, zero-padded, as in the released code of CFA."""
    return F.avg_pool2d(level, kernel_size=3, stride=1, padding=1)


def pool_to_grid(level: Float[Tensor, "b c h w"], cell: int) -> Float[Tensor, "b c _h _w"]:
    """Average a level that is finer than the grid over the cells of the grid, `cell` positions wide.

    The last cells of a side that is no multiple of `cell` are narrower.

    Examples:
        >>> pool_to_grid(torch.tensor([[[[1.0, 3.0, 5.0]]]]), 2)
        tensor([[[[2., 5.]]]])

    """
    if cell == 1:
        return level
    return F.avg_pool2d(level, cell, ceil_mode=True, count_include_pad=False)


def align(level: Float[Tensor, "b c h w"], height: int, width: int) -> Float[Tensor, "b c height width"]:
    """Upsample a coarse level bilinearly to the finest grid."""
    if level.shape[-2:] == (height, width):
        return level
    return F.interpolate(level, size=(height, width), mode="bilinear", align_corners=False)


def concatenate(levels: Sequence[Float[Tensor, "b _c _h _w"]]) -> Float[Tensor, "b n d"]:
    """Return one feature vector per position of the finest level, row by row, channels fine to coarse."""
    height, width = levels[0].shape[-2:]
    grid = torch.cat([align(level, height, width) for level in levels], dim=1)
    return grid.flatten(2).transpose(1, 2)


def coordinates(height: int, width: int, device: torch.device | None = None) -> Float[Tensor, "n 2"]:
    """Return row and column of each position, each scaled linearly to [-1, 1] (CoordConv)."""
    rows, columns = (
        torch.linspace(-1, 1, side, device=device) if side > 1 else torch.zeros(1, device=device)
        for side in (height, width)
    )
    return torch.cartesian_prod(rows, columns)


def sum_levels(levels: Sequence[Float[Tensor, "b _h _w d"]], affine: Float[Tensor, "3 d"]) -> Float[Tensor, "b n d"]:
    """Return the sum of all levels and of an affine function of the position, per position of the finest level.

    `affine` holds the constant, the slope along rows and the slope along columns, in the units of `coordinates`.
    """
    height, width = levels[0].shape[1:3]
    total: Tensor = affine[0] + coordinates(height, width, affine.device).to(affine) @ affine[1:]
    for level in levels:
        total = total + align(level.permute(0, 3, 1, 2), height, width).flatten(2).transpose(1, 2)
    return total


def bilinear_taps(
    length: int, target: int
) -> tuple[Int64[np.ndarray, "target"], Int64[np.ndarray, "target"], Float64[np.ndarray, "target"]]:
    """Return the two source positions of each target position, and the weight of the second.

    Linear interpolation along one axis from `length` to `target` values: half-pixel centers, edges repeated.

    Examples:
        >>> first, second, weight = bilinear_taps(2, 4)
        >>> first.tolist(), second.tolist(), weight.tolist()
        ([0, 0, 0, 1], [1, 1, 1, 1], [0.0, 0.25, 0.75, 0.25])

    """
    source = np.maximum((np.arange(target) + 0.5) * (length / target) - 0.5, 0)
    first = np.minimum(source.astype(np.int64), length - 1)
    return first, np.minimum(first + 1, length - 1), source - first


def _append(parts: list[list[Tensor]], files: Sequence[IO[bytes]]) -> None:
    """Append the levels of each batch to the file of each level, and clear the list."""
    for batch in parts:
        for part, file in zip(batch, files, strict=True):
            part.cpu().numpy().tofile(file)
    parts.clear()


def _mapped(file: IO[bytes], shape: tuple[int, ...]) -> Tensor:
    """Return the half-precision contents of a file as a memory map, which outlives the open file."""
    file.flush()
    # Copy-on-write: torch requires writable memory; nothing is written.
    return torch.from_numpy(np.memmap(file, dtype=np.float16, mode="c").reshape(shape))


@dataclass(frozen=True)
class PatchCache:
    """The levels of many images, cached so that training runs the backbone once.

    Attributes:
        levels: Fine to coarse, each image x position x channel. On `device` or, out of core, mapped from a file.
        sizes: Height and width of each level.
        device: Of the results of `take`, `gather`, `image` and `mean`. Indices may be on any device.

    """

    levels: tuple[Tensor, ...]
    sizes: tuple[tuple[int, int], ...]
    device: torch.device = CPU

    @classmethod
    def collect(cls, batches: Iterable[Sequence[Float[Tensor, "_b _c _h _w"]]]) -> "PatchCache":
        """Cache every batch of levels; raises ValueError if there is none.

        Features that exceed the budget in half precision are kept out of core: in a memory-mapped temporary file that
        is deleted with the cache.
        """
        with contextlib.ExitStack() as opened:
            return cls._collected(batches, opened)

    @classmethod
    def _collected(
        cls, batches: Iterable[Sequence[Float[Tensor, "_b _c _h _w"]]], opened: contextlib.ExitStack
    ) -> "PatchCache":
        parts: list[list[Tensor]] = []
        sizes: tuple[tuple[int, int], ...] = ()
        channels: tuple[int, ...] = ()
        files: list[IO[bytes]] = []
        kept, dtype, device = 0, torch.float32, CPU
        for levels in batches:
            sizes = tuple((level.shape[2], level.shape[3]) for level in levels)
            channels = tuple(level.shape[1] for level in levels)
            device = levels[0].device
            parts.append([level.flatten(2).transpose(1, 2).to(dtype).contiguous() for level in levels])
            kept += sum(part.nbytes for part in parts[-1])
            if dtype == torch.float32 and kept > CACHE_BUDGET_BYTES:
                dtype = torch.float16
                for batch in parts:
                    batch[:] = [part.half() for part in batch]
                kept //= 2
            if files or kept > CACHE_BUDGET_BYTES:
                files = files or [opened.enter_context(tempfile.TemporaryFile()) for _ in sizes]  # noqa: SIM115
                _append(parts, files)
        if not sizes:
            raise ValueError("no image to train on")
        if files:
            shapes = [(-1, height * width, wide) for (height, width), wide in zip(sizes, channels, strict=True)]
            return cls(tuple(_mapped(file, shape) for file, shape in zip(files, shapes, strict=True)), sizes, device)
        joined = []
        for level in range(len(sizes)):
            joined.append(torch.cat([batch[level] for batch in parts]))
            for batch in parts:
                batch[level] = joined[-1][:0]
        return cls(tuple(joined), sizes, device)

    @property
    def images(self) -> int:
        """Number of images."""
        return self.levels[0].shape[0]

    @property
    def positions(self) -> int:
        """Number of positions of the finest level."""
        return self.levels[0].shape[1]

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(level.shape[2] for level in self.levels)

    def take(
        self, level: int, images: Int[Tensor, "t"] | int, places: Int[Tensor, "t"] | slice = EVERYWHERE
    ) -> Float[Tensor, "t c"]:
        """Return the features of one level at some of its positions."""
        kept = self.levels[level]
        where = tuple(part.to(kept.device) if isinstance(part, Tensor) else part for part in (images, places))
        return kept[where].to(self.device).float()

    def gather(self, images: Int[Tensor, "t"], positions: Int[Tensor, "t"]) -> Float[Tensor, "t d"]:
        """Return the patch features at some positions of the finest level, as `concatenate` does for all."""
        height, width = self.sizes[0]
        home = self.levels[0].device
        images, positions = images.to(home), positions.to(home)
        rows, columns = positions // width, positions % width
        parts = [self.levels[0][images, positions].float()]
        for level, (h, w) in zip(self.levels[1:], self.sizes[1:], strict=True):
            top, bottom, down = (torch.from_numpy(tap).to(home)[rows] for tap in bilinear_taps(h, height))
            left, right, across = (torch.from_numpy(tap).to(home)[columns] for tap in bilinear_taps(w, width))
            down, across = down.float()[:, None], across.float()[:, None]
            table = level.reshape(-1, level.shape[2])
            base = images * (h * w)
            upper = torch.lerp(table[base + top * w + left].float(), table[base + top * w + right].float(), across)
            lower = torch.lerp(
                table[base + bottom * w + left].float(), table[base + bottom * w + right].float(), across
            )
            parts.append(torch.lerp(upper, lower, down))
        return torch.cat(parts, dim=1).to(self.device)

    def pyramid(self, index: int) -> list[Float[Tensor, "1 _c _h _w"]]:
        """Return the levels of one image as they were cached, in f32."""
        return [
            self.take(number, index).T.unflatten(1, size)[None].contiguous() for number, size in enumerate(self.sizes)
        ]

    def image(self, index: int) -> Float[Tensor, "n d"]:
        """Return all patch features of one image, row by row."""
        positions = torch.arange(self.positions)
        return self.gather(torch.full_like(positions, index), positions)

    def all_images(self) -> Iterator[Float[Tensor, "n d"]]:
        """Yield the patch features of the images one by one."""
        for index in range(self.images):
            yield self.image(index)

    def mean(self) -> Float[Tensor, "n d"]:
        """Return the mean of the patch features over the images."""
        means = tuple(level.mean(0, keepdim=True, dtype=torch.float32) for level in self.levels)
        return PatchCache(means, self.sizes, self.device).image(0)
