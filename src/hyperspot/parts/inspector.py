"""Inspects parts that are seen in several views: a predictor per view, and one decision."""

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import numpy as np

from hyperspot.choices import LightingMode, Models
from hyperspot.data.part_sets import Part, PartSet, open_part_set
from hyperspot.decision.calibration import default_rate
from hyperspot.decision.planning import has_groups
from hyperspot.errors import CalibrationWarning, DataError, HyperspotError, ImageError
from hyperspot.images.reading import ChannelOrder
from hyperspot.parts import saving
from hyperspot.parts.calibration import PartCalibration
from hyperspot.parts.evaluation import PartEvaluation, evaluate
from hyperspot.parts.inputs import (
    PartInput,
    good_parts,
    images_of,
    missing_views,
    plan_views,
    refuse_missing,
    refuse_unknown,
    view_input,
)
from hyperspot.parts.part_file import Unpacked
from hyperspot.parts.verdict import PartVerdict, decide
from hyperspot.predictor import Predictor
from hyperspot.results.verdict import Verdict
from hyperspot.utils.progress import SILENT, Progress

if TYPE_CHECKING:
    from hyperspot.detector.settings import Settings, SettingsChanges
else:
    # Unchecked at run time: torch must not be imported here.
    Settings, SettingsChanges = Any, TypedDict("SettingsChanges", {})

PARTS_AT_ONCE = 4
"""Parts whose images of a view run together; more would keep too many images in memory."""


