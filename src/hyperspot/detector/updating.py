"""Learns more good images without those before: the method and the decision rule of a detector, updated."""

import copy
import datetime as dt
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import nn

from hyperspot.decision.calibration import default_rate
from hyperspot.decision.drift import detect_drift
from hyperspot.decision.good_images import score_good_images
from hyperspot.decision.merging import NewImages, merge_good_images
from hyperspot.decision.planning import one_per_group
from hyperspot.decision.rule import DecisionRule
from hyperspot.detector.anomaly_model import AnomalyModel
from hyperspot.detector.fitting import Fitted, HeldOut, replay
from hyperspot.detector.loading import BatchLoader, ImageLoader
from hyperspot.detector.record import images_learned
from hyperspot.detector.settings import Settings
from hyperspot.errors import CalibrationWarning, DataError, ImageError, SettingsError
from hyperspot.hardware.devices import computing_on
from hyperspot.images import read_image
from hyperspot.images.reading import ChannelOrder, ImageInput
from hyperspot.methods import METHODS, LeftOut, method_class
from hyperspot.utils.progress import Progress

NAMED = 5
"""Images named in one sentence."""
MOST_FINGERPRINTS = 100_000
"""Fingerprints in a model file, 8 bytes each: those of the images learned last."""


@dataclass(frozen=True, eq=False)
class Learned:
    """The result of an update.

    Attributes:
        fitted: Model, decision rule and the new images; the indices of these are among those given.
        new: What the model before said about the new images.
        images_known: For each calibration score, the number of images that the model knew.
        groups: Number of groups of the new images; None without groups.
        fingerprints: Of all images learned.

    """

    fitted: Fitted
    new: NewImages
    images_known: Int64[np.ndarray, "_scores"]
    groups: int | None
    fingerprints: Int64[np.ndarray, "_known"]


def require_updatable(settings: Settings, model: nn.Module) -> AnomalyModel:
    """Return a model that can learn more images; raises SettingsError, with one sentence, for another one."""
    if not method_class(settings.method).can_update(settings.method_settings):
        able = sorted(name for name, one in METHODS.items() if one.can_update(one.Settings()))
        raise SettingsError(
            f"the method '{settings.method}' cannot learn more images with these settings; train it again on all of "
            f"them, or choose {', '.join(able[:-1])} or {able[-1]} with their default settings"
        )
    if not isinstance(model, AnomalyModel) or len(model.crops) > 1:
        raise SettingsError(
            "a model that fuses several crops or tiles cannot learn more images, because statistics of the images "
            "before standardize its maps; train it again on all of them"
        )
    return model


def fingerprint(image: ImageInput, channel_order: ChannelOrder = "RGB") -> int:
    """Return 64 bits of the SHA-256 of an image: of the bytes of its file or, from memory, of its pixels.

    Raises ImageError if the image cannot be read.

    Examples:
        >>> import numpy as np
        >>> image = np.zeros((8, 8, 3), np.uint8)
        >>> fingerprint(image) == fingerprint(image.copy()), fingerprint(image) == fingerprint(image + 1)
        (True, False)

    """
    if isinstance(image, str | Path):
        try:
            with Path(image).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise ImageError(f"{image} cannot be read ({error.strerror}); check the name and the permissions") from None
    else:
        pixels = read_image(image, channel_order=channel_order)
        digest = hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes())
    return int.from_bytes(digest.digest()[:8], "big", signed=True)


def fingerprints(images: Sequence[ImageInput], channel_order: ChannelOrder = "RGB") -> Int64[np.ndarray, "_images"]:
    """Return the fingerprints of images, the last `MOST_FINGERPRINTS` of them."""
    return np.array([fingerprint(image, channel_order) for image in images], dtype=np.int64)[-MOST_FINGERPRINTS:]


