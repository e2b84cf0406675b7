"""Patch SVDD (Yi and Yoon, ACCV 2020, arXiv 2006.16067).

A small network is trained from scratch on two tasks: neighboring patches get nearly equal codes (SVDD without a common
center), and a classifier predicts from two codes in which of eight directions one patch lies from the other. The score
of a patch is the distance of its code to the nearest code of the good images. Patches have 64 and 32 pixels; the code
of a large patch is computed from the codes of its four quarters. Each pixel gets the mean score of the patches that
contain it, and the maps of both sizes are multiplied.

The networks have no padding, so one pass over an image gives the codes of all small patches at every second pixel: the
same result as patch by patch, at a sixteenth of the cost. Training uses this too: pairs of patches are pairs of
positions in the codes of a crop and of a recolored copy. Patches of a direction are therefore an even number of pixels
apart, and pairs of one crop share their color shift.

During training a batch norm follows each convolution of the encoder; it is folded away afterwards. The paper has none:
its number of steps suffices to learn the directions without; with minutes of training they stay at chance.
"""

import copy
import itertools
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from hyperspot.backbones import Backbone
from hyperspot.features.neighbors import nearest_centered
from hyperspot.methods.base import Method, MethodSettings
from hyperspot.methods.training import (
    BN_BATCHES,
    ImageCache,
    autocast_precision,
    clone_generator,
    fold_norms,
    initialize,
    recompute_bn_stats,
    steps_with_rates,
    with_norms,
    without_storage,
)
from hyperspot.methods.windows import spread, start_places, starts
from hyperspot.utils.progress import SILENT, Progress

