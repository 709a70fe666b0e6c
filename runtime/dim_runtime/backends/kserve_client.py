"""The part of the KServe v2 protocol (Open Inference Protocol) that a matting needs, over HTTP.

Tensors travel as binary data behind the JSON, as the protocol's binary tensor data extension has it:
row-major, little-endian. Only the standard library is used: Triton's own client brings gevent with it for
what is one POST here.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import numpy as np

from dim.arrays import Array
from dim.errors import InputError
from dim_runtime.errors import BackendError

JSON_LENGTH = "Inference-Header-Content-Length"
"""How many bytes of the body are JSON; the rest is tensors."""


_DATATYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.float32): "FP32"}
_LONGEST_REASON = 300

_log = logging.getLogger(__name__)

PASSING = (429, 502, 503, 504)
"""Statuses of a server that is busy, starting, or behind a proxy that cannot reach it now."""
FIRST_PAUSE = 0.25
"""Seconds before the second attempt; each further pause is twice as long."""
LARGEST_RESPONSE = 1 << 30
"""Bytes of a response; the alpha of a window of 256 megapixels."""


class _Answer(NamedTuple):
    headers: Mapping[str, str]
    body: bytes


class KServeClient:
    """One model on one server. Holds no connection, so threads may share it.

    Args:
        url: where the server is, such as "http://localhost:8000".
        model: its name there.
        version: one of its versions; "" lets the server choose.
        timeout: seconds without a response.
        retries: further attempts after a reset connection or a status 429, 502, 503 or 504, with growing
            pauses. An inference has no side effects, so that it can be repeated.
        headers: sent with every request, for example ``{"Authorization": "Bearer …"}``.
        ssl_context: for https: certificates to trust, a client certificate.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: str = "",
        timeout: float = 60.0,
        retries: int = 4,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._server = _server(url)
        self.model = model
        self._timeout, self._retries = timeout, retries
        self._headers, self._ssl = dict(headers or {}), ssl_context
        self._path = f"/v2/models/{quote(model, safe='')}"
        if version:
            self._path += f"/versions/{quote(version, safe='')}"

    @property
    def address(self) -> str:
        """URL of the model, for messages; without a password."""
        return _without_password(self._server) + self._path

    def describe(self) -> dict[str, Any]:
        """Names, types and shapes of inputs and outputs: what every server of the protocol tells."""
        return self._document("")

    def configuration(self) -> dict[str, Any] | None:
        """Triton's model configuration; None from a server that has no such extension."""
        try:
            return self._document("/config")
        except _RefusedError:
            return None

    def infer(self, inputs: Mapping[str, Array], output: str) -> Array:
        """Run the model.

        Args:
            inputs: uint8 or float32 arrays by name.
            output: the float32 output to get.

        Raises:
            BackendError: no answer, an error of the server's, or an answer that is not of the protocol.
        """
        head, tensors = _request(inputs, output)
        headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))}
        answer = self._send("/infer", b"".join([head, *tensors]), headers)
        try:
            return _output(answer, output)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackendError(
                f"cannot read what {self.address} answered",
                got=f"{len(answer.body)} bytes",
                expected=f"the output {output!r}, FP32",
                why=f"{type(error).__name__}: {error}",
            ) from error

    def _document(self, suffix: str) -> dict[str, Any]:
        body = self._send(suffix).body
        try:
            document = json.loads(body)
        except ValueError as error:
            raise self._not_this_protocol(body) from error
        if not isinstance(document, dict):
            raise self._not_this_protocol(body)
        return document

    def _not_this_protocol(self, body: bytes) -> BackendError:
        return BackendError(
            f"cannot use {self.address}",
            got=body[:_LONGEST_REASON].decode("utf-8", "replace"),
            expected="a server of the KServe v2 protocol, such as Triton",
        )

    def _send(
        self, suffix: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> _Answer:
        request = Request(
            self._server + self._path + suffix, data=body, headers={**self._headers, **(headers or {})}
        )
        for attempt in range(self._retries):
            try:
                return self._sent(request)
            except _PassingError as error:
                _log.warning("%s: %s; attempt %d", self.address, error.problem, attempt + 2)
                time.sleep(FIRST_PAUSE * 2**attempt)
        return self._sent(request)

    def _sent(self, request: Request) -> _Answer:
        try:
            with urlopen(request, timeout=self._timeout, context=self._ssl) as response:
                content = response.read(LARGEST_RESPONSE + 1)
                # After a connection that broke some bytes are left, which read(n) does not report.
                if len(content) > LARGEST_RESPONSE or response.length:
                    raise self._unread(f"the response ended, or was too large, at byte {len(content)}")
                return _Answer(response.headers, content)
        except HTTPError as error:
            raise self._refused(error) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            is_reset = isinstance(reason, ConnectionResetError | ConnectionAbortedError | BrokenPipeError)
            raise self._unread(str(reason) or type(reason).__name__, is_passing=is_reset) from error

    def _unread(self, why: str, *, is_passing: bool = False) -> BackendError:
        kind = _PassingError if is_passing else BackendError
        return kind(
            f"no answer from {self.address}",
            why=why,
            fix=f"start the server, check address and certificate, or raise timeout= ({self._timeout:g} s)",
        )

    def _refused(self, error: HTTPError) -> BackendError:
        with error:
            body = error.read(LARGEST_RESPONSE)
        kind = _PassingError if error.code in PASSING else _RefusedError
        return kind(
            f"{_without_password(self._server)} refused a request for the model {self.model!r}",
            got=f"status {error.code} {error.reason}",
            why=_reason(body),
            fix=f"is there such a model? {self.address}" if error.code in (400, 404) else None,
        )


class _RefusedError(BackendError):
    """The server returned an error."""


class _PassingError(BackendError):
    """The connection was reset, or the server is busy or starting: the next attempt may succeed."""


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _server(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise InputError(
            "cannot use this address of a server",
            got=repr(_without_password(url)),
            expected="http://HOST:PORT",
        )
    return url.rstrip("/")


def _request(inputs: Mapping[str, Array], output: str) -> tuple[bytes, list[bytes]]:
    tensors = [np.ascontiguousarray(array).tobytes() for array in inputs.values()]
    document = {
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": _DATATYPES[array.dtype],
                "parameters": {"binary_data_size": len(tensor)},
            }
            for (name, array), tensor in zip(inputs.items(), tensors, strict=True)
        ],
        "outputs": [{"name": output, "parameters": {"binary_data": True}}],
    }
    return json.dumps(document).encode(), tensors


def _output(answer: _Answer, wanted: str) -> Array:
    """The wanted tensor: binary, or numbers in the JSON from servers that only have those."""
    length = int(answer.headers.get(JSON_LENGTH) or len(answer.body))
    document = json.loads(answer.body[:length])
    offset = length
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if output["name"] == wanted:
            return _decoded(output, None if size is None else answer.body[offset : offset + size])
        offset += size or 0
    raise ValueError(f"outputs {[output['name'] for output in document['outputs']]}")


def _decoded(output: Mapping[str, Any], binary: bytes | None) -> Array:
    if output["datatype"] != "FP32":
        raise ValueError(f"datatype {output['datatype']}")
    values = np.asarray(output["data"], np.float32) if binary is None else np.frombuffer(binary, "<f4")
    return values.reshape(output["shape"])


def _reason(body: bytes) -> str | None:
    """What the server says; a page of HTML says nothing."""
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return None
    return text[:_LONGEST_REASON]
