"""A convolutional variational autoencoder, the baseline of the PaDiM and CFA papers.

Kingma and Welling, ICLR 2014, arXiv 1312.6114; as a baseline: Defard et al. 2020, arXiv 2011.08785, section IV. A
ResNet-18 encodes an image to the mean and deviation of a Gaussian at each position of an 8 x 8 grid (for 256 pixels), a
decoder reconstructs the image. It is trained on good images only, so the score of a pixel is its reconstruction error.

The papers state neither the width of the latent, nor the weight of the KL term, nor the decoder. Here: 64 channels;
weight 0.01, the lower bound if a pixel has the standard deviation 0.1; five upsampling convolutions. Both networks work
on the difference from the mean of the good images.
"""

import copy
from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from hyperspot.backbones import Backbone
from hyperspot.methods.augmentation import move
from hyperspot.methods.base import Method, MethodSettings
from hyperspot.methods.training import (
    BN_BATCHES,
    STAGES,
    ImageCache,
    ResNet18,
    autocast_precision,
    clone_generator,
    fold_norms,
    initialize,
    recompute_bn_stats,
    steps_with_rates,
    with_norms,
    without_storage,
)
from hyperspot.utils.progress import Progress

DECODED = (256, 128, 64, 32, 16)
"""Channels of the decoder before the first upsampling and after each but the last, which gives the colors."""
SMALLEST_LOG_VARIANCE = -20.0
LARGEST_LOG_VARIANCE = 10.0
"""Bounds that keep the exponential finite in the first steps; trained values are far inside."""
FIRST_LOG_VARIANCE = -4.0
"""Of all latents at the start: little noise, so that the decoder learns to use the latents."""
FIRST_SHARE = 0.1
"""Factor of the initial weights of the layers that output the variance and the colors."""
CONTRAST = 4.0
"""Factor of the encoder's input, the difference from the mean image, toward unit variance."""
WARM_UP = 0.03
"""Share of the steps with a rising learning rate."""


class VAESettings(MethodSettings):
    """The settings of the VAE.

    Attributes:
        latent: Channels of the latent at each position.
        kl_weight: Weight of the KL term against half the squared error summed over pixels; the lower bound if this is
            the variance of a pixel. With 1 the latents of transistor collapse to the mean image.
        degrees: Maximum rotation of a training image; 2 in the PaDiM paper.
        shift: Maximum shift of a training image, relative to its sides; the paper crops 282 of 292 pixels, so 5 / 256.
        steps: Training steps. The paper has 100 epochs of 10 000 augmented images in batches of 32, so 31 250.
        images_per_step: Images per step; 32 in the paper.
        learning_rate: Of Adam, with 3 % warm-up, then cosine decay; 1e-4 in the paper, with about a hundred times the
            steps.

    """

    latent: int = Field(default=64, ge=1)
    kl_weight: float = Field(default=0.01, ge=0)
    degrees: float = Field(default=2.0, ge=0, le=180)
    shift: float = Field(default=5 / 256, ge=0, lt=1)
    steps: int = Field(default=800, ge=1)
    images_per_step: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)


