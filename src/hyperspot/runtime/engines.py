"""Engines behind one interface: torch, ONNX Runtime, OpenVINO.

Every engine takes the same 8-bit images and returns the same anomaly maps and scores. The backbone runs in bf16 if the
CPU is faster in it (see `hardware.cpu`; ONNX Runtime always computes in f32), and in int8 if the file was quantized.
Distances and everything after them stay in f32, because a difference of near numbers loses its digits in less.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from hyperspot.errors import ModelFileError, SettingsError
from hyperspot.hardware.cpu import Precision, native_precision
from hyperspot.runtime.exported_file import PROPERTY
from hyperspot.runtime.openvino_import import import_openvino
from hyperspot.runtime.openvino_partition import PYRAMID, PartitionedModel, is_quantized, named
from hyperspot.utils.optional_packages import missing

EngineName = Literal["openvino", "onnxruntime"]
EnginePrecision = Literal["f32", "bf16", "f16", "int8"]
"""Precision of a backbone. int8 is a property of the file; f16 runs in torch on a GPU only."""

INPUT, HEATMAP, SCORE = "images", "heatmap", "score"
"""Names of the input and the outputs of an exported graph."""
IR_PROPERTY = ["framework", PROPERTY]
"""Where OpenVINO IR holds the metadata, in its run-time information."""


@runtime_checkable
class Engine(Protocol):
    """Runs the graph of one detector. Any number of threads may call `run` at once.

    Attributes:
        name: `torch`, `openvino` or `onnxruntime`.
        precision: Of the backbone; everything after it is in f32.

    """

    name: str
    precision: EnginePrecision

    def run(
        self, images: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"]]:
        """Return the anomaly map and the score of each image: the method's score, or the maximum of the map."""


class TorchEngine:
    """Runs an `AnomalyModel` (imports torch)."""

    name = "torch"

    def __init__(self, anomaly_model: Any) -> None:
        self._anomaly_model = anomaly_model
        self.precision: EnginePrecision = anomaly_model.precision

    def run(
        self, images: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"]]:
        """Return the anomaly map and the score of each image."""
        maps, scores = self._anomaly_model.run(images)
        return maps, maps.max((1, 2)) if scores is None else scores


class OnnxRuntimeEngine:
    """Runs an ONNX file in ONNX Runtime on the CPU."""

    name = "onnxruntime"
    precision: EnginePrecision = "f32"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        with _reading(path, "ONNX Runtime"):
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.description: str | None = self._session.get_modelmeta().custom_metadata_map.get(PROPERTY)

    def run(
        self, images: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"]]:
        """Return the anomaly map and the score of each image."""
        maps, scores = self._session.run([HEATMAP, SCORE], {INPUT: images})
        return maps, scores


class OpenVinoEngine:
    """Runs OpenVINO IR or an ONNX file in OpenVINO on the CPU."""

    name = "openvino"

    def __init__(self, path: Path, threads: int | None = None, precision: Precision | None = None) -> None:
        openvino = import_openvino()
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        with _reading(path, "OpenVINO"):
            model = core.read_model(path)
        quantized = is_quantized(model)
        if quantized and precision is not None:
            raise SettingsError(
                f"{path} is quantized and computes in int8 only; export it without --int8 for {precision}"
            )
        self.precision: EnginePrecision = "int8" if quantized else precision or _fastest(model)
        with _reading(path, "OpenVINO"):
            self._compiled = PartitionedModel(core, model.clone(), options, self.precision, threads)
        found = model.has_rt_info(IR_PROPERTY)
        self.description: str | None = str(model.get_rt_info(IR_PROPERTY).value) if found else None

    def run(
        self, images: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"]]:
        """Return the anomaly map and the score of each image."""
        results = self._compiled({INPUT: images})
        return results[HEATMAP], results[SCORE]


def _fastest(model: Any) -> Precision:
    """Return the CPU's precision for a graph that names its backbone's outputs, f32 for any other."""
    return native_precision() if named(model, PYRAMID) else "f32"


def available() -> tuple[str, ...]:
    """Return the installed engines, the preferred one first; none is imported."""
    names = ("openvino", "onnxruntime", "torch")
    return tuple(name for name in names if importlib.util.find_spec(name) is not None)


def open_engine(
    path: Path,
    name: str | None = None,
    *,
    threads: int | None = None,
    precision: Precision | None = None,
) -> OpenVinoEngine | OnnxRuntimeEngine:
    """Return an engine for an exported file.

    Args:
        path: An ONNX file, or OpenVINO IR (`.xml`, its `.bin` beside it).
        name: `openvino` or `onnxruntime`; without it the first of the two that is installed and reads the file.
        threads: How many to use; without it the engine decides.
        number_format: Of the backbone, in OpenVINO; without it what suits the CPU. A quantized file has its own.

    Raises:
        MissingPackageError: If no engine for this kind of file is installed.
        ModelFileError: If the engine cannot read the file.
        SettingsError: If there is no such engine, or it does not read this kind of file or lacks the precision.

    """
    if precision == "f16":
        raise SettingsError("exported files run on the CPU, and f16 is for GPUs; choose f32 or bf16")
    if name is not None and name not in get_args(EngineName):
        raise SettingsError(f"there is no engine '{name}' for exported files; choose openvino or onnxruntime")
    kinds = ("openvino",) if path.suffix.lower() == ".xml" else get_args(EngineName)
    if name is not None and name not in kinds:
        raise SettingsError(f"{name} does not read {path.name}; choose openvino, or export with --format onnx")
    wanted = kinds if name is None else (name,)
    usable = [one for one in wanted if one in available()]
    if not usable:
        extra = "runtime" if "openvino" in wanted else "onnxruntime"
        raise missing(" or ".join(wanted), extra, path.name)
    if usable[0] == "openvino":
        return OpenVinoEngine(path, threads, precision)
    if precision == "bf16":
        raise SettingsError("onnxruntime computes in f32 only; choose openvino for bf16")
    return OnnxRuntimeEngine(path, threads)


@contextlib.contextmanager
def _reading(path: Path, engine: str) -> Iterator[None]:
    """Turn the errors of an engine, which share no class, into one sentence."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        reason = str(error).strip().splitlines()[-1][:160].rstrip(".") if str(error).strip() else type(error).__name__
        raise ModelFileError(
            f"{path} cannot be read by {engine} ({reason}); export it again or update {engine}"
        ) from None
