"""The one object a user must know: fit on good photos, predict, evaluate, save, load."""

import datetime as dt
import importlib.metadata
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import hyperspot
from hyperspot.backbones import Backbone, create
from hyperspot.backbones import restore as restore_backbone
from hyperspot.data import Dataset, open_dataset
from hyperspot.decision import calibration
from hyperspot.decision.calibration import Calibration
from hyperspot.decision.rule import DecisionRule
from hyperspot.detector import model_file as model_file
from hyperspot.detector.anomaly_model import AnomalyModel, ScoreStats
from hyperspot.detector.fitting import Fitted, crops_of, fit
from hyperspot.detector.loading import ImageInput, ImageLoader
from hyperspot.detector.settings import Settings, make_settings
from hyperspot.errors import DataError, HyperspotError, ModelFileError
from hyperspot.evaluation import Evaluation, evaluate
from hyperspot.hardware.cpu import Precision
from hyperspot.hardware.devices import resolve
from hyperspot.images import InputSize, read_image, read_size
from hyperspot.methods import method_class
from hyperspot.results.verdict import Verdict
from hyperspot.utils.prefetch import prefetch_map
from hyperspot.utils.progress import SILENT, Progress

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, HyperspotError)
"""What building a detector from metadata and tensors that were not written by `Detector.save` stumbles over."""


