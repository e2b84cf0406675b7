"""The detector: trained on good images, in torch. Fit, predict, evaluate, save, load."""

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from jaxtyping import Float32, Int, Int64, UInt8
from PIL import Image

from hyperspot.backbones import Backbone, create
from hyperspot.backbones import restore as restore_backbone
from hyperspot.data import Dataset, open_dataset
from hyperspot.decision.inspection_plan import InspectionPlan, prepare_plan
from hyperspot.decision.merging import NewImages
from hyperspot.decision.planning import has_groups
from hyperspot.decision.planning import plan as plan_calibration
from hyperspot.decision.rule import DecisionRule
from hyperspot.detector import model_file
from hyperspot.detector.anomaly_model import AnomalyModel, ScoreStats
from hyperspot.detector.fitting import BeforeTraining, Fitted, HeldOut, crops_of, fit
from hyperspot.detector.loading import ImageLoader
from hyperspot.detector.power import COUNT, PowerEstimate, estimate_power
from hyperspot.detector.record import described, images_learned, versions, warn_of_few
from hyperspot.detector.settings import Settings, SettingsChanges, make_settings
from hyperspot.detector.tile_choice import choose_tiles
from hyperspot.detector.tiled_model import TiledModel
from hyperspot.detector.updating import Updater, fingerprints, require_updatable, updated_record, warn_of
from hyperspot.errors import DataError, HyperspotError, MissingPackageError, ModelFileError
from hyperspot.hardware.cpu import Precision
from hyperspot.hardware.devices import resolve
from hyperspot.images import Crop, InputSize, read_image, read_size
from hyperspot.images.reading import ChannelOrder, ImageInput
from hyperspot.images.tiles import Tiling
from hyperspot.methods import method_class, plugins_of, require_plugins
from hyperspot.predictor import Predictor, distinct, good_inputs
from hyperspot.utils.progress import SILENT, Progress

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, HyperspotError)
"""Raised when metadata and tensors that `Detector.save` did not write are put together."""

if TYPE_CHECKING:
    on_the_class = classmethod
else:

    class on_the_class(classmethod):  # noqa: N801 - used as a decorator
        """A class method that an instance refuses, because it would silently leave the instance unchanged."""

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            """Return the bound class method; raises AttributeError on an instance."""
            if instance is not None:
                name = self.__func__.__name__
                raise AttributeError(
                    f"`{name}` returns a new detector and leaves this one unchanged; call `Detector.{name}(...)`"
                )
            return super().__get__(instance, owner)


