"""``dim-export triton``: a model repository for NVIDIA's Triton Inference Server."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated, cast

import typer

from dim.files import write_text
from dim_export.cli.support import WINDOW, parse_axes
from dim_export.triton.repository import write_repository
from dim_export.triton.serving import Device, Engine, Options, ServedModel, Side


def triton(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Artefacts: .onnx or .engine.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The repository's folder.")],
    max_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Most windows that the server joins; 8, or what an engine allows."),
    ] = None,
    windows: Annotated[
        list[str] | None,
        typer.Option(metavar=WINDOW, help="Fixed window, pixels; each gets a model of its own."),
    ] = None,
    instances: Annotated[int, typer.Option(min=1, help="Copies that run at the same time.")] = 1,
    device: Annotated[
        Device | None, typer.Option(help="cpu or gpu; by default cpu for .onnx, gpu for .engine.")
    ] = None,
    backend: Annotated[
        Engine | None, typer.Option(help="By default onnxruntime for .onnx, tensorrt for .engine.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each instance on the CPU.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write what is served to this file.")
    ] = None,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server.

    Windows that come at the same time are joined into batches if their shapes are equal: fix them with
    --windows. The server tells the artefact's document to KServeBackend, the client for it.
    """
    options = Options(
        max_batch=max_batch,
        windows=tuple(cast("Side", parse_axes(text, WINDOW, "--windows")) for text in windows or []),
        instances=instances,
        device=device,
        engine=backend,
        threads=threads,
    )
    served = write_repository(models, output, options)
    _print(served, output)
    if json is not None:
        write_text(json, json_text.dumps([model.model_dump() for model in served], indent=2) + "\n")


def _print(served: list[ServedModel], repository: Path) -> None:
    for model in served:
        window = (
            "windows of any shape" if model.window is None else f"windows {model.window[0]},{model.window[1]}"
        )
        batch = "batch frozen" if model.max_batch == 0 else f"up to {model.max_batch} at once"
        copies = "1 instance" if model.instances == 1 else f"{model.instances} instances"
        where = f"{model.engine} on {model.device}"
        typer.echo(f"{repository / model.name}  {where}, {window}, {batch}, {copies}")
    if any(model.engine == "openvino" for model in served):
        typer.echo(
            "note: OpenVINO may compute fp32 artefacts in bf16 on CPUs that have it; "
            "its back end in Triton has no option against that",
            err=True,
        )
