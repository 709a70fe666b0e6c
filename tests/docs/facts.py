"""The numbers that documents state about the code, and where the code has them.

A fact is a pattern with one group; wherever it matches in a document, the group must be the value. Every
sweep in :data:`SWEEPS` looks for one kind of statement ("171 nodes") and accepts only those that a fact
covers, so that a new statement must be added here before it may stand in a document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple


class Fact(NamedTuple):
    """A statement: what it looks like in a document, and the text that the code makes of it."""

    pattern: str
    value: Callable[[], str]
    document: str | None = None
    """The document that must state it; None for wherever it stands."""


class Wrong(NamedTuple):
    """A statement that is not what the code computes, or that no fact covers."""

    line: int
    statement: str
    expected: str


def _number(value: int) -> str:
    """Return digits in groups of three, as the documents write large numbers."""
    return f"{value:,}".replace(",", " ")


@cache
def embedded() -> Any:
    """Return the metadata of the embedded model."""
    from dim_runtime.artefacts.onnx_file import read_metadata
    from dim_runtime.backends.open import default_model

    return read_metadata(default_model())


@cache
def nodes_of_embedded_model() -> str:
    import onnx

    from dim_runtime.backends.open import default_model

    return str(len(onnx.load(str(default_model())).graph.node))


@cache
def nodes_of_stage(stage: int) -> str:
    """Return the number of nodes of an exported network; width and weights do not change it."""
    import onnxscript.ir as ir

    from dim.contract import NetworkConfig
    from dim.network import DIM
    from dim_export.onnx_export.export import lower

    model = DIM(NetworkConfig(stage=stage, width=0.0625)).eval()  # type: ignore[arg-type]
    return str(len(ir.to_proto(lower(model, "fp32").graph).graph.node))


def parameters(stage: int) -> str:
    import torch

    from dim.contract import NetworkConfig
    from dim.network import DIM

    with torch.device("meta"):
        model = DIM(NetworkConfig(stage=stage))  # type: ignore[arg-type]
    return _number(sum(parameter.numel() for parameter in model.parameters()))


def parameters_of_embedded_model() -> str:
    from dim import checkpoint
    from dim_runtime.backends.open import default_model

    model = checkpoint.load(default_model().with_suffix(".safetensors"))
    return _number(sum(parameter.numel() for parameter in model.parameters()))


def context(stage: int) -> str:
    from dim.contract import NetworkConfig, exact_context

    return str(exact_context(NetworkConfig(stage=stage)))  # type: ignore[arg-type]


def embedded_network_context() -> str:
    """Return the embedded model's context in engines that propagate alpha in separate windows."""
    from dim.contract.layers import network_context

    return str(network_context(embedded().network))


def megabytes(ending: str) -> str:
    from dim_runtime.backends.open import default_model

    model = default_model()
    return f"{model.with_name(model.stem + ending).stat().st_size / 1e6:.1f}"


def shipped_digest() -> str:
    from dim.files import sha256
    from dim_runtime.backends.open import default_model

    return sha256(default_model().with_suffix(".safetensors"))[:12]


def streamed_megapixels() -> str:
    from dim_runtime.outputs.stream_tiff import STREAMED_PIXELS

    return f"{STREAMED_PIXELS / 1e6:.0f}"


def largest_background() -> str:
    from dim.trimap import DARKEST_UNKNOWN

    return str(DARKEST_UNKNOWN - 1)


def smallest_foreground() -> str:
    from dim.trimap import LIGHTEST_UNKNOWN

    return str(LIGHTEST_UNKNOWN + 1)


def lowest_python() -> str:
    return metadata.metadata("dim-matting")["Requires-Python"].removeprefix(">=")


FACTS = (
    Fact(r"stages 2 and 3 have (\d+)", lambda: nodes_of_stage(3), "export/README.md"),
    Fact(r"stage 1 has (\d+)\s+nodes", lambda: nodes_of_stage(1), "export/README.md"),
    Fact(r"and\s+(\d+)\s+since\s+unpooling", lambda: nodes_of_stage(3), "docs/decisions.md"),
    Fact(r"the embedded model (\d+), pre-", nodes_of_embedded_model, "export/README.md"),
    Fact(r"with\s+(\d+)\s+pixels\s+of\s+context", lambda: context(3), "docs/runtime.md"),
    Fact(r"carry\s+(\d+)\s+pixels\s+of\s+context", lambda: context(3)),
    Fact(r"[Ww]ithout\s+refiner\s+(\d+) do", lambda: context(1), "docs/runtime.md"),
    Fact(r"hence (\d+) of context", lambda: str(embedded().context), "docs/runtime.md"),
    Fact(r"\((\d+) in the embedded\s+model", lambda: str(embedded().context)),
    Fact(r"(\d+) for the\s+embedded model\)", lambda: str(embedded().context)),
    Fact(r"exact \((\d+)\)", embedded_network_context, "docs/performance.md"),
    Fact(r"value of at most (\d+) is background", largest_background, "docs/runtime.md"),
    Fact(r"of at least (\d+)\s+foreground", smallest_foreground, "docs/runtime.md"),
    Fact(r"TIFF files above (\d+) megapixels", streamed_megapixels, "docs/runtime.md"),
    Fact(r"network: (\d[\d ]+) in stage 1,", lambda: parameters(1), "dim/README.md"),
    Fact(r"in stage 1, (\d[\d ]+) in stages 2 and 3", lambda: parameters(3), "dim/README.md"),
    Fact(r"\| parameters \| ([\d ]+) \|", parameters_of_embedded_model, "docs/models/clean.md"),
    Fact(r"safetensors` \(float16, ([\d.]+) MB\)", lambda: megabytes(".safetensors"), "docs/models/clean.md"),
    Fact(r"dim-clean\.onnx` \(([\d.]+) MB\)", lambda: megabytes(".onnx"), "docs/models/clean.md"),
    Fact(r"dim-clean-int8\.onnx` \(([\d.]+) MB\)", lambda: megabytes("-int8.onnx"), "docs/models/clean.md"),
    Fact(r"SHA-256 ([0-9a-f]{12})", shipped_digest, "docs/models/benchmark.md"),
    Fact(r"Python (\d\.\d+) or newer", lowest_python, "README.md"),
)

SWEEPS = (r"\d+\s+nodes\b", r"\d+\s+pixels\s+of\s+context", r"[\d ]{7,} parameters")
"""Kinds of statements of which every one must be covered by a fact."""


def wrong_statements(text: str) -> Iterator[Wrong]:
    """Yield statements that differ from the code, and statements of a swept kind without a fact."""
    covered: list[tuple[int, int]] = []
    for fact in FACTS:
        for match in re.finditer(fact.pattern, text):
            covered.append(match.span())
            if match[1].strip() != fact.value():
                yield Wrong(_line(text, match.start()), match.group(), fact.value())
    for sweep in SWEEPS:
        for match in re.finditer(sweep, text):
            if not any(start < match.end() and match.start() < end for start, end in covered):
                yield Wrong(_line(text, match.start()), match.group(), "a fact in tests/docs/facts.py")


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