class Detector(Predictor):
    """Finds, scores and outlines anomalies after training on images of good parts only.

    Attributes:
        settings: All settings that decided the result.
        record: How the detector was made: data, versions, backbone, times. Stored in the model file.
        held_out: The good images that calibrated it, each with the score by a model that was not trained on it, in the
            order given; after `update` the new ones. Not stored in the model file: empty for a loaded detector.
        fingerprints: Of the images learned, so that `update` leaves them out.
        new_images: After `update`: what the detector before said about the new images. Not stored in the model file.

    Examples:
        >>> import numpy as np
        >>> from hyperspot import Detector
        >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
        >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
        >>> bad = good[0].copy()
        >>> bad[24:40, 24:40] = 255
        >>> detector.predict(bad).is_anomalous
        True

        The model file:

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = detector.save(f"{folder}/part.safetensors")
        ...     loaded = Detector.load(path, device="cpu", precision="f32")
        >>> loaded.predict(bad).is_anomalous
        True

    """

    def __init__(
        self,
        fitted: Fitted,
        settings: Settings,
        record: dict[str, Any],
        fingerprints: Int64[np.ndarray, "_images"] | None = None,
        images_known: Int64[np.ndarray, "_scores"] | None = None,
    ) -> None:
        self.anomaly_model = fitted.anomaly_model.eval()
        self.decision_rule = fitted.decision_rule
        self.held_out: tuple[HeldOut, ...] = fitted.held_out
        self.input_size = self.anomaly_model.input_size
        self.crops = self.anomaly_model.crops
        self.settings = settings
        self.record = record
        self.fingerprints = np.empty(0, np.int64) if fingerprints is None else fingerprints
        self.new_images: NewImages | None = None
        self._images_known = images_known

    @on_the_class
    def fit(
        cls,  # noqa: N805
        data: Path | str | Dataset | Sequence[ImageInput],
        *,
        settings: Settings | None = None,
        weights: Path | str | None = None,
        device: str = "auto",
        channel_order: ChannelOrder = "RGB",
        progress: Progress = SILENT,
        before_training: BeforeTraining | None = None,
        groups: Sequence[str] | None = None,
        inspection: InspectionPlan | Path | str | None = None,
        register: bool = False,
        **changes: Unpack[SettingsChanges],
    ) -> "Detector":
        """Train on images of good parts and return a new detector.

        Args:
            data: A folder (of good images or in a known layout, whose good training images are used), an open data
                set, or images as `predict` takes them.
            settings: All settings; `changes` are single ones by name, for example `method="patchcore"`.
            weights: A file of backbone weights; default: looked up as `backbones.create` does.
            device: For training, and for prediction afterwards: `auto`, `cpu`, `cuda` or `cuda:N`.
            channel_order: Of arrays and tensors.
            progress: Reports stages and steps.
            before_training: Called with each method and its crop before it is fitted.
            groups: Label of the group of each image, for example its lot or part. The images of one group are held out
                together, and the false-alarm rate is promised for images of new groups. Default: each image by itself.
            inspection: Region of interest, zones and rules on regions, or a file of them (JSON, or a mask image whose
                black pixels do not count). Pixels outside have no effect. Default: the whole image.
            register: Align images, by rotation and shift, to the reference of `inspection` or, without one, to the
                first image.
            **changes: See `Settings`.

        Raises:
            DataError, ImageError: If there is no good image, one cannot be read, or there are not as many groups.
            DeviceError: If there is no such device, or it runs out of memory.
            SettingsError: If a setting is unknown or out of range.
            WeightsError: If the backbone weights are missing or damaged.
            CalibrationError: If there are too few images, or groups, for the promised false-alarm rate.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, method="padim", short_side=64, false_alarm_rate=0.2)
            >>> detector.settings.method, detector.record["data"]["images"]
            ('padim', 12)
            >>> len(detector.held_out), detector.decision_rule.calibration.kind
            (12, 'leave-one-out')

        """
        started = time.perf_counter()
        if settings is None:
            settings = make_settings(changes)
        elif changes:
            settings = make_settings({**dict(settings), **changes})
        chosen = resolve(device)
        dataset = open_dataset(Path(data)) if isinstance(data, str | Path) else data
        sources = good_inputs(dataset)
        given = range(len(sources)) if isinstance(dataset, Dataset) else distinct(dataset)
        numbers = None if groups is None else _numbered(groups, dataset, given)
        # Before the slow part: too few images for the promised rate.
        plan = plan_calibration(
            len(sources) if numbers is None else int(numbers.max()) + 1,
            settings.false_alarm_rate,
            settings.calibration,
            leaves_one_out=method_class(settings.method).leave_one_out(settings.method_settings) is not None,
            images="good images" if numbers is None else "groups of good images",
        )
        choice = choose_tiles(settings, [_size(source, channel_order) for source in sources])
        options = method_class(settings.method).backbone_options(settings.method_settings)
        backbone = create(settings.backbone, weights=weights, **options)
        inspected = prepare_plan(inspection, register, sources[0], channel_order)
        images = ImageLoader(sources, choice.input_size, channel_order, inspected.area)
        fitted = fit(
            images,
            plan,
            backbone,
            settings,
            progress,
            chosen,
            before_training,
            numbers,
            choice.tiling,
            inspected,
        )
        fitted = replace(fitted, held_out=tuple(replace(one, index=given[one.index]) for one in fitted.held_out))
        if settings.false_alarm_rate is None:
            warn_of_few(fitted.decision_rule.calibration)
        record = {
            "data": {
                **described(dataset),
                "images": len(sources),
                **({} if numbers is None else {"groups": int(numbers.max()) + 1}),
            },
            "backbone": {
                "name": backbone.name,
                "options": options,
                "weights_source": backbone.weights_source,
                "weights_sha256": backbone.weights_sha256,
            },
            "unused_settings": sorted(method_class(settings.method).unused_settings(settings.method_settings)),
            "versions": versions(),
            "device": chosen.type,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 3),
        }
        if settings.tile != "off":
            record["tiles"] = choice.describe()
        if plugins := plugins_of(settings.method, settings.backbone):
            record["plugins"] = plugins
        return cls(fitted, settings, record, fingerprints(sources, channel_order))

    def update(
        self,
        good_images: Path | str | Dataset | Sequence[ImageInput],
        *,
        groups: Sequence[str] | None = None,
        channel_order: ChannelOrder = "RGB",
        progress: Progress = SILENT,
    ) -> "Detector":
        """Return a detector that has learned more images of good parts, without those before; this one stays.

        CFA (without training), PatchCore and PaDiM merge the new images into their memory, which grows no larger than
        that of a training on all images. The new images calibrate, too, each scored by the model without it, beside the
        calibration scores before. The promise is then approximate, as with `leave-one-out`. A rate that was the default
        of the images follows their number. Calibration scores of a model that knew less than a third of the images are
        left out if the new images score like those before, as long as enough others calibrate.

        Images that were learned before (byte for byte) are left out; a CalibrationWarning names them. Another one says
        if the new images score higher than the calibration images.

        Args:
            good_images: A folder or data set, whose good training images are used, or a list of images.
            groups: Label of the group of each image, as for `fit`. A detector that was trained with groups needs them,
                and they are new groups.
            channel_order: Of arrays and tensors.
            progress: Reports stages and steps.

        Raises:
            SettingsError: If the method with these settings cannot learn more images.
            DataError, ImageError: If there is no new good image, one cannot be read, or there are not as many groups.
            DeviceError: If the device runs out of memory.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (18, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good[:12], short_side=64, false_alarm_rate=0.2)
            >>> updated = detector.update(good[12:])
            >>> [len(one.decision_rule.calibration.scores) for one in (detector, updated)]
            [12, 18]
            >>> updated.record["updates"][0]["images"]
            6

        """
        started = time.perf_counter()
        dataset = open_dataset(Path(good_images)) if isinstance(good_images, str | Path) else good_images
        sources = good_inputs(dataset)
        given = range(len(sources)) if isinstance(dataset, Dataset) else distinct(dataset)
        numbers = None if groups is None else _numbered(groups, dataset, given)
        learned = self.updater().learn(sources, numbers, channel_order, progress)
        warn_of(learned.new, sources)
        held_out = tuple(replace(one, index=given[one.index]) for one in learned.fitted.held_out)
        record = updated_record(self.record, learned, described(dataset), time.perf_counter() - started)
        fitted = replace(learned.fitted, held_out=held_out)
        updated = Detector(fitted, self.settings, record, learned.fingerprints, learned.images_known)
        updated.new_images = learned.new.renumbered(given)
        return updated

    def updater(self) -> Updater:
        """Return what `update` does in steps, for example to look at new images before they are learned.

        Raises:
            SettingsError: If the method with these settings cannot learn more images.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> from hyperspot.utils.progress import SILENT
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> new, _ = detector.updater().compare([*good[:2], good[0] + 50], "RGB", SILENT)
            >>> new.known, new.odd
            ((0, 1), (2,))

        """
        return Updater(
            require_updatable(self.settings, self.anomaly_model),
            self.decision_rule,
            self.settings,
            images_learned(self.record),
            self.images_known,
            self.fingerprints,
            has_groups(self.describe()),
        )

    @property
    def images_known(self) -> Int64[np.ndarray, "_scores"]:
        """For each calibration score, the number of images that the model knew; fewer than now after updates."""
        calibration = self.decision_rule.calibration
        # Only `recalibrate` makes a split of an updated model, and the model knows all images then.
        if self._images_known is None or calibration.kind == "split":
            return np.full(len(calibration.scores), images_learned(self.record))
        return self._images_known

    @property
    def tiling(self) -> Tiling | None:
        """The tiles that its models see; None if its model sees each image whole."""
        return self.anomaly_model.tiling if isinstance(self.anomaly_model, TiledModel) else None

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self.anomaly_model.device

    @property
    def backbone(self) -> Backbone:
        """The frozen feature extractor."""
        return self.anomaly_model.backbone

    def to(self, device: str, *, precision: Precision | None = None) -> "Detector":
        """Move to another device in place and return the same detector.

        Args:
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            precision: Of the backbone; default: what suits the device.

        Raises:
            DeviceError: If there is no such device, it runs out of memory, or it lacks the precision.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> detector.to("cpu", precision="f32").device
            device(type='cpu')

        """
        self.anomaly_model.move(resolve(device), precision)
        return self

    def run(
        self, batch: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]:
        """Return the anomaly maps and, if the method has its own, the image scores; raises DeviceError."""
        return self.anomaly_model.run(batch)

    def describe(self) -> dict[str, Any]:
        """Return the settings, the training record and the versions of the packages, as JSON values."""
        return {"settings": self.settings.model_dump(mode="json"), "training": self.record, "versions": versions()}

    def estimate_power(
        self,
        good_images: Path | str | Dataset | Sequence[ImageInput],
        *,
        count: int = COUNT,
        seed: int = 0,
        channel_order: ChannelOrder = "RGB",
        progress: Progress = SILENT,
    ) -> PowerEstimate:
        """Estimate the detection rate on synthetic defects, at the promised false-alarm rate.

        Cut-paste, texture, scratches, stains and missing parts, tiny to large, are drawn on good images. The estimate
        compares settings of one product; it is not the detection rate of real defects.

        Args:
            good_images: A folder or data set, whose good training images are used, or a list of images. Best are images
                that the model was not trained on: outside the defect, a training image scores lower than a new one.
            count: Number of synthetic images; kinds and sizes take turns.
            seed: The same seed draws the same defects.
            channel_order: Of arrays and tensors.
            progress: Reports how many images are done.

        Raises:
            CalibrationError: If there is no calibration.
            DataError: If there is no good image, or `count` is below 1.
            ImageError: If an image cannot be read.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> estimate = detector.estimate_power(good, count=20)
            >>> found, drawn = estimate.by_size()["large"]
            >>> drawn, found >= estimate.by_size()["tiny"][0]
            (5, True)

        """
        images = good_inputs(good_images)
        return estimate_power(self, images, count=count, seed=seed, channel_order=channel_order, progress=progress)

    def save(self, path: Path | str) -> Path:
        """Write the model file atomically; raises ModelFileError if it cannot be written."""
        path = Path(path)
        model = self.anomaly_model
        tensors = {f"backbone.{name}": tensor for name, tensor in model.backbone.state_dict().items()}
        for number, method in enumerate(model.methods):
            state: dict[str, torch.Tensor] = method.fitted_state()
            tensors |= {f"crops.{number}.{name}": tensor for name, tensor in state.items()}
        metadata = self.metadata()
        scores = metadata["decision_rule"].pop("scores")
        tensors["calibration.scores"] = torch.tensor(scores, dtype=torch.float64)
        tensors["calibration.images_known"] = torch.from_numpy(self.images_known)
        tensors["images.fingerprints"] = torch.from_numpy(self.fingerprints)
        model_file.write(path, tensors, metadata)
        return path

    def metadata(self) -> dict[str, Any]:
        """Return everything about this detector but its tensors, as JSON values.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> detector.metadata()["input_size"]
            {'height': 64, 'width': 64, 'fit': 'contain'}

        """
        return {
            "settings": self.settings.model_dump(mode="json"),
            "input_size": self.input_size.to_dict(),
            "crops": [vars(crop) for crop in self.crops],
            "score_stats": [vars(stats) for stats in self.anomaly_model.score_stats],
            "tiling": None if self.tiling is None else self.tiling.to_dict(),
            "decision_rule": self.decision_rule.to_dict(),
            "record": self.record,
        }

    @classmethod
    def load(cls, path: Path | str, *, device: str = "auto", precision: Precision | None = None) -> "Detector":
        """Read a model file.

        Args:
            path: Written by `save`, on any device.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            precision: Of the backbone: `f32`, `bf16` or, on a GPU, `f16`; default: what suits the device.

        Raises:
            ModelFileError: If the file is missing, damaged, foreign or too new.
            DeviceError: As `to`.

        """
        path = Path(path)
        chosen = resolve(device)
        tensors, metadata = model_file.read(path)
        require_plugins(metadata["record"].get("plugins"), path)
        try:
            detector = cls._from_parts(tensors, metadata)
        except MissingPackageError:
            raise
        except MALFORMED as error:
            raise ModelFileError(
                f"{path} does not hold a whole detector ({type(error).__name__}: {error}); train it again"
            ) from None
        detector.anomaly_model.move(chosen, precision)
        return detector

    @classmethod
    def _from_parts(cls, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> "Detector":
        settings = make_settings(metadata["settings"])
        record = metadata["record"]
        tiling = None if metadata.get("tiling") is None else Tiling.from_dict(metadata["tiling"])
        sizes = [InputSize.from_dict(metadata["input_size"])] if tiling is None else [v.tile_size for v in tiling.views]
        crops = crops_of(sizes[0], settings.crops)
        if tiling is None and [vars(crop) for crop in crops] != metadata["crops"]:
            raise ValueError(f"the crops {metadata['crops']} are not those of its settings")
        backbone = restore_backbone(
            record["backbone"]["name"],
            _under("backbone.", tensors),
            **record["backbone"]["options"],
            weights_source=record["backbone"]["weights_source"],
            weights_sha256=record["backbone"]["weights_sha256"],
        )
        methods = []
        for number in range(len(crops) if tiling is None else len(sizes)):
            method = method_class(settings.method)(backbone, settings.method_settings)
            state = _under(f"crops.{number}.", tensors)
            if state.keys() != method.fitted_state().keys():
                raise ValueError(f"method {number} has the tensors {', '.join(state) or 'of none'}")
            method.load_fitted_state(state)
            methods.append(method)
        stats = [ScoreStats(**stats) for stats in metadata["score_stats"]]
        model: AnomalyModel | TiledModel
        if tiling is None:
            model = AnomalyModel(methods, crops, sizes[0], settings.sigma, stats).eval()
            _require_usable(model)
        else:
            views = [
                AnomalyModel([method], [Crop.full(size)], size, settings.sigma).eval()
                for method, size in zip(methods, sizes, strict=True)
            ]
            for view in views:
                _require_usable(view)
            model = TiledModel(views, tiling)
        rule = DecisionRule.from_dict({**metadata["decision_rule"], "scores": tensors["calibration.scores"].numpy()})
        known = tensors["calibration.images_known"].numpy()
        if len(known) != len(rule.calibration.scores):
            raise ValueError(f"{len(rule.calibration.scores)} calibration scores have {len(known)} numbers of images")
        return cls(Fitted(model, rule), settings, record, tensors["images.fingerprints"].numpy(), known)


def _numbered(
    groups: Sequence[str], data: Dataset | Sequence[ImageInput], used: Sequence[int]
) -> Int[np.ndarray, "_images"]:
    """Return the group of each used image, numbered from 0; raises DataError unless each image has a group."""
    images = len(data.train) if isinstance(data, Dataset) else len(data)
    if len(groups) != images:
        raise DataError(f"{images} good images have {len(groups)} groups; give one group per image")
    return np.unique([str(groups[index]) for index in used], return_inverse=True)[1]


def _size(source: ImageInput, channel_order: ChannelOrder) -> tuple[int, int]:
    if isinstance(source, str | Path | Image.Image):
        return read_size(source)
    height, width, _ = read_image(source, channel_order=channel_order).shape
    return height, width


@torch.inference_mode()
def _require_usable(model: AnomalyModel) -> None:
    """Run a black image, so that parts that do not fit together are refused on loading."""
    size = model.input_size
    maps, scores = model(torch.zeros(1, size.height, size.width, 3, dtype=torch.uint8))
    if not (torch.isfinite(maps).all() and (scores is None or torch.isfinite(scores).all())):
        raise ValueError("it gives scores that are not finite numbers")


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
