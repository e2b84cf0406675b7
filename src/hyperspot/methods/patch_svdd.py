"""Patch SVDD (Yi and Yoon, ACCV 2020, arXiv 2006.16067).

A small network is trained from scratch to give patches that lie close together nearly the same code (SVDD without
one center for all), and to tell from two codes in which of eight directions one patch lies from the other. A patch
of a new photo scores by the distance of its code to the nearest code of the good photos. This is done for patches of
64 and of 32 pixels; the code of the large one is made of the codes of its four quarters. Each pixel gets the mean
score of the patches that hold it, and the maps of both sizes are multiplied.

The networks have no padding, so one pass over a photo gives the codes of all its small patches at every second
pixel: the same as patch by patch, at a sixteenth of the work. Training makes use of that too: pairs of patches are
pairs of places in the codes of a crop and of a copy of it with colors of its own. So patches of a direction lie an
even number of pixels apart, and pairs of one crop share their shift of colors.

While it trains, a batch norm follows each convolution of the encoder, folded away in the end. The paper has none; with
its budget the directions are learned without, with one of minutes they stay at chance.
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
    SETTLING,
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
"""Sides of the two patches, the paper's K."""
CHANNELS = (32, 64, 128, 128, 64, 32, 32)
"""Of the inner convolutions of the small encoder; the first has stride 2 and none is padded: 32 pixels become one."""
INNER = 128
"""Channels inside the large encoder and the classifier of directions."""
SLOPE = 0.1
"""Below zero, of the activations."""
STRIDE = 2
"""Pixels between the codes that one pass over a photo gives."""
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Down and right, from the first patch to the second, in the order of their labels."""
COLOR_SHIFT = 0.02
"""Deviation of what is added to each color and to each value of the patches whose direction is asked for."""
CROP = 128
"""Side of the crops that pairs for the directions are taken from: room for two large patches side by side."""
BEYOND = 16
"""How much larger than a patch the crops are that pairs for the SVDD loss are taken from: 9 x 9 pairs each."""
WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""


class PatchSVDDSettings(MethodSettings):
    """The settings of Patch SVDD.

    Attributes:
        svdd_weight: The paper's λ, of the SVDD loss beside the cross-entropy of directions. Where it is too large all
            codes collapse into one. The released code's example has 1e-3, its default is 1; the paper chose it by
            category.
        codes: Length of a code; 64 in the paper.
        stride_large, stride_small: Pixels between the patches that are compared, even; 16 and 4 as released.
        bank: Codes of good patches kept for each size at most, a random choice of all; the released code keeps all
            and searches them approximately.
        steps: Steps of training. Released: up to 300 epochs of 100 patches a photo in batches of 64, so 94 000
            for 200 photos.
        crops_per_step: Crops per step that pairs for the directions are taken from; half as many for each size of
            the SVDD loss.
        pairs_per_crop: Pairs for the directions from each crop and for each size. As released a step has 64 pairs,
            each of another photo.
        learning_rate: Of Adam, rising during the first 5 % of the steps, then falling by a cosine; 1e-4 as released,
            whose budget is some hundred times ours.

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
    """Codes of small patches, and of large ones from those of their quarters."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        widths = (3, *CHANNELS, codes)
        self.small = nn.ModuleList(
            nn.Conv2d(entering, leaving, 3, stride=1 if number else STRIDE)
            for number, (entering, leaving) in enumerate(itertools.pairwise(widths))
        )
        # The quarters of a patch lie a small side apart, so one pass serves all large patches too.
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
    """From the difference of two codes to the direction; used in training alone."""

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

    def remember(self, codes: Float[Tensor, "n codes"]) -> None:
        """Keep the codes, their mean subtracted (see `neighbors`)."""
        self.center = codes.mean(0)
        # Row by row, as it comes back from a model file: another order in memory rounds otherwise.
        self.bank = (codes - self.center).contiguous()
        self.squares = self.bank.square().sum(1)

    def distances(self, codes: Float[Tensor, "n codes"]) -> Float[Tensor, "n"]:
        """Return the Euclidean distance to the nearest code."""
        centered = codes - self.center
        _, columns = nearest_centered(centered, self.bank, self.squares, 1)
        # Taken anew from the difference: the product that ranks them is inexact where two codes nearly coincide.
        distances: Tensor = (centered - self.bank[columns[:, 0]]).norm(dim=1)
        return distances


class PatchSVDD(Method):
    """The encoder, the mean good photo and the codes of good patches."""

    name: ClassVar[str] = "patch_svdd"
    Settings: ClassVar[type[MethodSettings]] = PatchSVDDSettings
    uses_backbone: ClassVar[bool] = False
    settings: PatchSVDDSettings
    encoder: Encoder
    small: CodeBank
    large: CodeBank
    mean_photo: Tensor

    def __init__(self, backbone: Backbone, settings: PatchSVDDSettings | None = None) -> None:
        super().__init__(backbone, settings)
        self.add_module("encoder", without_storage(Encoder, self.settings.codes))
        self.add_module("small", CodeBank())
        self.add_module("large", CodeBank())
        self.register_empty_buffers("mean_photo")

    def fit(self, images: Iterable[Float[Tensor, "_b 3 _H _W"]], *, seed: int, progress: Progress) -> None:
        """Train the encoder, then remember the codes of the good photos.

        Raises SettingsError where the photos are smaller than a large patch.
        """
        generator = torch.Generator().manual_seed(seed)
        photos = ImageCache.collect(progress.track(images, "reading photos"), generator)
        for side in photos.pixels.shape[2:]:
            starts(side, LARGE, self.settings.stride_large)
        self.mean_photo = photos.pixels.mean(0, dtype=torch.float32).contiguous()
        encoder = self._trained(photos, generator, progress)
        self.finalize_for_inference = None
        self._take(encoder, photos, generator, progress)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the product of both sizes' maps, and no image score."""
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
        """Return the codes of all small and of all large patches that are compared."""
        small, large = self.encoder(images - self.mean_photo)
        small = _pick(small, images.shape, SMALL, self.settings.stride_small)
        return small, _pick(large, images.shape, LARGE, self.settings.stride_large)

    def _trained(self, photos: ImageCache, generator: torch.Generator, progress: Progress) -> Encoder:
        settings = self.settings
        device = photos.pixels.device
        encoder = initialize(with_norms(without_storage(Encoder, settings.codes)), generator, device, slope=SLOPE)
        classifiers = {
            side: initialize(without_storage(Classifier, settings.codes), generator, device) for side in (SMALL, LARGE)
        }
        parameters = [*encoder.parameters()]
        for classifier in classifiers.values():
            parameters += classifier.parameters()
        optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
        self.finalize_for_inference = lambda: self._take(
            copy.deepcopy(encoder), photos, clone_generator(generator), SILENT
        )
        for step in steps_with_rates(settings.steps, optimizer, progress, "training", warm_up=WARM_UP):
            close = told = torch.zeros((), device=device)
            for side in (SMALL, LARGE):
                seen = photos.draw(max(1, settings.crops_per_step // 2), generator) - self.mean_photo
                near = torch.cat(near_pairs(seen, side, generator))
                with autocast_precision(device):
                    codes = encoder.encode_small(near)
                    if side == LARGE:
                        codes = encoder.encode_large(codes)
                close = close + svdd_loss(*codes.float().permute(0, 2, 3, 1).flatten(0, 2).chunk(2))
            with autocast_precision(device):
                both = encoder(self._copies(photos, generator))
            for side, codes in zip((SMALL, LARGE), both, strict=True):
                first, second = codes.float().permute(0, 2, 3, 1).chunk(2)
                pairs = directed_places(first.shape[:3], side, settings.pairs_per_crop, generator)
                if pairs is not None:
                    here, there, labels = (one.to(device) for one in pairs)
                    logits = classifiers[side](first[here.unbind(1)] - second[there.unbind(1)])
                    told = told + F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            (settings.svdd_weight * close + told).backward()
            optimizer.step()
            progress.note(step=step + 1, svdd=float(close.detach()), direction=float(told.detach()))
        return encoder

    def _take(self, encoder: Encoder, photos: ImageCache, generator: torch.Generator, progress: Progress) -> None:
        """Judge with this encoder from now on, which is not trained further."""
        recompute_bn_stats(encoder, (self._copies(photos, generator) for _ in range(SETTLING)))
        self.add_module("encoder", fold_norms(encoder))
        with torch.no_grad():
            self._remember(photos, generator, progress)

    def _copies(self, photos: ImageCache, generator: torch.Generator) -> Float[Tensor, "_n 3 _h _w"]:
        """Return a crop of each of some photos, then the same crops anew, each with colors of its own."""
        seen = photos.draw(self.settings.crops_per_step, generator) - self.mean_photo
        sizes, rooms = _fitting(seen, CROP)
        seen = _cut(seen, (torch.rand(len(seen), 2, generator=generator) * (rooms + 1)).long(), sizes)
        return torch.cat([recolored(seen, generator), recolored(seen, generator)])

    def _remember(self, photos: ImageCache, generator: torch.Generator, progress: Progress) -> None:
        height, width = photos.pixels.shape[2:]
        device = photos.pixels.device
        chosen: list[Tensor] = []
        for window, stride in ((SMALL, self.settings.stride_small), (LARGE, self.settings.stride_large)):
            total = len(photos) * len(starts(height, window, stride)) * len(starts(width, window, stride))
            chosen.append(torch.randperm(total, generator=generator)[: self.settings.bank].sort().values.to(device))
        kept: tuple[list[Tensor], list[Tensor]] = ([], [])
        for number, photo in enumerate(progress.track(photos.each(), "remembering patches", len(photos))):
            for codes, numbers, parts in zip(self.codes(photo), chosen, kept, strict=True):
                rows = codes[0].flatten(1).T
                inside = numbers[(numbers >= number * len(rows)) & (numbers < (number + 1) * len(rows))]
                parts.append(rows[inside - number * len(rows)])
        self.small.remember(torch.cat(kept[0]))
        self.large.remember(torch.cat(kept[1]))


def svdd_loss(first: Float[Tensor, "b codes"], second: Float[Tensor, "b codes"]) -> Float[Tensor, ""]:
    """Return the mean distance of the codes of patches that lie close together (eq. 4)."""
    loss: Tensor = (first - second).norm(dim=1).mean()
    return loss


def near_pairs(
    photos: Float[Tensor, "b 3 H W"], side: int, generator: torch.Generator
) -> tuple[Float[Tensor, "b 3 _h _w"], Float[Tensor, "b 3 _h _w"]]:
    """Return a crop of each photo, and another that lies up to side / 32 pixels away along each axis.

    Crops are somewhat larger than a patch: equal places of their codes are pairs of patches that lie so close.
    """
    reach = side // 32
    sizes, rooms = _fitting(photos, side + BEYOND)
    places = (torch.rand(len(photos), 2, generator=generator) * (rooms + 1)).long()
    moved = places + torch.randint(-reach, reach + 1, places.shape, generator=generator)
    return _cut(photos, places, sizes), _cut(photos, moved.clamp(min=0).minimum(rooms), sizes)


def directed_places(
    codes: Sequence[int], side: int, count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "n 3"], Int[Tensor, "n 3"], Int[Tensor, "n"]] | None:
    """Return places of two patches in codes of b crops, and the label of the direction from the first to the second.

    `codes` is how many crops, rows and columns of codes there are; of each crop come `count` pairs, n in all, each
    patch as crop, row and column. Along each axis of the direction they are ¾ of a side apart and up to a quarter
    more, in steps of the two pixels between codes. Directions that the crop has no room for are left out; where it
    has room for none, None is returned.
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
    # The first patch lies where the second still fits.
    lowest, highest = (-steps).clamp(min=0), rooms - steps.clamp(min=0)
    share = torch.rand(total, 2, generator=generator)
    places = lowest + (share * (highest - lowest + 1)).long()
    crop = torch.arange(crop_count).repeat_interleave(count)[:, None]
    return torch.cat([crop, places], dim=1), torch.cat([crop, places + steps], dim=1), labels


def recolored(crops: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """Shift the colors of each crop and add noise, which keep the network from telling directions by those."""
    shift = torch.randn(len(crops), 3, 1, 1, generator=generator)
    return crops + (COLOR_SHIFT * (shift + torch.randn(crops.shape, generator=generator))).to(crops)


def _fitting(photos: Float[Tensor, "b 3 H W"], side: int) -> tuple[list[int], Int[Tensor, "2"]]:
    """Return height and width of crops, `side` or all that there is, and how far they can lie from the corner."""
    sizes = [min(side, length) for length in photos.shape[-2:]]
    return sizes, torch.tensor(photos.shape[-2:]) - torch.tensor(sizes)


def _cut(
    photos: Float[Tensor, "b 3 H W"], places: Int[Tensor, "b 2"], sizes: Sequence[int]
) -> Float[Tensor, "b 3 _h _w"]:
    height, width = sizes
    return torch.stack(
        [
            photo[:, top : top + height, left : left + width]
            for photo, (top, left) in zip(photos, places.tolist(), strict=True)
        ]
    )


def _pick(every: Float[Tensor, "b c _h _w"], shape: torch.Size, window: int, stride: int) -> Float[Tensor, "b c _k _l"]:
    """Return the codes of the windows that are compared, from those at every second pixel."""
    rows, columns = (start_places(length, window, stride, every.device, STRIDE) for length in shape[-2:])
    return every.index_select(2, rows).index_select(3, columns)
