"""Compares every use that our code makes of TensorRT, cuda.core and ONNX Runtime with a package's own module.

The source is parsed, not run: :data:`SOURCES` gives each expression that stands for an object of such a
package its class. Every attribute of these expressions must exist there, and every call must fit its
signature. Run as a script, it prints the problems as JSON: TensorRT's bindings need a process with stand-ins
of its libraries.

usage: vendor_calls.py tensorrt|tensorrt-rtx MODULE
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[3]
BACKENDS, BUILDER = "runtime/dim_runtime/backends", "export/dim_export/tensorrt"

SOURCES: dict[str, dict[str, dict[str, str]]] = {
    "tensorrt": {
        f"{BACKENDS}/tensorrt.py": {
            "module": "", "self._module": "", "kinds": "DataType", "engine": "ICudaEngine",
            "self._engine": "ICudaEngine", "runtime": "Runtime", "config": "IRuntimeConfig",
            "strategies": "DynamicShapesKernelSpecializationStrategy",
        },
        f"{BACKENDS}/tensorrt_slot.py": {"self._context": "IExecutionContext"},
        f"{BUILDER}/build.py": {
            "module": "", "self.module": "", "self.builder": "Builder", "self.network": "INetworkDefinition",
            "self.parser": "OnnxParser", "self.config": "IBuilderConfig", "made": "IOptimizationProfile",
            "error": "ParserError",
        },
        f"{BUILDER}/layers.py": {
            "module": "", "runtime": "Runtime", "engine": "ICudaEngine",
            "engine.create_engine_inspector()": "EngineInspector", "network": "INetworkDefinition",
            "layer": "ILayer", "convolution": "ILayer", "layer.get_input(0)": "ITensor",
            "layer.get_output(0)": "ITensor", "tensor": "ITensor",
        },
        f"{BUILDER}/timing_cache.py": {"config": "IBuilderConfig", "cache": "ITimingCache"},
    },
    "cuda.core": {
        f"{BACKENDS}/cuda.py": {
            "core": "", "self._core": "", "self._device": "Device",
            "self._pinned": "LegacyPinnedMemoryResource",
            "stream": "Stream", "view": "utils.StridedMemoryView", "buffer": "Buffer",
            "self._parts[0]": "Buffer", "self._parts[1]": "Buffer", "self._parts[source]": "Buffer",
        },
        f"{BACKENDS}/tensorrt_slot.py": {
            "self._stream": "Stream", "builder": "graph.GraphBuilder", "alpha": "utils.StridedMemoryView",
            "builder.end_building()": "graph.GraphBuilder", "self._graph": "graph.Graph",
            "graph": "graph.Graph",
        },
        f"{BACKENDS}/io_binding.py": {
            "stream": "Stream", "self._stream": "Stream", "colours": "utils.StridedMemoryView",
            "unknowns": "utils.StridedMemoryView", "alpha": "utils.StridedMemoryView",
        },
    },
    "onnxruntime": {
        f"{BACKENDS}/onnxruntime.py": {
            "engine": "", "options": "SessionOptions", "self._run_options": "RunOptions",
            "self._session": "InferenceSession", "session": "InferenceSession",
            "self._keeping": "RunOptions", "self._returning": "RunOptions",
            "self._identity": "InferenceSession",
        },
        f"{BACKENDS}/io_binding.py": {
            "engine": "", "session": "InferenceSession", "self._session": "InferenceSession",
            "binding": "IOBinding",
        },
        "runtime/dim_runtime/selftest/run.py": {
            "onnxruntime": "", "session": "InferenceSession", "binding": "IOBinding",
        },
    },
    "cuda.bindings.driver": {f"{BACKENDS}/cuda.py": {"driver": ""}},
}  # fmt: skip
"""Package -> source file -> expression -> class in the package; "" stands for the module itself."""

RTX_ONLY = {
    "num_compute_capabilities", "set_compute_capability", "ComputeCapability", "IRuntimeConfig",
    "create_runtime_config", "DynamicShapesKernelSpecializationStrategy", "CudaGraphStrategy",
}  # fmt: skip
"""Used for engines of TensorRT-RTX only."""
TENSORRT_ONLY = {"create_timing_cache", "set_timing_cache", "get_timing_cache"}
"""Used for engines of TensorRT only."""
LAX = {"STRONGLY_TYPED", "preload_dlls", "__init__", "__version__"}
"""Looked up with a default, or present without a signature."""


class Use(NamedTuple):
    """One attribute of a package's object in our source, and the call of it, if it is called."""

    place: str
    base: str
    owner: str
    name: str
    call: ast.Call | None


def uses(package: str) -> Iterator[Use]:
    """Yield every use that the table knows, in the order of the source."""
    for file, receivers in SOURCES[package].items():
        calls: dict[ast.expr, ast.Call] = {}
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                calls[node.func] = node
            if isinstance(node, ast.Attribute):
                owner = _owner(node.value, receivers)
                if owner is not None:
                    place = f"{file}:{node.lineno}"
                    yield Use(place, ast.unparse(node.value), owner, node.attr, calls.get(node))


def unlisted(package: str, module: Any) -> list[str]:
    """Return uses of names that only this package has, on expressions that the table does not know."""
    known = {use.name for use in uses(package)} | _surface(package, module)
    common = {name for kind in (str, list, dict, set, Path, np.ndarray, Exception) for name in dir(kind)}
    own = {"name", "close", "handle", "device", "run", "options", "version", "config", "number", "builder"}
    found = []
    for file, receivers in SOURCES[package].items():
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute) or node.attr not in known - common - own:
                continue
            base = ast.unparse(node.value)
            ours = any(base in other.get(file, {}) for other in SOURCES.values()) or base.startswith("self")
            if _owner(node.value, receivers) is None and not ours and base not in OUR_OBJECTS:
                found.append(f"{file}:{node.lineno}: {base}.{node.attr}")
    return found


