"""Options that commands of ``dim-matte`` share: two dataclasses, and a decorator that expands them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_type_hints

import typer

from dim.bit_depth import Depth
from dim.errors import InputError
from dim.images.decoding import MAX_PIXELS
from dim_runtime.backends.open import SHIPPED_MODELS, BackendName, Precision
from dim_runtime.memory import parse_bytes
from dim_runtime.outputs.spec import WHITE, AlphaKind, Foreground, Output, OutputSpec, require_used
from dim_runtime.planning.planner import Context, Tile
from dim_runtime.settings import MattingOptions

MaxPixels = Annotated[
    int, typer.Option(min=1, metavar="PIXELS", help="Refuse images with more pixels than this.")
]
ShowProgress = Annotated[
    bool | None, typer.Option(help="Show a progress bar. By default it is shown on a terminal.")
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print errors and warnings only; show no progress bar.")
]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The options of every command that runs the network."""

    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="An .onnx or .engine file, or a model of this package: "
            f"{', '.join(SHIPPED_MODELS)}. The default is {SHIPPED_MODELS[0]}.",
        ),
    ] = None
    backend: Annotated[
        BackendName | None,
        typer.Option(help="The engine. The default depends on the file's suffix."),
    ] = None
    device: Annotated[str, typer.Option(metavar="DEVICE", help="One of: cpu, cuda, cuda:N.")] = "cpu"
    precision: Annotated[
        Precision | None,
        typer.Option(help="The arithmetic. The default is the model's own; OpenVINO lowers fp32 to bf16."),
    ] = None
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|PX",
            help="The largest window side, context included; a multiple of 32. "
            '"auto" takes one that fits in memory, with little work and memory.',
        ),
    ] = "auto"
    context: Annotated[
        str,
        typer.Option(
            metavar="exact|PX",
            help="Pixels around each core, a multiple of 32. "
            '"exact" gives the alpha of the whole image; fewer are faster.',
        ),
    ] = "exact"
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="Threads of the engine. The default is one for each physical core."),
    ] = None
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Peak resident memory of the process, such as 2GB or 800MB."),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep OpenVINO's compiled graphs in this folder, so that the next start is faster. "
            "Only you may be allowed to write to it.",
        ),
    ] = None

    def matting(self) -> MattingOptions:
        """Return the arguments of a :class:`~dim_runtime.matting.Matting`."""
        return MattingOptions(
            model=self.model,
            backend=self.backend,
            device=self.device,
            precision=self.precision,
            tile=_tile(self.tile),
            context=_context(self.context),
            threads=self.threads,
            memory_limit=None if self.memory_limit is None else parse_bytes(self.memory_limit),
            cache=self.cache,
        )


@dataclass(frozen=True, kw_only=True)
class OutputOptions(EngineOptions):
    """The options of every command that writes mattes, cut-outs or composites."""

    out: Annotated[Output, typer.Option("--out", help="The kind of result to write.")] = Output.ALPHA
    foreground: Annotated[
        Foreground | None,
        typer.Option(
            help="Colours of cut-outs and composites: estimated (extra 'cutout'), which is the default, "
            "or those of the image."
        ),
    ] = None
    background: Annotated[
        str | None,
        typer.Option(metavar="#RRGGBB|IMAGE", help="The background of composites. The default is #FFFFFF."),
    ] = None
    alpha: Annotated[
        AlphaKind, typer.Option("--alpha", help="How a cut-out stores its colours: straight, or times alpha.")
    ] = AlphaKind.STRAIGHT
    linear_light: Annotated[
        bool,
        typer.Option("--linear-light", help="Blend composites in linear light, with the curve of sRGB."),
    ] = False
    depth: Annotated[
        Literal["8", "16"] | None, typer.Option(help="Bits of the result. The default is the image's depth.")
    ] = None
    max_pixels: MaxPixels = MAX_PIXELS

    def spec(self) -> OutputSpec:
        """Return what is made of each alpha, validated."""
        require_used(self.out, foreground=self.foreground, background=self.background)
        made = OutputSpec(
            output=self.out,
            foreground=Foreground.ESTIMATED if self.foreground is None else self.foreground,
            background=WHITE if self.background is None else self.background,
            depth=None if self.depth is None else cast("Depth", int(self.depth)),
            max_pixels=self.max_pixels,
            alpha=self.alpha,
            linear_light=self.linear_light,
        )
        made.check()
        return made


Kind = TypeVar("Kind")
Command = Callable[..., None]


def expand(kind: type[Kind]) -> Callable[[Command], Command]:
    """Make a decorator that replaces a command's parameter ``options`` by the fields of a dataclass.

    Typer reads a command's signature. The fields become keyword-only parameters in front of the command's
    own keyword-only ones; the command receives one instance.
    """

    declared = fields(cast("Any", kind))

    def decorate(command: Command) -> Command:
        def run(*positional: Any, **arguments: Any) -> None:
            given = {field.name: arguments.pop(field.name) for field in declared}
            command(*positional, **arguments, options=kind(**given))

        hints = get_type_hints(kind, include_extras=True)
        added = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in declared
        ]
        own = list(inspect.signature(command, eval_str=True).parameters.values())
        place = next(number for number, parameter in enumerate(own) if parameter.name == "options")
        parameters = [*own[:place], *added, *own[place + 1 :]]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _context(text: str) -> Context:
    """Parse ``"exact"``, or a number of pixels."""
    if text == "exact":
        return "exact"
    if not (text.isascii() and text.isdecimal()):
        raise InputError("cannot use this context", got=repr(text), expected="exact, or a number of pixels")
    return int(text)


def _tile(text: str) -> Tile:
    """Parse ``"auto"``, or a number of pixels."""
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdecimal()):
        raise InputError("cannot use this tile", got=repr(text), expected="auto, or a number of pixels")
    return int(text)
