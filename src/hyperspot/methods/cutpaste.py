"""CutPaste, three-way (Li, Sohn, Yoon and Pfister, CVPR 2021, arXiv 2104.04015).

Defects are made: a patch of a good photo is cut out and pasted elsewhere, as a rectangle (CutPaste) or as a thin
turned strip (scar). A ResNet-18 is trained from scratch to tell good photos, rectangles and strips apart. Then a
Gaussian is laid over its pooled features of good photos, and a photo scores by how improbable its features are.

To find the place there are the paper's two ways. `patches`: a second network is trained on small crops in the same
way, a Gaussian laid over its features of windows, and each pixel gets the mean score of the windows about it.
`gradient`: GradCAM of the image score on the last features; here the gradient is written down, not propagated.
"""

import copy
import math
from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn

from hyperspot.backbones import Backbone
from hyperspot.methods.augmentation import crops, jitter, move, uniform
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
from hyperspot.methods.windows import cut_windows, spread, starts
from hyperspot.utils.progress import SILENT, Progress

CLASSES = 3
"""Good, CutPaste, scar: the labels in this order."""
JITTER = 0.1
"""Of colors, of whole photos and once more of what is pasted."""
SHIFT = 0.05
"""Largest shift of a photo by its sides; the paper has one and does not say how far."""
MOMENTUM, WEIGHT_DECAY = 0.9, 3e-5
CHUNK_WINDOWS = 1024
"""Windows that pass the network together."""
SAMPLED_WINDOWS = 20_000
"""Windows that the covariance is taken of at most: 40 for each of 512 features."""
REGULARIZATION = 1e-6
"""Added to the diagonal of a covariance; it decides only where good photos are all alike."""


class CutPasteSettings(MethodSettings):
    """The settings of CutPaste.

    Attributes:
        localization: `patches` or `gradient`, see above. The first needs a second network, whose training takes far
            longer to pay: after a few hundred steps on transistor its map was near chance, the gradient's was not.
        area: Share of the photo that a rectangle takes, smallest and largest.
        aspect: Smallest and largest ratio of its sides; between the first and 1, or 1 and the second.
        scar_width, scar_length: Of a strip in pixels, smallest and largest.
        scar_degrees: Largest turn of a strip either way.
        shrink: The network that judges whole photos sees means of shrink x shrink pixels; 1 in the paper.
        patch: Side of the crops that the second network is trained on; 64 in the paper's body.
        window: Side of the windows that it judges; 32 in the paper's appendix.
        stride: Pixels between windows; 4 in the paper, for 3249 windows of a photo of 256 pixels.
        density: One Gaussian for windows of all places (`shared`), or one mean for each place (`place`), for parts
            that lie alike in all photos; the paper chooses by category.
        steps: Steps of training of the first network, 65 536 in the paper.
        images_per_step: Photos per step, each in all three classes; 32 in the paper.
        patch_steps: Steps of training of the second network, 65 536 in the paper.
        patches_per_step: Crops per step, each in all three classes; 32 in the paper.
        learning_rate: Of stochastic gradient descent, falling by a cosine; 0.03 in the paper.

    """

    localization: Literal["patches", "gradient"] = "gradient"
    area: tuple[float, float] = (0.02, 0.15)
    aspect: tuple[float, float] = (0.3, 3.3)
    scar_width: tuple[float, float] = (2.0, 16.0)
    scar_length: tuple[float, float] = (10.0, 25.0)
    scar_degrees: float = Field(default=45.0, ge=0, le=180)
    shrink: int = Field(default=2, ge=1, le=4)
    patch: int = Field(default=64, ge=32)
    window: int = Field(default=32, ge=16)
    stride: int = Field(default=8, ge=1)
    density: Literal["shared", "place"] = "shared"
    steps: int = Field(default=500, ge=1)
    images_per_step: int = Field(default=8, ge=1)
    patch_steps: int = Field(default=500, ge=1)
    patches_per_step: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=0.03, gt=0)

    @field_validator("area", "aspect", "scar_width", "scar_length")
    @classmethod
    def _ascending(cls, given: tuple[float, float]) -> tuple[float, float]:
        if not 0 < given[0] <= given[1]:
            raise ValueError("two positive numbers are wanted, the smaller first")
        return given


