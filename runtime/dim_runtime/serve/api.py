"""The REST interface: image and trimap, mask, strokes or box in; alpha, cut-out or composite out."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Form, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.routing import BaseRoute, Match, Mount

import dim
from dim.errors import InputError
from dim_runtime.matting import Matting
from dim_runtime.outputs.spec import Output
from dim_runtime.serve import work
from dim_runtime.serve.failures import RESPONSES, add_errors, describe, error_response
from dim_runtime.serve.folders import remove_abandoned
from dim_runtime.serve.forms import (
    SOURCE_FIELDS,
    Background,
    BitDepth,
    Foregrounds,
    Format,
    FormFields,
    FormRoute,
    Identity,
    only,
)
from dim_runtime.serve.jobs import Job, Phase
from dim_runtime.serve.limits import BodyGuard, Limits, UnknownJobError
from dim_runtime.serve.service import Service
from dim_runtime.trimaps.sources import TrimapSources

PAGE = Path(__file__).parent / "page"
EVENT_SECONDS = 0.2
"""Seconds between two looks at a job's progress."""
SILENT_SECONDS = 15
"""Seconds after which an event without news keeps the connection open."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(
    matting: Matting,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    hosts: list[str] | None = None,
) -> FastAPI:
    """Make the ASGI application.

    Args:
        matting: the network; the caller closes it after the application has stopped.
        limits: see :class:`~dim_runtime.serve.limits.Limits`.
        token: bearer token of visible ASCII characters that requests to /v1 and /metrics must carry; None
            for no token.
        hosts: names under which the server is reached, beside localhost and all addresses; others get
            status 400, so that no foreign page reaches a local server by DNS rebinding, which needs a name.
            None for no further names, ``["*"]`` for any, "*.example.org" for all of a domain.

    Raises:
        InputError: a token that no header can carry.
    """
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise InputError(
            "cannot use this token",
            got="no characters" if token == "" else "spaces, line ends or characters that are not ASCII",
            expected="visible ASCII characters",
            why="the header Authorization cannot carry others",
            fix="choose another DIM_SERVE_TOKEN, or unset it for a server that requires none",
        )
    # In patterns an opening bracket would begin a set of characters.
    names = [name.lower().replace("[", "[[]") for name in hosts or ()]
    service = Service(matting, limits or Limits(), token, ["localhost", *names])

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(remove_abandoned)
        expiring = asyncio.create_task(service.drop_expired())
        yield
        expiring.cancel()
        await run_in_threadpool(service.queue.close)

    app = FastAPI(
        title="DIM",
        version=dim.__version__,
        summary="Alpha mattes of photographs",
        lifespan=life,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
        responses=RESPONSES,
    )
    app.router.route_class = FormRoute
    app.state.service = service
    add_errors(app)
    _add_matting(app, service)
    _add_jobs(app, service)
    _add_operation(app, service)
    app.router.routes.append(_PageMount("/", StaticFiles(directory=PAGE, html=True)))
    app.add_middleware(
        BodyGuard,
        limits=service.limits,
        admit=service.admit,
        stopping=lambda: service.queue.stopping,
        refuse=error_response,
    )
    _add_counting(app, service)
    return app


class _PageMount(Mount):
    """The page's files, at paths that the interface does not have: a wrong method there is 405, not 404."""

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        others: list[BaseRoute] = [route for route in scope["app"].routes if route is not self]
        if any(route.matches(scope)[0] is Match.PARTIAL for route in others):
            return Match.NONE, {}
        return super().matches(scope)


