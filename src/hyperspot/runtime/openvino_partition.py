"""Runs an OpenVINO graph in parts, each as suits it.

- The backbone in bf16 where the CPU multiplies it, or in the 8-bit integers that it was quantized to; all that follows
  in 32-bit floats. OpenVINO has a hint for a whole graph only, and in bf16 the distances of near neighbors lose their
  digits (errors up to 0.2). Alone in its part, nothing of the backbone's 8 bits is moved into what follows.
- The search for neighbors by the compiled kernel of `native`, where there is one, instead of a matrix of distances.

The exporter gives the tensors names between which the graph is cut.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hyperspot.hardware import native
from hyperspot.hardware.cpu import cores, native_precision
from hyperspot.runtime.openvino_import import import_openvino

PYRAMID = "pyramid."
"""How the names of the tensors begin that the backbone hands over."""
SEARCH = "search."
"""How the names begin of what enters and leaves the search of each view: `search.VIEW.tokens.LEVEL` and so on."""


class PartitionedModel:
    """Compiled parts that are called like one compiled graph.

    Args:
        core: OpenVINO's.
        model: The graph; it is taken apart.
        options: Of the compilation, without the precision.
        number_format: Of the backbone: `f32`, `bf16`, or `int8` for a graph that is quantized.
        threads: For the compiled search; without it as many as the process may use.

    Raises ValueError where another format than f32 is asked for and the graph does not tell where its backbone ends.

    """

    def __init__(
        self, core: Any, model: Any, options: dict[str, Any], precision: str, threads: int | None = None
    ) -> None:
        self._core, self._options = core, options
        self._threads = threads or cores()
        self._frames = model.get_parameters()
        self._stages: list[tuple[Any, list[str]]] = []
        self._searches: dict[str, _SearchPart] = {}
        entries: list[Any] = []
        if precision != "f32":
            ends = named(model, PYRAMID)
            if not ends:
                raise ValueError("the graph does not tell where its backbone ends")
            # What is quantized runs in 8 bits under any hint; the rest of such a backbone takes the quickest.
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
        """Return the results of the whole graph, by their names."""
        given = dict(inputs)
        for compiled, names in self._stages:
            found = compiled({name: given[name] for name in _inputs(compiled)})
            given |= {f"entry.{name}": found[name] for name in names}
        for name, search in self._searches.items():
            given[f"entry.{name}"] = search([given[f"entry.{one}"] for one in search.tokens], self._threads)
        return self._tail({name: given[name] for name in _inputs(self._tail)})

    def parts(self, inputs: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        """Return a call for each part, with what it takes for these inputs: for finding out what is slow."""
        given, calls = dict(inputs), {}

        def ready(compiled: Any) -> Callable[[], Any]:
            taken = {name: np.array(given[name]) for name in _inputs(compiled)}
            return lambda: compiled(taken)

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
        part = import_openvino().Model(ends, [*self._frames, *entries], "part").clone()
        return self._core.compile_model(part, "CPU", {**self._options, "INFERENCE_PRECISION_HINT": precision})


class _SearchPart:
    """The compiled search with the constants of one view, read from the graph."""

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
        """Return the squared distances of all images, place by place."""
        images = zip(*tokens, strict=True)
        return np.concatenate(
            [self._packed.nearest_in_pyramid(list(image), self._affine, self.k, threads)[0] for image in images]
        )


def is_quantized(model: Any) -> bool:
    """Return whether a graph holds layers in 8-bit integers."""
    return any(node.get_type_name() == "FakeQuantize" for node in model.get_ordered_ops())


def named(model: Any, start: str, part: str = "") -> dict[str, Any]:
    """Return the outputs of the graph's nodes whose names begin so and hold the part, by name, in order."""
    found = {}
    for node in model.get_ordered_ops():
        for output in node.outputs():
            for name in output.get_names():
                if name.startswith(start) and part in name:
                    found[name] = output
    return dict(sorted(found.items()))


def _constant(model: Any, name: str) -> np.ndarray | None:
    """Return the value of a tensor that no input of the graph can change."""
    output = named(model, name).get(name)
    if output is None:
        return None
    alone = import_openvino().Model([output], [], "constant").clone()
    from openvino.passes import ConstantFolding, Manager

    # Folded rather than compiled and run, which takes a hundred times as long.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(alone)
    node = alone.get_results()[0].input_value(0).get_node()
    if node.get_type_name() != "Constant":
        raise ValueError(f"the graph does not tell the value of {name}")
    value: np.ndarray = node.get_data()
    return value.copy()


def _enter(ends: dict[str, Any]) -> list[Any]:
    """Let what follows the ends take new inputs instead; return these."""
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


def _inputs(compiled: Any) -> list[str]:
    return [port.get_any_name() for port in compiled.inputs]
