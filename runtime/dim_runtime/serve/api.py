"""The REST interface: image and trimap, mask, strokes or box in; alpha, cut-out or composite out."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

import dim
from dim.errors import DimError, InputError
from dim.images.files import write_image
from dim_runtime.errors import MemoryLimitError
from dim_runtime.matting import Matting
from dim_runtime.outputs.spec import Output
from dim_runtime.serve import work
from dim_runtime.serve.jobs import FOLDER_PREFIX, Job, JobQueue
from dim_runtime.serve.limits import (
    BodyGuard,
    BusyError,
    Limits,
    SlowBodyError,
    StoppingError,
    TimeLimitError,
    TooLargeError,
    UnauthorisedError,
    too_many_bytes,
)
from dim_runtime.trimaps.sources import TrimapSources, parse_box
from dim_runtime.trimaps.strokes import Box

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
LOCAL_NAMES = ["localhost", "127.0.0.1", "[::1]"]
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

STATUS: Mapping[type[Exception], int] = {
    StoppingError: 503,
    BusyError: 429,
    TimeLimitError: 503,
    SlowBodyError: 408,
    UnauthorisedError: 401,
    TooLargeError: 413,
    MemoryLimitError: 413,
    InputError: 422,
}
"""The status of an error, by the first type that fits; 500 for every other."""


UPLOAD_PATH = re.compile(rf"\S*{FOLDER_PREFIX}[^/\\]+[/\\][^/\\]+[/\\]")
"""Folders of uploads: clients get the names of their fields in errors, not paths of the server."""


class Format(StrEnum):
    """File format of a response. PNG and TIFF keep 16 bits; WebP and JPEG are for composites of 8 bits."""

    PNG = "png"
    TIFF = "tiff"
    WEBP = "webp"
    JPEG = "jpeg"


class Colours(StrEnum):
    """Colours of cut-outs and composites: estimated without the background, or the image's own."""

    ESTIMATED = "estimated"
    IMAGE = "image"


Task = Callable[[TrimapSources, Job], None]
"""What a worker does for a job, with its sources."""


