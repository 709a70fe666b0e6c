"""``dim-export triton``: write a model repository for NVIDIA's Triton Inference Server."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated, cast

import typer

from dim.cli_support import AsJson, ReportFile, publish
from dim_export.cli.support import WINDOW, parse_axes
from dim_export.triton.repository import write_repository
from dim_export.triton.serving import Device, Engine, Options, ServedModel, Side


def triton(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Artefacts: .onnx or .engine.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the repository.")],
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Largest batch that the server forms. The default is 8, or less if an engine allows less.",
        ),
    ] = None,
    windows: Annotated[
        list[str] | None,
        typer.Option(
            metavar=WINDOW, help="Fixed window, in pixels. Can be repeated; each becomes a separate model."
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option(min=1, help="Copies of each model that run at the same time.")
    ] = 1,
    device: Annotated[
        Device | None, typer.Option(help="Device. The default is cpu for .onnx and gpu for .engine.")
    ] = None,
    backend: Annotated[
        Engine | None,
        typer.Option(
            help="Triton's back end. The default is onnxruntime for .onnx and tensorrt for .engine."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each instance on the CPU.")] = None,
    json: AsJson = False,
    report: ReportFile = None,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server.

    The server joins windows of equal shape that wait at the same time into batches: fix the shape with
    --windows. The artefact's metadata becomes part of the configuration, where KServeBackend, the client for
    it, reads it.
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
    if not json:
        _print(served, output)
    document = json_text.dumps([model.model_dump() for model in served], indent=2)
    publish(document, as_json=json, report=report)


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