class Classifier(nn.Module):
    """A ResNet-18 and, while it is trained, the head that tells the classes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = ResNet18()
        self.hidden = nn.Linear(STAGES[-1], STAGES[-1])
        self.told = nn.Linear(STAGES[-1], CLASSES)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3"]:
        """Return a logit for each class."""
        logits: Tensor = self.told(F.relu(self.hidden(self.trunk(images).mean((2, 3)))))
        return logits


class Gaussian(nn.Module):
    """A Gaussian over features, or one for each place that differ in their means alone.

    What is learned: `means` (place x feature), and `whitening`, the inverse of the lower Cholesky factor of the
    covariance, so that no score can be below zero.
    """

    means: Tensor
    whitening: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.empty(0))
        self.register_buffer("whitening", torch.empty(0))

    def learn(self, means: Float[Tensor, "m d"], deviations: Float[Tensor, "n d"]) -> None:
        """Take the means, and the covariance of deviations from them with Ledoit-Wolf shrinkage."""
        spread_out = deviations.double().cpu().numpy()
        covariance = np.zeros((spread_out.shape[1],) * 2)
        if len(spread_out) > 1:
            # Here, since the import takes half a second and all but this method can do without.
            from sklearn.covariance import LedoitWolf

            covariance = LedoitWolf(assume_centered=True).fit(spread_out).covariance_
        factor = np.linalg.cholesky(covariance + REGULARIZATION * np.eye(len(covariance)))
        self.means = means
        self.whitening = torch.from_numpy(np.linalg.inv(factor)).to(means)

    def score(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
        """Return ½ (f - μ)ᵀ Σ⁻¹ (f - μ), for n places or for one."""
        return ((features - self.means) @ self.whitening.T).square().sum(2) / 2

    def gradient(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return the gradient of the score, Σ⁻¹ (f - μ), where there is one mean."""
        turned = self.whitening.T
        # As Lᵀ (L d) and not as (L d)ᵀ L: OpenVINO 2026.4 takes a matrix that a graph has both as it is and transposed
        # as transposed in both places.
        return (turned @ ((features - self.means) @ turned).T).T