class Service:
    """The network, the queue and the counters that all routes share."""

    def __init__(self, matting: Matting, limits: Limits, token: str | None) -> None:
        self.matting, self.limits, self.token = matting, limits, token
        self.queue = JobQueue(limits)
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dim_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "dim_job_seconds",
            "Seconds from a job's acceptance to its end.",
            registry=self.registry,
            buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
        )
        waiting = Gauge("dim_jobs_waiting", "Jobs that wait.", registry=self.registry)
        waiting.set_function(lambda: self.queue.waiting)
        unfinished = Gauge("dim_jobs_unfinished", "Jobs that wait or run.", registry=self.registry)
        unfinished.set_function(lambda: self.queue.unfinished)

    def admit(self, scope: Mapping[str, Any]) -> None:
        """Raise before a body is read: a wrong token, a body that is announced too large, a full queue."""
        if not scope["path"].startswith(("/v1/", "/metrics")):
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self._require_token(headers.get("authorization", ""))
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self.limits.max_bytes:
            raise too_many_bytes(announced, self.limits.max_bytes)
        if scope["method"] == "POST":
            self.queue.require_room()

    def _require_token(self, header: str) -> None:
        if self.token is None:
            return
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self.token.encode()):
            raise UnauthorisedError("cannot take the request", expected="Authorization: Bearer TOKEN")

    async def accept(self, image: UploadFile | None, fields: Fields, task: Task) -> Job:
        """Store the uploads in a new folder and queue the task; after an error nothing is left."""
        folder = self.queue.new_folder()
        try:
            sources = TrimapSources(
                image=await _stored(image, folder / "image"),
                trimap=await _stored(fields.trimap, folder / "trimap"),
                mask=await _stored(fields.mask, folder / "mask"),
                strokes=await _stored(fields.scribbles, folder / "scribbles"),
                box=fields.box,
                inside=fields.inside,
                outside=fields.outside,
                band=fields.band,
                max_pixels=self.limits.max_pixels,
            )
            sources.require_one()
            await run_in_threadpool(work.require_small, sources)
            job = self.queue.submit(folder, partial(task, sources))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.queue.drop_expired()
        return job

    async def finished(self, job: Job) -> None:
        """Wait for a job; drop it and raise its error if it failed."""
        try:
            await self.queue.wait(job)
        except BaseException:
            self.queue.drop(job)
            raise
        finally:
            if job.ended is not None:
                self.seconds.observe(job.ended - job.accepted)

    def file(self, job: Job, name: str, kind: str, *, last: bool = True) -> FileResponse:
        """Return the response with a job's output; after the last one the job is dropped."""
        path = work.output_file(job.folder, name, kind)
        background = BackgroundTask(self.queue.drop, job) if last else None
        return FileResponse(path, media_type=work.MEDIA_TYPES[kind], background=background)


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
        token: bearer token that requests to /v1 and /metrics must carry; None for no token.
        hosts: names under which the server is reached; others get status 400, so that no foreign page
        reaches a
            local server by DNS rebinding. None for the names of this machine, ``["*"]`` for any.
    """
    service = Service(matting, limits or Limits(), token)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.queue.close)

    app = FastAPI(
        title="DIM",
        version=dim.__version__,
        summary="Alpha mattes of photographs",
        lifespan=life,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.service = service
    _add_errors(app)
    _add_matting(app, service)
    _add_jobs(app, service)
    _add_operation(app, service)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    app.add_middleware(BodyGuard, limits=service.limits, admit=service.admit, refuse=error_response)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts or LOCAL_NAMES)
    _add_counting(app, service)
    return app


# ---- forms


def _box(
    text: Annotated[str | None, Form(alias="box", description="x,y,width,height in pixels.")] = None,
) -> Box | None:
    return parse_box(text)


Trimap = Annotated[UploadFile | None, Form(description="0 background, 128 unknown, 255 foreground.")]
Mask = Annotated[
    UploadFile | None, Form(description="Light inside the object; or a cut-out with transparency.")
]
Scribbles = Annotated[
    UploadFile | None,
    Form(
        description="White foreground, black background, gray unknown, transparent where nothing is marked."
    ),
]
Band = Annotated[int, Form(ge=-200, le=200, description="Widens (or narrows) the unknown region, pixels.")]
Width = Annotated[
    int | None, Form(ge=0, le=500, description="Band of a mask; chosen from the mask if left out.")
]
Background = Annotated[str, Form(max_length=16, description="Of a composite: #RRGGBB.")]
BitDepth = Annotated[int | None, Form(description="Bits, 8 or 16; the image's if left out.")]


class Fields:
    """The fields of a form that mark what is known of the image."""

    def __init__(
        self,
        box: Annotated[Box | None, Depends(_box)],
        trimap: Trimap = None,
        mask: Mask = None,
        scribbles: Scribbles = None,
        inside: Width = None,
        outside: Width = None,
        band: Band = 0,
    ) -> None:
        self.box, self.trimap, self.mask, self.scribbles = box, trimap, mask, scribbles
        self.inside, self.outside, self.band = inside, outside, band


FormFields = Annotated[Fields, Depends()]


async def _stored(upload: UploadFile | None, path: Path) -> Path | None:
    if upload is None:
        return None
    await run_in_threadpool(_store, upload, path)
    return path


def _store(upload: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file)


# ---- routes


def _add_matting(app: FastAPI, service: Service) -> None:
    @app.post("/v1/matte", response_class=FileResponse, summary="Matte one image and wait for the result.")
    async def matte(
        image: UploadFile,
        fields: FormFields,
        output: Annotated[Output, Form()] = Output.CUTOUT,
        kind: Annotated[Format, Form(alias="format")] = Format.PNG,
        foreground: Annotated[Colours, Form()] = Colours.ESTIMATED,
        background: Background = "#FFFFFF",
        depth: BitDepth = None,
    ) -> Response:
        recipe = work.recipe_of(
            output,
            kind=kind,
            background=background,
            depth=depth,
            foreground=foreground,
            max_pixels=service.limits.max_pixels,
        )
        task = partial(_matte, service.matting, {str(output): (recipe, str(kind))})
        job = await service.accept(image, fields, task)
        await service.finished(job)
        return service.file(job, str(output), str(kind))

    @app.post("/v1/trimap", response_class=FileResponse, summary="Make a trimap, or change its unknown band.")
    async def trimap(fields: FormFields, image: UploadFile | None = None) -> Response:
        job = await service.accept(image, fields, _trimap)
        await service.finished(job)
        return service.file(job, "trimap", "png")


def _matte(matting: Matting, outputs: dict[str, Any], sources: TrimapSources, job: Job) -> None:
    work.make_matte(matting, sources, job.folder, outputs, job.progress)


def _trimap(sources: TrimapSources, job: Job) -> None:
    write_image(work.output_file(job.folder, "trimap", "png"), sources.make())


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/jobs", status_code=202, summary="Accept a matte to be fetched later: alpha and cut-out, PNG."
    )
    async def start(
        image: UploadFile,
        fields: FormFields,
        foreground: Annotated[Colours, Form()] = Colours.ESTIMATED,
    ) -> dict[str, str]:
        recipes = {
            str(output): (
                work.recipe_of(
                    output,
                    kind=Format.PNG,
                    foreground=foreground,
                    max_pixels=service.limits.max_pixels,
                ),
                "png",
            )
            for output in (Output.ALPHA, Output.CUTOUT)
        }
        job = await service.accept(image, fields, partial(_matte, service.matting, recipes))
        return {"id": job.id}

    @app.get("/v1/jobs/{identity}", summary="State and progress of a job.")
    async def state(identity: str) -> dict[str, Any]:
        return _state(_job(service, identity))

    @app.get("/v1/jobs/{identity}/events", summary="Progress as server-sent events, until the job is over.")
    async def events(identity: str) -> StreamingResponse:
        job = _job(service, identity)
        return StreamingResponse(_events(job), media_type="text/event-stream")

    @app.get("/v1/jobs/{identity}/result", response_class=FileResponse, summary="One output of a job.")
    async def result(identity: str, output: Output = Output.CUTOUT) -> Response:
        job = _job(service, identity)
        if output is Output.COMPOSITE:
            raise InputError(
                "cannot give a composite of a job", expected="alpha or cutout", fix="POST /v1/matte"
            )
        await service.finished(job)
        job.fetched.add(str(output))
        return service.file(job, str(output), "png", last=job.fetched >= {"alpha", "cutout"})

    @app.delete("/v1/jobs/{identity}", status_code=204, summary="Forget a job that is over.")
    async def forget(identity: str) -> None:
        await run_in_threadpool(service.queue.drop, _job(service, identity))


def _job(service: Service, identity: str) -> Job:
    job = service.queue.find(identity)
    if job is None:
        raise HTTPException(404, "unknown job; results are kept for some minutes only")
    return job


def _state(job: Job) -> dict[str, Any]:
    state: dict[str, Any] = {"state": job.state, "done": job.windows, "total": job.total}
    if job.error is not None:
        state["error"] = describe(job.error)
    return state


async def _events(job: Job) -> AsyncIterator[str]:
    last, silent = None, 0.0
    while True:
        state = _state(job)
        if state != last:
            yield f"data: {json.dumps(state)}\n\n"
            last, silent = state, 0.0
        elif silent > SILENT_SECONDS:
            yield ": still here\n\n"
            silent = 0.0
        if job.over:
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


# ---- errors and counting


def describe(error: BaseException) -> dict[str, str]:
    """Return an error in its four parts; one that is not the toolkit's gives away nothing but its kind."""
    if not isinstance(error, DimError):
        return {"problem": "the server failed", "why": type(error).__name__}
    parts = {name: getattr(error, name) for name in ("problem", "got", "expected", "why", "fix")}
    return {name: UPLOAD_PATH.sub("", str(value)) for name, value in parts.items() if value is not None}


def error_response(error: BaseException) -> JSONResponse:
    """Return the response to a request that failed."""
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    if status == 500:
        log.error("a request failed", exc_info=error)
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (408, 413):
        # The rest of the body is not read: the connection cannot be used again.
        headers["Connection"] = "close"
    return JSONResponse(describe(error), status, headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(DimError)
    async def ours(_: Request, error: Exception) -> Response:
        return error_response(error)

    @app.exception_handler(StarletteHTTPException)
    async def protocol(_: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        # FastAPI hides what the guard raises while a form is read behind a 400.
        if isinstance(error.__cause__, DimError):
            return error_response(error.__cause__)
        return JSONResponse({"problem": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return error_response(InputError("cannot use the fields of this request", got=found))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return error_response(error)


def _add_counting(app: FastAPI, service: Service) -> None:
    @app.middleware("http")
    async def count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        route = getattr(request.scope.get("route"), "path", "other")
        service.requests.labels(route, str(response.status_code)).inc()
        return response
