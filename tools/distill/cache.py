"""The teacher's features of augmented views, kept in files so that it runs once over each.

A cache is a folder of plain arrays, one row per view: `views` (pixels, 8 bit) and `c2`, `c3`, `c4` (half
precision, channels last), and `cache.json`, which records how it was made and the number of finished images. A killed
build resumes after the last whole chunk.
"""

import json
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hyperspot.backbones import Backbone
from hyperspot.utils.atomic_files import replacing
from tools.distill import photos as _photos
from tools.distill.views import augmented

SLOPE = 0.1
"""The teacher's levels are kept as leaky ReLU of this slope: both the ReLU and the sum before it follow from it."""
RECORD = "cache.json"


@dataclass(frozen=True)
class Plan:
    """What decides the contents of a cache.

    Attributes:
        photos_sha256: See `ImageLoader`.
        teacher_sha256: SHA-256 of the file of the teacher's weights.
        part: `training` or `held_out`.
        photos: Number of images.
        views: Views of each image; row `p * views + v` is view v of image p.
        size: Pixels of each side of a view.
        seed: Decides the views.

    """

    photos_sha256: str
    teacher_sha256: str
    part: str
    photos: int
    views: int
    size: int
    seed: int

    @property
    def rows(self) -> int:
        """How many views there are."""
        return self.photos * self.views


class Cache:
    """A finished cache, open for reading."""

    def __init__(self, folder: Path, plan: Plan, channels: Sequence[int], strides: Sequence[int]) -> None:
        self.plan = plan
        self._views, *self._levels = (
            _Rows(folder / name, dtype, shape) for name, dtype, shape in _layout(plan, channels, strides)
        )

    def views(self, rows: np.ndarray) -> Tensor:
        """Return views as bytes: shape (rows, 3, size, size), in channels-last memory."""
        return torch.from_numpy(self._views.read(rows)).permute(0, 3, 1, 2)

    def levels(self, rows: np.ndarray) -> list[Tensor]:
        """Return the teacher's levels in half precision: (rows, channels, h, w), in channels-last memory."""
        return [torch.from_numpy(level.read(rows)).permute(0, 3, 1, 2) for level in self._levels]

    def chunks(self, length: int) -> Iterator[np.ndarray]:
        """Yield all rows in order, some at a time."""
        for start in range(0, self.plan.rows, length):
            yield np.arange(start, min(start + length, self.plan.rows))


class _Rows:
    """The rows of an array in a file: read, since page faults of a map take longer than the disk does."""

    def __init__(self, path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self._path, self._file = path, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._dtype, self._shape = dtype, shape
        self._bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize

    def read(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self._shape), self._dtype)
        for place, row in enumerate(rows):
            if os.preadv(self._file, [found[place].data], int(row) * self._bytes) != self._bytes:
                raise OSError(0, "the cache is shorter than its record says; delete it", str(self._path))
        return found


def build(
    folder: Path,
    plan: Plan,
    found: _photos.ImageLoader,
    teacher: Backbone,
    *,
    device: torch.device,
    chunk: int = 16,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> Cache:
    """Build a cache, or finish or open the one that is there.

    Args:
        folder: Where it goes. A cache that was made otherwise is written over.
        plan: What it holds.
        found: The photos.
        teacher: Gives leaky levels (`SLOPE`).
        device: Where the teacher runs.
        chunk: Images that are done at once.
        tell: Called with the number of finished images and their total.

    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    names = found.training if plan.part == "training" else found.held_out
    done = _done(record, plan)
    arrays = _open(folder, plan, teacher.channels, teacher.strides, "r+" if done else "w+")
    if done < plan.photos:
        teacher = prepared(teacher, device)
    while done < plan.photos:
        last = min(done + chunk, plan.photos)
        views = np.concatenate([_views_of(found.root / names[photo], photo, plan) for photo in range(done, last)])
        rows = slice(done * plan.views, last * plan.views)
        arrays[0][rows] = views
        for array, level in zip(arrays[1:], teach(teacher, views, device), strict=True):
            array[rows] = level
        for array in arrays:
            array.flush()
        done = last
        with replacing(record) as partial:
            partial.write_text(json.dumps({"plan": asdict(plan), "done": done}, indent=2) + "\n", encoding="utf-8")
        tell(done, plan.photos)
    return Cache(folder, plan, teacher.channels, teacher.strides)


def prepared(teacher: Backbone, device: torch.device) -> Backbone:
    """Return the teacher where and in the number format in which it runs fastest."""
    return teacher.to(device, torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def teach(teacher: Backbone, views: np.ndarray, device: torch.device, at_once: int = 32) -> list[np.ndarray]:
    """Return the teacher's levels of some views, channels last and in half precision."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(views), at_once):
            pixels = torch.from_numpy(views[start : start + at_once]).to(device).permute(0, 3, 1, 2)
            levels = teacher.pyramid(normalized(pixels, teacher).bfloat16())
            parts.append([level.half().permute(0, 2, 3, 1).cpu().numpy() for level in levels])
    return [np.concatenate(level) for level in zip(*parts, strict=True)]


def normalized(pixels: Tensor, backbone: Backbone) -> Tensor:
    """Return bytes as the backbone wants them, 32-bit floats."""
    mean = torch.tensor(backbone.mean, device=pixels.device)[:, None, None]
    std = torch.tensor(backbone.std, device=pixels.device)[:, None, None]
    return (pixels / 255 - mean) / std


def _views_of(path: Path, photo: int, plan: Plan) -> np.ndarray:
    pixels = _photos.read(path)
    held_out = int(plan.part == "held_out")
    generators = [np.random.default_rng([plan.seed, held_out, photo, crop]) for crop in range(plan.views)]
    return np.stack([augmented(pixels, plan.size, generator) for generator in generators])


def _done(record: Path, plan: Plan) -> int:
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    return int(kept["done"]) if kept["plan"] == asdict(plan) else 0


def _layout(
    plan: Plan, channels: Sequence[int], strides: Sequence[int]
) -> Iterator[tuple[str, type[np.generic], tuple[int, int, int]]]:
    yield "views", np.uint8, (plan.size, plan.size, 3)
    for number, (width, stride) in enumerate(zip(channels, strides, strict=True), start=2):
        side = plan.size // stride
        yield f"c{number}", np.float16, (side, side, width)


def _open(folder: Path, plan: Plan, channels: Sequence[int], strides: Sequence[int], mode: str) -> list[np.memmap]:
    return [
        np.memmap(folder / name, dtype, mode, shape=(plan.rows, *shape))  # type: ignore[call-overload]
        for name, dtype, shape in _layout(plan, channels, strides)
    ]
