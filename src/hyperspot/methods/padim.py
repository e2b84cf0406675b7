"""PaDiM (Defard, Setkov, Loesch and Audigier, ICPR workshops 2020, arXiv 2011.08785).

Each position of the grid has its own Gaussian over the features of good images. The score of a patch is its Mahalanobis
distance to the Gaussian of its position, so parts must be aligned in all images. Nothing is trained; a random subset of
the channels keeps the covariances small.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from hyperspot.backbones import Backbone
from hyperspot.features.patches import PatchCache
from hyperspot.methods.base import LeftOut, Method, MethodSettings
from hyperspot.utils.progress import Progress

CHANNELS = {"compact": 100, "resnet18": 100, "resnet34": 100}
"""Random channels by backbone: the paper's for ResNet-18, and the same for those with equally many channels."""
CHANNELS_ELSE = 550
"""Random channels of all other backbones: the paper's for WideResNet-50-2."""
CHUNK_BYTES = 100_000_000
"""Covariances in float64 at a time."""


class PaDiMSettings(MethodSettings):
    """The settings of PaDiM.

    Attributes:
        channels: Number of random channels of all levels together. Default: the paper's for the backbone (100 for
            ResNet-18 and those with equally many channels, 550 for WideResNet-50-2 and all others).
        regularization: Added to the diagonal of each covariance (the paper's ε).

    """

    channels: int | None = Field(default=None, ge=1)
    regularization: float = Field(default=0.01, gt=0)