class CutPaste(Method):
    """The network for photos, the one for windows where it is asked for, and their Gaussians."""

    name: ClassVar[str] = "cutpaste"
    Settings: ClassVar[type[MethodSettings]] = CutPasteSettings
    uses_backbone: ClassVar[bool] = False
    settings: CutPasteSettings
    trunk: ResNet18
    gaussian: Gaussian
    patch_trunk: ResNet18
    patch_gaussian: Gaussian

    def __init__(self, backbone: Backbone, settings: CutPasteSettings | None = None) -> None:
        super().__init__(backbone, settings)
        self.add_module("trunk", without_storage(ResNet18))
        self.add_module("gaussian", Gaussian())
        if self.settings.localization == "patches":
            self.add_module("patch_trunk", without_storage(ResNet18))
            self.add_module("patch_gaussian", Gaussian())

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Train one network or both, and lay the Gaussians over the features of good photos.

        Raises SettingsError where photos are smaller than the crops.
        """
        generator = torch.Generator().manual_seed(seed)
        photos = ImageCache.collect(progress.track(images, "reading photos"), generator)
        if self.settings.localization == "patches":
            for side in photos.pixels.shape[2:]:
                starts(side, max(self.settings.patch, self.settings.window), self.settings.stride)
        self._train(photos, generator, progress)
        if self.settings.localization == "patches":
            self._train(photos, generator, progress, self.settings.patch)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the map of the chosen way, and the score of the whole photo."""
        features = self._features(images)
        pooled = features.mean((2, 3))
        scores = self.gaussian.score(pooled[:, None])[:, 0]
        if self.settings.localization == "gradient":
            return gradient_map(features, self.gaussian.gradient(pooled)), scores
        height, width = images.shape[-2:]
        windows = self.patch_gaussian.score(self._window_features(images))
        down, _ = self._grid(height, width)
        grid = windows.unflatten(1, (down, -1))
        window, stride = self.settings.window, self.settings.stride
        return spread(grid, height, width, window, stride, sigma=window / 4), scores

    def _features(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 512 _h _w"]:
        features: Tensor = self.trunk(self._shrunk(images))
        return features

    def _shrunk(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 _h _w"]:
        return images if self.settings.shrink == 1 else F.avg_pool2d(images, self.settings.shrink)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        window, stride = self.settings.window, self.settings.stride
        return len(starts(height, window, stride)), len(starts(width, window, stride))

    def _window_features(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b n 512"]:
        windows = cut_windows(images, self.settings.window, self.settings.stride)
        # An exported graph is told the number of windows, which grows with the batch, only when it runs.
        parts = [windows] if torch.compiler.is_exporting() else windows.split(CHUNK_WINDOWS)
        features = torch.cat([self.patch_trunk(part).mean((2, 3)) for part in parts])
        down, across = self._grid(images.shape[2], images.shape[3])
        return features.reshape(-1, down * across, features.shape[1])

    def _train(
        self, photos: ImageCache, generator: torch.Generator, progress: Progress, patch: int | None = None
    ) -> None:
        """Train a network, for whole photos or for crops, and lay a Gaussian over what it gives of good photos."""
        settings = self.settings
        device = photos.pixels.device
        network = initialize(with_norms(without_storage(Classifier)), generator, device)
        optimizer = torch.optim.SGD(
            network.parameters(), lr=settings.learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        steps, count, stage = settings.steps, settings.images_per_step, "training on photos"
        if patch is not None:
            steps, count, stage = settings.patch_steps, settings.patches_per_step, "training on patches"
        labels = torch.arange(CLASSES, device=device).repeat_interleave(count)
        # The map of windows cannot be had before its own network is begun.
        if patch is not None or settings.localization == "gradient":
            self.finalize_for_inference = lambda: self._take(
                copy.deepcopy(network), photos, patch, clone_generator(generator), SILENT
            )
        for step in steps_with_rates(steps, optimizer, progress, stage):
            seen = self._three(photos.draw(count, generator), patch, generator)
            with autocast_precision(device):
                logits = network(seen).float()
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right = float((logits.detach().argmax(1) == labels).float().mean())
            # A step is told where the method can be judged.
            told = {} if self.finalize_for_inference is None else {"step": step + 1}
            progress.note(**told, loss=float(loss.detach()), right=right)
        self.finalize_for_inference = None
        self._take(network, photos, patch, generator, progress)

    def _take(
        self,
        network: Classifier,
        photos: ImageCache,
        patch: int | None,
        generator: torch.Generator,
        progress: Progress,
    ) -> None:
        """Judge with this network from now on, which is not trained further."""
        count = self.settings.images_per_step if patch is None else self.settings.patches_per_step
        recompute_bn_stats(
            network, (self._three(photos.draw(count, generator), patch, generator) for _ in range(SETTLING))
        )
        trunk = fold_norms(network).trunk
        with torch.no_grad():
            if patch is not None:
                self.add_module("patch_trunk", trunk)
                self._learn_windows(photos, generator, progress)
                return
            self.add_module("trunk", trunk)
            features = torch.cat([self._features(photo).mean((2, 3)) for photo in photos.each()])
            mean = features.mean(0, keepdim=True)
            self.gaussian.learn(mean, features - mean)

    def _three(
        self, photos: Float[Tensor, "b 3 H W"], patch: int | None, generator: torch.Generator
    ) -> Float[Tensor, "_n 3 _h _w"]:
        """Return photos or crops of them, changed but good, then with rectangles, then with strips."""
        seen = photos.clamp(0, 1)
        seen = move(seen, 0.0, SHIFT, generator) if patch is None else crops(seen, patch, generator)
        good = jitter(seen, JITTER, generator)
        three = torch.cat([good, self._pasted(good, generator), self._scarred(good, generator)])
        return three if patch is not None else self._shrunk(three)

    def _pasted(self, images: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
        return torch.stack([cut_paste(image, self.settings.area, self.settings.aspect, generator) for image in images])

    def _scarred(self, images: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
        width, length, degrees = self.settings.scar_width, self.settings.scar_length, self.settings.scar_degrees
        return torch.stack([scar(image, width, length, degrees, generator) for image in images])

    def _learn_windows(self, photos: ImageCache, generator: torch.Generator, progress: Progress) -> None:
        """Lay the Gaussian over windows: all of them for the means, a random sample for the covariance."""
        down, across = self._grid(*photos.pixels.shape[2:])
        total = len(photos) * down * across
        device = photos.pixels.device
        numbers = torch.randperm(total, generator=generator)[:SAMPLED_WINDOWS].sort().values.to(device)
        sums = torch.zeros(down * across, STAGES[-1], dtype=torch.double, device=device)
        sampled = []
        for number, photo in enumerate(progress.track(photos.each(), "judging good windows", len(photos))):
            features = self._window_features(photo)[0]
            sums += features
            inside = numbers[(numbers >= number * len(features)) & (numbers < (number + 1) * len(features))]
            sampled.append(features[inside - number * len(features)])
        means = (sums / len(photos)).float()
        if self.settings.density == "shared":
            means = means.mean(0, keepdim=True)
        self.patch_gaussian.learn(means, torch.cat(sampled) - means[numbers % len(means)])


def gradient_map(features: Float[Tensor, "b d h w"], gradient: Float[Tensor, "b d"]) -> Float[Tensor, "b h w"]:
    """Return GradCAM (Selvaraju et al., ICCV 2017, eq. 1 and 2) of a score of pooled features.

    `gradient` is that of the score by the pooled features; each place has an equal share of it.
    """
    places = features.shape[2] * features.shape[3]
    return F.relu((features * gradient[:, :, None, None] / places).sum(1))


def cut_paste(
    image: Float[Tensor, "3 h w"], area: tuple[float, float], aspect: tuple[float, float], generator: torch.Generator
) -> Float[Tensor, "3 h w"]:
    """Return the image with a rectangle of it, its colors jittered, pasted at another place.

    Its share of the area is even in `area`; the ratio of its sides is even in (smallest, 1) or (1, largest), each
    with the same chance.
    """
    _, height, width = image.shape
    share, flat, ratio = torch.rand(3, generator=generator).tolist()
    pixels = (area[0] + share * (area[1] - area[0])) * height * width
    ratio = aspect[0] + ratio * (1 - aspect[0]) if flat < 0.5 else 1 + ratio * (aspect[1] - 1)
    tall = min(height, max(1, round(math.sqrt(pixels * ratio))))
    wide = min(width, max(1, round(math.sqrt(pixels / ratio))))
    (top, bottom), (left, right) = (
        torch.randint(room + 1, (2,), generator=generator).tolist() for room in (height - tall, width - wide)
    )
    patch = jitter(image[None, :, top : top + tall, left : left + wide], JITTER, generator)[0]
    pasted = image.clone()
    pasted[:, bottom : bottom + tall, right : right + wide] = patch
    return pasted


def scar(
    image: Float[Tensor, "3 h w"],
    width: tuple[float, float],
    length: tuple[float, float],
    degrees: float,
    generator: torch.Generator,
) -> Float[Tensor, "3 h w"]:
    """Return the image with a strip of it, its colors jittered, turned and pasted at another place.

    Width, length and turn are even in their intervals. The strip is upright where it is cut, and turned about its
    center where it is pasted, by bilinear sampling; it may reach over the border of the image.
    """
    _, tall, wide = image.shape
    strip_width, strip_length = (float(uniform(*one, 1, generator)) for one in (width, length))
    angle = float(uniform(-degrees, degrees, 1, generator)) * math.pi / 180
    from_row, from_column, to_row, to_column = (
        torch.rand(4, generator=generator) * torch.tensor([tall, wide, tall, wide])
    ).tolist()
    rows = torch.arange(tall)[:, None] + 0.5 - to_row
    columns = torch.arange(wide)[None] + 0.5 - to_column
    along = rows * math.cos(angle) - columns * math.sin(angle)
    beside = rows * math.sin(angle) + columns * math.cos(angle)
    inside = (along.abs() <= strip_length / 2) & (beside.abs() <= strip_width / 2)
    if not bool(inside.any()):
        return image.clone()
    values = jitter(_sampled(image, from_row + along[inside], from_column + beside[inside]), JITTER, generator)
    scarred = image.clone()
    scarred[:, inside.to(image.device)] = values[0, :, :, 0]
    return scarred


def _sampled(
    image: Float[Tensor, "3 h w"], rows: Float[Tensor, "n"], columns: Float[Tensor, "n"]
) -> Float[Tensor, "1 3 n 1"]:
    """Return the image at some points, in pixels from its corner; beyond the border the edge is repeated."""
    _, height, width = image.shape
    grid = torch.stack([columns * (2 / width) - 1, rows * (2 / height) - 1], dim=1)[None, :, None]
    return F.grid_sample(image[None], grid.to(image), mode="bilinear", padding_mode="border", align_corners=False)
