"""A Gaussian with diagonal covariance per position: PaDiM without correlations."""

import torch
from pydantic import Field

from hyperspot.methods import Level, Method, MethodSettings


class DiagonalSettings(MethodSettings):
    """Settings of the method.

    Attributes:
        level: Pyramid level of the backbone; level n has the stride 2^n.
        floor: Smallest standard deviation, relative to the mean deviation.

    """

    level: Level = 3
    floor: float = Field(default=0.1, gt=0)


class Diagonal(Method):
    """Scores a position by its mean squared z-score over the channels."""

    name = "diagonal"
    Settings = DiagonalSettings

    def __init__(self, backbone, settings=None):
        super().__init__(backbone, settings)
        backbone.positions([self.settings.level])
        self.register_empty_buffers("mean", "deviation")

    @torch.no_grad()
    def fit(self, images, *, seed, progress):
        batches = progress.track(images, "reading features")
        features = torch.cat([self.features(batch) for batch in batches]).double()
        deviation = features.std(0, correction=0)
        self.mean = features.mean(0).float()
        self.deviation = deviation.clamp(min=self.settings.floor * max(float(deviation.mean()), 1e-3)).float()

    def forward(self, images):
        return ((self.features(images) - self.mean) / self.deviation).square().mean(1), None

    def features(self, images):
        return self.backbone.select(images, [self.settings.level])[0]