@dataclass(frozen=True, eq=False)
class Updater:
    """A fitted model and what an update needs to know of the images before. Nothing of it is changed.

    Attributes:
        model: The model.
        decision_rule: Calibrated for it.
        settings: That it was fitted with.
        images: Number of good images learned.
        images_known: For each calibration score, the number of images that the model knew.
        fingerprints: Of these images, as far as they are known.
        has_groups: Whether it was calibrated by groups of images.

    """

    model: AnomalyModel
    decision_rule: DecisionRule
    settings: Settings
    images: int
    images_known: Int64[np.ndarray, "_scores"]
    fingerprints: Int64[np.ndarray, "_known"]
    has_groups: bool

    def compare(
        self, sources: Sequence[ImageInput], channel_order: ChannelOrder, progress: Progress, *, grouped: bool = False
    ) -> tuple[NewImages, ImageLoader]:
        """Return what the model says about new images, and a loader of those to learn.

        Raises ImageError if an image cannot be read.
        """
        new, loader, _ = self._compare(sources, channel_order, progress, grouped)
        return new, loader

    def _compare(
        self, sources: Sequence[ImageInput], channel_order: ChannelOrder, progress: Progress, grouped: bool
    ) -> tuple[NewImages, ImageLoader, list[int]]:
        """Return what `compare` does, and the fingerprints of the images to learn."""
        seen = set(self.fingerprints.tolist())
        kept: list[int] = []
        known: list[int] = []
        prints: list[int] = []
        for index, source in enumerate(sources):
            one = fingerprint(source, channel_order)
            if one in seen:
                known.append(index)
            else:
                kept.append(index)
                prints.append(one)
            seen.add(one)
        rule = self.decision_rule
        chosen = [sources[index] for index in kept]
        loader = ImageLoader(chosen, self.model.input_size, channel_order, rule.inspection.area)
        tracked = progress.track(loader.load(range(len(kept))), "scoring new images", len(kept))
        good = score_good_images(self.model.run, tracked, rule.background_weight, rule.inspection)
        scores = [rule.image_score(one.scores) for one in good]
        calibration = rule.calibration
        new = NewImages.compare(calibration, kept, known, scores, grouped=grouped or self.has_groups)
        return new, loader, prints

    def learn(
        self,
        sources: Sequence[ImageInput],
        groups: Int[np.ndarray, "_n"] | None,
        channel_order: ChannelOrder,
        progress: Progress,
    ) -> Learned:
        """Return a model and a decision rule that have learned new images, too.

        Args:
            sources: New good images.
            groups: Group of each image, numbered from 0; one image of each group calibrates.
            channel_order: Of arrays and tensors.
            progress: Reports stages and steps.

        Raises:
            DataError: If all images were learned before, or groups are missing.
            ImageError: If an image cannot be read.

        """
        if self.has_groups and groups is None:
            raise DataError(
                "the model was trained with groups and the new images have none; name the group of each new image"
            )
        new, loader, prints = self._compare(sources, channel_order, progress, groups is not None)
        if not new.kept:
            raise DataError(f"all {len(sources)} images were learned before; give new images of good parts")
        kept = np.asarray(new.kept)
        numbers = np.unique(kept if groups is None else groups[kept], return_inverse=True)[1]
        model, left_out = self._update_model(loader, torch.from_numpy(numbers), progress)
        before = self.decision_rule
        tracked = progress.track(loader.load(range(len(kept))), "scoring without each image", len(kept))
        good = score_good_images(replay(model, [left_out]), tracked, before.background_weight, before.inspection)
        scores = [before.image_score(one.scores) for one in good]
        calibrating = one_per_group(numbers, self.settings.seed)
        # Both were left out of models in the same way, unlike the scores by the model before.
        calibration = before.calibration
        grouped = self.has_groups or groups is not None
        drift = detect_drift(calibration, scores, passed=False, grouped=grouped)
        rule, known = merge_good_images(
            self.decision_rule,
            self.images_known,
            self.images,
            scores,
            [one.values for one in good],
            calibrating,
            self._rate,
            alike=drift is not None and not drift.is_significant and not new.is_shifted,
        )
        held_out = tuple(
            HeldOut(index, score, None, place in calibrating)
            for place, (index, score) in enumerate(zip(new.kept, scores, strict=True))
        )
        learned = np.array([*self.fingerprints, *prints], dtype=np.int64)[-MOST_FINGERPRINTS:]
        group_count = None if groups is None else len(calibrating)
        return Learned(Fitted(model, rule, held_out), new, known, group_count, learned)

    @property
    def _rate(self) -> float | None:
        """The rate to promise after the update; None for the default rate, if that was promised before."""
        calibration = self.decision_rule.calibration
        default = self.settings.false_alarm_rate is None and len(calibration.scores) > 0
        if default and calibration.false_alarm_rate == default_rate(len(calibration.scores)):
            return None
        return calibration.false_alarm_rate

    def _update_model(
        self, loader: ImageLoader, groups: Int[torch.Tensor, "_n"], progress: Progress
    ) -> tuple[AnomalyModel, Iterator[LeftOut]]:
        """Return an updated copy of the model, and the results of each new image without its group."""
        before, settings, device = self.model, self.settings, self.model.device
        # A copy, so that the model before stays as it is and can predict meanwhile.
        backbone = copy.deepcopy(before.backbone)
        backbone.precision = "f32"
        (crop,) = before.crops
        fitted: Any = before.methods[0]
        method = method_class(settings.method)(backbone, settings.method_settings)
        method.load_fitted_state(fitted.fitted_state())
        batches = BatchLoader(loader, range(len(loader)), crop, backbone.mean, backbone.std, device)
        with computing_on(device):
            left_out = method.update(batches, groups, seed=settings.seed, progress=progress)
        model = AnomalyModel([method.eval()], before.crops, before.input_size, before.sigma, before.score_stats)
        return model.move(device, before.precision), left_out


def warn_of(new: NewImages, sources: Sequence[ImageInput]) -> None:
    """Warn of images that were learned before, and of new images that score higher than the calibration images."""
    if new.known:
        names = name_some(
            [str(sources[index]) if isinstance(sources[index], str | Path) else f"image {index}" for index in new.known]
        )
        verb = "was learned before and is left out" if len(new.known) == 1 else "were learned before and are left out"
        warnings.warn(f"{names} {verb}", CalibrationWarning, stacklevel=3)
    if new.is_shifted:
        warnings.warn(describe_shift(new), CalibrationWarning, stacklevel=3)


def describe_shift(new: NewImages) -> str:
    """Return one sentence on new images that score higher than the calibration images."""
    return (
        f"the {len(new.kept)} new images score higher than the calibration images ({len(new.odd)} are called "
        "anomalous): another lot, light, focus or position; the updated model promises its false-alarm rate for a "
        "mixture of old and new images, not for either alone"
    )


def name_some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" * (len(names) > NAMED)
    return ", ".join(names[:NAMED]) + more


def updated_record(
    record: dict[str, Any], learned: Learned, described: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Return the record with one more update; the first groups make a group of each image before."""
    data = record["data"]
    update = {
        **described,
        "images": len(learned.new.kept),
        "images_known": len(learned.new.known),
        "images_odd": len(learned.new.odd),
        "is_shifted": learned.new.is_shifted,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }
    if learned.groups is not None:
        update["groups"] = learned.groups
        data = {"groups": images_learned(record), **data}
    return {**record, "data": data, "updates": [*record.get("updates", ()), update]}
