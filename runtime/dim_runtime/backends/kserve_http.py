"""The Open Inference Protocol over HTTP, by httpx: connections are kept and reused."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from dim.arrays import Float32, UInt8
from dim.errors import InputError
from dim.extras import require
from dim_runtime.backends.kserve_client import (
    PassingError,
    RefusedError,
    Target,
    Transport,
    UnreachableError,
    tls_file,
    unread,
    unreadable,
    untrusted,
)
from dim_runtime.backends.kserve_protocol import (
    DOCUMENT_BYTES,
    JSON_BYTES_PER_VALUE,
    JSON_LENGTH,
    ProtocolError,
    read_alpha,
    read_description,
    read_document,
    request_body,
)
from dim_runtime.errors import BackendError

if TYPE_CHECKING:
    import httpx

PASSING = (429, 502, 503, 504)
"""Statuses of a server that is busy or starting, or of a proxy that cannot reach it now."""
CHUNK_BYTES = 1 << 20
"""Tensors are sent in pieces of this size, so that no second copy of a window exists."""
_BINARY_BYTES, _JSON_BYTES = 4 + 3 * 4, 4 + 6 * JSON_BYTES_PER_VALUE
"""Bytes per pixel of a window here: its arrays and the response while it grows; the same as numbers."""
_CONNECTION_BYTES = 4 * 10**6
_LONGEST_REASON = 300


class _Response(NamedTuple):
    headers: Mapping[str, str]
    body: bytearray


class HttpTransport(Transport):
    """See :class:`~dim_runtime.backends.kserve_client.Transport`.

    Args:
        target: http or https.
        binary: False sends and receives tensors as numbers in JSON.
    """

    def __init__(self, target: Target, *, binary: bool = True) -> None:
        require("reach an inference server over HTTP", "httpx", extra="kserve")
        import httpx

        self._target, self._binary = target, binary
        self._path = f"/v2/models/{quote(target.model, safe='')}"
        if target.version:
            self._path += f"/versions/{quote(target.version, safe='')}"
        self._http = httpx.Client(
            # Identity: a response cannot grow when it is decoded.
            headers={"Accept-Encoding": "identity", **target.headers},
            timeout=target.timeout,
            verify=_ssl_context(target) if target.is_encrypted else False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    def describe(self) -> dict[str, str]:
        answer = self._send("GET", "", DOCUMENT_BYTES)
        try:
            return read_description(answer.body)
        except ProtocolError as error:
            raise unreadable(self._target, error) from error

    def document(self) -> str | None:
        try:
            answer = self._send("GET", "/config", DOCUMENT_BYTES)
            return read_document(answer.body)
        except (RefusedError, ProtocolError):
            return None  # an extension of Triton's

    def infer(self, image: UInt8, trimap: UInt8) -> Float32:
        head, tensors = request_body(image, trimap, binary=self._binary)
        headers = {"Content-Type": "application/json"}
        if self._binary:
            headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))}
        largest = DOCUMENT_BYTES + JSON_BYTES_PER_VALUE * trimap.size
        answer = self._send("POST", "/infer", largest, headers, [memoryview(head), *tensors])
        try:
            return read_alpha(answer.body, answer.headers.get(JSON_LENGTH), trimap.shape)
        except ProtocolError as error:
            raise unreadable(self._target, error) from error

    def window_bytes(self, pixels: int) -> int:
        return _CONNECTION_BYTES + (_BINARY_BYTES if self._binary else _JSON_BYTES) * pixels

    def close(self) -> None:
        self._http.close()

    def _send(
        self,
        method: str,
        suffix: str,
        largest: int,
        headers: Mapping[str, str] | None = None,
        content: list[memoryview] | None = None,
    ) -> _Response:
        """Send one request; return its response of at most ``largest`` bytes."""
        import httpx

        deadline = time.monotonic() + self._target.timeout
        length = {"Content-Length": str(sum(map(len, content)))} if content else {}
        try:
            with self._http.stream(
                method,
                self._target.url.rstrip("/") + self._path + suffix,
                headers={**length, **(headers or {})},
                content=_pieces(content) if content else None,
            ) as response:
                body = self._read(response, largest, deadline)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._failed(error) from error
        if response.status_code != httpx.codes.OK:
            raise self._refused(response, body)
        return _Response(response.headers, body)

    def _read(self, response: httpx.Response, largest: int, deadline: float) -> bytearray:
        body = bytearray()
        for piece in response.iter_raw():
            body += piece
            if len(body) > largest:
                raise unread(self._target, f"it has more than {largest} bytes", kind=BackendError)
            if time.monotonic() > deadline:
                raise unread(self._target, f"timed out at byte {len(body)}")
        return body

    def _failed(self, error: Exception) -> BackendError:
        import httpx

        cause = _cause(error)
        # With TLS 1.3 a server refuses the client's certificate after the handshake, with an alert.
        if isinstance(cause, ssl.SSLError) and (
            isinstance(error, httpx.ConnectError) or "ALERT" in (cause.reason or "")
        ):
            return untrusted(self._target, str(cause))
        why = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return unread(self._target, why, kind=UnreachableError)
        passing = httpx.TimeoutException | httpx.NetworkError | httpx.RemoteProtocolError | httpx.ProxyError
        return unread(self._target, why, kind=PassingError if isinstance(error, passing) else BackendError)

    def _refused(self, response: httpx.Response, body: bytearray) -> BackendError:
        status = response.status_code
        kind = PassingError if status in PASSING else RefusedError
        error = kind(
            f"{self._target.server} refused a request for the model {self._target.model!r}",
            got=f"status {status} {response.reason_phrase}",
            why=_reason(body),
            fix=self._fix(response),
        )
        if isinstance(error, PassingError):
            error.pause = _seconds(response.headers.get("Retry-After"))
        return error

    def _fix(self, response: httpx.Response) -> str | None:
        status, is_inference = response.status_code, response.request.method == "POST"
        if status in (401, 403):
            return 'headers={"Authorization": "Bearer …"}'
        if status == 413:
            return "a smaller tile=, or a server that takes larger requests"
        if is_inference and self._binary and status in (400, 415, 422, 500):
            return "does the server read binary tensors? binary=False sends numbers; or use grpc://HOST:PORT"
        if status in (400, 404):
            return f"is there such a model? {self._target.server}{self._path}"
        return None


def _pieces(content: list[memoryview]) -> Iterator[bytes]:
    for part in content:
        for start in range(0, len(part), CHUNK_BYTES):
            yield bytes(part[start : start + CHUNK_BYTES])


def _ssl_context(target: Target) -> ssl.SSLContext:
    tls = target.tls
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        for path in (tls.ca, tls.certificate, tls.key):
            if path is not None:
                tls_file(path)
        raise InputError("cannot use these certificates", got=str(tls), why=str(error)) from error
    return context


def _cause(error: BaseException) -> BaseException:
    """Return the first error of a chain."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return error


def _reason(body: bytearray) -> str | None:
    """Return the server's own words; a page of HTML has none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    text = found.get("error") or found.get("detail") if isinstance(found, dict) else None
    return str(text)[:_LONGEST_REASON] if isinstance(text, str) else None


def _seconds(retry_after: str | None) -> float:
    """Return the seconds of a Retry-After header; 0 for a date, which no inference server sends."""
    return float(retry_after) if retry_after and retry_after.isdecimal() and len(retry_after) < 6 else 0.0
