"""The oracle: what choosing the checkpoint by test images would give, as every published best epoch does.

It is measured to show the size of this leak, never to choose anything. Methods take part by calling
`Method.step_done`. Frozen features are computed once.
"""

import time
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from hyperspot.data import Dataset, load_mask
from hyperspot.detector.heatmaps import smooth
from hyperspot.detector.loading import BatchLoader, ImageLoader
from hyperspot.hardware.devices import CPU
from hyperspot.images import Crop, InputSize, read_size
from hyperspot.methods import Finalize, Method
from hyperspot.metrics import PixelStatistics, auroc

CHECKPOINTS = 10
"""Spread evenly over the training, the last step included."""

Figures = dict[str, float | None]


@runtime_checkable
class FrozenFeatures(Protocol):
    """A method whose score follows from features that training does not change."""

    def pooled_levels(self, images: Tensor) -> list[Tensor]:
        """Return the features of some images."""
        ...

    def score_levels(self, levels: list[Tensor]) -> Tensor:
        """Return the raw anomaly maps from the features."""
        ...


class Oracle:
    """Evaluates the test images at checkpoints of the training, without affecting it.

    Attributes:
        history: The metrics at each checkpoint, at the method's input size.
        seconds: Time of the evaluations.

    """

    def __init__(self, dataset: Dataset, input_size: InputSize, sigma: float, device: torch.device = CPU) -> None:
        self.input_size, self.sigma, self._device = input_size, sigma, device
        self.history: list[Figures] = []
        self.seconds = 0.0
        self._samples = dataset.test
        self._crop = Crop.full(input_size)
        self._inputs: list[Any] = []
        self._masks: list[Bool[np.ndarray, "_H _W"] | None] = []

    def watch(self, method: Method, crop: Crop) -> None:
        """Set the step callback of a method that is about to be fitted on a crop of the input."""
        self._crop = crop
        self._inputs, self._masks, self.history = [], [], []

        def step_done(step: int, steps: int, finalize: Finalize | None) -> None:
            every = max(1, steps // CHECKPOINTS)
            if step % every and step != steps:
                return
            started = time.perf_counter()
            self.history.append(self._evaluate(method, finalize))
            self.seconds += time.perf_counter() - started
            if step == steps:
                method.step_callback = None

        method.step_callback = step_done

    def best(self) -> Figures:
        """Return the best value of each metric over the checkpoints, each from its own checkpoint."""
        names = self.history[0] if self.history else ()
        known = {name: [one[name] for one in self.history] for name in names}
        return {name: max((v for v in values if v is not None), default=None) for name, values in known.items()}

    def _evaluate(self, method: Method, finalize: Finalize | None) -> Figures:
        """Measure the method in its present state, and restore its mode and torch's random state."""
        training, state = method.training, torch.get_rng_state()
        method.eval()
        try:
            if finalize is not None:
                finalize()
            if not self._inputs:
                self._prepare(method)
            pixels, scores = PixelStatistics(), []
            for given, mask in zip(self._inputs, self._masks, strict=True):
                raw, own = (method.score_levels(given), None) if isinstance(method, FrozenFeatures) else method(given)
                found = smooth(raw, self._crop.height, self._crop.width, self.sigma)[0].cpu().numpy()
                scores.append(float(found.max()) if own is None else float(own[0]))
                if mask is not None:
                    pixels.update(found, mask)
        finally:
            method.train(training)
            torch.set_rng_state(state)
        labels = np.array([int(sample.label or 0) for sample in self._samples])
        return {
            "image_auroc": auroc(np.array(scores), labels),
            "pixel_auroc": pixels.pixel_auroc,
            "aupro_30": pixels.aupro(0.30),
        }

    def _prepare(self, method: Method) -> None:
        images = ImageLoader([sample.path for sample in self._samples], self.input_size)
        backbone: Any = method.backbone
        for batch in BatchLoader(images, range(len(images)), self._crop, backbone.mean, backbone.std, self._device):
            if isinstance(method, FrozenFeatures):
                levels = method.pooled_levels(batch)
                self._inputs += [[level[i : i + 1] for level in levels] for i in range(len(batch))]
            else:
                self._inputs += list(batch.split(1))
        rows = slice(self._crop.top, self._crop.top + self._crop.height)
        columns = slice(self._crop.left, self._crop.left + self._crop.width)
        for sample in self._samples:
            height, width = read_size(sample.path)
            mask = load_mask(sample, height, width)
            letterboxed = None if mask is None else self.input_size.letterbox(height, width).apply_to_mask(mask)
            self._masks.append(None if letterboxed is None else letterboxed[rows, columns])