def _file_of(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a response that is a file."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"description": "The file.", "content": {work.MEDIA_TYPES[kind]: binary for kind in kinds}}}


def _add_matting(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/matte",
        response_class=StreamingResponse,
        responses=_file_of(*Format),
        dependencies=[Depends(only(*SOURCE_FIELDS, "output", "format", "depth", "foreground", "background"))],
        summary="Matte one image and wait for the result.",
    )
    async def matte(
        request: Request,
        image: UploadFile,
        fields: FormFields,
        output: Annotated[Output, Form()] = Output.CUTOUT,
        kind: Annotated[Format, Form(alias="format")] = Format.PNG,
        foreground: Foregrounds = None,
        background: Background = None,
        depth: BitDepth = None,
    ) -> Response:
        spec = work.spec_of(
            output,
            kind=kind,
            background=background,
            depth=depth,
            foreground=foreground,
            max_pixels=service.limits.max_pixels,
        )
        task = partial(_matte, service.matting, {str(output): (spec, str(kind))})
        job = await service.accept(image, fields, task)
        await service.finished_for(request, job)
        return service.file(job, str(output), str(kind))

    @app.post(
        "/v1/trimap",
        response_class=StreamingResponse,
        responses=_file_of("png"),
        dependencies=[Depends(only(*SOURCE_FIELDS))],
        summary="Make a trimap, or change its unknown band.",
    )
    async def trimap(request: Request, fields: FormFields, image: UploadFile | None = None) -> Response:
        job = await service.accept(image, fields, _trimap)
        await service.finished_for(request, job)
        return service.file(job, "trimap", "png")


def _matte(matting: Matting, outputs: dict[str, Any], sources: TrimapSources, job: Job) -> None:
    work.make_matte(matting, sources, outputs, job)


def _trimap(sources: TrimapSources, job: Job) -> None:
    job.begin(Phase.TRIMAP)
    work.write_output(job, "trimap", "png", work.make_trimap(sources, job))


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/jobs",
        status_code=202,
        dependencies=[Depends(only(*SOURCE_FIELDS, "depth", "foreground", "id"))],
        summary="Accept a matte to be fetched later: alpha and cut-out, PNG.",
    )
    async def start(
        request: Request,
        image: UploadFile,
        fields: FormFields,
        foreground: Foregrounds = None,
        depth: BitDepth = None,
        identity: Annotated[Identity, Form(alias="id")] = None,
    ) -> dict[str, str]:
        specs = {
            str(output): (
                work.spec_of(
                    output,
                    kind=Format.PNG,
                    # The alpha has no colours.
                    foreground=foreground if output is Output.CUTOUT else None,
                    depth=depth,
                    max_pixels=service.limits.max_pixels,
                ),
                "png",
            )
            for output in (Output.ALPHA, Output.CUTOUT)
        }
        job = await service.accept(image, fields, partial(_matte, service.matting, specs), identity)
        await service.drop_if_left(request, job)
        return {"id": job.id}

    @app.get("/v1/jobs/{identity}", summary="State and progress of a job.")
    async def state(identity: str) -> dict[str, Any]:
        return _state(_job(service, identity))

    @app.get("/v1/jobs/{identity}/events", summary="Progress as server-sent events, until the job is over.")
    async def events(identity: str) -> StreamingResponse:
        job = _job(service, identity)
        return StreamingResponse(_events(job), media_type="text/event-stream")

    @app.get(
        "/v1/jobs/{identity}/result",
        response_class=StreamingResponse,
        responses=_file_of("png"),
        summary="One output of a job.",
    )
    async def result(identity: str, output: Output = Output.CUTOUT) -> Response:
        job = _job(service, identity)
        if output is Output.COMPOSITE:
            raise InputError(
                "cannot give a composite of a job", expected="alpha or cutout", fix="POST /v1/matte"
            )
        await service.finished(job)
        return service.file(job, str(output), "png", last=False)

    @app.delete(
        "/v1/jobs/{identity}",
        status_code=204,
        summary="Forget a job: one that waits never runs, one that runs is stopped.",
    )
    async def forget(identity: str) -> None:
        await run_in_threadpool(service.queue.drop, _job(service, identity))


def _job(service: Service, identity: str) -> Job:
    job = service.queue.find(identity)
    if job is None:
        raise UnknownJobError(
            "cannot find this job",
            got=repr(identity[:80]),
            why=f"results are kept for {service.limits.keep_seconds:g} s, or until both outputs were fetched",
            fix="POST /v1/jobs again",
        )
    return job


def _state(job: Job) -> dict[str, Any]:
    state: dict[str, Any] = {
        "state": job.state,
        "phase": job.phase,
        "done": job.finished,
        "total": job.total,
    }
    if job.error is not None:
        state["error"] = describe(job.error)
    if job.warnings:
        state["warnings"] = job.warnings
    return state


async def _events(job: Job) -> AsyncIterator[str]:
    last, silent = None, 0.0
    while True:
        # Before the state: a job that ends meanwhile needs one more event.
        over = job.over
        state = _state(job)
        if state != last:
            yield f"data: {json.dumps(state)}\n\n"
            last, silent = state, 0.0
        elif silent > SILENT_SECONDS:
            yield ": still here\n\n"
            silent = 0.0
        if over:
            return
        await asyncio.sleep(EVENT_SECONDS)
        silent += EVENT_SECONDS


def _add_operation(app: FastAPI, service: Service) -> None:
    @app.get("/health", summary="Report that the process is alive.")
    async def health() -> dict[str, str]:
        return {"status": "alive", "version": dim.__version__}

    @app.get("/ready", summary="Report whether requests are taken.")
    async def ready() -> dict[str, str]:
        service.queue.require_room()
        return {"status": "ready"}

    @app.get("/metrics", summary="Counters in Prometheus' text format.")
    async def metrics() -> Response:
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)


def _add_counting(app: FastAPI, service: Service) -> None:
    @app.middleware("http")
    async def count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        # A part of a result must not count as fetched: files are sent whole.
        request.scope["headers"] = [pair for pair in request.scope["headers"] if pair[0] != b"range"]
        try:
            response = await call_next(request)
        except Exception as error:  # any fault of a route is counted and gets the headers below
            response = error_response(error)
        if "Accept-Ranges" in response.headers:
            response.headers["Accept-Ranges"] = "none"
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        route = getattr(request.scope.get("route"), "path", "other")
        service.requests.labels(route, str(response.status_code)).inc()
        return response
