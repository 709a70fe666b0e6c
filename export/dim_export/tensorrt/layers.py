"""Read the precision of an engine's layers from its builder's report, and from the network it was built from.

Both TensorRT's inspector and the list of layers that TensorRT-RTX writes to its log describe a layer as
``Name: …, LayerType: …, Inputs: [ { … Datatype: Half, … } ], …, Metadata: [ONNX Layer: …]``, one layer a
line. TensorRT 10 writes ``Format/Datatype: Channel major FP16 format``. A convolution is found by its name in
the ONNX graph, whatever layer it became. Of a merged layer the report has only the types of the outer inputs:
it is shown to the user, and the strongly typed network decides whether the precision is right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, Literal, NamedTuple

from dim.contract import Precision

LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]+), Inputs: \[(?P<inputs>.*?)\], (?:Constants|Outputs)"
)
ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
DATATYPE = re.compile(r"Datatype: .*?\b(BFloat16|BF16|Half|FP16|Float|FP32|Int8)\b", re.IGNORECASE)
PRECISIONS: dict[str, Precision] = {
    "int8": "int8", "bfloat16": "bf16", "bf16": "bf16", "half": "fp16", "fp16": "fp16",
    "float": "fp32", "fp32": "fp32",
}  # fmt: skip
NARROWEST: tuple[Precision, ...] = ("int8", "fp16", "bf16", "fp32")


class EngineLayers(NamedTuple):
    """Layers of an engine.

    Attributes:
        kinds: how many layers of each kind; empty where only the network could be read.
        convolutions: how many convolutions take their input in each precision, the most frequent first.
        read_from: the engine, or the network that it was built from.
    """

    kinds: dict[str, int]
    convolutions: dict[Precision, int]
    read_from: Literal["engine", "network"]

    @property
    def precision(self) -> Precision | None:
        """Precision of most convolutions; the first and last may differ. None if none was found."""
        return next(iter(self.convolutions), None)


def report_of_log(lines: Iterable[str], convolutions: Collection[str]) -> EngineLayers | None:
    """Parse the list of layers of a builder; None if it names none of the convolutions.

    Args:
        lines: of the builder's log, or of the inspector.
        convolutions: names of the convolutions in the graph.
    """
    kinds: Counter[str] = Counter()
    found: dict[str, Precision] = {}
    for line in lines:
        match = LAYER.match(line)
        if match is None:
            continue
        kinds[match["kind"]] += 1
        types = _precisions(match["inputs"])
        for name in _origins(line, match["name"]).intersection(convolutions) if types else ():
            # Several layers can implement one convolution, and other inputs can be merged with it: its own
            # type is the narrowest.
            found[name] = min(types | {found.get(name, "fp32")}, key=NARROWEST.index)
    if not found:
        return None
    counts = Counter(found.values())
    return EngineLayers(dict(kinds.most_common()), dict(counts.most_common()), "engine")


def _precisions(inputs: str) -> set[Precision]:
    return {PRECISIONS[name.lower()] for name in DATATYPE.findall(inputs)}


def _origins(line: str, name: str) -> set[str]:
    """Return the graph nodes behind a layer; without that record, its name joins theirs with plus signs."""
    return set(ORIGIN.findall(line) or name.split(" + "))


def report_of_engine(
    module: Any, logger: Any, plan: bytes, convolutions: Collection[str]
) -> EngineLayers | None:
    """Parse the report of TensorRT's inspector; needs the GPU. None if it names none of the convolutions."""
    runtime = module.Runtime(logger)
    # The plan was built in this process: its code for the host may run.
    runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    text = engine.create_engine_inspector().get_engine_information(module.LayerInformationFormat.ONELINE)
    return report_of_log(text.splitlines(), convolutions)


def convolution_names(module: Any, network: Any) -> list[str]:
    """Return the names of a parsed network's convolutions, which are those of the ONNX graph."""
    return [layer.name for layer in _convolutions(module, network)]


def types_of_network(module: Any, network: Any) -> EngineLayers:
    """Return the types of a strongly typed network: the builder may choose kernels, but not their types."""
    names: dict[Any, Precision] = {
        module.DataType.FLOAT: "fp32", module.DataType.HALF: "fp16",
        module.DataType.BF16: "bf16", module.DataType.INT8: "int8",
    }  # fmt: skip
    convolutions: Counter[Precision] = Counter(
        names[_operand_type(module, network, layer)] for layer in _convolutions(module, network)
    )
    return EngineLayers({}, dict(convolutions.most_common()), "network")


def _convolutions(module: Any, network: Any) -> list[Any]:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return [layer for layer in layers if layer.type == module.LayerType.CONVOLUTION]


def _operand_type(module: Any, network: Any, convolution: Any) -> Any:
    """Return the input's type; of a dequantised input the type before, which is what the kernel reads."""
    tensor = convolution.get_input(0)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == module.LayerType.DEQUANTIZE and layer.get_output(0).name == tensor.name:
            return layer.get_input(0).dtype
    return tensor.dtype
