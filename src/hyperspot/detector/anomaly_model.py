"""From frames of pixels to heatmaps and scores: what a detector runs, and what is exported."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from hyperspot.detector.heatmaps import fuse, smooth, uncrop
from hyperspot.detector.loading import crop_images, normalize
from hyperspot.hardware.cpu import Precision
from hyperspot.hardware.cuda_graphs import GraphCapturer, GraphedCallable
from hyperspot.hardware.devices import choose_precision, computing_on
from hyperspot.images import Crop, InputSize
from hyperspot.methods import Method


@dataclass(frozen=True)
class ScoreStats:
    """Mean and deviation over good training photos of a view's map and of its image score."""

    map_mean: float = 0.0
    map_deviation: float = 1.0
    score_mean: float = 0.0
    score_deviation: float = 1.0


class AnomalyModel(nn.Module):
    """One method per view of the common frame, and how their maps become one heatmap.

    With one view the heatmap is the method's own; with several it is the mean of their standardized maps
    (CFA++ as a true fusion: no statistic of any test photo enters).
    """

    def __init__(
        self,
        methods: Sequence[Method],
        crops: Sequence[Crop],
        frame: InputSize,
        sigma: float,
        usual: Sequence[ScoreStats] = (),
    ) -> None:
        super().__init__()
        self.methods = nn.ModuleList(methods)
        self.crops = tuple(crops)
        self.input_size = frame
        self.sigma = sigma
        self.score_stats = tuple(usual)
        self._replayed: GraphedCallable | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def move(self, device: torch.device, precision: Precision | None = None) -> "AnomalyModel":
        """Move to a device, where the backbone computes in a format or, without it, in what suits the device.

        Raises DeviceError where the memory of the device is too small, or it does not compute in that format.
        """
        chosen = choose_precision(device, precision)
        with computing_on(device):
            self.to(device)
        self.precision = chosen
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AnomalyModel":
        """Change or move all tensors; what was recorded of their work knows the old ones alone."""
        self._replayed = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @torch.inference_mode()
    def run(
        self, frames: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]:
        """Return what `forward` does, from memory to memory, whatever the device: the way to judge photos.

        On a GPU the work on a shape that comes again is recorded and replayed (see `cuda`).

        Raises DeviceError where the memory of the device is too small.
        """
        given = torch.from_numpy(frames)
        device = self.device
        if device.type == "cpu":
            maps, own = self(given)
        else:
            with computing_on(device):
                if self._replayed is None:
                    self._replayed = GraphedCallable(self, GraphCapturer(device))
                maps, own = self._replayed(given, self.precision)
        return maps.numpy(), None if own is None else own.numpy()

    @property
    def precision(self) -> Precision:
        """What the backbone computes in; all that follows it is in 32-bit floats."""
        backbone: Any = self.methods[0].backbone
        chosen: Precision = backbone.precision
        return chosen

    @precision.setter
    def precision(self, chosen: Precision) -> None:
        for method in self.methods:
            backbone: Any = method.backbone
            backbone.precision = chosen

    def forward(self, frames: UInt8[Tensor, "b H W 3"]) -> tuple[Float[Tensor, "b H W"], Float[Tensor, "b"] | None]:
        """Return the heatmap of each frame, and its image score where the method has one of its own."""
        maps, scores = [], []
        for number, crop in enumerate(self.crops):
            seen, score = self.crop_map(frames, number)
            maps.append(uncrop(seen, crop.top, crop.left, self.input_size.height, self.input_size.width))
            scores.append(score)
        if len(self.crops) == 1:
            return maps[0], scores[0]
        boxes = [(crop.top, crop.left, crop.height, crop.width) for crop in self.crops]
        fused = fuse(maps, boxes, [(usual.map_mean, usual.map_deviation) for usual in self.score_stats])
        standardized = [
            (score - usual.score_mean) / usual.score_deviation
            for score, usual in zip(scores, self.score_stats, strict=True)
            if score is not None
        ]
        return fused, torch.stack(standardized).mean(0) if standardized else None

    def crop_map(
        self, frames: UInt8[Tensor, "b H W 3"], number: int
    ) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the smoothed map of one view in its own pixels, and its image score if it has one."""
        crop = self.crops[number]
        method = self.methods[number]
        backbone: Any = method.backbone
        raw, score = method(normalize(crop_images(frames, crop), backbone.mean, backbone.std))
        return smooth(raw, crop.height, crop.width, self.sigma), score