class PartInspector:
    """Decides about parts from several views, with one promised false-alarm rate.

    Attributes:
        predictors: The predictor of each view; its decision rule has the thresholds of the part.
        images: The names of the images that make the input of each view: one, or the lightings stacked as channels.
        calibration: Held-out scores of good parts in all views, and the promised rate.
        record: How it was trained.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from hyperspot import PartInspector
        >>> random = np.random.default_rng(0)
        >>> def part():
        ...     return {view: random.integers(100, 140, (64, 64, 3), dtype=np.uint8) for view in ("top", "side")}
        >>> inspector = PartInspector.fit([part() for _ in range(12)], short_side=64, false_alarm_rate=0.2)
        >>> inspector.predict(part()).is_anomalous
        False
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = inspector.save(f"{folder}/part.hyperspot")
        ...     loaded = PartInspector.load(path, device="cpu")
        >>> loaded.views
        ('top', 'side')
        >>> bad = part()
        >>> bad["top"][24:40, 24:40] = 255
        >>> loaded.predict(bad).is_anomalous
        True
        >>> loaded.with_false_alarm_rate(0.4).false_alarm_rate
        0.4
        >>> loaded.describe()["training"]["models"]
        'each'

        For a line PC without torch:

        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exported = PartInspector.load(loaded.export(f"{folder}/line.hyperspot"))
        >>> exported.predict(bad).deciding_view
        'top'

    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        images: Mapping[str, Sequence[str]],
        calibration: PartCalibration,
        record: Mapping[str, Any],
    ) -> None:
        self.images = {view: tuple(names) for view, names in images.items()}
        self.record = dict(record)
        self.calibration = calibration
        self.predictors = {
            view: predictor.with_decision_rule(replace(predictor.decision_rule, calibration=calibration.of_view(view)))
            for view, predictor in predictors.items()
        }
        self._unpacked: Unpacked | None = None

    @classmethod
    def fit(
        cls,
        data: Path | str | PartSet | Sequence[PartInput],
        *,
        models: Models = "each",
        lightings: LightingMode = "auto",
        settings: Settings | None = None,
        weights: Path | str | None = None,
        device: str = "auto",
        channel_order: ChannelOrder = "RGB",
        progress: Progress = SILENT,
        groups: Sequence[str] | None = None,
        **changes: Unpack[SettingsChanges],
    ) -> "PartInspector":
        """Train on good parts.

        Args:
            data: A folder or CSV table as `open_part_set` reads it, an open part set, whose good training parts are
                used, or parts: mappings from `VIEW`, or `VIEW/LIGHTING`, to images as `Detector.predict` takes them.
            models: `each` trains a model per view, `shared` one model for all views, for views that look alike.
            lightings: `channels` stacks two or three lightings of a view as the channels of one input, `views` takes
                each as a view of its own, and `auto` stacks them if they are gray.
            settings: Of all models; `changes` are single ones by name. The false-alarm rate is that of the part.
            weights: As in `Detector.fit`.
            device: As in `Detector.fit`.
            channel_order: Of arrays and tensors.
            progress: Reports stages and steps.
            groups: Label of the group of each part, for example its lot; the parts of a group are held out together.
            **changes: See `Settings`.

        Raises:
            DataError: If there is no good part, or one lacks a view.
            SettingsError: If a setting is unknown or out of range, or the calibration is `none`.
            CalibrationError: If there are too few parts for the promised false-alarm rate.
            HyperspotError: As `Detector.fit`.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import PartInspector
            >>> parts = list(np.random.default_rng(0).integers(100, 140, (12, 2, 64, 64), dtype=np.uint8))
            >>> parts = [{"top/dark": dark, "top/bright": bright} for dark, bright in parts]
            >>> stacked = PartInspector.fit(parts, short_side=64, false_alarm_rate=0.2)
            >>> stacked.images
            {'top': ('top/dark', 'top/bright')}

        """
        from hyperspot.detector.settings import make_settings
        from hyperspot.parts.fitting import fit_views

        if isinstance(data, str | Path):
            data = open_part_set(data)
        parts = good_parts(data)
        planned = plan_views(parts, lightings)
        if settings is None:
            settings = make_settings(changes)
        elif changes:
            settings = make_settings({**dict(settings), **changes})
        predictors, calibration, record = fit_views(
            data.name if isinstance(data, PartSet) else "parts",
            parts,
            planned,
            settings,
            models,
            groups,
            channel_order,
            progress,
            weights=weights,
            device=device,
        )
        return cls(predictors, planned, calibration, record)

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views."""
        return tuple(self.predictors)

    @property
    def image_names(self) -> tuple[str, ...]:
        """Names of the images of a part: `VIEW`, or `VIEW/LIGHTING` where lightings are stacked."""
        return tuple(name for names in self.images.values() for name in names)

    @property
    def false_alarm_rate(self) -> float:
        """The promised share of good parts called anomalous, in (0, 1)."""
        return self.calibration.calibration.false_alarm_rate

    def predict(
        self,
        part: PartInput,
        *,
        name: str | None = None,
        channel_order: ChannelOrder = "RGB",
        allow_missing: bool = False,
    ) -> PartVerdict:
        """Return the verdict on one part.

        Args:
            part: Images by `VIEW`, or by `VIEW/LIGHTING` for stacked lightings.
            name: Of the part, for the verdict; default: that of a `Part`, or `part`.
            channel_order: Of arrays and tensors.
            allow_missing: Decide about a part without all views by those it has. It may be anomalous, at the promised
                rate, and is never called good: `is_anomalous` is None then.

        Raises:
            DataError: If a view is missing and `allow_missing` is False, there is no view at all, or one is unknown.
            ImageError: If an image cannot be read.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import PartInspector
            >>> parts = list(np.random.default_rng(0).integers(100, 140, (12, 2, 64, 64, 3), dtype=np.uint8))
            >>> parts = [{"top": top, "side": side} for top, side in parts]
            >>> inspector = PartInspector.fit(parts, short_side=64, false_alarm_rate=0.2)
            >>> verdict = inspector.predict({"top": parts[5]["top"]}, allow_missing=True)
            >>> verdict.is_anomalous, verdict.missing
            (None, ('side',))

        """
        if name is None:
            name = part.name if isinstance(part, Part) else "part"
        (verdict,) = self._predict([(name, part)], channel_order, allow_missing)
        if isinstance(verdict, HyperspotError):
            raise verdict
        return verdict

    @overload
    def predict_many(
        self,
        parts: Iterable[PartInput],
        *,
        channel_order: ChannelOrder = ...,
        allow_missing: bool = ...,
        errors: Literal["raise"] = ...,
    ) -> Iterator[PartVerdict]: ...

    @overload
    def predict_many(
        self,
        parts: Iterable[PartInput],
        *,
        channel_order: ChannelOrder = ...,
        allow_missing: bool = ...,
        errors: Literal["return"],
    ) -> Iterator[PartVerdict | ImageError | DataError]: ...

    def predict_many(
        self,
        parts: Iterable[PartInput],
        *,
        channel_order: ChannelOrder = "RGB",
        allow_missing: bool = False,
        errors: Literal["raise", "return"] = "raise",
    ) -> Iterator[PartVerdict | ImageError | DataError]:
        """Yield the verdicts on many parts, in order.

        Args:
            parts: As `predict` takes them; mappings are named by their position, from 0.
            channel_order: Of arrays and tensors.
            allow_missing: As in `predict`.
            errors: `raise` stops at an unreadable image or a missing view; `return` yields its error in place of the
                verdict.

        Raises:
            DataError, ImageError: As `predict`, if `errors` is `raise`.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import PartInspector
            >>> parts = list(np.random.default_rng(0).integers(100, 140, (12, 2, 64, 64, 3), dtype=np.uint8))
            >>> parts = [{"top": top, "side": side} for top, side in parts]
            >>> inspector = PartInspector.fit(parts, short_side=64, false_alarm_rate=0.2)
            >>> incomplete = {"top": parts[5]["top"]}
            >>> for result in inspector.predict_many([parts[5], incomplete], errors="return"):
            ...     print(result if isinstance(result, Exception) else result.is_anomalous)
            False
            the part 1 lacks the view side; add it, or allow missing views

        """
        waiting = ((part.name if isinstance(part, Part) else str(at), part) for at, part in enumerate(parts))
        while chunk := list(itertools.islice(waiting, PARTS_AT_ONCE)):
            for verdict in self._predict(chunk, channel_order, allow_missing):
                if errors == "raise" and isinstance(verdict, HyperspotError):
                    raise verdict
                yield verdict

    def evaluate(
        self,
        data: Path | str | PartSet,
        *,
        allow_missing: bool = False,
        progress: Progress = SILENT,
        command: str = "",
    ) -> PartEvaluation:
        """Predict the labeled test parts of a part set and compute every metric, for the part and for each view.

        Args:
            data: A folder or CSV table as `open_part_set` reads it, or an open part set.
            allow_missing: As in `predict`.
            progress: Reports how many images are done.
            command: The command line, for the report.

        Raises:
            DataError: If there is no labeled test part, or one lacks a view and `allow_missing` is False.
            ImageError: If an image or a mask cannot be read.

        Examples:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from hyperspot import PartInspector, make_product_set
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     for seed, view in enumerate(("top", "side")):
            ...         _ = make_product_set(Path(folder, view), seed=seed, train=12, good=4, defective=3, size=64)
            ...     inspector = PartInspector.fit(folder, short_side=64, false_alarm_rate=0.2)
            ...     evaluation = inspector.evaluate(folder)
            >>> evaluation.part.promised_false_alarm_rate, list(evaluation.views)
            (0.2, ['side', 'top'])

        """
        parts = data if isinstance(data, PartSet) else open_part_set(data, views=self.image_names)
        return evaluate(self, parts, allow_missing=allow_missing, progress=progress, command=command)

    def with_false_alarm_rate(self, rate: float) -> "PartInspector":
        """Return this inspector with another promised false-alarm rate, in (0, 1); nothing is trained.

        Raises:
            CalibrationError: If there are too few calibration parts for the rate.

        """
        for predictor in self.predictors.values():
            predictor.with_false_alarm_rate(rate)  # refuses impossible rates
        return self._changed(self.predictors, self.calibration.at_rate(rate))

    def recalibrate(
        self,
        data: Path | str | PartSet | Sequence[PartInput],
        *,
        false_alarm_rate: float | None = None,
        channel_order: ChannelOrder = "RGB",
        progress: Progress = SILENT,
    ) -> "PartInspector":
        """Return this inspector with thresholds set by other good parts; nothing is trained.

        Args:
            data: As `fit` takes it.
            false_alarm_rate: To promise, in (0, 1); default: the current rate.
            channel_order: Of arrays and tensors.
            progress: Reports how many images are done.

        Raises:
            CalibrationError: If there are too few parts for the rate.
            DataError: If there is no good part, or one lacks a view.
            ImageError: If an image cannot be read.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import PartInspector
            >>> parts = list(np.random.default_rng(0).integers(100, 140, (24, 2, 64, 64, 3), dtype=np.uint8))
            >>> parts = [{"top": top, "side": side} for top, side in parts]
            >>> inspector = PartInspector.fit(parts[:12], short_side=64, false_alarm_rate=0.2)
            >>> recalibrated = inspector.recalibrate(parts[12:], false_alarm_rate=0.1)
            >>> recalibrated.false_alarm_rate, recalibrated.calibration.calibration.kind
            (0.1, 'split')

        """
        if isinstance(data, str | Path):
            data = open_part_set(data, views=self.image_names)
        parts = good_parts(data)
        for number, images in enumerate(parts):
            refuse_missing(str(number), missing_views(images, self.images), "add it")
            refuse_unknown(str(number), images, self.image_names)
        if has_groups(self.describe()):
            warnings.warn(
                "the models were trained with groups of parts and each part calibrates them by itself, so that the "
                "promise does not hold for new groups if parts share one; give one part per group",
                CalibrationWarning,
                stacklevel=2,
            )
        rate = self.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
        changed: dict[str, Predictor] = {}
        columns = []
        for view, predictor in self.predictors.items():
            inputs = [view_input(images, self.images[view]) for images in parts]
            with warnings.catch_warnings():
                # A shared model was trained with groups, the parts: here each view has one image per part.
                warnings.simplefilter("ignore", CalibrationWarning)
                # The floor of masks; its threshold is replaced by that of the part.
                changed[view] = predictor.recalibrate(
                    inputs, false_alarm_rate=default_rate(len(parts)), channel_order=channel_order, progress=progress
                )
            verdicts = predictor.predict_many(inputs, channel_order=channel_order)
            columns.append([verdict.score for verdict in verdicts])
        calibration = PartCalibration.from_scores("split", rate, self.views, np.array(columns).T)
        return self._changed(changed, calibration)

    def describe(self) -> dict[str, Any]:
        """Return the settings, the training record and the versions, as JSON values."""
        described = {view: predictor.describe() for view, predictor in self.predictors.items()}
        first = next(iter(described.values()))
        views = {view: {"images": list(self.images[view]), **one["training"]} for view, one in described.items()}
        backbone = first["training"].get("backbone")
        return {**first, "training": {**self.record, "backbone": backbone, "views": views}}

    def save(self, path: Path | str) -> Path:
        """Write the models of all views and the calibration to one file, atomically.

        Args:
            path: With the suffix `.hyperspot`.

        Raises:
            ModelFileError: If the suffix is another one, or the file cannot be written.

        """
        return saving.write(Path(path), self._contents())

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        engine: str | None = None,
        precision: str | None = None,
        device: str = "auto",
        false_alarm_rate: float | None = None,
    ) -> "PartInspector":
        """Read a file that `save` or `export` wrote.

        Args:
            path: Of the file.
            engine: As in `load_model`.
            precision: As in `load_model`.
            device: As in `load_model`.
            false_alarm_rate: To promise, in (0, 1); default: that of the file.

        Raises:
            ModelFileError: If the file is missing, damaged, foreign or made by a newer version.
            HyperspotError: As `load_model`.

        """
        contents, unpacked = saving.read(Path(path), engine, precision, device)
        inspector = cls(*contents)
        inspector._unpacked = unpacked
        return inspector if false_alarm_rate is None else inspector.with_false_alarm_rate(false_alarm_rate)

    def export(self, path: Path | str) -> Path:
        """Write a file whose models are ONNX files, which predicts without torch.

        Args:
            path: With the suffix `.hyperspot`.

        Raises:
            ModelFileError: If the models are exported already, the suffix is another one, or the file cannot be
                written.

        """
        return saving.export(Path(path), self._contents())

    def _contents(self) -> saving.Contents:
        return saving.Contents(self.predictors, self.images, self.calibration, self.record)

    def _changed(self, predictors: Mapping[str, Predictor], calibration: PartCalibration) -> "PartInspector":
        changed = PartInspector(predictors, self.images, calibration, self.record)
        changed._unpacked = self._unpacked
        return changed

    def _predict(
        self, parts: Sequence[tuple[str, PartInput]], channel_order: ChannelOrder, allow_missing: bool
    ) -> list[PartVerdict | ImageError | DataError]:
        verdicts: list[dict[str, Verdict]] = [{} for _ in parts]
        failed: dict[int, ImageError | DataError] = {}
        missing = []
        for number, (name, part) in enumerate(parts):
            lacking = missing_views(images_of(part), self.images)
            missing.append(lacking)
            try:
                refuse_unknown(name, images_of(part), self.image_names)
                if len(lacking) == len(self.images) or not allow_missing:
                    refuse_missing(name, lacking, "add it, or allow missing views")
            except DataError as error:
                failed[number] = error
        for view, predictor in self.predictors.items():
            seen = [number for number in range(len(parts)) if view not in missing[number] and number not in failed]
            inputs = [view_input(images_of(parts[number][1]), self.images[view]) for number in seen]
            results = predictor.predict_many(inputs, channel_order=channel_order, errors="return")
            for number, result in zip(seen, results, strict=True):
                if isinstance(result, ImageError):
                    failed.setdefault(number, result)
                else:
                    first = images_of(parts[number][1])[self.images[view][0]]
                    if result.path is None and isinstance(first, str | Path):
                        # Stacked lightings are named after the first one.
                        result = replace(result, path=Path(first))
                    verdicts[number][view] = result
        return [
            failed[number] if number in failed else decide(name, verdicts[number], self.calibration)
            for number, (name, _) in enumerate(parts)
        ]
