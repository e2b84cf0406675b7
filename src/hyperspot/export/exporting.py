"""Exports a `Detector` to a file that needs no torch: an ONNX graph, or OpenVINO IR converted from it.

The graph takes 8-bit images at the input size and holds everything after: crops, normalization, backbone, method,
smoothing and fusion. Its metadata holds the decision rule. Reading and letterboxing are the same code for every engine
(`images.preprocessing`).
"""

import contextlib
import importlib.metadata
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

import hyperspot
from hyperspot.choices import ExportFormat
from hyperspot.data import Dataset
from hyperspot.detector.anomaly_model import AnomalyModel
from hyperspot.detector.detector import Detector
from hyperspot.errors import CalibrationWarning, ModelFileError, SettingsError
from hyperspot.export.quantization import GoodImages, quantize
from hyperspot.hardware.devices import CPU
from hyperspot.runtime.engines import HEATMAP, INPUT, IR_PROPERTY, SCORE
from hyperspot.runtime.exported_detector import ExportedDetector
from hyperspot.runtime.exported_file import (
    PROPERTY,
    metadata_text,
    read_description,
    remove_stale,
    require_replaceable,
    view_files,
    with_checksum,
)
from hyperspot.runtime.openvino_import import import_nncf, import_openvino
from hyperspot.runtime.openvino_partition import PYRAMID, SEARCH
from hyperspot.utils.atomic_files import sync
from hyperspot.utils.optional_packages import require
from hyperspot.utils.progress import SILENT, Progress

OPSET = 20
"""Of the ONNX graph; ONNX Runtime reads it since 1.17, OpenVINO since 2024.0."""
TOKENS_RANK, AFFINE_RANK = 4, 2
"""Dimensions of the inputs of a search: the levels (b h w d) and the affine function of the position (3 d)."""
SUFFIX: dict[str, str] = {"onnx": ".onnx", "openvino": ".xml"}


class _Exported(nn.Module):
    """An anomaly model that always returns a score."""

    def __init__(self, anomaly_model: AnomalyModel) -> None:
        super().__init__()
        self.anomaly_model = anomaly_model

    def forward(self, images: UInt8[Tensor, "b H W 3"]) -> tuple[Float[Tensor, "b H W"], Float[Tensor, "b"]]:
        maps, own = self.anomaly_model(images)
        return maps, maps.amax((1, 2)) if own is None else own


