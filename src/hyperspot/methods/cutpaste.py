"""CutPaste, three-way (Li, Sohn, Yoon and Pfister, CVPR 2021, arXiv 2104.04015).

Synthetic defects: a patch of a good image is cut out and pasted elsewhere, as a rectangle (CutPaste) or as a thin
rotated strip (scar). A ResNet-18 is trained from scratch to classify good images, rectangles and strips. A Gaussian is
fitted to its pooled features of good images, and the score of an image is the negative log-likelihood of its features.

Two localizations, as in the paper. `patches`: a second network is trained likewise on small crops, a Gaussian is fitted
to its features of windows, and each pixel gets the mean score of the windows around it. `gradient`: GradCAM of the
image score on the last features, with the gradient in closed form.
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
from hyperspot.methods.windows import cut_windows, spread, starts
from hyperspot.utils.progress import SILENT, Progress

CLASSES = 3
"""Good, CutPaste, scar, in the order of the labels."""
JITTER = 0.1
"""Color jitter of whole images, and again of pasted patches."""
SHIFT = 0.05
"""Maximum shift of an image, relative to its sides; the paper gives no value."""
MOMENTUM, WEIGHT_DECAY = 0.9, 3e-5
CHUNK_WINDOWS = 1024
"""Windows per forward pass."""
SAMPLED_WINDOWS = 20_000
"""Maximum number of windows for the covariance: 40 per feature."""
REGULARIZATION = 1e-6
"""Added to the diagonal of a covariance; it matters only if all good images are alike."""


class CutPasteSettings(MethodSettings):
    """The settings of CutPaste.

    Attributes:
        localization: `patches` or `gradient`, see above. `patches` trains a second network, which needs far more
            steps: after a few hundred on transistor its map was near chance, unlike that of `gradient`.
        area: Minimum and maximum area of a rectangle, relative to the image.
        aspect: Minimum and maximum aspect ratio of a rectangle, below and above 1.
        scar_width, scar_length: Minimum and maximum width and length of a strip, in pixels.
        scar_degrees: Maximum rotation of a strip, in both directions.
        shrink: Average pooling of the image before the first network; 1 in the paper.
        patch: Side of the training crops of the second network; 64 in the paper's body.
        window: Side of the windows that it scores; 32 in the paper's appendix.
        stride: Pixels between windows; 4 in the paper, for 3249 windows of an image of 256 pixels.
        density: One mean for the windows of all positions (`shared`), or one per position (`place`), for parts that are
            aligned in all images; the paper chooses by category.
        steps: Training steps of the first network; 65 536 in the paper.
        images_per_step: Images per step, each in all three classes; 32 in the paper.
        patch_steps: Training steps of the second network; 65 536 in the paper.
        patches_per_step: Crops per step, each in all three classes; 32 in the paper.
        learning_rate: Of SGD, with cosine decay; 0.03 in the paper.

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
            raise ValueError("give two positive numbers, the smaller first")
        return given