class Detector:
    """Shown photos of good parts only, it finds, scores and outlines what is wrong in a new photo.

    Attributes:
        settings: Everything that decided the result.
        record: How the detector was made: data, versions, backbone, times. Stored in the model file.

    """

    def __init__(self, fitted: Fitted, settings: Settings, record: dict[str, Any]) -> None:
        self.anomaly_model = fitted.anomaly_model.eval()
        self.calibration = fitted.calibration
        self.pixel_threshold = fitted.pixel_threshold
        self.heat_range = fitted.heat_range
        self.settings = settings
        self.record = record

    @classmethod
    def fit(
        cls,
        data: Path | str | Dataset | Sequence[ImageInput],
        *,
        settings: Settings | None = None,
        weights: Path | str | None = None,
        device: str = "auto",
        progress: Progress = SILENT,
        **changes: Any,
    ) -> "Detector":
        """Learn what good parts look like.

        Args:
            data: A folder (of good photos or in a known layout, whose good training photos are used), an open
                data set, or photos as paths, arrays (h w 3, 8-bit RGB) or Pillow images.
            settings: All settings; `changes` are single ones by name, for example `method="cfa"`.
            weights: A file of backbone weights, where they should not be looked for in the usual places.
            device: Where to learn, and to judge afterward: `auto`, `cpu`, `cuda` or `cuda:N` (see `devices.resolve`).
            progress: Told how far the work is.

        Raises:
            DataError, ImageError: Where there is no good photo or one cannot be read.
            DeviceError: Where there is no such device, or its memory is too small.
            SettingsError, WeightsError, CalibrationError: As their names say.

        """
        started = time.perf_counter()
        if settings is None:
            settings = make_settings(changes)
        elif changes:
            settings = make_settings({**dict(settings), **changes})
        chosen = resolve(device)
        sources, described = _training_photos(data)
        # A promise that so few photos cannot keep is refused before the slow part.
        calibration.plan(len(sources), settings.false_alarm_rate, settings.calibration)
        sizes = [_size(source) for source in sources]
        frame = InputSize.for_sizes(sizes, settings.short_side, settings.aspect)
        letterboxes = [frame.letterbox(*size) for size in sizes]
        options = method_class(settings.method).backbone_options(settings.method_settings)
        backbone = create(settings.backbone, weights=weights, **options)
        fitted = fit(ImageLoader(sources, frame), letterboxes, backbone, settings, progress, chosen)
        record = {
            "data": {**described, "images": len(sources)},
            "backbone": {
                "name": backbone.name,
                "options": options,
                "weights_source": backbone.weights_source,
                "weights_sha256": backbone.weights_sha256,
            },
            "versions": _versions(),
            "device": chosen.type,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 3),
        }
        return cls(fitted, settings, record)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.anomaly_model.device

    def to(self, device: str, *, precision: Precision | None = None) -> "Detector":
        """Move to another device and return the same detector.

        Args:
            device: `auto`, `cpu`, `cuda` or `cuda:N` (see `devices.resolve`).
            number_format: What the backbone computes in there; without it what suits the device.

        Raises DeviceError where there is no such device, its memory is too small, or it does not compute so.
        """
        self.anomaly_model.move(resolve(device), precision)
        return self

    def predict(self, photo: ImageInput) -> Verdict:
        """Judge one photo: a path, encoded bytes, an array (h w 3, 8-bit RGB) or a Pillow image.

        Raises ImageError where it cannot be read.
        """
        image = read_image(photo)
        started = time.perf_counter()
        letterbox = self.anomaly_model.input_size.letterbox(*image.shape[:2])
        maps, own = self.anomaly_model.run(letterbox.apply(image)[None])
        return DecisionRule(self.calibration, self.pixel_threshold, self.heat_range).verdict(
            image,
            letterbox,
            maps[0],
            None if own is None else float(own[0]),
            started=started,
            path=Path(photo) if isinstance(photo, str | Path) else None,
        )

    def predict_many(self, photos: Iterable[ImageInput]) -> Iterator[Verdict]:
        """Judge photos one after the other, decoding ahead; the order is kept."""
        yield from map(self._judge_decoded, prefetch_map(_decoded, photos))

    def _judge_decoded(self, decoded: tuple[ImageInput, Any]) -> Verdict:
        source, image = decoded
        verdict = self.predict(image)
        if isinstance(source, str | Path):
            return replace(verdict, path=Path(source))
        return verdict

    def evaluate(
        self,
        data: Path | str | Dataset,
        *,
        progress: Progress = SILENT,
        command: str = "",
    ) -> Evaluation:
        """Judge the test photos of a labeled data set and measure everything (see `evaluation`)."""
        dataset = data if isinstance(data, Dataset) else open_dataset(Path(data))
        promised = None if self.calibration.threshold is None else self.calibration.false_alarm_rate
        return evaluate(
            self.predict_many,
            dataset,
            crops=self.anomaly_model.crops,
            promised_rate=promised,
            threshold=self.calibration.threshold,
            calibration_scores=tuple(float(score) for score in self.calibration.scores),
            made_by={
                "command": command,
                "data": {"path": str(dataset.root), "layout": dataset.layout, "images": len(dataset.test)},
                "settings": self.settings.model_dump(mode="json"),
                "training": self.record,
                "versions": _versions(),
            },
            progress=progress,
        )

    def save(self, path: Path | str) -> Path:
        """Write the model file (atomically); raises ModelFileError where that cannot be done."""
        path = Path(path)
        anomaly_model = self.anomaly_model
        backbone: Any = anomaly_model.methods[0].backbone
        tensors = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
        for number, method in enumerate(anomaly_model.methods):
            fitted_state: dict[str, torch.Tensor] = method.fitted_state()  # type: ignore[operator]
            tensors |= {f"crops.{number}.{name}": tensor for name, tensor in fitted_state.items()}
        tensors["calibration.scores"] = torch.tensor(np.asarray(self.calibration.scores, dtype=np.float64))
        model_file.write(path, tensors, self.metadata())
        return path

    def metadata(self) -> dict[str, Any]:
        """Return all that a file has to know of this detector beside its tensors, as it goes into JSON."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "input_size": self.anomaly_model.input_size.to_dict(),
            "crops": [vars(crop) for crop in self.anomaly_model.crops],
            "score_stats": [vars(usual) for usual in self.anomaly_model.score_stats],
            "calibration": {
                "kind": self.calibration.kind,
                "false_alarm_rate": self.calibration.false_alarm_rate,
            },
            "pixel_threshold": self.pixel_threshold,
            "heat_range": list(self.heat_range),
            "record": self.record,
        }

    @classmethod
    def load(cls, path: Path | str, *, device: str = "auto", precision: Precision | None = None) -> "Detector":
        """Read a model file, which knows nothing of devices.

        Args:
            path: Made by `save`.
            device: Where to judge: `auto`, `cpu`, `cuda` or `cuda:N` (see `devices.resolve`).
            number_format: What the backbone computes in: `f32`, `bf16` or, on a GPU, `f16`; without it what suits the
                device.

        Raises ModelFileError where the file is missing, damaged, foreign or too new, and DeviceError as `to` does.
        """
        path = Path(path)
        chosen = resolve(device)
        tensors, metadata = model_file.read(path)
        try:
            detector = cls._from_parts(tensors, metadata)
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
        frame = InputSize.from_dict(metadata["input_size"])
        crops = crops_of(frame, settings.crops)
        if [vars(crop) for crop in crops] != metadata["crops"]:
            raise ValueError(f"the views {metadata['crops']} are not those of its settings")
        backbone = restore_backbone(
            record["backbone"]["name"],
            _under("backbone.", tensors),
            **record["backbone"]["options"],
            weights_source=record["backbone"]["weights_source"],
            weights_sha256=record["backbone"]["weights_sha256"],
        )
        methods = []
        for number in range(len(crops)):
            method = method_class(settings.method)(backbone, settings.method_settings)
            fitted_state = _under(f"crops.{number}.", tensors)
            if fitted_state.keys() != method.fitted_state().keys():
                raise ValueError(f"view {number} has the tensors {', '.join(fitted_state) or 'of none'}")
            method.load_fitted_state(fitted_state)
            methods.append(method)
        usual = [ScoreStats(**usual) for usual in metadata["score_stats"]]
        anomaly_model = AnomalyModel(methods, crops, frame, settings.sigma, usual).eval()
        calibrated = Calibration.from_scores(
            metadata["calibration"]["kind"],
            metadata["calibration"]["false_alarm_rate"],
            tensors["calibration.scores"].numpy(),
        )
        _require_usable(anomaly_model)
        fitted = Fitted(anomaly_model, calibrated, *_scale(metadata, calibrated))
        return cls(fitted, settings, record)

    @property
    def backbone(self) -> Backbone:
        """The frozen feature extractor."""
        backbone: Backbone = self.anomaly_model.methods[0].backbone  # type: ignore[assignment]
        return backbone


def _training_photos(data: Path | str | Dataset | Sequence[ImageInput]) -> tuple[list[ImageInput], dict[str, Any]]:
    if isinstance(data, str | Path):
        data = open_dataset(Path(data))
    if isinstance(data, Dataset):
        if not data.train:
            raise DataError(f"{data.root} has no good photo to learn from; add some to its training folder")
        described = {"name": data.name, "layout": data.layout, "fingerprint": data.fingerprint()}
        return [photo.path for photo in data.train], described
    sources = list(data)
    if not sources:
        raise DataError("no photo was given; give at least one photo of a good part")
    return sources, {"name": "photos", "layout": "memory", "fingerprint": None}


def _size(source: ImageInput) -> tuple[int, int]:
    if isinstance(source, str | Path | Image.Image):
        return read_size(source)
    height, width, _ = read_image(source).shape
    return height, width


def _decoded(source: ImageInput) -> tuple[ImageInput, Any]:
    return source, read_image(source)


def _scale(metadata: dict[str, Any], calibrated: Calibration) -> tuple[float | None, tuple[float, float]]:
    """Return the pixel threshold and the range of the heatmap's colors; raises ValueError where they are none."""
    threshold = metadata["pixel_threshold"]
    cold, hot = map(float, metadata["heat_range"])
    if (threshold is None) != (calibrated.threshold is None) or not cold < hot:
        raise ValueError(f"the pixel threshold {threshold} or the heat range {cold} to {hot} fits nothing")
    return None if threshold is None else float(threshold), (cold, hot)


@torch.inference_mode()
def _require_usable(anomaly_model: AnomalyModel) -> None:
    """Judge a black frame: what does not fit together is refused here rather than at the first photo."""
    frame = anomaly_model.input_size
    maps, own = anomaly_model(torch.zeros(1, frame.height, frame.width, 3, dtype=torch.uint8))
    if not (torch.isfinite(maps).all() and (own is None or torch.isfinite(own).all())):
        raise ValueError("it gives scores that are not numbers")


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "pillow")}
    return {"hyperspot": hyperspot.__version__, "python": platform.python_version(), **packages}
