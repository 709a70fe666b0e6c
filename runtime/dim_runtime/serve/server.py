"""Run the application: uvicorn, with a stop that loses nothing that was accepted."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import signal
import socket
import time
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from dim.errors import InputError

log = logging.getLogger(__name__)

HEADER_SECONDS = 15.0
"""Seconds in which the headers of a connection's first request must arrive."""
IDLE_SECONDS = 20
"""Seconds that a connection is kept without a further request; its headers then have the same time again."""
FETCH_SECONDS = 30.0
"""Seconds that a stopping server waits for finished results to be fetched."""
SEND_SECONDS = 60.0
"""Seconds in which a client must take some of a response; one that takes nothing would keep its files."""
LAST_SECONDS = 30
"""Seconds in which a stopping server sends the rest of its responses."""


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that closes connections on which no request begins: uvicorn has no time limit for headers."""

    _stall: asyncio.TimerHandle | None = None

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
        self._end_stall()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall()

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

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections; uvicorn alone would keep those alive that were accepted just before."""
        late = asyncio.create_task(self._close_late())
        await super().shutdown(sockets)
        late.cancel()

    async def _close_late(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            for connection in list(self.server_state.connections):
                protocol: Any = connection
                if not protocol.transport.is_closing():
                    protocol.shutdown()

    async def _drain(self, service: Any) -> None:
        while service.queue.unfinished:
            await asyncio.sleep(0.05)
        deadline = time.monotonic() + FETCH_SECONDS
        while service.queue.fetchable and time.monotonic() < deadline:
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
        timeout_graceful_shutdown=LAST_SECONDS,
        server_header=False,
    )
    DrainingServer(config).run()


def require_free(host: str, port: int) -> None:
    """Raise InputError unless the address can be bound: before a network is loaded for nothing."""
    failed: list[OSError] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _unusable(host, port, error) from error
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As asyncio binds: on POSIX this takes no port from another server that listens.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            failed.append(error)
    # A name may have an address of IPv6 on a machine without it.
    for each in failed:
        if each.errno == errno.EADDRINUSE or len(failed) == len(found):
            raise _unusable(host, port, each) from each


def _unusable(host: str, port: int, error: OSError) -> InputError:
    taken = error.errno == errno.EADDRINUSE
    return InputError(
        f"cannot serve at {host}, port {port}",
        why="another program uses the port" if taken else error.strerror or str(error),
        fix="choose another --port; 0 takes a free one" if taken else "choose another --host or --port",
    )