class PaDiM(Method):
    """A Gaussian per position.

    Attributes:
        channels: Indices of the chosen channels, ascending.
        mean: Position x channel.
        whitening: Position x channel x channel, the inverse of the lower Cholesky factor of each covariance, so that
            the score is the norm of a product and never the root of a negative number.
        images_seen: Number of images that it was fitted on.

    """

    name: ClassVar[str] = "padim"
    Settings: ClassVar[type[MethodSettings]] = PaDiMSettings
    settings: PaDiMSettings
    channels: Tensor
    mean: Tensor
    whitening: Tensor
    images_seen: Tensor

    def __init__(self, backbone: Backbone, settings: PaDiMSettings | None = None) -> None:
        super().__init__(backbone, settings)
        self.register_empty_buffers("channels", "mean", "whitening", "images_seen")

    @torch.no_grad()
    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Accumulate means and covariances batch by batch, then factorize: images are read once and not kept."""
        self._start(seed)
        batches = progress.track(images, "reading features")
        self._accumulate(self._patches_of(batch) for batch in batches)
        self._factorize(progress)

    @classmethod
    def leave_one_out(cls, settings: Any) -> Literal["exact", "approximate"] | None:  # noqa: ARG003
        """Return `exact`: mean and covariance without an image follow in closed form."""
        return "exact"

    @torch.no_grad()
    def fit_leave_one_out(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], groups: Int[Tensor, "n"], *, seed: int, progress: Progress
    ) -> Iterator[LeftOut]:
        """Fit from cached features, then score all images, position by position, by the Gaussians without each."""
        self._start(seed)
        return self._learn(images, groups, progress)

    @classmethod
    def can_update(cls, settings: Any) -> bool:  # noqa: ARG003
        """Return True: number, mean and covariance are all that further images need."""
        return True

    @torch.no_grad()
    def update(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], groups: Int[Tensor, "n"], *, seed: int, progress: Progress
    ) -> Iterator[LeftOut]:
        """Add images to the means and covariances: within rounding the same as to fit on all images at once.

        The channels stay those of `fit`.
        """
        del seed  # nothing is drawn
        self.mean, self.whitening = self.mean.clone(), self._scatter(progress)
        return self._learn(images, groups, progress)

    def _learn(
        self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], groups: Int[Tensor, "n"], progress: Progress
    ) -> Iterator[LeftOut]:
        """Add images to the means and scatter matrices, factorize, and return the results without each."""
        batches = progress.track(images, "reading features")
        cache = PatchCache.collect([self._patches_of(batch)] for batch in batches)
        self._accumulate(cache.pyramid(index)[0] for index in range(cache.images))
        count, scatter = int(self.images_seen), self.whitening
        distances = torch.empty(cache.images, len(scatter))
        rows = max(1, CHUNK_BYTES // (8 * (scatter[0].numel() + cache.images * scatter.shape[1])))
        parts = torch.arange(len(scatter)).split(rows)
        for where in progress.track(parts, "leaving images out", len(parts)):
            offsets = cache.levels[0][:, where].to(cache.device).double().transpose(0, 1) - self.mean[where, None]
            distances[:, where] = (
                left_out_distances(offsets, scatter[where].double(), groups, count, self.settings.regularization)
                .T.float()
                .cpu()
            )
        self._factorize(progress)
        height, width = cache.sizes[0]
        return ((one.reshape(height, width).to(cache.device), None) for one in distances)

    def _start(self, seed: int) -> None:
        self._choose_channels(seed)
        self.mean = self.whitening = torch.empty(0)
        self.images_seen = torch.tensor(0)

    def _choose_channels(self, seed: int) -> None:
        total = sum(self.backbone.channels)
        wanted = self.settings.channels or CHANNELS.get(self.backbone.name, CHANNELS_ELSE)
        drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[: min(wanted, total)]
        self.channels = drawn.sort().values

    def _patches_of(self, batch: Float[Tensor, "b 3 _H _W"]) -> Float[Tensor, "b d _h _w"]:
        self.channels = self.channels.to(batch.device)
        return self.patches(batch)

    def _accumulate(self, batches: Iterable[Float[Tensor, "_b d h w"]]) -> None:
        """Add images to the number, the means, and the scatter matrices in `whitening`."""
        count = int(self.images_seen)
        for patches in batches:
            features = _by_position(patches)
            if not count:
                self.mean = torch.zeros_like(features[:, 0])
                self.whitening = self.mean.new_zeros(*self.mean.shape, self.mean.shape[1])
            count = _accumulate(features, count, self.mean, self.whitening)
        if not count:
            raise ValueError("no image to train on")
        self.images_seen = torch.tensor(count, device=self.mean.device)

    def _factorize(self, progress: Progress) -> None:
        """Turn the scatter matrices of `whitening` into its factors, in place."""
        covariances = self.whitening.div_(max(int(self.images_seen) - 1, 1))
        for part in progress.track(_chunks(covariances), "inverting covariances", len(_chunks(covariances))):
            part.copy_(whitening(part, self.settings.regularization))

    def _scatter(self, progress: Progress) -> Float[Tensor, "_n _d _d"]:
        """Return the scatter matrices that `whitening` was made from."""
        matrices = self.whitening.clone()
        unit = torch.eye(matrices.shape[1], dtype=torch.double, device=matrices.device)
        for part in progress.track(_chunks(matrices), "restoring covariances", len(_chunks(matrices))):
            factors = torch.linalg.solve_triangular(part.double(), unit.expand(part.shape), upper=False)
            part.copy_(factors @ factors.mT - self.settings.regularization * unit)
        return matrices.mul_(max(int(self.images_seen) - 1, 1))

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the Mahalanobis distance of each patch, and no image score."""
        features = self.patches(images)
        offsets = _by_position(features) - self.mean[:, None]
        distances = torch.bmm(offsets, self.whitening.mT).norm(dim=2)
        return distances.T.reshape(images.shape[0], *features.shape[-2:]), None

    def patches(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b d h w"]:
        """Return the chosen channels on the finest grid; coarser levels are upsampled by nearest neighbor."""
        pyramid = self.backbone(images)
        grid = [F.interpolate(level, size=pyramid[0].shape[-2:], mode="nearest") for level in pyramid]
        return torch.cat(grid, dim=1).index_select(1, self.channels)


def _by_position(features: Float[Tensor, "b d h w"]) -> Float[Tensor, "n b d"]:
    return features.flatten(2).permute(2, 0, 1).contiguous()


def _accumulate(
    features: Float[Tensor, "n b d"], count: int, mean: Float[Tensor, "n d"], scatter: Float[Tensor, "n d d"]
) -> int:
    """Add a batch to the mean and to the scatter matrix, in place (Chan, Golub and LeVeque 1979).

    Only differences from means are squared, so f32 loses no digits to the magnitude of the mean.
    """
    added = features.shape[1]
    batch_mean = features.mean(1)
    shift = batch_mean - mean
    # The shift between the two means enters as one more observation with this weight.
    weight = (count * added / (count + added)) ** 0.5
    rows = torch.cat([features - batch_mean[:, None], weight * shift[:, None]], dim=1)
    scatter.baddbmm_(rows.mT, rows)
    mean.add_(shift, alpha=added / (count + added))
    return count + added


def _chunks(matrices: Float[Tensor, "n d d"]) -> Sequence[Float[Tensor, "_n d d"]]:
    """Return the matrices in parts of bounded size in float64, which share their memory."""
    parts: Sequence[Tensor] = matrices.split(max(1, CHUNK_BYTES // (8 * matrices[0].numel())))
    return parts


def whitening(covariances: Float[Tensor, "n d d"], regularization: float) -> Float[Tensor, "n d d"]:
    """Return the inverse of the lower Cholesky factor of each regularized covariance, in float64."""
    unit = torch.eye(covariances.shape[1], dtype=torch.double, device=covariances.device)
    factors = torch.linalg.cholesky(covariances.double() + regularization * unit)
    inverses: Tensor = torch.linalg.solve_triangular(factors, unit.expand_as(factors), upper=False)
    return inverses


def left_out_distances(
    offsets: Float[Tensor, "p n d"],
    scatter: Float[Tensor, "p d d"],
    groups: Int[Tensor, "n"],
    count: int,
    regularization: float,
) -> Float[Tensor, "p n"]:
    """Return the Mahalanobis distance of each image to the Gaussian of the images of other groups.

    Leaving g of n images out takes the rows Y of their offsets from the mean and one more, g / sqrt(n - g) times the
    mean of these rows, out of the scatter matrix. The inverse follows by the Woodbury identity, for g = 1 that of
    Sherman and Morrison, from one factorization per size of a group.

    Args:
        offsets: Of the features of each image from the mean of all, in float64, per position.
        scatter: Sum of the outer products of the offsets of all images, in float64.
        groups: Group of each image.
        count: Number of all images; some of them may have no offsets here.
        regularization: Added to the diagonal of each covariance.

    """
    n = count
    unit = torch.eye(scatter.shape[1], dtype=scatter.dtype, device=scatter.device)
    distances = offsets.new_empty(offsets.shape[:2])
    labels, sizes = groups.unique(return_counts=True)
    for size in sizes.unique().tolist():
        divisor = max(n - size - 1, 1)
        factors = torch.linalg.cholesky(scatter / divisor + regularization * unit)
        # Columns: the images, whitened by all images with the divisor of those that stay.
        whitened = torch.linalg.solve_triangular(factors, offsets.mT, upper=False)
        for label in labels[sizes == size]:
            own = (groups == label).nonzero()[:, 0].to(offsets.device)
            rows = whitened[:, :, own]
            center = rows.mean(2, keepdim=True)
            removed = torch.cat([rows, size / (n - size) ** 0.5 * center], dim=2) / divisor**0.5
            moved = rows + size / (n - size) * center
            inner = torch.eye(size + 1, dtype=unit.dtype, device=unit.device) - removed.mT @ removed
            across = removed.mT @ moved
            grown = torch.linalg.solve(inner, across)
            squares = moved.square().sum(1) + (across * grown).sum(1)
            distances[:, own] = squares.clamp(min=0).sqrt()
    return distances
