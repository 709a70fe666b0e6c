"""docs/runtime.md lists every option, command, argument, error and warning, with the defaults of the code."""

from __future__ import annotations

import re
from dataclasses import fields
from enum import Enum

import typer

from dim.images import READABLE
from dim_runtime import errors
from dim_runtime.cli.app import app
from dim_runtime.cli.options import EngineOptions, OutputOptions

from .documents import TOP

PAGE = (TOP / "docs" / "runtime.md").read_text("utf-8")


def cells(pattern: str) -> list[list[str]]:
    """Return the cells of the table rows whose first cell matches."""
    rows = (re.split(r" \| ", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| "))
    return [row for row in rows if re.fullmatch(pattern, row[0])]


def test_the_output_options_and_their_defaults() -> None:
    inherited = {field.name for field in fields(EngineOptions)}
    expected, made = {}, OutputOptions().spec()
    for field in fields(OutputOptions):
        if field.name not in inherited:
            # An option that was not given has the default of what is made.
            default = getattr(made, field.name) if field.default is None else field.default
            default = default.value if isinstance(default, Enum) else default
            usual = {None: "the image's", False: "off"}.get(default, f"`{default}`")
            expected[f"`--{field.name.replace('_', '-')}`"] = usual
    found = {row[0]: row[1].split(" (")[0] for row in cells("`--.*`")}
    assert found == expected


def test_the_engine_options() -> None:
    (listed,) = re.findall(
        r"The arguments of `Matting` are options of .*?:\s(.*?)\. Further", PAGE, re.DOTALL
    )
    expected = [f"--{field.name.replace('_', '-')}" for field in fields(EngineOptions)]
    assert re.findall(r"`(.*?)`", listed) == expected


def test_the_commands() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {row[0] for row in cells("`dim-matte .*`")} == {f"`dim-matte {name}`" for name in commands}


def test_the_errors_and_warnings() -> None:
    section = PAGE.split("## Errors and exit codes")[1]
    listed = set(re.findall(r"`(\w+(?:Error|Warning))`", section))
    bases = {"MinimumError"}
    assert listed == {name for name in errors.__all__ if name.endswith(("Error", "Warning"))} - bases


def test_the_formats() -> None:
    names = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF", "webp": "WebP", "jp2": "JPEG 2000"}
    names |= dict.fromkeys(("pbm", "pgm", "pnm", "ppm"), "netpbm")
    (row,) = cells("image")
    listed = row[1].split(";")[0].split(", ")
    assert set(listed) == {names.get(suffix[1:], suffix[1:].upper()) for suffix in READABLE}
