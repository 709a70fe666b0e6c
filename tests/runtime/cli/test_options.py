"""Options that commands share: the dataclasses, and the decorator that expands them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from dim.errors import InputError
from dim_runtime.cli.options import EngineOptions, OutputOptions, expand
from dim_runtime.outputs.spec import Foreground, Output, OutputSpec
from dim_runtime.settings import MattingOptions


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Two options."""

    size: Annotated[int, typer.Option(help="Pixels.")] = 3
    name: str = "a"


def test_the_fields_become_options_of_the_command() -> None:
    seen: list[tuple[Path, Shared, bool]] = []

    @expand(Shared)
    def command(path: Path, *, options: Shared, dry: bool = False) -> None:
        """Do it."""
        seen.append((path, options, dry))

    assert list(inspect.signature(command).parameters) == ["path", "size", "name", "dry"]
    assert (command.__name__, command.__doc__) == ("command", "Do it.")
    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["x", "--size", "5", "--dry"]).exit_code == 0
    assert CliRunner().invoke(app, ["x"]).exit_code == 0
    assert seen == [(Path("x"), Shared(size=5), True), (Path("x"), Shared(), False)]


def test_without_options_a_matting_is_the_usual_one() -> None:
    assert EngineOptions().matting() == MattingOptions()


def test_engine_options_reach_the_matting() -> None:
    options = EngineOptions(
        model=Path("a.onnx"),
        backend="openvino",
        device="cpu",
        precision="bf16",
        tile="512",
        context="64",
        threads=2,
        memory_limit="2GB",
        cache=Path("compiled"),
    )
    assert options.matting() == MattingOptions(
        model=Path("a.onnx"),
        backend="openvino",
        device="cpu",
        precision="bf16",
        tile=512,
        context=64,
        threads=2,
        memory_limit=2 * 10**9,
        cache=Path("compiled"),
    )


@pytest.mark.parametrize("context", ["64px", "-64", "", "Exact", "²"])
def test_other_contexts_are_errors(context: str) -> None:
    with pytest.raises(InputError, match="exact, or a number of pixels"):
        EngineOptions(context=context).matting()


def test_output_options_become_a_spec_that_was_checked() -> None:
    spec = OutputOptions(out=Output.COMPOSITE, background="#102030", depth="16", linear_light=True).spec()
    assert (spec.output, spec.background, spec.depth, spec.linear_light) == (
        Output.COMPOSITE,
        "#102030",
        16,
        True,
    )
    with pytest.raises(InputError):
        OutputOptions(out=Output.COMPOSITE, background="#10").spec()


def test_a_background_is_a_colour_or_a_file_of_a_composite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'green', which is no file\n  expected: a colour #RRGGBB"):
        OutputOptions(out=Output.COMPOSITE, foreground=Foreground.IMAGE, background="green").spec()
    for output in (Output.ALPHA, Output.CUTOUT):
        with pytest.raises(InputError, match="cannot use the background #102030"):
            OutputOptions(out=output, background="#102030").spec()


def test_options_that_the_output_has_no_use_for_are_errors_even_if_they_repeat_the_default() -> None:
    for colours in Foreground:
        with pytest.raises(InputError, match=rf"foreground {colours}\n  got: --out alpha\n"):
            OutputOptions(foreground=colours).spec()
    with pytest.raises(InputError, match=r"background #FFFFFF\n  got: --out cutout"):
        OutputOptions(out=Output.CUTOUT, background="#FFFFFF").spec()
    assert OutputOptions().spec() == OutputSpec()
