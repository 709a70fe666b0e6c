"""The server as a process: what was accepted is finished when it is stopped, and slow clients are closed."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from dim.errors import InputError
from dim_runtime.images.samples import sample_paths

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

PROGRAM = """
import sys
from dim_runtime import Matting
from dim_runtime.backends.fake import FakeBackend, red_channel
from dim_runtime.serve import api, limits, server
import time

def slow(image, trimap):
    time.sleep(0.1)
    return red_channel(image, trimap)

server.HEADER_SECONDS, server.IDLE_SECONDS, server.SEND_SECONDS = 3.0, 1, 2.0
matting = Matting.from_backend(FakeBackend(alpha=slow))
app = api.create_app(matting, limits=limits.Limits(queue=64, body_seconds=3.0))
server.serve(app, host="127.0.0.1", port=int(sys.argv[1]))
print("stopped", flush=True)
"""


class Running(NamedTuple):
    url: str
    port: int
    process: subprocess.Popen[str]


@pytest.fixture
def server() -> Iterator[Running]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(1200):
        assert process.poll() is None
        try:
            httpx.get(f"{url}/ready", timeout=1)
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    yield Running(url, port, process)
    process.kill()
    process.wait()


def post(url: str) -> int:
    """Return the status of one request; 0 if no connection was made."""
    image, trimap = sample_paths()
    files = {"image": image.read_bytes(), "trimap": trimap.read_bytes()}
    try:
        return int(
            httpx.post(f"{url}/v1/matte", files=files, data={"output": "alpha"}, timeout=60).status_code
        )
    except httpx.ConnectError:
        return 0


@pytest.mark.slow
def test_a_stop_in_the_middle_loses_no_accepted_request(server: Running) -> None:
    with ThreadPoolExecutor(12) as clients:
        answers = [clients.submit(post, server.url) for _ in range(36)]
        while not any(answer.done() for answer in answers):
            time.sleep(0.01)
        os.kill(server.process.pid, signal.SIGTERM)
        statuses = Counter(answer.result() for answer in answers)
    assert server.process.wait(60) == 0
    assert server.process.stdout is not None
    assert "stopped" in server.process.stdout.read()
    # 503 is a request that came afterwards; anything else would be a loss.
    assert set(statuses) <= {200, 503, 0}, statuses
    assert statuses[200] >= 2


@pytest.mark.slow
def test_results_of_jobs_can_be_fetched_while_the_server_stops(server: Running) -> None:
    image, trimap = sample_paths()
    files = {"image": image.read_bytes(), "trimap": trimap.read_bytes()}
    data = {"foreground": "image"}
    job = httpx.post(f"{server.url}/v1/jobs", files=files, data=data, timeout=60).json()["id"]
    os.kill(server.process.pid, signal.SIGTERM)
    for output in ("alpha", "cutout"):
        answer = httpx.get(f"{server.url}/v1/jobs/{job}/result", params={"output": output}, timeout=60)
        assert answer.status_code == 200, answer.text
    assert server.process.wait(60) == 0


def test_a_stop_does_not_wait_for_half_a_body(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(
            b"POST /v1/matte HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b"
        )
        time.sleep(0.5)
        os.kill(server.process.pid, signal.SIGTERM)
        connection.settimeout(2)
        received = connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 10" in received.lower()
    # Below the time that a body may take, and far below that of the last responses.
    assert server.process.wait(20) == 0


def _closed_within(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST /v1/matte HTTP/1.1\r\nHost: localhost\r\nX-", id="half the headers"),
        pytest.param(
            b"POST /v1/matte HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b",
            id="half the body",
        ),
    ],
)
def test_a_client_that_sends_nothing_more_is_closed(server: Running, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(begun)
        assert _closed_within(connection, 60)
    assert httpx.get(f"{server.url}/ready", timeout=60).status_code == 200


def test_a_second_request_that_stops_in_its_headers_is_closed(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /health HTTP/1.1\r\nX-")
        assert _closed_within(connection, 60)


def test_a_client_that_does_not_take_its_result_is_closed(server: Running) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1600, 1600, 3), np.uint8)
    known = np.zeros((1600, 1600), np.uint8)
    known[:800] = 255
    files = {
        name: io.BytesIO(cv2.imencode(".png", each)[1].tobytes())
        for name, each in (("image", noise), ("trimap", known))
    }
    data = {"foreground": "image"}
    request = httpx.Client().build_request("POST", f"{server.url}/v1/matte", files=files, data=data)
    body = request.read()
    head = f"POST /v1/matte HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Type: {request.headers['content-type']}\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head.encode() + body)
        assert connection.recv(12) == b"HTTP/1.1 200"
        time.sleep(6)
        os.kill(server.process.pid, signal.SIGTERM)
        # Without a limit the server would wait for this client without end.
        assert server.process.wait(20) == 0


def test_a_result_whose_download_broke_off_can_be_fetched_again(server: Running) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1600, 1600, 3), np.uint8)
    known = np.zeros((1600, 1600), np.uint8)
    known[:800] = 255
    files = {
        name: cv2.imencode(".png", each)[1].tobytes() for name, each in (("image", noise), ("trimap", known))
    }
    job = httpx.post(f"{server.url}/v1/jobs", files=files, data={"foreground": "image"}, timeout=60).json()[
        "id"
    ]
    result = f"/v1/jobs/{job}/result?output="
    assert httpx.get(f"{server.url}{result}alpha", timeout=60).status_code == 200
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(f"GET {result}cutout HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
    time.sleep(1)
    assert httpx.get(f"{server.url}{result}cutout", timeout=60).status_code == 200


class _Late:
    """A connection without a request."""

    def __init__(self, known: set[Any]) -> None:
        self.known, self.transport = known, SimpleNamespace(is_closing=lambda: False)

    def shutdown(self) -> None:
        self.known.discard(self)


class _Lifespan:
    async def shutdown(self) -> None:
        """Do nothing."""


def test_a_connection_that_comes_with_the_stop_is_closed() -> None:
    """Uvicorn closes the connections that it knows; one that is being accepted came too late for that."""
    from dim_runtime.serve.server import DrainingServer

    uvicorn = pytest.importorskip("uvicorn")
    stopping = DrainingServer(uvicorn.Config(lambda: None))
    stopping.servers, stopping.lifespan = [], _Lifespan()
    known: set[Any] = stopping.server_state.connections

    async def stop() -> None:
        asyncio.get_running_loop().call_later(0.02, known.add, _Late(known))
        await asyncio.wait_for(stopping.shutdown(), 10)

    asyncio.run(stop())
    assert not known


def test_an_address_that_is_taken_is_an_error() -> None:
    from dim_runtime.serve.server import require_free

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match="another program uses the port"):
            require_free("127.0.0.1", port)
    require_free("127.0.0.1", 0)
    with pytest.raises(InputError, match=r"cannot serve at 192\.0\.2\.1"):
        require_free("192.0.2.1", 0)
    with pytest.raises(InputError, match=r"cannot serve at no\.such\.host"):
        require_free("no.such.host.invalid", 0)
