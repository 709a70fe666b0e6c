"""Hand-made hostile requests. Each is made from a seed and a number, so that it can be repeated."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import cv2
import httpx
import numpy as np

from fuzz import mutations, seeds
from hostile.bombs import BOMBS
from hostile.server import TOKEN, Server

ROUTES = ("/v1/matte", "/v1/trimap", "/v1/jobs")
FILES = ("image", "trimap", "mask", "scribbles")
TIMEOUT_S = 400
"""Seconds for one response; after 300 s the server itself gives up."""
HUGE_BYTES = 10 * 10**9
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


class Reply(NamedTuple):
    """A response, as far as it is checked."""

    status: int
    content_type: str
    body: bytes


@dataclass
class Attempt:
    """One request through an HTTP client.

    Attributes:
        kind: name of the maker.
        method, path: as sent.
        headers: beside the token's.
        request: further arguments of httpx: files, data, content.
        token: of the Authorization header; None sends none.
    """

    kind: str
    method: str = "POST"
    path: str = "/v1/matte"
    headers: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    token: str | None = TOKEN

    def send(self, server: Server) -> Reply | None:
        """Send it; None where the server closed the connection."""
        headers = dict(self.headers)
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        with httpx.Client(base_url=server.address, timeout=TIMEOUT_S, verify=False) as client:
            answer = client.request(self.method, self.path, headers=headers, **self.request)
            if answer.status_code == 202:
                # A result that is never fetched would only delay the server's stop.
                client.delete(f"/v1/jobs/{answer.json()['id']}", headers=headers)
        return Reply(answer.status_code, answer.headers.get("Content-Type", ""), answer.content)

    may_close = False


@dataclass
class Raw:
    """Bytes on a connection, which need not be HTTP; the server may close it without a response.

    Attributes:
        kind: name of the maker.
        pieces: makes what is sent, until the server closes the connection.
    """

    kind: str
    pieces: Callable[[], Iterator[bytes]]
    may_close = True

    def send(self, server: Server) -> Reply | None:
        """Send it; None where there is no response."""
        with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as connection:
            try:
                for piece in self.pieces():
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
            except ConnectionError:
                pass  # refused in its middle: the response may be there
            return _read(connection)


def _read(connection: socket.socket) -> Reply | None:
    """Return the response that the server sends before it closes the connection."""
    content = bytearray()
    try:
        while piece := connection.recv(1 << 16):
            content += piece
    except ConnectionError:
        pass
    head, _, body = bytes(content).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        return None
    if b"\ntransfer-encoding: chunked" in head.lower():
        body = body.partition(b"\r\n")[2].partition(b"\r\n0\r\n")[0]  # of one chunk
    types = [line[13:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"content-type:")]
    return Reply(int(head[9:12]), types[0].decode("latin-1") if types else "", body)


AnyAttempt = Attempt | Raw
Maker = Callable[[random.Random], AnyAttempt]


# ---- images


@cache
def _seeds() -> list[tuple[str, bytes]]:
    return [*seeds.images().items(), *seeds.trimaps().items()]


def _png(array: Any) -> bytes:
    return bytes(cv2.imencode(".png", array)[1])


@cache
def _good() -> dict[str, bytes]:
    """Return small valid files of one size for every field."""
    image = seeds.colours()
    strokes = np.zeros((*seeds.SIDE, 4), np.uint8)
    strokes[:, :8], strokes[:, 40:] = (0, 0, 0, 255), (255, 255, 255, 255)
    trimap = seeds.levels()
    return {
        "image": _png(image),
        "trimap": _png(trimap),
        "mask": _png((trimap > 0) * np.uint8(255)),
        "scribbles": _png(strokes),
    }


def _files(draw: random.Random) -> dict[str, bytes]:
    """Return an image and one source of a trimap, both valid."""
    return {name: _good()[name] for name in ("image", draw.choice(FILES[1:]))}


def mutated_images(draw: random.Random) -> AnyAttempt:
    """Damage one file of a good form: bytes, numbers, chunks, tags, or an end that is cut off."""
    files: dict[str, Any] = _files(draw)
    name, content = draw.choice(_seeds())
    change = draw.choice((mutations.of_image, mutations.of_image, mutations.of_bytes, _cut))
    files[draw.choice(list(files))] = (name, change(draw, content))
    return Attempt("mutated images", path=draw.choice(ROUTES), request={"files": files})


def _cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content))]


def bombs(draw: random.Random) -> AnyAttempt:
    """Declare far more pixels than there are bytes, in each format; some are there, packed well."""
    files: dict[str, Any] = _files(draw)
    name = draw.choice(list(files))
    files[name] = draw.choice(BOMBS)(draw.choice((3_000, 20_000, 60_000)))
    return Attempt("bombs", path=draw.choice(ROUTES), request={"files": files})


def largest_images(draw: random.Random) -> AnyAttempt:
    """Send the largest image that is taken, with a wide unknown region."""
    trimap = np.zeros((2000, 2000), np.uint8)
    trimap[1000:], trimap[800:1200] = 255, 128
    image = np.full((2000, 2000, 3), draw.randrange(256), np.uint8)
    data = {"output": draw.choice(("alpha", "cutout"))}
    return Attempt(
        "largest images", request={"files": {"image": _png(image), "trimap": _png(trimap)}, "data": data}
    )


# ---- fields and forms

TEXTS = (
    "",
    "\0",
    "nan",
    "-1",
    "1e999",
    "9" * 5000,
    "../../etc/passwd",
    "http://127.0.0.1/health",
    "#GGGGGG",
    "#FFFFFF\r\nX: y",
    "0,0,0,0",
    "-5,-5,9999999999,1",
    "1,2,3,4,5",
    "١,2,3,4",
    "\U0001f4a3" * 300,
    "true",
    "null",
    "[" * 50_000,
)
NAMES = (
    *FILES,
    "box",
    "inside",
    "outside",
    "band",
    "output",
    "format",
    "depth",
    "foreground",
    "background",
    "",
    "__proto__",
    "image[]",
    "x" * 10_000,
)


def wrong_fields(draw: random.Random) -> AnyAttempt:
    """Send texts as files, files as texts, and values of other types."""
    files: dict[str, Any] = _files(draw)
    data: dict[str, Any] = {}
    for _ in range(draw.randint(1, 3)):
        name = draw.choice(NAMES)
        if draw.random() < 0.3:
            files[name] = (draw.choice(("../../x.png", "a\0b", "é" * 300)), draw.choice(TEXTS).encode())
        else:
            files.pop(name, None)
            data[name] = draw.choice(TEXTS)
    return Attempt("wrong fields", path=draw.choice(ROUTES), request={"files": files, "data": data})


def wrong_forms(draw: random.Random) -> AnyAttempt:
    """Send bodies that are no form, or forms that end early, repeat parts, or never get to one."""
    part = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + _good()["image"]
    bodies = (
        b"",
        b"--b",
        b"--b\r\n" + part,
        b"--b\r\n" + part + b"\r\n--c--",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
        b"--b\r\n" + b"X: y\r\n" * 20_000 + b"\r\nx\r\n--b--",
        b"--b\r\nContent-Disposition: " + b"a" * 500_000 + b"\r\n\r\nx\r\n--b--",
        (b"--b\r\n" + part + b"\r\n") * 40 + b"--b--",
        b'--b\r\nContent-Disposition: form-data; name="box"\r\n\r\n1\r\n' * 2_000 + b"--b--",
        b'--b\r\nContent-Disposition: form-data; name="box"\r\n\r\n' + b"1" * 2_000_000 + b"\r\n--b--",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        draw.randbytes(5_000),
    )
    types = (
        "multipart/form-data; boundary=b",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "multipart/form-data; boundary=" + "b" * 5_000,
        "multipart/form-data; boundary=\xff",
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
        "image/png",
        "",
    )
    headers = {"Content-Type": draw.choice(types).encode("latin-1")}
    return Attempt(
        "wrong forms", path=draw.choice(ROUTES), headers=headers, request={"content": draw.choice(bodies)}
    )


# ---- the protocol


def odd_requests(draw: random.Random) -> AnyAttempt:
    """Send other methods, paths, versions and headers, and bytes that are no HTTP."""
    methods = (
        b"GET",
        b"HEAD",
        b"POST",
        b"PUT",
        b"DELETE",
        b"TRACE",
        b"CONNECT",
        b"PROPFIND",
        b"get",
        b"\xff",
    )
    paths = (
        b"/",
        b"//",
        b"/../../etc/passwd",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"/..%2f..%2fetc%2fpasswd",
        b"/%00",
        b"/%ff%fe",
        b"/" + b"a" * 5_000,
        b"/" + b"a/" * 20_000,
        b"/v1/jobs/../../health",
        b"/v1/matte?" + b"a=b&" * 5_000,
        b"/openapi.json",
        b"/metrics",
        b"http://127.0.0.1/health",
        b"*",
        b"/main.js",
    )
    versions = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9", b"")
    heads = (
        b"",
        b"Host: evil.example\r\n",
        b"Host: 127.0.0.1\r\nHost: evil.example\r\n",
        b"Range: bytes=" + b"0-," * 3_000 + b"1-\r\n",
        b"Range: bytes=9999999999-\r\n",
        b"X: y\r\n" * 5_000,
        b"X: " + b"y" * 500_000 + b"\r\n",
        b"X\0: y\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
        b"Expect: 100-continue\r\nContent-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 1\r\nContent-Length: 2\r\n",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Length: " + b"9" * 4_000 + b"\r\n",
    )
    request = b" ".join((draw.choice(methods), draw.choice(paths), draw.choice(versions)))
    request += (
        b"\r\nConnection: close\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
    )
    whole = draw.choice((request + draw.choice(heads) + b"\r\n", draw.randbytes(draw.randint(1, 3_000))))
    return Raw("odd requests", lambda: iter((whole,)))


def announced_huge(draw: random.Random) -> AnyAttempt:
    """Announce 10 GB by Content-Length, and send some of them."""
    head = form_head(f"Content-Length: {HUGE_BYTES}")
    return Raw("10 GB announced", lambda: iter((head, bytes(draw.choice((0, 1, 100_000))))))


def chunked_huge(draw: random.Random) -> AnyAttempt:
    """Send 10 GB in chunks, until the server closes the connection."""
    prefix = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'

    def pieces() -> Iterator[bytes]:
        yield form_head("Transfer-Encoding: chunked") + b"%x\r\n%b\r\n" % (len(prefix), prefix)
        for _ in range(HUGE_BYTES // len(CHUNK)):
            yield CHUNK

    return Raw("10 GB in chunks", pieces)


def odd_chunks(draw: random.Random) -> AnyAttempt:
    """Send chunks whose lengths are wrong."""
    chunks = (
        b"FFFFFFFFFFFFFFFF\r\n",
        b"-1\r\n",
        b"5;" + b"a" * 100_000,
        b"zz\r\n",
        b"0\r\n" + b"X: y\r\n" * 9_000,
    )
    body = form_head("Transfer-Encoding: chunked") + draw.choice(chunks)
    return Raw("odd chunks", lambda: iter((body,)))


def form_head(length: str) -> bytes:
    """Return the head of a form with the token; ``length`` is the header with the length of the body."""
    return (
        f"POST /v1/matte HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\n{length}\r\n\r\n"
    ).encode()


def guessed_tokens(draw: random.Random) -> AnyAttempt:
    """Guess the token, send none, or send it in another scheme."""
    guesses = ("", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN)
    guess = draw.choice((*guesses, "Bearer " + draw.randbytes(12).hex(), "Bearer " + "x" * 20_000)).encode()
    headers = {"Authorization": draw.choice((guess, b"Bearer \xff\xfe"))}
    path = draw.choice((*ROUTES, "/metrics", "/v1/jobs/0"))
    return Attempt("guessed tokens", path=path, headers=headers, token=None, request={"files": _files(draw)})


def guessed_jobs(draw: random.Random) -> AnyAttempt:
    """Guess jobs, or name something else as one."""
    names = (draw.randbytes(16).hex(), "0", "..%2f..", "%00", "x" * 3_000, "é")
    suffix = draw.choice(("", "/events", "/result", "/result?output=composite", "/result?output=nonsense"))
    path = f"/v1/jobs/{draw.choice(names)}{suffix}"
    return Attempt("guessed jobs", method=draw.choice(("GET", "DELETE", "POST")), path=path)


MAKERS: tuple[tuple[Maker, int], ...] = (
    (mutated_images, 400),
    (bombs, 150),
    (wrong_fields, 300),
    (wrong_forms, 200),
    (odd_requests, 300),
    (odd_chunks, 40),
    (guessed_tokens, 100),
    (guessed_jobs, 80),
    (announced_huge, 20),
    (chunked_huge, 10),
    (largest_images, 4),
)
"""Makers of requests, and their weights. The last one keeps the server busy for seconds."""


def make(seed: int, number: int) -> AnyAttempt:
    """Return the attempt of this number; the first ones are one of each kind but the last."""
    draw = random.Random(f"{seed} {number}")
    makers, weights = zip(*MAKERS, strict=True)
    maker = makers[number] if number < len(makers) - 1 else draw.choices(makers, weights)[0]
    return maker(draw)  # type: ignore[no-any-return]
