"""The anomaly model: 8-bit images at the input size to smoothed anomaly maps and image scores. It is exported whole."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from hyperspot.backbones import Backbone
from hyperspot.detector.heatmaps import fuse, smooth, uncrop
from hyperspot.detector.loading import crop_images, normalize
from hyperspot.hardware.cpu import Precision
from hyperspot.hardware.cuda_graphs import GraphCapturer, GraphedCallable
from hyperspot.hardware.devices import choose_precision, computing_on
from hyperspot.images import Crop, InputSize
from hyperspot.methods import Method


@dataclass(frozen=True)
class ScoreStats:
    """Mean and standard deviation, over good training images, of the anomaly map and of the image score of a crop."""

    map_mean: float = 0.0
    map_deviation: float = 1.0
    score_mean: float = 0.0
    score_deviation: float = 1.0


class AnomalyModel(nn.Module):
    """One fitted method per crop of the input.

    With one crop the anomaly map is the method's; with several it is the mean of their standardized maps (CFA++ as a
    fusion: no statistic of a test image enters).
    """

    def __init__(
        self,
        methods: Sequence[Method],
        crops: Sequence[Crop],
        input_size: InputSize,
        sigma: float,
        score_stats: Sequence[ScoreStats] = (),
    ) -> None:
        super().__init__()
        self.methods = nn.ModuleList(methods)
        self.crops = tuple(crops)
        self.input_size = input_size
        self.sigma = sigma
        self.score_stats = tuple(score_stats)
        self._graphed: GraphedCallable | None = None

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def move(self, device: torch.device, precision: Precision | None = None) -> "AnomalyModel":
        """Move to a device and set the precision of the backbone; default: what suits the device.

        Raises DeviceError if the device runs out of memory or does not compute in that precision.
        """
        chosen = choose_precision(device, precision)
        with computing_on(device):
            self.to(device)
        self.precision = chosen
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AnomalyModel":
        """Change or move all tensors; CUDA graphs refer to the old ones and are dropped."""
        self._graphed = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @torch.inference_mode()
    def run(
        self, images: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]:
        """Return the result of `forward` as NumPy arrays, from any device.

        On a GPU, repeated shapes run as CUDA graphs (see `cuda_graphs`).

        Raises DeviceError if the device runs out of memory.
        """
        given = torch.from_numpy(images)
        device = self.device
        if device.type == "cpu":
            maps, scores = self(given)
        else:
            with computing_on(device):
                if self._graphed is None:
                    self._graphed = GraphedCallable(self, GraphCapturer(device))
                maps, scores = self._graphed(given, self.precision)
        return maps.numpy(), None if scores is None else scores.numpy()

    @property
    def backbone(self) -> Backbone:
        """The frozen feature extractor, shared by the methods."""
        backbone: Backbone = self.methods[0].backbone  # type: ignore[assignment]
        return backbone

    @property
    def precision(self) -> Precision:
        """Precision of the backbone; everything after it is in f32."""
        return self.backbone.precision

    @precision.setter
    def precision(self, chosen: Precision) -> None:
        for method in self.methods:
            backbone: Any = method.backbone
            backbone.precision = chosen

    def forward(self, images: UInt8[Tensor, "b H W 3"]) -> tuple[Float[Tensor, "b H W"], Float[Tensor, "b"] | None]:
        """Return the smoothed anomaly map of each image, and the image scores if the method has its own."""
        return self.assemble([self.raw_map(images, number) for number in range(len(self.crops))])

    def assemble(
        self, raw_maps: Sequence[tuple[Float[Tensor, "b _h _w"], Float[Tensor, "b"] | None]]
    ) -> tuple[Float[Tensor, "b H W"], Float[Tensor, "b"] | None]:
        """Return what `forward` returns, from the raw map and the image score of the method of each crop."""
        maps, scores = [], []
        for crop, (raw, score) in zip(self.crops, raw_maps, strict=True):
            crop_map = smooth(raw, crop.height, crop.width, self.sigma)
            maps.append(uncrop(crop_map, crop.top, crop.left, self.input_size.height, self.input_size.width))
            scores.append(score)
        if len(self.crops) == 1:
            return maps[0], scores[0]
        boxes = [(crop.top, crop.left, crop.height, crop.width) for crop in self.crops]
        fused = fuse(maps, boxes, [(stats.map_mean, stats.map_deviation) for stats in self.score_stats])
        standardized = [
            (score - stats.score_mean) / stats.score_deviation
            for score, stats in zip(scores, self.score_stats, strict=True)
            if score is not None
        ]
        return fused, torch.stack(standardized).mean(0) if standardized else None

    def raw_map(
        self, images: UInt8[Tensor, "b H W 3"], number: int
    ) -> tuple[Float[Tensor, "b _h _w"], Float[Tensor, "b"] | None]:
        """Return the raw anomaly map of one crop, on the grid of its method, and image scores if it has its own."""
        backbone = self.backbone
        result: tuple[Tensor, Tensor | None] = self.methods[number](
            normalize(crop_images(images, self.crops[number]), backbone.mean, backbone.std)
        )
        return result

    def crop_map(
        self, images: UInt8[Tensor, "b H W 3"], number: int
    ) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the smoothed anomaly map of one crop, in its pixels, and image scores if the method has its own."""
        raw, score = self.raw_map(images, number)
        crop = self.crops[number]
        return smooth(raw, crop.height, crop.width, self.sigma), score