OUR_OBJECTS = {
    "bench", "profile", "tensor", "slot", "gpu", "np", "options", "capability", "prescribed", "image",
    "trimap",
    "values", "array", "metadata", "threading", "super()", "require_cuda(name)",
    "colours", "unknowns",
    "alpha", "read_header(path)", "type(error)", "type(array)", "header", "header.engine", "found", "cuda",
    "self", "graph", "re", "match", "dim",
}  # fmt: skip
"""Expressions of our classes that share names with the packages'."""


def problems(package: str, module: Any, *, without: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """Return what the module lacks, or would refuse, of what our code uses.

    Args:
        package: key of :data:`SOURCES`.
        module: the package's module.
        without: names that this release or builder need not have.
    """
    return [
        f"{use.place}: {use.base}.{use.name}: {problem}"
        for use in uses(package)
        if not {use.name, use.owner.split(".")[0]} & (without | LAX)
        for problem in [_problem(use, module)]
        if problem
    ]


def _owner(base: ast.expr, receivers: dict[str, str]) -> str | None:
    """Return the class behind an expression, as a dotted path in the module; None for our own objects."""
    text = ast.unparse(base)
    if text in receivers:
        return receivers[text]
    if isinstance(base, ast.Attribute):
        owner = _owner(base.value, receivers)
        # Only names that are classes or enumerations: the table lists what an object's attributes are.
        if (owner is not None and base.attr[:1].isupper()) or (owner == "" and base.attr == "utils"):
            return f"{owner}.{base.attr}".strip(".")
    return None


def _problem(use: Use, module: Any) -> str | None:
    owner = module
    for part in filter(None, use.owner.split(".")):
        if not hasattr(owner, part):
            return f"there is no {use.owner}"
        owner = getattr(owner, part)
    if not hasattr(owner, use.name):
        return f"{use.owner or 'the module'} has no such name"
    return None if use.call is None else _misfit(use.call, getattr(owner, use.name), bool(use.owner))


def _misfit(call: ast.Call, target: Any, method: bool) -> str | None:
    """Return why no signature of ``target`` takes this call; None if one does, or none can be read."""
    if any(isinstance(argument, ast.Starred) for argument in call.args):
        return None
    positional, keywords = len(call.args), {word.arg for word in call.keywords if word.arg}
    signatures = list(_signatures(target, method))
    if not signatures or any(signature.takes(positional, keywords) for signature in signatures):
        return None
    return f"called with {positional} arguments and {sorted(keywords)}: {signatures}"


class Signature(NamedTuple):
    """Parameters without self; ``open`` where ``*args`` or ``**kwargs`` take more."""

    names: tuple[str, ...]
    required: frozenset[str]
    keyword_only: frozenset[str]
    open: bool

    def takes(self, positional: int, keywords: set[str]) -> bool:
        if positional > len(self.names):
            return self.open
        given = set(self.names[:positional]) | keywords
        known = set(self.names) | self.keyword_only
        return self.required <= given and (self.open or keywords <= known)


def _signatures(target: Any, method: bool) -> Iterator[Signature]:
    if inspect.isclass(target):
        target, method = target.__init__, True
    text = (getattr(target, "__doc__", None) or "").splitlines()
    # pybind11 writes its signatures into the docstring, numbered where there are several.
    written = [line for line in text if re.match(r"(\d+\. )?\w+\((self: |[\w]+: |\))", line)]
    if written:
        yield from (_written(line) for line in written)
        return
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return
    if parameters and method and parameters[0].name == "self":
        parameters = parameters[1:]
    kinds = inspect.Parameter
    named = [p for p in parameters if p.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)]
    yield Signature(
        tuple(p.name for p in named if p.kind is not kinds.KEYWORD_ONLY),
        frozenset(p.name for p in named if p.default is kinds.empty),
        frozenset(p.name for p in named if p.kind is kinds.KEYWORD_ONLY),
        len(named) != len(parameters),
    )


def _written(line: str) -> Signature:
    """Parse ``name(self: Class, a: int, b: str = 'x') -> Result``; brackets may hold commas."""
    depth, parts, current = 0, [], ""
    for letter in line[line.index("(") + 1 :]:
        if letter == ")" and depth == 0:
            break
        depth += (letter in "([<{") - (letter in ")]>}")
        if letter == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    fields = [part.strip() for part in [*parts, current] if part.strip()]
    fields = [field for field in fields if not field.startswith("self")]
    names = tuple(field.partition(":")[0].strip() for field in fields)
    needed = frozenset(name for name, field in zip(names, fields, strict=True) if " = " not in field)
    return Signature(names, needed, frozenset(), False)


def _surface(package: str, module: Any) -> set[str]:
    """Return all public names of the classes that the table uses."""
    owners = {owner for receivers in SOURCES[package].values() for owner in receivers.values() if owner}
    classes = []
    for owner in owners:
        found: Any = module
        for part in owner.split("."):
            found = getattr(found, part, None)
        classes.append(found)
    return {name for kind in classes if kind for name in dir(kind) if not name.startswith("_")}


if __name__ == "__main__":
    chosen = import_module(sys.argv[2])
    missing = RTX_ONLY if sys.argv[1] == "tensorrt" else TENSORRT_ONLY
    print(json.dumps([chosen.__version__, problems("tensorrt", chosen, without=missing)]))
