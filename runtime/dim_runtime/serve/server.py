"""Run the application: uvicorn, with a stop that loses nothing that was accepted."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

HEADER_SECONDS = 15.0
"""Seconds in which the headers of a connection's first request must arrive."""
IDLE_SECONDS = 20
"""Seconds that a connection is kept without a further request; its headers then have the same time again."""
FETCH_SECONDS = 30.0
"""Seconds that a stopping server waits for finished results to be fetched."""


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that closes connections on which no request begins: uvicorn has no time limit for headers."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEADER_SECONDS, self._close_if_silent)

    def on_response_complete(self) -> None:
        # Uvicorn ends its own limit with the first byte of the next request.
        self._timer.cancel()
        self._timer = self.loop.call_later(IDLE_SECONDS + HEADER_SECONDS, self._close_if_silent)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no HTTP with an error in JSON; after a response nothing can be sent."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("content-type", "application/json"), ("connection", "close")]
            body = json.dumps({"problem": "cannot read the request", "expected": "HTTP/1.1"}).encode()
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()

    def _close_if_silent(self) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and not self.transport.is_closing():
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """On the first signal: take nothing new, finish what was accepted, let results be fetched, then stop."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        service = self.config.app.state.service  # type: ignore[union-attr]
        if service.queue.stopping or (sig == signal.SIGINT and self.should_exit):
            super().handle_exit(sig, frame)
            return
        log.warning("stopping: %d requests are finished first", service.queue.unfinished)
        service.queue.stop()
        asyncio.get_running_loop().create_task(self._drain(service))

    async def _drain(self, service: Any) -> None:
        while service.queue.unfinished:
            await asyncio.sleep(0.05)
        deadline = time.monotonic() + FETCH_SECONDS
        while service.queue.kept and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        self.should_exit = True


def serve(app: FastAPI, *, host: str, port: int) -> None:
    """Serve until a signal stops the process.

    Args:
        app: of :func:`~dim_runtime.serve.api.create_app`.
        host: address to bind.
        port: 0 takes a free one.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=TimedProtocol,
        ws="none",
        log_level="info",
        timeout_keep_alive=IDLE_SECONDS,
        server_header=False,
    )
    DrainingServer(config).run()
