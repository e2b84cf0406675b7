"""Quantizes the backbone to 8-bit integers by NNCF's post-training quantization; everything after it stays in f32.

The ranges of the activations are taken from good images. Quantization shifts all scores a little, and a score may only
be ranked among scores of the same model. So the held-out good images are scored again by the quantized file: neither
the detector nor the ranges have seen them, so the promise of a split stays exact.
"""

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from hyperspot.data import Dataset, open_dataset
from hyperspot.decision.calibration import Calibration
from hyperspot.decision.planning import plan as plan_calibration
from hyperspot.decision.planning import split
from hyperspot.decision.rule import DecisionRule, Run, score_good_images
from hyperspot.detector.detector import Detector
from hyperspot.detector.loading import ImageLoader
from hyperspot.errors import DataError, SettingsError
from hyperspot.images.tiles import TileGrid
from hyperspot.methods import method_class
from hyperspot.runtime.engines import INPUT
from hyperspot.runtime.openvino_import import import_nncf, import_openvino
from hyperspot.runtime.openvino_partition import PYRAMID, named
from hyperspot.utils.progress import Progress

MOST_IMAGES = 300
"""Images for the ranges at most, NNCF's default: more take time and change nothing."""
COLORS = 3


@dataclass(frozen=True)
class GoodImages:
    """Good images at the input size of a detector, by purpose.

    Attributes:
        images: All of them.
        range_images: Indices of those that set the ranges of the activations.
        held_out: Indices of those that set the decision rule; none unless the detector was calibrated by a split.

    """

    images: ImageLoader
    range_images: Int[np.ndarray, "_ranging"]
    held_out: Int[np.ndarray, "_held_out"]

    @classmethod
    def of(cls, detector: Detector, data: Path | str | Dataset) -> "GoodImages":
        """Return the good training images of a data set, or of a folder of good images.

        A detector calibrated by a split needs its own training data: they determine which images were held out. One
        calibrated by `leave-one-out` or `cross` keeps its scores: a quantized file cannot leave an image out.

        Raises:
            DataError: If there is no good image.
            SettingsError: If a split needs other data.

        """
        dataset = data if isinstance(data, Dataset) else open_dataset(Path(data))
        if not dataset.train:
            raise DataError(f"{dataset.root} has no good image to quantize with; give images of good parts")
        images = ImageLoader([sample.path for sample in dataset.train], detector.input_size)
        everything = np.arange(len(images))
        held_out = everything[:0]
        if detector.decision_rule.calibration.kind == "split":
            held_out = _held_out(detector, dataset)
        free = np.setdiff1d(everything, held_out)
        chosen = free[np.unique(np.linspace(0, len(free) - 1, MOST_IMAGES).round().astype(int))]
        return cls(images, chosen, held_out)

    def recalibrate(self, rule: DecisionRule, run: Run, progress: Progress) -> DecisionRule:
        """Return the decision rule by the scores of the quantized file on the held-out images."""
        if not len(self.held_out):
            return rule
        held_out = progress.track(self.images.load(self.held_out), "scoring held-out images", len(self.held_out))
        scores, maps = score_good_images(run, held_out, rule.background_weight)
        calibration = Calibration.from_scores("split", rule.calibration.false_alarm_rate, scores)
        return DecisionRule.from_good_images(calibration, maps, rule.mask_false_alarm_rate, rule.background_weight)


def quantize(model: Any, good: GoodImages, tiles: TileGrid | None, progress: Progress) -> None:
    """Quantize the backbone of an OpenVINO graph in place, except for the first convolution, on the pixels.

    With tiles the ranges are taken from one tile of each image.

    Raises SettingsError if the graph does not name its backbone's outputs.
    """
    nncf, openvino = import_nncf(), import_openvino()
    ends = named(model, PYRAMID)
    if not ends:
        raise SettingsError("a detector without a backbone cannot be quantized; export it without --int8")
    backbone = openvino.Model(list(ends.values()), model.get_parameters(), "backbone").clone()
    shown = _Images(good, tiles, progress)
    with _quiet(nncf):
        small = nncf.quantize(
            backbone,
            nncf.Dataset(shown),
            subset_size=len(shown),
            # ReLU activations are not symmetric around zero.
            preset=nncf.QuantizationPreset.MIXED,
            # A twelfth of ResNet-18's work and most of the error: in f32 it reduces the error of the map on good images
            # to a quarter (magnetic_tile) up to two thirds (screw).
            ignored_scope=nncf.IgnoredScope(names=_convolutions_of_pixels(backbone)),
        )
    sources = [result.input_value(0) for result in small.get_results()]
    quantized = {name: source for source in sources for name in source.get_names()}
    for parameter, own in zip(model.get_parameters(), small.get_parameters(), strict=True):
        own.output(0).replace(parameter.output(0))
    for name, end in ends.items():
        for target in end.get_target_inputs():
            target.replace_source_output(quantized[name])
    model.validate_nodes_and_infer_types()


def _convolutions_of_pixels(backbone: Any) -> list[str]:
    """Return the names of the convolutions on the color channels: one per crop."""
    nodes = [node for node in backbone.get_ordered_ops() if node.get_type_name() == "Convolution"]
    return [str(node.get_friendly_name()) for node in nodes if node.input(1).get_partial_shape()[1] == COLORS]


class _Images:
    """The data set that NNCF iterates, repeatedly: one letterboxed image at a time, or one of its tiles in turn."""

    def __init__(self, good: GoodImages, tiles: TileGrid | None, progress: Progress) -> None:
        self._good, self._tiles, self._progress = good, tiles, progress

    def __len__(self) -> int:
        return len(self._good.range_images)

    def __iter__(self) -> Iterator[dict[str, UInt8[np.ndarray, "1 H W 3"]]]:
        loaded = self._good.images.load(self._good.range_images)
        for number, image in enumerate(self._progress.track(loaded, "quantizing", len(self))):
            pixels = image.pixels
            if self._tiles is not None:
                tiles = itertools.chain.from_iterable(self._tiles.batches(pixels))
                pixels = next(itertools.islice(tiles, number % len(self._tiles), None))
            yield {INPUT: pixels[None]}


def _held_out(detector: Detector, dataset: Dataset) -> Int[np.ndarray, "_held_out"]:
    """Return the images that fitting held out, which data and settings determine."""
    settings, calibration = detector.settings, detector.decision_rule.calibration
    if "groups" in detector.record["data"]:
        raise SettingsError(
            "a detector whose images were held out by groups cannot be quantized; train it without groups"
        )
    supported = method_class(settings.method).leave_one_out(settings.method_settings) is not None
    plan = plan_calibration(
        len(dataset.train), settings.false_alarm_rate, settings.calibration, leaves_one_out=supported
    )
    same = dataset.fingerprint() == detector.record["data"]["fingerprint"]
    if not same or (plan.kind, plan.held_out) != ("split", len(calibration.scores)):
        raise SettingsError(
            f"{dataset.root} is not the data that the detector was trained on, which determine its held-out images; "
            "give the unchanged training data"
        )
    return split(len(dataset.train), plan, settings.seed)[0]


@contextlib.contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """Keep NNCF's bars off stdout, and silence its log and warnings."""
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
