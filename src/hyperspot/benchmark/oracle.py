"""What choosing the checkpoint on the test photos would give: every published best epoch did that.

It is measured to show how much it adds, never to choose anything. A method takes part by telling the steps of its
training (`progress.note(step=...)` within `progress.track`) while its `forward` can be used, or can be made usable by
`finalize_for_inference`; nothing else is asked of it. Where the features are frozen they are computed once.
"""

import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from hyperspot.data import Dataset, load_mask
from hyperspot.detector.heatmaps import smooth
from hyperspot.detector.loading import BatchLoader, ImageLoader
from hyperspot.hardware.devices import CPU
from hyperspot.images import Crop, InputSize, read_size
from hyperspot.methods import Method
from hyperspot.metrics import PixelStatistics, auroc
from hyperspot.utils.progress import Progress

T = TypeVar("T")

CHECKPOINTS = 10
"""Evenly spread over the training, the last one included."""

Figures = dict[str, float | None]


@runtime_checkable
class FrozenFeatures(Protocol):
    """A method whose score follows from features that training does not change."""

    def pooled_levels(self, images: Tensor) -> list[Tensor]:
        """Return the features of some images."""
        ...

    def score_levels(self, levels: list[Tensor]) -> Tensor:
        """Return the raw maps from the features."""
        ...


class Oracle:
    """A listener that judges the test photos at some steps of the training and learns nothing from it.

    Attributes:
        history: The figures at each checkpoint, at the method's input.
        seconds: What the judging took.

    """

    def __init__(
        self, inner: Progress, dataset: Dataset, frame: InputSize, sigma: float, device: torch.device = CPU
    ) -> None:
        self.inner, self.input_size, self.sigma, self._device = inner, frame, sigma, device
        self.history: list[Figures] = []
        self.seconds = 0.0
        self._photos = dataset.test
        self._total: int | None = None
        self._method: Method | None = None
        self._view = Crop.full(frame)
        self._inputs: list[Any] = []
        self._masks: list[Bool[np.ndarray, "_H _W"] | None] = []

    def watch(self, method: Method, crop: Crop) -> None:
        """Take the method whose training follows, and what it sees of the frame."""
        self._method, self._view = method, crop
        self._inputs, self._masks, self.history = [], [], []

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield `items`; the number of steps is learned here."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        outer, self._total = self._total, total
        yield from self.inner.track(items, stage, total)
        self._total = outer

    def note(self, **values: int | float) -> None:
        """Judge the test photos if the step is a checkpoint."""
        self.inner.note(**values)
        step = values.get("step")
        if step is None or not self._total or self._method is None:
            return
        every = max(1, self._total // CHECKPOINTS)
        if step % every and step != self._total:
            return
        started = time.perf_counter()
        self.history.append(self._judge(self._method))
        self.seconds += time.perf_counter() - started

    def best(self) -> Figures:
        """Return the best value of each metric over the checkpoints, each from whichever has it."""
        names = self.history[0] if self.history else ()
        known = {name: [one[name] for one in self.history] for name in names}
        return {name: max((v for v in values if v is not None), default=None) for name, values in known.items()}

    @torch.no_grad()
    def _judge(self, method: Method) -> Figures:
        """Measure the method as it stands; its mode and the stream of random numbers are as they were afterward."""
        training, state = method.training, torch.get_rng_state()
        method.eval()
        try:
            if method.finalize_for_inference is not None:
                method.finalize_for_inference()
            if not self._inputs:
                self._prepare(method)
            pixels, scores = PixelStatistics(), []
            for given, mask in zip(self._inputs, self._masks, strict=True):
                raw, own = (method.score_levels(given), None) if isinstance(method, FrozenFeatures) else method(given)
                found = smooth(raw, self._view.height, self._view.width, self.sigma)[0].cpu().numpy()
                scores.append(float(found.max()) if own is None else float(own[0]))
                if mask is not None:
                    pixels.update(found, mask)
        finally:
            method.train(training)
            torch.set_rng_state(state)
        labels = np.array([int(photo.label or 0) for photo in self._photos])
        return {
            "image_auroc": auroc(np.array(scores), labels),
            "pixel_auroc": pixels.pixel_auroc,
            "aupro_30": pixels.aupro(0.30),
        }

    def _prepare(self, method: Method) -> None:
        photos = ImageLoader([photo.path for photo in self._photos], self.input_size)
        backbone: Any = method.backbone
        for batch in BatchLoader(photos, range(len(photos)), self._view, backbone.mean, backbone.std, self._device):
            if isinstance(method, FrozenFeatures):
                levels = method.pooled_levels(batch)
                self._inputs += [[level[i : i + 1] for level in levels] for i in range(len(batch))]
            else:
                self._inputs += list(batch.split(1))
        rows = slice(self._view.top, self._view.top + self._view.height)
        columns = slice(self._view.left, self._view.left + self._view.width)
        for photo in self._photos:
            height, width = read_size(photo.path)
            mask = load_mask(photo, height, width)
            placed = None if mask is None else self.input_size.letterbox(height, width).apply_to_mask(mask)
            self._masks.append(None if placed is None else placed[rows, columns])
