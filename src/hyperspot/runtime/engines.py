"""What runs a detector: torch itself, ONNX Runtime or OpenVINO, behind one interface.

Every engine takes the same 8-bit frames and returns the same heatmaps and scores. The backbone runs in bf16 where the
CPU is quick at it (see `cpu`; ONNX Runtime always takes 32-bit floats), and in 8-bit integers where the file was
exported so. Distances and all that follows stay in 32-bit floats, because a difference of near numbers loses its
digits in anything less.
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
from hyperspot.runtime.openvino_import import import_openvino
from hyperspot.runtime.openvino_partition import PYRAMID, PartitionedModel, is_quantized, named
from hyperspot.utils.optional_packages import missing

EngineName = Literal["openvino", "onnxruntime"]
EnginePrecision = Literal["f32", "bf16", "f16", "int8"]
"""What a backbone computes in; int8 is a property of the file and cannot be asked for when it is opened, and f16 is for
torch on a GPU."""

INPUT, HEATMAP, SCORE = "images", "heatmap", "score"
"""The names of an exported graph's input and outputs."""
DESCRIPTION = "hyperspot"
"""The name of the property that holds the description."""


@runtime_checkable
class Engine(Protocol):
    """Runs the graph of one detector.

    Attributes:
        name: `torch`, `openvino` or `onnxruntime`.
        number_format: What the backbone computes in; everything after it is in 32-bit floats.

    """

    name: str
    precision: EnginePrecision

    def run(
        self, frames: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"]]:
        """Return the heatmap and the score of each frame.

        The score is the method's own or, where it has none, the highest value of the heatmap.
        """


class TorchEngine:
    """Runs a `AnomalyModel` (imports torch)."""

    name = "torch"

    def __init__(self, anomaly_model: Any) -> None:
        self._scorer = anomaly_model
        self.precision: EnginePrecision = anomaly_model.precision

    def run(
        self, frames: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"]]:
        """Return the heatmap and the score of each frame."""
        maps, own = self._scorer.run(frames)
        return maps, maps.max((1, 2)) if own is None else own


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
        self.description: str | None = self._session.get_modelmeta().custom_metadata_map.get(DESCRIPTION)

    def run(
        self, frames: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"]]:
        """Return the heatmap and the score of each frame."""
        maps, scores = self._session.run([HEATMAP, SCORE], {INPUT: frames})
        return maps, scores


class OpenVinoEngine:
    """Runs OpenVINO IR or an ONNX file in OpenVINO on the CPU."""

    name = "openvino"

    def __init__(self, path: Path, threads: int | None = None, precision: Precision | None = None) -> None:
        openvino = import_openvino()
        # Left to itself it would run the whole graph in bf16 where the CPU knows that format.
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        with _reading(path, "OpenVINO"):
            model = core.read_model(path)
        quantized = is_quantized(model)
        if quantized and precision is not None:
            raise SettingsError(
                f"{path} is quantized and computes in int8 alone; export it without --int8 for {precision}"
            )
        self.precision: EnginePrecision = "int8" if quantized else precision or _quickest(model)
        with _reading(path, "OpenVINO"):
            self._compiled = PartitionedModel(core, model.clone(), options, self.precision, threads)
        place = ["framework", DESCRIPTION]
        self.description: str | None = str(model.get_rt_info(place).value) if model.has_rt_info(place) else None

    def run(
        self, frames: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"]]:
        """Return the heatmap and the score of each frame."""
        results = self._compiled({INPUT: frames})
        return results[HEATMAP], results[SCORE]


def _quickest(model: Any) -> Precision:
    """Return the CPU's format for a graph that tells where its backbone ends; all of any other stays in f32."""
    return native_precision() if named(model, PYRAMID) else "f32"


def available() -> tuple[str, ...]:
    """Return the engines that are installed, the preferred one first; none of them is imported."""
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
        ModelFileError: Where the engine cannot read the file.
        MissingPackageError: No engine for this kind of file is installed.
        SettingsError: Where there is no such engine, or it does not read this kind of file or does not compute it in
            this format.

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
        raise SettingsError("onnxruntime computes in f32 alone; choose openvino for bf16")
    return OnnxRuntimeEngine(path, threads)


@contextlib.contextmanager
def _reading(path: Path, engine: str) -> Iterator[None]:
    """Turn whatever an engine stumbles over into one sentence."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - its errors share no class of their own
        reason = str(error).strip().splitlines()[-1][:160].rstrip(".") if str(error).strip() else type(error).__name__
        raise ModelFileError(
            f"{path} cannot be read by {engine} ({reason}); export it again or update {engine}"
        ) from None