def export(
    detector: Detector,
    path: Path | str,
    format: ExportFormat | None = None,  # noqa: A002
    *,
    int8: Path | str | Dataset | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write a detector as one ONNX file, or as OpenVINO IR (`.xml` with its `.bin` beside it).

    Input `images`: uint8 RGB, shape (b, H, W, 3), letterboxed to the input size. Outputs `heatmap`: float32, (b, H, W),
    the smoothed anomaly map; `score`: float32, (b), the method's image score or the maximum of the map. The batch is
    dynamic. The results equal those of the detector within f32 rounding.

    A detector with tiles has a graph per view: the first takes tiles, and that of the whole image is written beside, as
    `NAME.whole.onnx`. `ExportedDetector` cuts the tiles and blends their maps.

    With `int8` the backbone computes in 8-bit integers, so scores shift a little. If the detector was calibrated by a
    split, its held-out images are scored again by the quantized file and set its decision rule: the promise stays exact
    (see `quantization`). A detector calibrated by leave-one-out or cross-fitting keeps its thresholds, with a
    CalibrationWarning: `recalibrate` the file with good images that the model was not trained on.

    Args:
        detector: The detector.
        path: `.onnx`, or `.xml` for OpenVINO.
        format: `onnx` or `openvino`; default: inferred from the file extension.
        int8: Good images to quantize the backbone with (OpenVINO only). For a detector calibrated by a split: its
            training data, of which the held-out images only set the thresholds; otherwise any good images.
        progress: Reports the stages of quantization.

    Returns:
        The path.

    Raises:
        DataError, ImageError: If there is no good image to quantize with, or one cannot be read.
        MissingPackageError: If a package for the export is not installed.
        ModelFileError: If the file cannot be written.
        SettingsError: If the suffix is wrong, the method cannot be exported or not in int8, or the images to quantize
            with are not the training data.

    """
    path = Path(path)
    chosen = _format(path, format)
    if int8 is not None and chosen != "openvino":
        raise SettingsError(f"int8 is for OpenVINO alone; name the file {path.with_suffix('.xml').name}")
    if chosen == "openvino":
        import_openvino()
    if int8 is not None:
        import_nncf()
    if not path.parent.is_dir():
        raise ModelFileError(f"{path} cannot be written: there is no folder {path.parent}; make it or choose another")
    require_replaceable(path)
    good = None if int8 is None else GoodImages.of(detector, int8)
    if good is not None and not len(good.held_out) and detector.decision_rule.calibration.threshold is not None:
        warnings.warn(
            f"quantization shifts the scores, and {path.name} keeps the thresholds of the detector; recalibrate it "
            "with good images that the detector was not trained on",
            CalibrationWarning,
            stacklevel=2,
        )
    with _on_the_cpu(detector):
        graphs = [_onnx_graph(detector, model) for model in _models(detector)]
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".partial") as folder:
            drafts = view_files(Path(folder) / path.name, len(graphs))
            for draft, graph in zip(drafts, graphs, strict=True):
                draft.write_bytes(graph if chosen == "openvino" else with_checksum(graph))
            if chosen == "openvino":
                models = [_to_openvino(draft) for draft in drafts]
                if good is not None:
                    _quantize(models, drafts, detector, good, progress)
                for model, draft in zip(models, drafts, strict=True):
                    _write_ir(model, draft)
            # Between the moves the checksums do not match: a reader gets an error, never a wrong detector.
            for draft, target in reversed(list(zip(drafts, view_files(path, len(drafts)), strict=True))):
                if chosen == "openvino":
                    _publish(draft.with_suffix(".bin"), target.with_suffix(".bin"))
                _publish(draft, target)
            remove_stale(path, len(drafts))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelFileError(f"{path} cannot be written: {reason}; choose another folder") from None
    return path


def summary(path: Path) -> dict[str, Any]:
    """Return the facts about a written file: its format, size and precision."""
    views = [one for one in view_files(path, 2) if one.is_file()]
    files = views if path.suffix.lower() == ".onnx" else [*views, *(one.with_suffix(".bin") for one in views)]
    return {
        "model": str(path),
        "format": _format(path, None),
        "opset": OPSET,
        "megabytes": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        **_quantized(path),
    }


def _quantized(path: Path) -> dict[str, Any]:
    """Return the quantization record of a file in int8; an empty one for any other."""
    if _format(path, None) == "onnx":
        return {}
    model = import_openvino().Core().read_model(path)
    record: dict[str, Any] = read_description(path, str(model.get_rt_info(IR_PROPERTY).value))["record"]
    return dict(record.get("exported", {}))


def description(detector: Detector) -> dict[str, Any]:
    """Return the metadata of an exported file: the decision rule, and the record of its training."""
    return {
        **detector.metadata(),
        "has_image_score": _has_image_score(_models(detector)[0]),
        "opset": OPSET,
        "versions": {"hyperspot": hyperspot.__version__, "torch": torch.__version__},
    }


def _format(path: Path, asked: ExportFormat | None) -> ExportFormat:
    suffix = path.suffix.lower()
    found: dict[str, ExportFormat] = {SUFFIX[one]: one for one in get_args(ExportFormat)}
    if asked is None and suffix not in found:
        raise SettingsError(f"{path} tells no format; name it .onnx, or .xml for OpenVINO")
    if asked is not None and suffix != SUFFIX[asked]:
        raise SettingsError(f"a file of the format {asked} ends in {SUFFIX[asked]}; {path} does not")
    return found[suffix]


@contextlib.contextmanager
def _on_the_cpu(detector: Detector) -> Iterator[None]:
    """Move a detector to the CPU for a while: an exported graph names no device."""
    anomaly_model, device, precision = detector.anomaly_model, detector.device, detector.anomaly_model.precision
    if device == CPU:
        yield
        return
    anomaly_model.move(CPU)
    try:
        yield
    finally:
        anomaly_model.move(device, precision)


def _models(detector: Detector) -> list[AnomalyModel]:
    """Return the models that become a graph each: one, or one per view of a tiling."""
    model = detector.anomaly_model
    return [model] if isinstance(model, AnomalyModel) else list(model.views)


def _has_image_score(anomaly_model: AnomalyModel) -> bool:
    return anomaly_model.run(_blank(anomaly_model, 1).numpy())[1] is not None


def _blank(anomaly_model: AnomalyModel, batch: int) -> UInt8[Tensor, "b H W 3"]:
    return torch.zeros(batch, anomaly_model.input_size.height, anomaly_model.input_size.width, 3, dtype=torch.uint8)


@torch.no_grad()
def _onnx_graph(detector: Detector, anomaly_model: AnomalyModel) -> bytes:
    """Return the graph of a model as an ONNX file, without its checksum."""
    for module in ("onnx", "onnxscript"):
        require(module, "export", "exporting")
    # This runs the model once, which also fills the cache of smoothing matrices: filled while tracing, it would keep
    # placeholders.
    text = metadata_text(description(detector))
    try:
        with _quiet():
            program = torch.onnx.export(
                _Exported(anomaly_model).eval(),
                (_blank(anomaly_model, 2),),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[HEATMAP, SCORE],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError:
        program = None
    model: Any = None if program is None else program.model_proto
    if model is None or not _any_batch(model.graph):
        raise SettingsError(
            f"the method '{detector.settings.method}' cannot be exported, as its computation depends on the image; "
            "use the model file, or train with --method cfa"
        )
    _name_partition_points(model.graph)
    _strip(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = PROPERTY, text
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _any_batch(graph: Any) -> bool:
    """Return whether the batch is dynamic: the exporter silently freezes it if the model loops over it."""
    first = [value.type.tensor_type.shape.dim[0] for value in (*graph.input, *graph.output)]
    return not any(dimension.HasField("dim_value") for dimension in first)


def _name_partition_points(graph: Any) -> None:
    """Name the tensors at which an engine may partition the graph (see `runtime.openvino_partition`)."""
    renamed: dict[str, str] = {}
    _, _, leaving = _part(graph, ".backbone")
    renamed |= {name: f"{PYRAMID}{number}" for number, name in enumerate(leaving)}
    searches = {space for node in graph.node for space in _modules(node) if space.endswith(".search")}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    for number, space in enumerate(sorted(searches)):
        inside, entering, leaving = _part(graph, space)
        tokens = [name for name in entering if ranks.get(name) == TOKENS_RANK]
        renamed |= {name: f"{SEARCH}{number}.tokens.{level}" for level, name in enumerate(tokens)}
        renamed |= dict.fromkeys(leaving, f"{SEARCH}{number}.distances")
        banks = [node.input[1] for node in inside if node.op_type == "Gemm"]
        places = [name for name in entering if ranks.get(name) == AFFINE_RANK and name not in banks]
        renamed |= dict.fromkeys(banks[:1], f"{SEARCH}{number}.bank")
        renamed |= dict.fromkeys(places[:1], f"{SEARCH}{number}.affine")
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = renamed.get(name, name)
    for value in (*graph.value_info, *graph.initializer):
        value.name = renamed.get(value.name, value.name)


def _modules(node: Any) -> list[str]:
    """Return the modules that a node was traced in, outermost first."""
    spaces = [entry.value for entry in node.metadata_props if entry.key == "namespace"]
    return [part.partition(":")[0] for space in spaces for part in space.split("/")]


def _part(graph: Any, module: str) -> tuple[list[Any], list[str], list[str]]:
    """Return the nodes traced in a module (by the end of its name), its inputs and its outputs."""
    inside = [node for node in graph.node if any(name.endswith(module) for name in _modules(node))]
    made = {name for node in inside for name in node.output}
    entering = dict.fromkeys(name for node in inside for name in node.input if name and name not in made)
    others = [node for node in graph.node if made.isdisjoint(node.output)]
    leaving = dict.fromkeys(name for node in others for name in node.input if name in made)
    return inside, list(entering), list(leaving)


def _strip(model: Any) -> None:
    """Remove the exporter's notes on source code: local paths, and a tenth of the file."""
    graph = model.graph
    for part in (graph, model, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _to_openvino(source: Path) -> Any:
    """Return the OpenVINO model of an ONNX file, in f32, with its metadata."""
    return import_openvino().Core().read_model(source.rename(source.with_suffix(".onnx")))


def _write_ir(model: Any, target: Path) -> Path:
    """Write IR with its checksum; return its weights file."""
    weights = target.with_suffix(".bin")
    import_openvino().serialize(model, target, weights)
    target.write_bytes(with_checksum(target.read_bytes(), weights.read_bytes()))
    return weights


def _quantize(
    models: Sequence[Any], drafts: Sequence[Path], detector: Detector, good: GoodImages, progress: Progress
) -> None:
    """Quantize the graphs in place; the decision rule is recalibrated with the scores of the quantized files."""
    views = [None] if detector.tiling is None else detector.tiling.views
    for model, draft, view in zip(models, drafts, views, strict=True):
        quantize(model, good, view, progress)
        _write_ir(model, draft)
    rule = good.recalibrate(detector.decision_rule, ExportedDetector.load(drafts[0]).run, progress)
    values = {**description(detector), "decision_rule": rule.to_dict()}
    exported = {
        "precision": "int8",
        "range_images": len(good.range_images),
        "calibration_images": len(good.held_out),
        "nncf": importlib.metadata.version("nncf"),
    }
    values["record"] = {**values["record"], "exported": exported}
    for model in models:
        model.set_rt_info(metadata_text(values), IR_PROPERTY)


def _publish(written: Path, target: Path) -> None:
    sync(written)
    written.replace(target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's own log and warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
