"""Read graphs into OpenVINO, and the options that they are compiled with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dim_runtime.backends.base import Tensor, first_line
from dim_runtime.backends.openvino_precision import Arithmetic
from dim_runtime.errors import ArtefactError, MissingExtraError

KERNELS = 250
"""Kernels that a graph keeps for further windows of the same shapes; OpenVINO's own limit is 5000. Then three
images of 49 small windows took 745 MB, with this limit 512 MB. With 100 a plan of 36 windows takes 4 % more
time."""


def configuration(arithmetic: Arithmetic, threads: int | None) -> dict[str, Any]:
    """Return OpenVINO's options; INFERENCE_PRECISION_HINT affects float32 only."""
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if arithmetic.lowered else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        # One window at a time on all threads: memory is one window's.
        "NUM_STREAMS": 1,
        "CPU_RUNTIME_CACHE_CAPACITY": KERNELS,
    }
    return options if threads is None else options | {"INFERENCE_NUM_THREADS": threads}


@cache
def process_core() -> Any:
    """Return the only ``openvino.Core`` of the process, which is never freed.

    The CPU plugin of a core replaces the stack on which the thread handles signals, and restores the earlier
    one when the core is freed. Two cores that are freed in the order of their creation leave a stack that is
    unmapped: the next Ctrl-C or SIGTERM is a segmentation fault (seen with OpenVINO 2026.4).
    """
    import openvino

    return openvino.Core()


def imported_engine(path: Path) -> Any:
    """Return the package ``openvino``, which is to run a file; raise MissingExtraError without it."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            f"run {path.name}", package="openvino", extra="openvino", cause=error
        ) from error
    return openvino


def tensors_of(ports: list[Any]) -> dict[str, Tensor]:
    """Return the inputs or outputs of a model by their names."""
    return {
        port.get_any_name(): Tensor(port.element_type.to_dtype().name, port.partial_shape.rank.get_length())
        for port in ports
    }


def fix_inputs(model: Any, values: Mapping[str, npt.NDArray[Any]]) -> None:
    """Make constants of inputs, so that the shapes that follow from them are known when it is compiled."""
    from openvino import opset13

    for parameter in list(model.get_parameters()):
        value = values.get(parameter.get_friendly_name())
        if value is not None:
            constant = opset13.constant(value)
            for target in parameter.output(0).get_target_inputs():
                target.replace_source_output(constant.output(0))
            model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()


def read_graph(core: Any, engine: Any, path: Path, graph: Path | bytes) -> Any:
    """Return the model of an artefact's graph; raise ArtefactError if OpenVINO cannot read it."""
    try:
        return core.read_model(graph)
    except RuntimeError as error:
        raise ArtefactError(
            f"OpenVINO {engine.__version__} cannot load {path}",
            why=first_line(error),
            fix="copy or export the file again; if the operator set is newer than this release: "
            "pip install -U openvino",
        ) from error
