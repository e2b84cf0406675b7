"""The path of an image, for every engine: preprocess, run, decide.

`Detector` (torch) and `ExportedDetector` (OpenVINO, ONNX Runtime) differ in `run` alone.
"""

import copy
import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np
from jaxtyping import Float32, UInt8

from hyperspot.data import Dataset, open_dataset
from hyperspot.decision.calibration import default_rate
from hyperspot.decision.good_images import score_good_images
from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.decision.planning import has_groups
from hyperspot.decision.region_rules import RegionRules
from hyperspot.decision.rule import DecisionRule, calibrate
from hyperspot.errors import CalibrationWarning, DataError, DeviceError, ImageError, ImageWarning
from hyperspot.evaluation import Evaluation, evaluate
from hyperspot.images import Crop, InputSize, PreparedImage, prepare
from hyperspot.images.reading import ChannelOrder, ImageInput
from hyperspot.results.verdict import Verdict
from hyperspot.utils.forking import forks
from hyperspot.utils.prefetch import latest, prefetch_batches, prefetch_map
from hyperspot.utils.progress import SILENT, Progress

P = TypeVar("P", bound="Predictor")

BATCH_SIZE = 8
"""Images that `predict_many` runs together at most."""


class Predictor(ABC):
    """Scores images and decides which are anomalous.

    Attributes:
        input_size: Size that every image is letterboxed to.
        crops: The parts of the input that the model sees.
        decision_rule: From anomaly maps to verdicts; `with_false_alarm_rate` and `recalibrate` change it.

    Examples:
        A predictor for fixed cameras that takes the darkest pixel for the defect:

        >>> import numpy as np
        >>> from hyperspot import Calibration, DecisionRule, Predictor
        >>> from hyperspot.images import Crop, InputSize
        >>> class Darkness(Predictor):
        ...     input_size = InputSize(32, 32, "stretch")
        ...     crops = (Crop.full(input_size),)
        ...     def run(self, batch):
        ...         return (255 - batch.mean(axis=3)).astype(np.float32), None
        ...     def describe(self):
        ...         return {"settings": {}, "training": {}, "versions": {}}
        >>> darkness = Darkness()
        >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 32, 32, 3), dtype=np.uint8))
        >>> calibration = Calibration.from_scores("none", 0.1, [])
        >>> darkness.decision_rule = DecisionRule.from_good_images(calibration, [np.zeros(9)], 0.001)
        >>> darkness = darkness.recalibrate(good, false_alarm_rate=0.1)
        >>> darkness.predict(np.zeros((48, 48, 3), np.uint8)).is_anomalous
        True

    """

    input_size: InputSize
    crops: tuple[Crop, ...]
    decision_rule: DecisionRule
    _forks: int

    def __new__(cls, *_arguments: Any, **_options: Any) -> "Predictor":
        """Note the process that it is made in."""
        made = super().__new__(cls)
        made._forks = forks()
        return made

    def __copy__(self: P) -> P:
        """Return another predictor that shares the model."""
        made: Any = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        copied: P = made
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be pickled, or copied with the model: engines hold memory and threads of this process."""
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or deep-copied; save it, and load the file in each process"
        )

    @abstractmethod
    def run(
        self, batch: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]:
        """Return the anomaly maps, and the image scores if the method has its own, of 8-bit RGB images.

        Args:
            batch: Letterboxed to the input size.

        Returns:
            Maps at the input size, higher is more anomalous, and one score per image or None.

        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what made this predictor, as JSON values: `settings`, `training` and `versions`.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> detector.describe()["settings"]["method"]
            'cfa'

        """

    def preprocess(self, image: ImageInput, *, channel_order: ChannelOrder = "RGB") -> PreparedImage:
        """Read an image and letterbox it to the input size; raises ImageError if it cannot be read.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> detector.preprocess(np.zeros((480, 640, 3), np.uint8)).pixels.shape
            (64, 64, 3)

        """
        return prepare(image, self.input_size, self.decision_rule.inspection.area, channel_order=channel_order)

    def predict(self, image: ImageInput, *, channel_order: ChannelOrder = "RGB") -> Verdict:
        """Return the verdict on one image.

        Args:
            image: A path, encoded bytes, a Pillow image, an array (height x width x 3, uint8, uint16 or float in 0..1)
                or a torch tensor (3 x height x width).
            channel_order: Of arrays and tensors; OpenCV delivers `BGR`.

        Raises:
            ImageError: If the image cannot be read.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> bad = good[0].copy()
            >>> bad[24:40, 24:40] = 255
            >>> verdict = detector.predict(bad)
            >>> verdict.is_anomalous, verdict.p_value == 1 / 13, len(verdict.regions)
            (True, True, 1)

        """
        return self._verdicts([self.preprocess(image, channel_order=channel_order)])[0]

    @overload
    def predict_many(
        self,
        images: Iterable[ImageInput],
        *,
        batch_size: int = ...,
        channel_order: ChannelOrder = ...,
        errors: Literal["raise"] = ...,
    ) -> Iterator[Verdict]: ...

    @overload
    def predict_many(
        self,
        images: Iterable[ImageInput],
        *,
        batch_size: int = ...,
        channel_order: ChannelOrder = ...,
        errors: Literal["return"],
    ) -> Iterator[Verdict | ImageError]: ...

    def predict_many(
        self,
        images: Iterable[ImageInput],
        *,
        batch_size: int = BATCH_SIZE,
        channel_order: ChannelOrder = "RGB",
        errors: Literal["raise", "return"] = "raise",
    ) -> Iterator[Verdict | ImageError]:
        """Yield the verdicts on many images, in order.

        Worker threads read and letterbox ahead. A sized collection runs in full batches; of an iterator, for example
        lines on stdin, the images that are ready run together. The batch size does not change a verdict beyond the
        rounding of the precision.

        Args:
            images: As `predict` takes them; iterated in a background thread.
            batch_size: Images run together at most.
            channel_order: Of arrays and tensors.
            errors: `raise` stops at an unreadable image; `return` yields its ImageError in place of the verdict.

        Raises:
            ImageError: If an image cannot be read and `errors` is `raise`.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> images = [good[0], "missing.png", np.full((64, 64, 3), 255, np.uint8)]
            >>> for result in detector.predict_many(images, errors="return"):
            ...     print(getattr(result, "is_anomalous", result))
            False
            missing.png does not exist; check the name
            True

        """

        def preprocess(image: ImageInput) -> PreparedImage | ImageError:
            try:
                return self.preprocess(image, channel_order=channel_order)
            except ImageError as error:
                return error

        for batch in prefetch_batches(preprocess, images, batch_size, ahead=not self.input_size.is_large):
            verdicts = iter(self._verdicts([one for one in batch if isinstance(one, PreparedImage)]))
            for one in batch:
                if isinstance(one, PreparedImage):
                    yield next(verdicts)
                elif errors == "raise":
                    raise one
                else:
                    yield one

    def stream(
        self, frames: Iterable[ImageInput], *, latest_only: bool = False, channel_order: ChannelOrder = "RGB"
    ) -> Iterator[Verdict]:
        """Yield the verdict on each live frame before the next frame is taken: latency first.

        Args:
            frames: From a camera, as `predict` takes images.
            latest_only: Drop frames that arrive while one is processed and continue with the newest.
            channel_order: Of arrays and tensors; OpenCV delivers `BGR`.

        Raises:
            ImageError: If a frame cannot be read.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> camera = iter([good[0], np.full((64, 64, 3), 255, np.uint8)])
            >>> [verdict.is_anomalous for verdict in detector.stream(camera, channel_order="BGR")]
            [False, True]

        """
        for frame in latest(frames) if latest_only else frames:
            yield self.predict(frame, channel_order=channel_order)

    def evaluate(self, data: Path | str | Dataset, *, progress: Progress = SILENT, command: str = "") -> Evaluation:
        """Predict the test images of a labeled data set and compute every metric (see `evaluation`).

        Raises:
            DataError: If there is no labeled test image.
            ImageError: If an image or a mask cannot be read.

        Examples:
            >>> import tempfile
            >>> from hyperspot import Detector, make_product_set
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     data = make_product_set(folder, train=12, good=4, defective=3, size=64)
            ...     detector = Detector.fit(data, short_side=64, false_alarm_rate=0.2)
            ...     evaluation = detector.evaluate(data)
            >>> evaluation.promised_false_alarm_rate, len(evaluation.image_results)
            (0.2, 7)

        """
        dataset = data if isinstance(data, Dataset) else open_dataset(Path(data))
        return evaluate(self, dataset, progress=progress, command=command)

    def with_false_alarm_rate(self: P, rate: float) -> P:
        """Return this predictor with another promised false-alarm rate, in (0, 1); nothing is trained.

        Raises:
            CalibrationError: If there is no calibration, or too few calibration images for the rate.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> strict = detector.with_false_alarm_rate(0.4)
            >>> strict.decision_rule.calibration.threshold <= detector.decision_rule.calibration.threshold
            True

        """
        return self.with_decision_rule(self.decision_rule.with_false_alarm_rate(rate))

    def recalibrate(
        self: P,
        good_images: Path | str | Dataset | Sequence[ImageInput],
        *,
        false_alarm_rate: float | None = None,
        inspection: InspectionPlan | Path | str | None = None,
        channel_order: ChannelOrder = "RGB",
        progress: Progress = SILENT,
    ) -> P:
        """Return this predictor with thresholds set by other good images; nothing is trained.

        The promise is exact for images that the model was not trained on, if they are as independent of each other as
        of new images. Each image calibrates by itself, so that a model trained with groups causes a CalibrationWarning:
        give it one image per group.

        Args:
            good_images: A folder or data set, whose good training images are used, or a list of images.
            false_alarm_rate: To promise, in (0, 1); default: the current rate, or without one the default rate of
                the images.
            inspection: Another region of interest, zones and rules, as `Detector.fit` takes them; a model that was
                trained with registration keeps its reference. Default: the current ones.
            channel_order: Of arrays and tensors.
            progress: Reports how many images are done.

        Raises:
            CalibrationError: If there are too few images for the rate.
            DataError: If there is no good image.
            ImageError: If an image cannot be read.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> brighter = [image + 20 for image in good]
            >>> detector.recalibrate(brighter, false_alarm_rate=0.1).decision_rule.calibration.false_alarm_rate
            0.1

        """
        images = good_inputs(good_images)
        if has_groups(self.describe()):
            warnings.warn(
                "the model was trained with groups and each image calibrates it by itself, so that the promise does "
                "not hold for new groups if images share one; give one image per group",
                CalibrationWarning,
                stacklevel=2,
            )
        rate = false_alarm_rate
        if rate is None:
            kept = None if self.decision_rule.calibration.kind == "none" else self.decision_rule.calibration
            rate = default_rate(len(images)) if kept is None else kept.false_alarm_rate
        plan = self._inspection(inspection)
        read = partial(prepare, input_size=self.input_size, area=plan.area, channel_order=channel_order)
        loaded = prefetch_map(read, images, ahead=not self.input_size.is_large)
        prepared = progress.track(loaded, "scoring good images", len(images))
        old = self.decision_rule
        good = score_good_images(self._run_here, prepared, old.background_weight, plan)
        rule, _ = calibrate("split", rate, good, old.mask_false_alarm_rate, old.background_weight, plan)
        return self.with_decision_rule(rule)

    def with_rules(self: P, rules: RegionRules | None = None, *, mm_per_pixel: float | None = None) -> P:
        """Return this predictor with other rules on regions, or another scale; nothing is calibrated.

        Rules only let an image pass that would be called anomalous, so that the promised false-alarm rate holds.

        Args:
            rules: Instead of those outside of zones with rules of their own; default: the current ones.
            mm_per_pixel: Side of a pixel of the reference image of the region of interest, or without one of each
                image; default: the current one.

        Raises:
            SettingsError: If a rule is in millimeters and there is no scale.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector, RegionRules
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> bad = good[0].copy()
            >>> bad[24:40, 24:40] = 255
            >>> strict = detector.with_rules(RegionRules(min_length="0.5mm"), mm_per_pixel=0.1).predict(bad)
            >>> lenient = detector.with_rules(RegionRules(min_length="50mm"), mm_per_pixel=0.1).predict(bad)
            >>> strict.is_anomalous, lenient.is_anomalous, lenient.statistical_is_anomalous
            (True, False, True)
            >>> strict.reasons[0].startswith("region 1: length"), lenient.reasons
            (True, ())

        """
        rule = self.decision_rule
        return self.with_decision_rule(replace(rule, inspection=rule.inspection.with_rules(rules, mm_per_pixel)))

    def with_decision_rule(self: P, rule: DecisionRule) -> P:
        """Return this predictor with another decision rule; the model is shared.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> rule = detector.decision_rule.with_false_alarm_rate(0.4)
            >>> detector.with_decision_rule(rule).decision_rule.calibration.false_alarm_rate
            0.4

        """
        changed = copy.copy(self)
        changed.decision_rule = rule
        return changed

    def _inspection(self, given: InspectionPlan | Path | str | None) -> InspectionPlan:
        """Return the plan to recalibrate with: the model was trained on aligned images or on images as they are."""
        current = self.decision_rule.inspection
        if given is None:
            return current
        plan = given if isinstance(given, InspectionPlan) else InspectionPlan.read(given)
        return plan.with_reference(current.area.reference)

    def _run_here(
        self, batch: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]:
        """Run a batch, or refuse to wait for threads that a fork has left behind."""
        if self._forks != forks():
            raise DeviceError(
                f"{type(self).__name__} was made before this process was forked and would wait forever; load it in "
                "each process, or start processes by spawn"
            )
        return self.run(batch)

    def _verdicts(self, batch: Sequence[PreparedImage]) -> list[Verdict]:
        if not batch:
            return []
        started = time.perf_counter()
        if len(batch) == 1:
            # No copy of a single image, which may be large.
            pixels = np.ascontiguousarray(batch[0].pixels)[None]
        else:
            pixels = np.stack([one.pixels for one in batch])
        maps, scores = self._run_here(pixels)
        seconds = (time.perf_counter() - started) / len(batch)
        return [
            self.decision_rule.decide(
                one, maps[number], None if scores is None else float(scores[number]), one.seconds + seconds
            )
            for number, one in enumerate(batch)
        ]


def good_inputs(data: Path | str | Dataset | Sequence[ImageInput]) -> list[ImageInput]:
    """Return the good images meant by a folder, a data set or a list; raises DataError if there is none."""
    if isinstance(data, str | Path):
        data = open_dataset(Path(data))
    if isinstance(data, Dataset):
        if not data.train:
            raise DataError(f"{data.root} has no good training image; add some to its training folder")
        return [sample.path for sample in data.train]
    kept = distinct(data)
    if not kept:
        raise DataError("no image was given; give at least one image of a good part")
    for index in sorted(set(range(len(data))).difference(kept)):
        warnings.warn(f"{data[index]!s} is given more than once; it is used once", ImageWarning, stacklevel=3)
    return [data[index] for index in kept]


def distinct(images: Sequence[ImageInput]) -> list[int]:
    """Return the indices of all images but repeated paths.

    An image both trained on and held out would break the promised false-alarm rate.
    """
    kept: list[int] = []
    seen: set[Path] = set()
    for index, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            path = Path(image).resolve()
            if path in seen:
                continue
            seen.add(path)
        kept.append(index)
    return kept
