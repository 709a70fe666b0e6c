"""What the commands of ``dim-matte`` that run the network have in common: their options and their model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from dim.bit_depth import Depth
from dim.errors import InputError
from dim_runtime.memory import parse_bytes
from dim_runtime.outputs.pair import AlphaKind, Foreground, Output
from dim_runtime.planning.planner import Context

Out = Annotated[Output, typer.Option("--out", help="What to write.")]
Model = Annotated[Path | None, typer.Option(help="Artefact; default: the embedded model.")]
Colours = Annotated[
    Foreground, typer.Option(help="Colours of cut-outs: estimated (extra 'cutout'), or the image's own.")
]
Background = Annotated[str, typer.Option(help="Of a composite: #RRGGBB or an image.")]
Alpha = Annotated[
    AlphaKind, typer.Option("--alpha", help="Of a cut-out: colours as they are, or times alpha.")
]
LinearLight = Annotated[
    bool, typer.Option("--linear-light", help="Composites blend light, by sRGB's curve, not stored values.")
]
Engine = Annotated[
    str | None,
    typer.Option(help="onnxruntime, openvino, tensorrt or tensorrt-rtx; default: by the model's suffix."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Lowered = Annotated[str | None, typer.Option(help="bf16, where the back end can; default: the model's own.")]
Tile = Annotated[int, typer.Option(help="Largest window side, context included, px.")]
ContextText = Annotated[str, typer.Option(help="exact, or pixels: faster, windows are blended.")]
Threads = Annotated[int | None, typer.Option(help="Threads; default: one per physical core.")]
MemoryLimit = Annotated[str | None, typer.Option(help="Peak resident memory while matting, such as 2GB.")]
Bits = Annotated[int | None, typer.Option(help="Bits, 8 or 16; default: the input's.")]
MaxPixels = Annotated[int, typer.Option(help="Refuse larger images.")]
ShowProgress = Annotated[bool | None, typer.Option(help="Progress bar; default: on a terminal.")]


def parse_context(text: str) -> Context:
    """``"exact"``, or a number of pixels."""
    if text == "exact":
        return "exact"
    if not text.isdigit():
        raise InputError("cannot use this context", got=repr(text), expected="exact, or a number of pixels")
    return int(text)


def parse_depth(bits: int | None) -> Depth | None:
    """8, 16, or None."""
    if bits not in (None, 8, 16):
        raise InputError("cannot write this depth", got=f"{bits} bits", expected="8 or 16")
    return cast("Depth | None", bits)


def parse_limit(text: str | None) -> int | None:
    """``"2GB"`` -> bytes; None for no limit."""
    return None if text is None else parse_bytes(text)
