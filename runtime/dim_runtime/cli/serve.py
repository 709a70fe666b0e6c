"""``dim-matte serve``: a server and a page for mattes."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dim.extras import require
from dim_runtime.cli.options import EngineOptions, expand
from dim_runtime.matting import Matting
from dim_runtime.memory import parse_bytes

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN_VARIABLE = "DIM_SERVE_TOKEN"


@expand(EngineOptions)
def serve(
    *,
    options: EngineOptions,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8000,
    workers: Annotated[
        int, typer.Option(metavar="N", help="Requests that are worked on at once.", min=1, max=64)
    ] = 2,
    queue: Annotated[
        int, typer.Option(metavar="N", help="Requests that may wait. Others get status 429.", min=1)
    ] = 32,
    max_bytes: Annotated[str, typer.Option(metavar="SIZE", help="The largest request.")] = "256MB",
    max_pixels: Annotated[int, typer.Option(metavar="PIXELS", help="The largest image.", min=1)] = 60_000_000,
    job_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time that a request may wait and run.", min=1)
    ] = 300,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host name under which the server is reached; repeatable."),
    ] = None,
) -> None:
    """Serve mattes over HTTP, with a page to draw trimaps on.

    The page is at the server's address, the description of the interface at /openapi.json. A token in the
    environment variable DIM_SERVE_TOKEN is required of requests to /v1 and /metrics.
    """
    require("serve", "fastapi", "uvicorn", "python_multipart", "prometheus_client", extra="serve")
    from dim_runtime.serve import api, folders, server
    from dim_runtime.serve.limits import Limits

    limits = Limits(
        max_bytes=parse_bytes(max_bytes),
        max_pixels=max_pixels,
        queue=queue,
        workers=workers,
        job_seconds=job_seconds,
    )
    folders.require_temporary_folder()
    server.require_free(host, port)
    # On other addresses the names are the operator's: the server cannot know them.
    hosts = allow_host or (None if host in LOOPBACK else ["*"])
    with Matting.from_options(options.matting()) as matting:
        app = api.create_app(matting, limits=limits, token=os.environ.get(TOKEN_VARIABLE), hosts=hosts)
        server.serve(app, host=host, port=port)