class Autoencoder(nn.Module):
    """Encoder to a Gaussian per position and channel, decoder to pixels, both for differences from the mean image."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.encoder = ResNet18()
        self.posterior = nn.Conv2d(STAGES[-1], 2 * latent, 1)
        self.entry = nn.Conv2d(latent, DECODED[0], 3, padding=1)
        pairs = zip(DECODED, (*DECODED[1:], 3), strict=True)
        self.upsamplings = nn.ModuleList(nn.Conv2d(entering, leaving, 3, padding=1) for entering, leaving in pairs)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
        """Return the differences reconstructed from the means of their latents."""
        mean, _ = self.encode(images)
        return self.decode(mean, images.shape[2], images.shape[3])

    def encode(
        self, images: Float[Tensor, "b 3 H W"]
    ) -> tuple[Float[Tensor, "b latent h w"], Float[Tensor, "b latent h w"]]:
        """Return mean and log variance; h and w are H / 32 and W / 32, rounded up."""
        # The encoder takes pixels in 0..1; the mean image becomes medium gray.
        mean, log_variance = self.posterior(self.encoder((1 + CONTRAST * images) / 2)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(SMALLEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)

    def decode(self, latent: Float[Tensor, "b latent h w"], height: int, width: int) -> Float[Tensor, "b 3 H W"]:
        """Return pixels, cropped to the size of the image, because the grid is rounded up."""
        features = F.relu(self.entry(latent))
        *inner, last = self.upsamplings
        for upsampling in inner:
            features = F.relu(upsampling(F.interpolate(features, scale_factor=2.0, mode="nearest")))
        decoded: Tensor = last(F.interpolate(features, scale_factor=2.0, mode="nearest"))
        return decoded[:, :, :height, :width]


LAST = f"upsamplings.{len(DECODED) - 1}"


class VAE(Method):
    """The trained autoencoder, with folded batch norms."""

    name: ClassVar[str] = "vae"
    Settings: ClassVar[type[MethodSettings]] = VAESettings
    uses_backbone: ClassVar[bool] = False
    settings: VAESettings
    network: Autoencoder
    mean_image: Tensor

    def __init__(self, backbone: Backbone, settings: VAESettings | None = None) -> None:
        super().__init__(backbone, settings)
        self.register_empty_buffers("mean_image")
        self.add_module("network", without_storage(Autoencoder, self.settings.latent))

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Maximize the lower bound on slightly rotated and shifted images."""
        generator = torch.Generator().manual_seed(seed)
        cache = ImageCache.collect(progress.track(images, "reading images"), generator)
        self.mean_image = cache.pixels.mean(0, dtype=torch.float32)
        network = with_norms(without_storage(Autoencoder, self.settings.latent), exclude=("posterior", LAST))
        device = cache.pixels.device
        initialize(network, generator, device)
        last = network.get_submodule(LAST)
        assert isinstance(last, nn.Conv2d)
        assert network.posterior.bias is not None
        with torch.no_grad():
            last.weight.mul_(FIRST_SHARE)
            network.posterior.weight[self.settings.latent :].mul_(FIRST_SHARE)
            network.posterior.bias[self.settings.latent :].fill_(FIRST_LOG_VARIANCE)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.settings.learning_rate)

        def finalize() -> None:
            self._use(copy.deepcopy(network), cache, clone_generator(generator))

        steps = self.settings.steps
        for step in steps_with_rates(steps, optimizer, progress, "training", warm_up=WARM_UP):
            batch = self._draw(cache, generator)
            with autocast_precision(device):
                mean, log_variance = network.encode(batch)
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            latent = mean + noise * (log_variance / 2).exp()
            with autocast_precision(device):
                decoded = network.decode(latent, *batch.shape[-2:]).float()
            error = (batch - decoded).square().sum() / (2 * len(batch))
            divergence = kl_divergence(mean, log_variance)
            optimizer.zero_grad()
            (error + self.settings.kl_weight * divergence).backward()
            optimizer.step()
            progress.note(error=float(error.detach()), divergence=float(divergence.detach()))
            self.step_done(step + 1, steps, finalize)
        self._use(network, cache, generator)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the squared error of each pixel, summed over colors, and no image score.

        The latent is the mean of its Gaussian: nothing is random.
        """
        difference = images - self.mean_image
        return (difference - self.network(difference)).square().sum(1), None

    def _use(self, network: Autoencoder, cache: ImageCache, generator: torch.Generator) -> None:
        """Freeze this network and use it in `forward`."""
        recompute_bn_stats(network, (self._draw(cache, generator) for _ in range(BN_BATCHES)))
        self.add_module("network", fold_norms(network))

    def _draw(self, cache: ImageCache, generator: torch.Generator) -> Float[Tensor, "b 3 H W"]:
        """Return augmented images minus the mean image."""
        images = cache.draw(self.settings.images_per_step, generator)
        return move(images, self.settings.degrees, self.settings.shift, generator) - self.mean_image


def kl_divergence(mean: Float[Tensor, "b *_places"], log_variance: Float[Tensor, "b *_places"]) -> Float[Tensor, ""]:
    """Return -½ Σ (1 + log σ² - μ² - σ²), the mean over images (Kingma and Welling 2014, appendix B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum() / (2 * len(mean))
