"""A convolutional variational autoencoder, the baseline of the PaDiM and CFA papers.

Kingma and Welling, ICLR 2014, arXiv 1312.6114; as a baseline: Defard et al. 2020, arXiv 2011.08785, section IV. A
ResNet-18 encodes a photo to the mean and deviation of a Gaussian at each place of an 8 x 8 grid (for 256 pixels), a
decoder draws the photo anew. It learns to draw good photos only, so a pixel scores by how far it is from its drawing.

The papers state neither the width of the latent, nor the weight of the KL term, nor the decoder. Ours: 64 channels;
weight 0.01, the lower bound where a pixel deviates by 0.1; five times doubling and convolving. Both networks work on
what differs from the mean of the good photos.
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
    SETTLING,
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
"""Channels after each doubling but the last, which gives the colors; the first are those before any."""
SMALLEST_LOG_VARIANCE = -20.0
LARGEST_LOG_VARIANCE = 10.0
"""Bounds that keep the exponential finite in the first steps; what is learned lies far inside."""
FIRST_LOG_VARIANCE = -4.0
"""Of all latents when training starts: little noise, so that the decoder finds the latents worth reading."""
FIRST_SHARE = 0.1
"""By which the first weights of the two layers are made smaller that give the variance and the colors."""
CONTRAST = 4.0
"""By which the difference from the mean photo is multiplied for the encoder, toward unit variance."""
WARM_UP = 0.03
"""Share of the steps in which the learning rate rises."""


class VAESettings(MethodSettings):
    """The settings of the VAE.

    Attributes:
        latent: Channels of the latent at each of its places.
        kl_weight: Weight of the KL term beside half the squared error summed over pixels; the lower bound where the
            variance of a pixel is this number. With 1 the latents of transistor say nothing: the mean photo is drawn.
        degrees: Largest turn of a training photo, 2 in the PaDiM paper.
        shift: Largest shift of a training photo by its sides; there a crop of 282 from 292 pixels, so 5 of 256.
        steps: Steps of training. The paper has 100 epochs of 10 000 changed photos in batches of 32, so 31 250.
        images_per_step: Photos per step; 32 in the paper.
        learning_rate: Of Adam, rising during the first 3 % of the steps, then falling by a cosine; 1e-4 in the paper,
            whose budget is some hundred times ours.

    """

    latent: int = Field(default=64, ge=1)
    kl_weight: float = Field(default=0.01, ge=0)
    degrees: float = Field(default=2.0, ge=0, le=180)
    shift: float = Field(default=5 / 256, ge=0, lt=1)
    steps: int = Field(default=800, ge=1)
    images_per_step: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)


class Autoencoder(nn.Module):
    """Encoder to a Gaussian per place and channel, decoder back to pixels; both of differences from a mean photo."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.encoder = ResNet18()
        self.posterior = nn.Conv2d(STAGES[-1], 2 * latent, 1)
        self.entry = nn.Conv2d(latent, DECODED[0], 3, padding=1)
        pairs = zip(DECODED, (*DECODED[1:], 3), strict=True)
        self.doublings = nn.ModuleList(nn.Conv2d(entering, leaving, 3, padding=1) for entering, leaving in pairs)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
        """Return the differences drawn anew from the means of their latents."""
        mean, _ = self.encode(images)
        return self.decode(mean, images.shape[2], images.shape[3])

    def encode(
        self, images: Float[Tensor, "b 3 H W"]
    ) -> tuple[Float[Tensor, "b latent h w"], Float[Tensor, "b latent h w"]]:
        """Return mean and logarithm of the variance; h and w are H / 32 and W / 32, rounded up."""
        # As pixels in 0..1, which the encoder takes, whose gray is the mean photo.
        mean, log_variance = self.posterior(self.encoder((1 + CONTRAST * images) / 2)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(SMALLEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)

    def decode(self, latent: Float[Tensor, "b latent h w"], height: int, width: int) -> Float[Tensor, "b 3 H W"]:
        """Return pixels; what the rounding up of the grid adds at the far sides is cut off."""
        features = F.relu(self.entry(latent))
        *inner, last = self.doublings
        for doubling in inner:
            features = F.relu(doubling(F.interpolate(features, scale_factor=2.0, mode="nearest")))
        drawn: Tensor = last(F.interpolate(features, scale_factor=2.0, mode="nearest"))
        return drawn[:, :, :height, :width]


LAST = f"doublings.{len(DECODED) - 1}"


class VAE(Method):
    """The trained autoencoder, its batch norms folded away."""

    name: ClassVar[str] = "vae"
    Settings: ClassVar[type[MethodSettings]] = VAESettings
    uses_backbone: ClassVar[bool] = False
    settings: VAESettings
    network: Autoencoder
    mean_photo: Tensor

    def __init__(self, backbone: Backbone, settings: VAESettings | None = None) -> None:
        super().__init__(backbone, settings)
        self.register_empty_buffers("mean_photo")
        self.add_module("network", without_storage(Autoencoder, self.settings.latent))

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Train the lower bound on slightly turned and shifted photos."""
        generator = torch.Generator().manual_seed(seed)
        photos = ImageCache.collect(progress.track(images, "reading photos"), generator)
        self.mean_photo = photos.pixels.mean(0, dtype=torch.float32)
        network = with_norms(without_storage(Autoencoder, self.settings.latent), but=("posterior", LAST))
        device = photos.pixels.device
        initialize(network, generator, device)
        last = network.get_submodule(LAST)
        assert isinstance(last, nn.Conv2d)
        assert network.posterior.bias is not None
        with torch.no_grad():
            last.weight.mul_(FIRST_SHARE)
            network.posterior.weight[self.settings.latent :].mul_(FIRST_SHARE)
            network.posterior.bias[self.settings.latent :].fill_(FIRST_LOG_VARIANCE)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.settings.learning_rate)
        self.finalize_for_inference = lambda: self._take(copy.deepcopy(network), photos, clone_generator(generator))
        for step in steps_with_rates(self.settings.steps, optimizer, progress, "training", warm_up=WARM_UP):
            seen = self._drawn(photos, generator)
            with autocast_precision(device):
                mean, log_variance = network.encode(seen)
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            latent = mean + noise * (log_variance / 2).exp()
            with autocast_precision(device):
                drawn = network.decode(latent, *seen.shape[-2:]).float()
            error = (seen - drawn).square().sum() / (2 * len(seen))
            divergence = kl_divergence(mean, log_variance)
            optimizer.zero_grad()
            (error + self.settings.kl_weight * divergence).backward()
            optimizer.step()
            progress.note(step=step + 1, error=float(error.detach()), divergence=float(divergence.detach()))
        self.finalize_for_inference = None
        self._take(network, photos, generator)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the squared error of each pixel, summed over colors, and no image score.

        The latent is the mean of its Gaussian: nothing is drawn at random.
        """
        different = images - self.mean_photo
        return (different - self.network(different)).square().sum(1), None

    def _take(self, network: Autoencoder, photos: ImageCache, generator: torch.Generator) -> None:
        """Judge with this network from now on, which is not trained further."""
        recompute_bn_stats(network, (self._drawn(photos, generator) for _ in range(SETTLING)))
        self.add_module("network", fold_norms(network))

    def _drawn(self, photos: ImageCache, generator: torch.Generator) -> Float[Tensor, "b 3 H W"]:
        """Return changed photos, by how they differ from the mean of the photos as they are."""
        seen = photos.draw(self.settings.images_per_step, generator)
        return move(seen, self.settings.degrees, self.settings.shift, generator) - self.mean_photo


def kl_divergence(mean: Float[Tensor, "b *_places"], log_variance: Float[Tensor, "b *_places"]) -> Float[Tensor, ""]:
    """Return -½ Σ (1 + log σ² - μ² - σ²), the mean over images (Kingma and Welling 2014, appendix B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum() / (2 * len(mean))
