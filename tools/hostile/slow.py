"""Slow clients: connections that send a byte a second and never end their request."""

from __future__ import annotations

import socket
import threading
import time

from hostile.attempts import form_head
from hostile.server import Server

BEGINNINGS = (
    b"POST /v1/matte HTTP/1.1\r\nHost: localhost\r\nX-",
    form_head("Content-Length: 1000000"),
    form_head("Transfer-Encoding: chunked") + b"5\r\nab",
)


class SlowClients:
    """Hold connections open until the server closes them.

    Args:
        server: where they connect to.
        count: how many.
    """

    def __init__(self, server: Server, count: int) -> None:
        self.count = count
        self._open = [_begun(server, BEGINNINGS[i % len(BEGINNINGS)]) for i in range(count)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._trickle, daemon=True)
        self._thread.start()

    @property
    def closed(self) -> int:
        """Connections that the server has closed."""
        return self.count - len(self._open)

    def wait_closed(self, seconds: float) -> bool:
        """Return whether the server closes all of them within this time."""
        ends = time.monotonic() + seconds
        while self._open and time.monotonic() < ends:
            self._stop.wait(0.2)
        return not self._open

    def end(self) -> None:
        """Close those that are left."""
        self._stop.set()
        self._thread.join()
        for connection in self._open:
            connection.close()

    def _trickle(self) -> None:
        while not self._stop.wait(1):
            self._open = [connection for connection in self._open if _is_open(connection)]


def _begun(server: Server, content: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(content)
    connection.setblocking(False)
    return connection


def _is_open(connection: socket.socket) -> bool:
    """Send one byte and read what there is; close and return False if the server has closed."""
    try:
        connection.send(b"a")
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    connection.close()
    return False
