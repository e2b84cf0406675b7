"""Runs an OpenVINO graph in partitions, each in its own precision.

- The backbone runs in bf16 if the CPU multiplies it, or in int8 if it was quantized; everything after it runs in f32.
  OpenVINO has one precision hint per graph, and in bf16 the distances of near neighbors lose their digits (errors up
  to 0.2). A partition of its own also keeps the 8-bit layers out of what follows.
- The neighbor search runs in the compiled kernel of `hardware.native`, if there is one, instead of a distance matrix.

The exporter names the tensors at which the graph is partitioned.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hyperspot.hardware import native
from hyperspot.hardware.cpu import cores, native_precision
from hyperspot.runtime.openvino_import import import_openvino

PYRAMID = "pyramid."
"""Prefix of the names of the backbone's outputs."""
SEARCH = "search."
"""Prefix of the names of the inputs and outputs of each crop's search: `search.CROP.tokens.LEVEL` and so on."""


class PartitionedModel:
    """Compiled partitions, called like one compiled graph. Any number of threads may call it at once.

    Args:
        core: OpenVINO's.
        model: The graph; it is taken apart.
        options: Of the compilation, without the precision.
        precision: Of the backbone: `f32`, `bf16`, or `int8` for a quantized graph.
        threads: Of the compiled search; default: as many as the process may use.

    Raises ValueError if another precision than f32 is asked for and the graph does not name the backbone's outputs.

    """

    def __init__(
        self, core: Any, model: Any, options: dict[str, Any], precision: str, threads: int | None = None
    ) -> None:
        self._core, self._options = core, options
        self._threads = threads or cores()
        self._images = model.get_parameters()
        self._stages: list[tuple[Any, list[str]]] = []
        self._searches: dict[str, _SearchPart] = {}
        self._idle: deque[_Requests] = deque()
        entries: list[Any] = []
        if precision != "f32":
            ends = named(model, PYRAMID)
            if not ends:
                raise ValueError("the graph does not name the outputs of its backbone")
            # Quantized layers run in int8 under any hint; the other layers take the fastest precision.
            hint = native_precision() if precision == "int8" else precision
            self._add_stage(list(ends.values()), list(ends), [], hint)
            entries = _enter(ends)
        tokens = named(model, SEARCH, ".tokens.")
        distances = named(model, SEARCH, ".distances")
        if native.level() and distances:
            self._searches = {name: _SearchPart(model, name, list(tokens)) for name in distances}
            if all(search.possible for search in self._searches.values()):
                self._add_stage(list(tokens.values()), list(tokens), entries, "f32")
                entries = [*entries, *_enter(distances)]
            else:
                self._searches = {}
        self._tail = self._compile(model.get_results(), entries, "f32")

    def __call__(self, inputs: dict[str, Any]) -> Any:
        """Return the results of the whole graph, by name."""
        # Requests hold inputs and outputs: threads that shared one would get each other's results.
        try:
            requests = self._idle.pop()
        except IndexError:
            requests = _Requests([compiled for compiled, _ in self._stages], self._tail)
        try:
            given = dict(inputs)
            for request, (_, names) in zip(requests.stages, self._stages, strict=True):
                # Views into the request, which no other thread uses until it is returned.
                found = request.infer(given, share_outputs=True)
                given |= {f"entry.{name}": found[name] for name in names}
            for name, search in self._searches.items():
                given[f"entry.{name}"] = search([given[f"entry.{one}"] for one in search.tokens], self._threads)
            return requests.tail.infer(given, share_outputs=False)
        finally:
            self._idle.append(requests)

    def parts(self, inputs: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """Return a call for each partition, with its inputs for these images: for profiling."""
        given, calls = dict(inputs), {}

        def ready(compiled: Any) -> Callable[[], Any]:
            request = _Request(compiled)
            taken = {name: np.array(given[name]) for name in request.names}
            return lambda: request.infer(taken, share_outputs=False)

        for number, (compiled, names) in enumerate(self._stages):
            calls["backbone" if number == 0 else "projection"] = call = ready(compiled)
            given |= {f"entry.{name}": call()[name] for name in names}
        for name, search in self._searches.items():
            tokens = [np.array(given[f"entry.{one}"]) for one in search.tokens]
            calls[f"search of {name.split('.')[1]}"] = searching = partial(search, tokens, self._threads)
            given[f"entry.{name}"] = searching()
        calls["score and smoothing"] = ready(self._tail)
        return calls

    def _add_stage(self, ends: list[Any], names: list[str], entries: list[Any], precision: str) -> None:
        self._stages.append((self._compile(ends, entries, precision), names))

    def _compile(self, ends: list[Any], entries: list[Any], precision: str) -> Any:
        part = import_openvino().Model(ends, [*self._images, *entries], "part").clone()
        return self._core.compile_model(part, "CPU", {**self._options, "INFERENCE_PRECISION_HINT": precision})


class _Request:
    """An inference request of one partition, for one thread at a time."""

    def __init__(self, compiled: Any) -> None:
        self.names = [port.get_any_name() for port in compiled.inputs]
        self._request = compiled.create_infer_request()

    def infer(self, given: dict[str, Any], *, share_outputs: bool) -> Any:
        """Return the outputs by name; shared ones are views that the next call overwrites."""
        inputs = {name: given[name] for name in self.names}
        return self._request.infer(inputs, share_inputs=True, share_outputs=share_outputs)


class _Requests:
    """One request for each partition."""

    def __init__(self, stages: Sequence[Any], tail: Any) -> None:
        self.stages = [_Request(compiled) for compiled in stages]
        self.tail = _Request(tail)


class _SearchPart:
    """The compiled search with the constants of one crop, read from the graph."""

    def __init__(self, model: Any, name: str, tokens: Sequence[str]) -> None:
        crop = name.removesuffix("distances")
        bank, affine = _constant(model, f"{crop}bank"), _constant(model, f"{crop}affine")
        self.tokens = [one for one in tokens if one.startswith(crop)]
        self.k = named(model, name)[name].get_partial_shape()[1].get_length()
        self.possible = bank is not None and affine is not None and self.k <= native.MOST_NEIGHBORS
        if bank is not None and affine is not None and self.possible:
            self._affine = np.array(affine, dtype=np.float32)
            self._packed = native.pack(np.ascontiguousarray(bank.T, dtype=np.float32))

    def __call__(self, tokens: Sequence[np.ndarray], threads: int) -> np.ndarray:
        """Return the squared distances of all images, position by position."""
        images = zip(*tokens, strict=True)
        return np.concatenate(
            [self._packed.nearest_in_pyramid(list(image), self._affine, self.k, threads)[0] for image in images]
        )


def is_quantized(model: Any) -> bool:
    """Return whether a graph holds quantized layers."""
    return any(node.get_type_name() == "FakeQuantize" for node in model.get_ordered_ops())


def named(model: Any, start: str, part: str = "") -> dict[str, Any]:
    """Return the outputs whose names start with `start` and contain `part`, by name, in order."""
    found = {}
    for node in model.get_ordered_ops():
        for output in node.outputs():
            for name in output.get_names():
                if name.startswith(start) and part in name:
                    found[name] = output
    return dict(sorted(found.items()))


def _constant(model: Any, name: str) -> np.ndarray | None:
    """Return the value of a constant tensor of the graph; None if there is none of that name."""
    output = named(model, name).get(name)
    if output is None:
        return None
    alone = import_openvino().Model([output], [], "constant").clone()
    from openvino.passes import ConstantFolding, Manager

    # Folding takes a hundredth of the time that compiling and running takes.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(alone)
    node = alone.get_results()[0].input_value(0).get_node()
    if node.get_type_name() != "Constant":
        raise ValueError(f"{name} is not a constant of the graph")
    value: np.ndarray = node.get_data()
    return value.copy()


def _enter(ends: dict[str, Any]) -> list[Any]:
    """Replace tensors by new inputs of the graph; return these."""
    opset13 = import_openvino().opset13
    entries = []
    for name, end in ends.items():
        entry = opset13.parameter(end.get_partial_shape(), end.get_element_type(), name=name)
        for target in end.get_target_inputs():
            if target.get_node().get_type_name() != "Result":
                target.replace_source_output(entry.output(0))
        entry.output(0).get_tensor().set_names({f"entry.{name}"})
        entries.append(entry)
    return entries