class Classifier(nn.Module):
    """A ResNet-18 with a classification head, which is used in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = ResNet18()
        self.hidden = nn.Linear(STAGES[-1], STAGES[-1])
        self.head = nn.Linear(STAGES[-1], CLASSES)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3"]:
        """Return a logit for each class."""
        logits: Tensor = self.head(F.relu(self.hidden(self.trunk(images).mean((2, 3)))))
        return logits


class Gaussian(nn.Module):
    """A Gaussian over features, or one per position with a common covariance.

    Attributes:
        means: Position x feature.
        whitening: Inverse of the lower Cholesky factor of the covariance, so that scores cannot be negative.

    """

    means: Tensor
    whitening: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.empty(0))
        self.register_buffer("whitening", torch.empty(0))

    def fit(self, means: Float[Tensor, "m d"], deviations: Float[Tensor, "n d"]) -> None:
        """Set the means, and the covariance of the deviations with Ledoit-Wolf shrinkage."""
        rows = deviations.double().cpu().numpy()
        covariance = np.zeros((rows.shape[1],) * 2)
        if len(rows) > 1:
            # Imported here: it takes half a second.
            from sklearn.covariance import LedoitWolf

            covariance = LedoitWolf(assume_centered=True).fit(rows).covariance_
        factor = np.linalg.cholesky(covariance + REGULARIZATION * np.eye(len(covariance)))
        self.means = means
        self.whitening = torch.from_numpy(np.linalg.inv(factor)).to(means)

    def score(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
        """Return ½ (f - μ)ᵀ Σ⁻¹ (f - μ), for n positions or one."""
        return ((features - self.means) @ self.whitening.T).square().sum(2) / 2

    def gradient(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return the gradient of the score, Σ⁻¹ (f - μ), of a Gaussian with one mean."""
        turned = self.whitening.T
        # Lᵀ (L d) instead of (L d)ᵀ L: OpenVINO 2026.4 transposes a matrix in both places if a graph uses it both as is
        # and transposed.
        return (turned @ ((features - self.means) @ turned).T).T


