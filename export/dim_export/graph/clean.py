"""Clean up a traced graph: names, needless nodes, debug metadata of the exporter."""

from __future__ import annotations

from collections import Counter

from onnxscript import ir

from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA

_WRAPPER_PREFIX = "network."
_AXES = {INPUT_IMAGE: ("N", "H", "W", 3), INPUT_TRIMAP: ("N", "H", "W"), OUTPUT_ALPHA: ("N", "H", "W")}


def tidy(model: ir.Model, *, frozen: bool) -> ir.Model:
    """Rename and strip a graph in place, and return it; it computes the same function.

    Convolutions get the name of their layer, initialisers their checkpoint key, and other nodes their
    operator and a number.

    Args:
        model: as the exporter returns it.
        frozen: inputs and output keep the shape of the trace; else N, H and W are free.
    """
    _compare_without_casts(model.graph)
    _strip_notes(model)
    _name_initialisers(model.graph)
    _name_nodes(model.graph)
    if not frozen:
        _free_axes(model.graph)
    return model


def _compare_without_casts(graph: ir.Graph) -> None:
    """Remove the exporter's casts before comparisons: float16 compares as its float32 copy does."""
    for node in list(graph):
        if node.op_type != "GreaterOrEqual":
            continue
        for position, value in enumerate(node.inputs):
            cast = value.producer() if value is not None else None
            if cast is not None and cast.op_type == "Cast":
                node.replace_input_with(position, cast.inputs[0])
                if value is not None and not value.uses():
                    graph.remove(cast, safe=True)


def _strip_notes(model: ir.Model) -> None:
    # Every node carries a Python stack trace, and every value a shape in undeclared symbols: more bytes than
    # the graph itself, and paths of the exporting machine.
    model.metadata_props.clear()
    model.doc_string = None
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    model.graph.name = "dim"
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    interface = {*model.graph.inputs, *model.graph.outputs}
    inner = (*model.graph.initializers.values(), *(value for node in model.graph for value in node.outputs))
    for value in (*model.graph.inputs, *inner):
        value.metadata_props.clear()
        if value not in interface:
            value.type = value.shape = None


def _name_initialisers(graph: ir.Graph) -> None:
    constants = 0
    for value in list(graph.initializers.values()):
        name = value.name or ""
        if name.startswith(_WRAPPER_PREFIX):
            value.name = name.removeprefix(_WRAPPER_PREFIX)
        else:
            value.name = f"constant_{constants}"
            constants += 1
        if value.const_value is not None:
            value.const_value.name = value.name


def _name_nodes(graph: ir.Graph) -> None:
    counts: Counter[str] = Counter()
    for node in graph:
        node.name = _layer_of(node) or f"{node.op_type}_{counts[node.op_type]}"
        counts[node.op_type] += 1
        for position, value in enumerate(node.outputs):
            if value not in graph.outputs:
                value.name = node.name if len(node.outputs) == 1 else f"{node.name}.{position}"


def _layer_of(node: ir.Node) -> str | None:
    if node.op_type != "Conv":
        return None
    weight = node.inputs[1]
    return None if weight is None or weight.name is None else str(weight.name).removesuffix(".weight")


def _free_axes(graph: ir.Graph) -> None:
    for value in (*graph.inputs, *graph.outputs):
        value.shape = ir.Shape(_AXES[str(value.name)])
