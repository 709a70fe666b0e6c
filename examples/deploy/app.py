"""The application of ``dim-matte serve`` for uvicorn's or gunicorn's worker processes.

    uvicorn --factory app:create --workers 2 --timeout-graceful-shutdown 330
    gunicorn "app:create()" --workers 2 --worker-class uvicorn_worker.UvicornWorker --graceful-timeout 330

Run it in this folder. Each worker process holds its network, its queue and its limits. Environment:
DIM_SERVE_TOKEN, the token that requests must carry; DIM_SERVE_HOSTS, host names with commas between, or
without it this machine's; DIM_SERVE_THREADS, threads of each worker's network.
"""

from __future__ import annotations

import os

from fastapi import FastAPI

from dim_runtime import Matting
from dim_runtime.serve.api import create_app
from dim_runtime.serve.limits import Limits


def create() -> FastAPI:
    """Make the application of one worker process. Requests that wait are few: the proxy has other workers."""
    threads = os.environ.get("DIM_SERVE_THREADS")
    hosts = os.environ.get("DIM_SERVE_HOSTS")
    return create_app(
        Matting(threads=int(threads) if threads else None),
        limits=Limits(queue=8),
        token=os.environ.get("DIM_SERVE_TOKEN"),
        hosts=hosts.split(",") if hosts else None,
    )
