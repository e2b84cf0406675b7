"""Runs an OpenVINO graph in two number formats: the backbone in bf16, all that follows in 32-bit floats.

The graph is cut where the backbone ends; the exporter gives those tensors names. OpenVINO has a hint for a whole
graph only, and in bf16 the distances of near neighbours lose their digits (see SPEED.md: errors up to 0.2).
"""

from typing import Any

from hyperspot.runtime.vendor import import_openvino

PYRAMID = "pyramid."
"""How the names of the tensors begin that the backbone hands over."""


class MixedGraph:
    """Two compiled halves that are called like one compiled graph.

    Raises ValueError where the graph does not tell where its backbone ends.
    """

    def __init__(self, core: Any, model: Any, options: dict[str, Any]) -> None:
        openvino = import_openvino()
        Model, opset13 = openvino.Model, openvino.opset13

        ends = [output for node in model.get_ordered_ops() for output in node.outputs() if _name(output)]
        if not ends:
            raise ValueError("the graph does not tell where its backbone ends")
        frames = model.get_parameters()
        self._names = [_name(end) for end in ends]
        backbone = Model(ends, frames, "backbone").clone()
        entries = []
        for end, name in zip(ends, self._names, strict=True):
            entry = opset13.parameter(end.get_partial_shape(), end.get_element_type(), name=name)
            for target in end.get_target_inputs():
                if target.get_node().get_type_name() != "Result":
                    target.replace_source_output(entry.output(0))
            entry.output(0).get_tensor().set_names({f"entry.{name}"})
            entries.append(entry)
        head = Model(model.get_results(), [*frames, *entries], "head")
        self._backbone = core.compile_model(backbone, "CPU", {**options, "INFERENCE_PRECISION_HINT": "bf16"})
        self._head = core.compile_model(head, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})

    def __call__(self, inputs: dict[str, Any]) -> Any:
        """Return the results of the whole graph, by their names."""
        pyramid = self._backbone(inputs)
        return self._head({**inputs, **{f"entry.{name}": pyramid[name] for name in self._names}})


def _name(output: Any) -> str | None:
    return next((name for name in sorted(output.get_names()) if name.startswith(PYRAMID)), None)
