"""One anomaly model per view of a tiling, in the place of an anomaly model that sees each image whole."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from hyperspot.backbones import Backbone
from hyperspot.detector.anomaly_model import AnomalyModel, ScoreStats
from hyperspot.hardware.cpu import Precision
from hyperspot.images import Crop, InputSize
from hyperspot.images.tiles import Tiling


class TiledModel(nn.Module):
    """Runs the model of each view on its tiles; has the interface of `AnomalyModel`.

    Attributes:
        tiling: Of the images.
        models: Of its views.

    """

    score_stats: tuple[ScoreStats, ...] = ()

    def __init__(self, models: Sequence[AnomalyModel], tiling: Tiling) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.tiling = tiling

    @property
    def views(self) -> Iterator[AnomalyModel]:
        """The models."""
        return iter(self.models)  # type: ignore[arg-type]

    @property
    def input_size(self) -> InputSize:
        """Size that every image is letterboxed to."""
        return self.tiling.input_size

    @property
    def crops(self) -> tuple[Crop, ...]:
        """The part of the input that the models see: all of it."""
        return (Crop.full(self.input_size),)

    @property
    def methods(self) -> list[Any]:
        """The method of each view."""
        return [method for model in self.views for method in model.methods]

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""
        return next(self.views).device

    @property
    def backbone(self) -> Backbone:
        """The frozen feature extractor, shared by the methods."""
        return next(self.views).backbone

    @property
    def precision(self) -> Precision:
        """Precision of the backbone."""
        return next(self.views).precision

    def move(self, device: torch.device, precision: Precision | None = None) -> "TiledModel":
        """Move to a device and set the precision of the backbone, as `AnomalyModel.move` does."""
        for model in self.views:
            model.move(device, precision)
        return self

    def run(
        self, images: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]:
        """Return the anomaly maps, and the image scores if the method has its own, of whole images."""
        return self.tiling.run(images, [model.run for model in self.views])
