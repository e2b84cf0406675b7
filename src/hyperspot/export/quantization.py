"""A backbone in 8-bit integers, by NNCF's post-training quantization; all that follows it stays in 32-bit floats.

The ranges of the activations are taken from good photos. Quantizing shifts all scores a little, and a score may only
be ranked among scores of the same making. So the held-out good photos are judged anew with the quantized file: as
neither the detector nor the ranges saw them, the promise of a split holds for it as exactly as for the detector.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from hyperspot.data import Dataset, open_dataset
from hyperspot.decision import calibration
from hyperspot.decision.calibration import Calibration
from hyperspot.detector.detector import Detector
from hyperspot.detector.loading import ImageLoader
from hyperspot.errors import DataError, SettingsError
from hyperspot.results.verdict import Verdict
from hyperspot.runtime.engines import INPUT
from hyperspot.runtime.openvino_import import import_nncf, import_openvino
from hyperspot.runtime.openvino_partition import PYRAMID, named
from hyperspot.utils.progress import Progress

MOST_IMAGES = 300
"""What the ranges are taken from at most, NNCF's own custom: more change nothing and take time."""
COLORS = 3


@dataclass(frozen=True)
class GoodImages:
    """Good photos placed in the frame of a detector, and what each is for.

    Attributes:
        photos: All of them.
        ranging: Those that tell the ranges of the activations.
        held_out: Those that set the thresholds anew; none where the detector was not calibrated by a split.

    """

    photos: ImageLoader
    ranging: Int[np.ndarray, "_ranging"]
    held_out: Int[np.ndarray, "_held_out"]

    @classmethod
    def of(cls, detector: Detector, data: Path | str | Dataset) -> "GoodImages":
        """Return the good training photos of a data set, or of a folder of good photos.

        A detector calibrated by a split needs the very data that it was trained on: which photos were held out
        follows from them. With other photos nobody could tell what it learned from. One that was cross-fitted keeps
        its scores, as the models that gave them are gone, and its promise stays approximate.

        Raises:
            DataError: Where there is no good photo.
            SettingsError: Where a split needs other data.

        """
        dataset = data if isinstance(data, Dataset) else open_dataset(Path(data))
        if not dataset.train:
            raise DataError(f"{dataset.root} has no good photo to quantize with; give photos of good parts")
        photos = ImageLoader([photo.path for photo in dataset.train], detector.anomaly_model.input_size)
        everything = np.arange(len(photos))
        held_out = everything[:0]
        if detector.calibration.kind == "split":
            held_out = _held_out(detector, dataset)
        free = np.setdiff1d(everything, held_out)
        ranging = free[np.unique(np.linspace(0, len(free) - 1, MOST_IMAGES).round().astype(int))]
        return cls(photos, ranging, held_out)

    def rejudge(
        self, detector: Detector, predict: Callable[[Any], Verdict], progress: Progress
    ) -> tuple[Calibration, float | None]:
        """Return the calibration and the pixel threshold by the verdicts of the quantized file on held-out photos."""
        if not len(self.held_out):
            return detector.calibration, detector.pixel_threshold
        scores: list[float] = []
        values: list[Float[np.ndarray, "_pixels"]] = []
        for index in progress.track([int(index) for index in self.held_out], "judging held-out photos"):
            verdict = predict(self.photos.sources[index])
            scores.append(verdict.score)
            values.append(verdict.input_map[verdict.letterbox.content].ravel())
        rate = detector.calibration.false_alarm_rate
        threshold = calibration.pixel_threshold(values, detector.settings.pixel_false_alarm_rate)
        return Calibration.from_scores("split", rate, scores), threshold


def quantize(model: Any, good: GoodImages, progress: Progress) -> None:
    """Change the backbone of an OpenVINO graph in place; what follows it takes the pyramid from 8-bit layers.

    The first convolution, on the pixels themselves, stays as it is.

    Raises SettingsError where the graph does not tell where its backbone ends.
    """
    nncf, openvino = import_nncf(), import_openvino()
    ends = named(model, PYRAMID)
    if not ends:
        raise SettingsError("a detector without a backbone of its own cannot be quantized; export it without --int8")
    backbone = openvino.Model(list(ends.values()), model.get_parameters(), "backbone").clone()
    shown = _Frames(good.photos, good.ranging, progress)
    with _quiet(nncf):
        small = nncf.quantize(
            backbone,
            nncf.Dataset(shown),
            subset_size=len(shown),
            # ReLU gives no negative value and its leaky kin few: the range of the activations has to be lopsided.
            preset=nncf.QuantizationPreset.MIXED,
            # A twelfth of ResNet-18's work, and most of the error: all that follows sees what it loses. On good photos
            # the heatmap's error falls to a quarter (magnetic_tile) up to two thirds (screw) without it.
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
    """Return the names of the convolutions whose input are colors: one for each view."""
    nodes = [node for node in backbone.get_ordered_ops() if node.get_type_name() == "Convolution"]
    return [str(node.get_friendly_name()) for node in nodes if node.input(1).get_partial_shape()[1] == COLORS]


class _Frames:
    """What NNCF goes through, several times: one placed photo after the other."""

    def __init__(self, photos: ImageLoader, chosen: Sequence[int] | np.ndarray, progress: Progress) -> None:
        self._photos, self._chosen, self._progress = photos, [int(index) for index in chosen], progress

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[dict[str, UInt8[np.ndarray, "1 H W 3"]]]:
        indices: Iterable[int] = self._progress.track(self._chosen, "quantizing", len(self._chosen))
        for index in indices:
            yield {INPUT: self._photos.placed(index)[None]}


def _held_out(detector: Detector, dataset: Dataset) -> Int[np.ndarray, "_held_out"]:
    """Return the photos that fitting held out, which follow from data and settings."""
    settings = detector.settings
    plan = calibration.plan(len(dataset.train), settings.false_alarm_rate, settings.calibration)
    same = dataset.fingerprint() == detector.record["data"]["fingerprint"]
    if not same or (plan.kind, plan.held_out) != ("split", len(detector.calibration.scores)):
        raise SettingsError(
            f"{dataset.root} is not the data that the detector was trained on, so that its held-out photos, which set "
            "the thresholds, are not known; give the unchanged training data"
        )
    return calibration.split(len(dataset.train), plan, settings.seed)[0]


@contextlib.contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """Keep NNCF's bars off stdout, and its notes and warnings about its own insides from the person."""
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