class CutPaste(Method):
    """The network for images, the one for windows with `patches`, and their Gaussians."""

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
        """Train one network or both, and fit the Gaussians to the features of good images.

        Raises SettingsError if the images are smaller than the crops.
        """
        generator = torch.Generator().manual_seed(seed)
        cache = ImageCache.collect(progress.track(images, "reading images"), generator)
        if self.settings.localization == "patches":
            for side in cache.pixels.shape[2:]:
                starts(side, max(self.settings.patch, self.settings.window), self.settings.stride)
        self._train(cache, generator, progress)
        if self.settings.localization == "patches":
            self._train(cache, generator, progress, self.settings.patch)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the anomaly map of the chosen localization, and the image score."""
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
        # The number of windows grows with the batch, which is dynamic in an exported graph.
        parts = [windows] if torch.compiler.is_exporting() else windows.split(CHUNK_WINDOWS)
        features = torch.cat([self.patch_trunk(part).mean((2, 3)) for part in parts])
        down, across = self._grid(images.shape[2], images.shape[3])
        return features.reshape(-1, down * across, features.shape[1])

    def _train(
        self, cache: ImageCache, generator: torch.Generator, progress: Progress, patch: int | None = None
    ) -> None:
        """Train a network, on whole images or on crops, and fit a Gaussian to its features of good images."""
        settings = self.settings
        device = cache.pixels.device
        network = initialize(with_norms(without_storage(Classifier)), generator, device)
        optimizer = torch.optim.SGD(
            network.parameters(), lr=settings.learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        steps, count, stage = settings.steps, settings.images_per_step, "training on images"
        if patch is not None:
            steps, count, stage = settings.patch_steps, settings.patches_per_step, "training on patches"
        labels = torch.arange(CLASSES, device=device).repeat_interleave(count)

        def finalize() -> None:
            self._use(copy.deepcopy(network), cache, patch, clone_generator(generator), SILENT)

        for step in steps_with_rates(steps, optimizer, progress, stage):
            batch = self._three_classes(cache.draw(count, generator), patch, generator)
            with autocast_precision(device):
                logits = network(batch).float()
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            accuracy = float((logits.detach().argmax(1) == labels).float().mean())
            progress.note(loss=float(loss.detach()), accuracy=accuracy)
            # With `patches`, `forward` is not usable before the second network is trained.
            if patch is not None or settings.localization == "gradient":
                self.step_done(step + 1, steps, finalize)
        self._use(network, cache, patch, generator, progress)

    def _use(
        self,
        network: Classifier,
        cache: ImageCache,
        patch: int | None,
        generator: torch.Generator,
        progress: Progress,
    ) -> None:
        """Freeze this network and use it in `forward`."""
        count = self.settings.images_per_step if patch is None else self.settings.patches_per_step
        recompute_bn_stats(
            network, (self._three_classes(cache.draw(count, generator), patch, generator) for _ in range(BN_BATCHES))
        )
        trunk = fold_norms(network).trunk
        with torch.no_grad():
            if patch is not None:
                self.add_module("patch_trunk", trunk)
                self._fit_windows(cache, generator, progress)
                return
            self.add_module("trunk", trunk)
            features = torch.cat([self._features(image).mean((2, 3)) for image in cache.each()])
            mean = features.mean(0, keepdim=True)
            self.gaussian.fit(mean, features - mean)

    def _three_classes(
        self, images: Float[Tensor, "b 3 H W"], patch: int | None, generator: torch.Generator
    ) -> Float[Tensor, "_n 3 _h _w"]:
        """Return augmented images, or crops of them: good ones, then with rectangles, then with strips."""
        images = images.clamp(0, 1)
        images = move(images, 0.0, SHIFT, generator) if patch is None else crops(images, patch, generator)
        good = jitter(images, JITTER, generator)
        batch = torch.cat([good, self._pasted(good, generator), self._scarred(good, generator)])
        return batch if patch is not None else self._shrunk(batch)

    def _pasted(self, images: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
        return torch.stack([cut_paste(image, self.settings.area, self.settings.aspect, generator) for image in images])

    def _scarred(self, images: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
        width, length, degrees = self.settings.scar_width, self.settings.scar_length, self.settings.scar_degrees
        return torch.stack([scar(image, width, length, degrees, generator) for image in images])

    def _fit_windows(self, cache: ImageCache, generator: torch.Generator, progress: Progress) -> None:
        """Fit the Gaussian to windows: means over all, covariance over a random sample."""
        down, across = self._grid(*cache.pixels.shape[2:])
        total = len(cache) * down * across
        device = cache.pixels.device
        numbers = torch.randperm(total, generator=generator)[:SAMPLED_WINDOWS].sort().values.to(device)
        sums = torch.zeros(down * across, STAGES[-1], dtype=torch.double, device=device)
        sampled = []
        for number, image in enumerate(progress.track(cache.each(), "scoring good windows", len(cache))):
            features = self._window_features(image)[0]
            sums += features
            inside = numbers[(numbers >= number * len(features)) & (numbers < (number + 1) * len(features))]
            sampled.append(features[inside - number * len(features)])
        means = (sums / len(cache)).float()
        if self.settings.density == "shared":
            means = means.mean(0, keepdim=True)
        self.patch_gaussian.fit(means, torch.cat(sampled) - means[numbers % len(means)])


def gradient_map(features: Float[Tensor, "b d h w"], gradient: Float[Tensor, "b d"]) -> Float[Tensor, "b h w"]:
    """Return GradCAM (Selvaraju et al., ICCV 2017, eq. 1 and 2) of a score of pooled features.

    `gradient` is the gradient of the score with respect to the pooled features; each position has an equal share.
    """
    places = features.shape[2] * features.shape[3]
    return F.relu((features * gradient[:, :, None, None] / places).sum(1))


def cut_paste(
    image: Float[Tensor, "3 h w"], area: tuple[float, float], aspect: tuple[float, float], generator: torch.Generator
) -> Float[Tensor, "3 h w"]:
    """Return the image with one of its rectangles, color-jittered, pasted at another position.

    The relative area is uniform in `area`; the aspect ratio is uniform in (minimum, 1) or (1, maximum), with equal
    probability.
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
    """Return the image with one of its strips, color-jittered, rotated and pasted at another position.

    Width, length and rotation are uniform in their intervals. The strip is cut upright and pasted rotated about its
    center, by bilinear sampling; it may exceed the border of the image.
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
    """Return the image at points in pixels from its corner; beyond the border the edge is repeated."""
    _, height, width = image.shape
    grid = torch.stack([columns * (2 / width) - 1, rows * (2 / height) - 1], dim=1)[None, :, None]
    return F.grid_sample(image[None], grid.to(image), mode="bilinear", padding_mode="border", align_corners=False)