LARGE, SMALL = 64, 32
"""Sides of the two patch sizes, the paper's K."""
CHANNELS = (32, 64, 128, 128, 64, 32, 32)
"""Of the inner convolutions of the small encoder. The first has stride 2, none is padded: 32 pixels become one."""
INNER = 128
"""Channels inside the large encoder and the direction classifier."""
SLOPE = 0.1
"""Slope below zero of the activations."""
STRIDE = 2
"""Pixels between the codes of one pass over an image."""
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Rows and columns from the first patch to the second, in the order of the labels."""
COLOR_SHIFT = 0.02
"""Standard deviation of the shift of each color, and of the noise, in direction pairs."""
CROP = 128
"""Side of the crops for direction pairs: two large patches side by side."""
MARGIN = 16
"""Pixels by which the crops for the SVDD loss exceed a patch: 9 x 9 pairs each."""
WARM_UP = 0.05
"""Share of the steps with a rising learning rate."""


class PatchSVDDSettings(MethodSettings):
    """The settings of Patch SVDD.

    Attributes:
        svdd_weight: The paper's λ, weight of the SVDD loss against the cross-entropy of directions. If it is too
            large, all codes collapse. The released example has 1e-3, its default is 1; the paper chose it by category.
        codes: Length of a code; 64 in the paper.
        stride_large, stride_small: Pixels between compared patches, even; 16 and 4 as released.
        bank: Maximum number of good codes per size, sampled at random; the released code keeps all and searches them
            approximately.
        steps: Training steps. Released: up to 300 epochs of 100 patches per image in batches of 64, so 94 000 for 200
            images.
        crops_per_step: Crops per step for direction pairs; half as many for each size of the SVDD loss.
        pairs_per_crop: Direction pairs per crop and size. Released: 64 pairs per step, each of another image.
        learning_rate: Of Adam, with 5 % warm-up, then cosine decay; 1e-4 as released, with about a hundred times the
            steps.

    """

    svdd_weight: float = Field(default=1e-3, ge=0)
    codes: int = Field(default=64, ge=1)
    stride_large: int = Field(default=16, ge=2, le=LARGE, multiple_of=STRIDE)
    stride_small: int = Field(default=4, ge=2, le=SMALL, multiple_of=STRIDE)
    bank: int = Field(default=20_000, ge=1)
    steps: int = Field(default=600, ge=1)
    crops_per_step: int = Field(default=4, ge=1)
    pairs_per_crop: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)


class Encoder(nn.Module):
    """Codes of small patches, and of large patches from those of their quarters."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        widths = (3, *CHANNELS, codes)
        self.small = nn.ModuleList(
            nn.Conv2d(entering, leaving, 3, stride=1 if number else STRIDE)
            for number, (entering, leaving) in enumerate(itertools.pairwise(widths))
        )
        # The quarters of a patch are one small side apart, so one pass serves all large patches too.
        self.join = nn.Conv2d(codes, INNER, 2, dilation=SMALL // STRIDE)
        self.last = nn.Conv2d(INNER, codes, 1)

    def encode_small(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b codes _k _l"]:
        """Return the codes, in -1..1, of the small patches at every second pixel."""
        features = images
        for convolution in self.small[:-1]:
            features = F.leaky_relu(convolution(features), SLOPE)
        return torch.tanh(self.small[-1](features))

    def encode_large(self, quarters: Float[Tensor, "b codes _k _l"]) -> Float[Tensor, "b codes _m _n"]:
        """Return the codes of the large patches at every second pixel, from those of the small ones."""
        return torch.tanh(self.last(F.leaky_relu(self.join(quarters), SLOPE)))

    def forward(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b codes _k _l"], Float[Tensor, "b codes _m _n"]]:
        """Return the codes of all small and of all large patches at every second pixel."""
        small = self.encode_small(images)
        return small, self.encode_large(small)


class Classifier(nn.Module):
    """Classifies the direction from the difference of two codes; used in training only."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(codes, INNER), nn.Linear(INNER, INNER), nn.Linear(INNER, len(DIRECTIONS))]
        )

    def forward(self, difference: Float[Tensor, "b codes"]) -> Float[Tensor, "b 8"]:
        """Return a logit for each direction."""
        features = difference
        for layer in self.layers[:-1]:
            features = F.leaky_relu(layer(features), SLOPE)
        logits: Tensor = self.layers[-1](features)
        return logits


class CodeBank(nn.Module):
    """Codes of good patches of one size."""

    bank: Tensor
    center: Tensor
    squares: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("bank", "center", "squares"):
            self.register_buffer(name, torch.empty(0))

    def fit(self, codes: Float[Tensor, "n codes"]) -> None:
        """Store the codes, minus their mean (see `neighbors`)."""
        self.center = codes.mean(0)
        # Contiguous, as after loading from a model file: another memory order rounds differently.
        self.bank = (codes - self.center).contiguous()
        self.squares = self.bank.square().sum(1)

    def distances(self, codes: Float[Tensor, "n codes"]) -> Float[Tensor, "n"]:
        """Return the Euclidean distance to the nearest code."""
        centered = codes - self.center
        _, columns = nearest_centered(centered, self.bank, self.squares, 1)
        # Recomputed from the difference: the matrix product that ranks them is inexact for nearly equal codes.
        distances: Tensor = (centered - self.bank[columns[:, 0]]).norm(dim=1)
        return distances


class PatchSVDD(Method):
    """The encoder, the mean good image and the codes of good patches."""

    name: ClassVar[str] = "patch_svdd"
    Settings: ClassVar[type[MethodSettings]] = PatchSVDDSettings
    uses_backbone: ClassVar[bool] = False
    settings: PatchSVDDSettings
    encoder: Encoder
    small: CodeBank
    large: CodeBank
    mean_image: Tensor

    def __init__(self, backbone: Backbone, settings: PatchSVDDSettings | None = None) -> None:
        super().__init__(backbone, settings)
        self.add_module("encoder", without_storage(Encoder, self.settings.codes))
        self.add_module("small", CodeBank())
        self.add_module("large", CodeBank())
        self.register_empty_buffers("mean_image")

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Train the encoder, then store the codes of the good images.

        Raises SettingsError if the images are smaller than a large patch.
        """
        generator = torch.Generator().manual_seed(seed)
        cache = ImageCache.collect(progress.track(images, "reading images"), generator)
        for side in cache.pixels.shape[2:]:
            starts(side, LARGE, self.settings.stride_large)
        self.mean_image = cache.pixels.mean(0, dtype=torch.float32).contiguous()
        encoder = self._train(cache, generator, progress)
        self._use(encoder, cache, generator, progress)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the product of the maps of both sizes, and no image score."""
        height, width = images.shape[-2:]
        product = images.new_ones(())
        sizes = (SMALL, self.settings.stride_small, self.small), (LARGE, self.settings.stride_large, self.large)
        for codes, (window, stride, bank) in zip(self.codes(images), sizes, strict=True):
            distances = bank.distances(codes.permute(0, 2, 3, 1).flatten(0, 2))
            scores = distances.reshape(-1, *codes.shape[-2:])
            product = product * spread(scores, height, width, window, stride)
        return product, None

    def codes(
        self, images: Float[Tensor, "b 3 H W"]
    ) -> tuple[Float[Tensor, "b codes _h _w"], Float[Tensor, "b codes _k _l"]]:
        """Return the codes of all compared patches, small and large."""
        small, large = self.encoder(images - self.mean_image)
        small = _pick(small, images.shape, SMALL, self.settings.stride_small)
        return small, _pick(large, images.shape, LARGE, self.settings.stride_large)

    def _train(self, cache: ImageCache, generator: torch.Generator, progress: Progress) -> Encoder:
        settings = self.settings
        device = cache.pixels.device
        encoder = initialize(with_norms(without_storage(Encoder, settings.codes)), generator, device, slope=SLOPE)
        classifiers = {
            side: initialize(without_storage(Classifier, settings.codes), generator, device) for side in (SMALL, LARGE)
        }
        parameters = [*encoder.parameters()]
        for classifier in classifiers.values():
            parameters += classifier.parameters()
        optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)

        def finalize() -> None:
            self._use(copy.deepcopy(encoder), cache, clone_generator(generator), SILENT)

        for step in steps_with_rates(settings.steps, optimizer, progress, "training", warm_up=WARM_UP):
            svdd = direction = torch.zeros((), device=device)
            for side in (SMALL, LARGE):
                images = cache.draw(max(1, settings.crops_per_step // 2), generator) - self.mean_image
                near = torch.cat(near_pairs(images, side, generator))
                with autocast_precision(device):
                    codes = encoder.encode_small(near)
                    if side == LARGE:
                        codes = encoder.encode_large(codes)
                svdd = svdd + svdd_loss(*codes.float().permute(0, 2, 3, 1).flatten(0, 2).chunk(2))
            with autocast_precision(device):
                both = encoder(self._recolored_pairs(cache, generator))
            for side, codes in zip((SMALL, LARGE), both, strict=True):
                first, second = codes.float().permute(0, 2, 3, 1).chunk(2)
                pairs = directed_places(first.shape[:3], side, settings.pairs_per_crop, generator)
                if pairs is not None:
                    here, there, labels = (one.to(device) for one in pairs)
                    logits = classifiers[side](first[here.unbind(1)] - second[there.unbind(1)])
                    direction = direction + F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            (settings.svdd_weight * svdd + direction).backward()
            optimizer.step()
            progress.note(svdd=float(svdd.detach()), direction=float(direction.detach()))
            self.step_done(step + 1, settings.steps, finalize)
        return encoder

    def _use(self, encoder: Encoder, cache: ImageCache, generator: torch.Generator, progress: Progress) -> None:
        """Freeze this encoder and use it in `forward`."""
        recompute_bn_stats(encoder, (self._recolored_pairs(cache, generator) for _ in range(BN_BATCHES)))
        self.add_module("encoder", fold_norms(encoder))
        with torch.no_grad():
            self._fit_banks(cache, generator, progress)

    def _recolored_pairs(self, cache: ImageCache, generator: torch.Generator) -> Float[Tensor, "_n 3 _h _w"]:
        """Return random crops, then the same crops again, each recolored independently."""
        images = cache.draw(self.settings.crops_per_step, generator) - self.mean_image
        sizes, rooms = _fitting(images, CROP)
        cut = _cut(images, (torch.rand(len(images), 2, generator=generator) * (rooms + 1)).long(), sizes)
        return torch.cat([recolored(cut, generator), recolored(cut, generator)])

    def _fit_banks(self, cache: ImageCache, generator: torch.Generator, progress: Progress) -> None:
        height, width = cache.pixels.shape[2:]
        device = cache.pixels.device
        chosen: list[Tensor] = []
        for window, stride in ((SMALL, self.settings.stride_small), (LARGE, self.settings.stride_large)):
            total = len(cache) * len(starts(height, window, stride)) * len(starts(width, window, stride))
            chosen.append(torch.randperm(total, generator=generator)[: self.settings.bank].sort().values.to(device))
        kept: tuple[list[Tensor], list[Tensor]] = ([], [])
        for number, image in enumerate(progress.track(cache.each(), "storing patch codes", len(cache))):
            for codes, numbers, parts in zip(self.codes(image), chosen, kept, strict=True):
                rows = codes[0].flatten(1).T
                inside = numbers[(numbers >= number * len(rows)) & (numbers < (number + 1) * len(rows))]
                parts.append(rows[inside - number * len(rows)])
        self.small.fit(torch.cat(kept[0]))
        self.large.fit(torch.cat(kept[1]))


def svdd_loss(first: Float[Tensor, "b codes"], second: Float[Tensor, "b codes"]) -> Float[Tensor, ""]:
    """Return the mean distance between the codes of neighboring patches (eq. 4)."""
    loss: Tensor = (first - second).norm(dim=1).mean()
    return loss


def near_pairs(
    images: Float[Tensor, "b 3 H W"], side: int, generator: torch.Generator
) -> tuple[Float[Tensor, "b 3 _h _w"], Float[Tensor, "b 3 _h _w"]]:
    """Return a crop of each image, and another shifted by up to side / 32 pixels along each axis.

    Crops exceed a patch by `MARGIN`: equal positions in their codes are pairs of neighboring patches.
    """
    reach = side // 32
    sizes, rooms = _fitting(images, side + MARGIN)
    places = (torch.rand(len(images), 2, generator=generator) * (rooms + 1)).long()
    moved = places + torch.randint(-reach, reach + 1, places.shape, generator=generator)
    return _cut(images, places, sizes), _cut(images, moved.clamp(min=0).minimum(rooms), sizes)


def directed_places(
    codes: Sequence[int], side: int, count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "n 3"], Int[Tensor, "n 3"], Int[Tensor, "n"]] | None:
    """Return positions of two patches in the codes of crops, and the label of the direction from first to second.

    Along each axis of the direction the patches are between ¾ and one side apart, in steps of the two pixels between
    codes. Directions for which the crop is too small are left out.

    Args:
        codes: Numbers of crops, rows and columns of codes.
        side: Of the patches.
        count: Pairs per crop.
        generator: Of random numbers.

    Returns:
        First and second patch as crop, row and column, and the labels; None if the crops are too small for all
        directions.

    """
    crop_count, *lengths = codes
    rooms = torch.tensor(lengths) - 1
    apart, more = side * 3 // 4 // STRIDE, side // 4 // STRIDE
    fitting = [
        label
        for label, direction in enumerate(DIRECTIONS)
        if all(not step or room >= apart + more - 1 for step, room in zip(direction, rooms.tolist(), strict=True))
    ]
    if not fitting:
        return None
    total = crop_count * count
    labels = torch.tensor(fitting)[torch.randint(len(fitting), (total,), generator=generator)]
    steps = torch.tensor(DIRECTIONS)[labels] * (apart + torch.randint(more, (total, 2), generator=generator))
    # The first patch is placed so that the second fits.
    lowest, highest = (-steps).clamp(min=0), rooms - steps.clamp(min=0)
    share = torch.rand(total, 2, generator=generator)
    places = lowest + (share * (highest - lowest + 1)).long()
    crop = torch.arange(crop_count).repeat_interleave(count)[:, None]
    return torch.cat([crop, places], dim=1), torch.cat([crop, places + steps], dim=1), labels


def recolored(crops: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """Shift the colors of each crop and add noise, so that they do not reveal the direction."""
    shift = torch.randn(len(crops), 3, 1, 1, generator=generator)
    return crops + (COLOR_SHIFT * (shift + torch.randn(crops.shape, generator=generator))).to(crops)


def _fitting(images: Float[Tensor, "b 3 H W"], side: int) -> tuple[list[int], Int[Tensor, "2"]]:
    """Return height and width of crops, at most `side`, and their maximum offset from the corner."""
    sizes = [min(side, length) for length in images.shape[-2:]]
    return sizes, torch.tensor(images.shape[-2:]) - torch.tensor(sizes)


def _cut(
    images: Float[Tensor, "b 3 H W"], places: Int[Tensor, "b 2"], sizes: Sequence[int]
) -> Float[Tensor, "b 3 _h _w"]:
    height, width = sizes
    return torch.stack(
        [
            image[:, top : top + height, left : left + width]
            for image, (top, left) in zip(images, places.tolist(), strict=True)
        ]
    )


def _pick(every: Float[Tensor, "b c _h _w"], shape: torch.Size, window: int, stride: int) -> Float[Tensor, "b c _k _l"]:
    """Return the codes of the compared windows, from those at every second pixel."""
    rows, columns = (start_places(length, window, stride, every.device, STRIDE) for length in shape[-2:])
    return every.index_select(2, rows).index_select(3, columns)
