"""A client of one model on one server of the Open Inference Protocol (KServe v2), and what it repeats.

Two transports do the work: :mod:`~dim_runtime.backends.kserve_http` and
:mod:`~dim_runtime.backends.kserve_grpc`. An inference has no side effects, so that it can be repeated: after
a lost connection, a timeout, or a status of a server that is busy or starting.
"""

from __future__ import annotations

import logging
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from dim.arrays import Float32, UInt8
from dim.errors import InputError
from dim_runtime.errors import BackendError

Result = TypeVar("Result")

FIRST_PAUSE = 0.25
"""Seconds before the second attempt; each further pause is twice as long."""
LONGEST_PAUSE = 8.0
"""Seconds between two attempts, at most, unless the server requests more."""
LONGEST_RETRY_AFTER = 60.0
"""Seconds of a server's Retry-After that are accepted, at most."""
JITTER = 0.2
"""Share by which pauses differ, so that windows in flight do not come back at one moment."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tls:
    """Certificates for https and grpcs: paths of PEM files.

    Attributes:
        ca: certificates to trust in place of the system's.
        certificate: this client's certificate, with the chain to its root.
        key: this client's private key, unless it is in ``certificate``.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None


@dataclass(frozen=True)
class Target:
    """One model on one server, and how it is reached.

    Attributes:
        url: http, https, grpc or grpcs.
        model: its name there.
        version: one of its versions; "" lets the server choose.
        timeout: seconds for one attempt, from the request to the end of the response.
        headers: sent with every request; metadata over gRPC.
        tls: certificates.
    """

    url: str
    model: str
    version: str = ""
    timeout: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls = Tls()

    def __post_init__(self) -> None:
        parts = _parts(self.url)
        if parts is None or parts.scheme not in ("http", "https", "grpc", "grpcs"):
            raise _impossible(self.url)
        if self.is_grpc and (parts.port is None or parts.path.strip("/") or parts.username is not None):
            raise _impossible(self.url)
        if self.timeout <= 0:
            raise InputError("cannot use this timeout", got=f"{self.timeout:g} s", expected="above 0 s")

    @property
    def is_grpc(self) -> bool:
        """Whether the URL is one of gRPC."""
        return self.url.startswith("grpc")

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.url.startswith(("https:", "grpcs:"))

    @property
    def server(self) -> str:
        """The server's URL for messages, without a password."""
        return _without_password(self.url).rstrip("/")


class PassingError(BackendError):
    """The next attempt may succeed: no response, or a server that is busy or starting."""

    pause: float = 0.0
    """Seconds that the server requests before the next attempt."""


class UnreachableError(PassingError):
    """There is no connection: repeated only for a server that has responded before, and may be restarting."""


class RefusedError(BackendError):
    """The server returned an error that remains."""


class Transport(ABC):
    """Requests about one model; each is attempted once. Threads may share one."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Return the datatypes of inputs and outputs by name; none where the server does not declare them."""

    @abstractmethod
    def document(self) -> str | None:
        """Return the artefact's document in Triton's model configuration; None from other servers."""

    @abstractmethod
    def infer(self, image: UInt8, trimap: UInt8) -> Float32:
        """Run the model on windows uint8 N, H, W, 3 and N, H, W; return float32 N, H, W."""

    @abstractmethod
    def window_bytes(self, pixels: int) -> int:
        """Return an upper bound of the memory of one window here, its own arrays included; bytes."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""


class KServeClient:
    """The requests of a transport, repeated with growing pauses while a failure may pass.

    Args:
        transport: attempts each request once.
        address: of the model, for the log.
        retries: further attempts of each request.
    """

    def __init__(self, transport: Transport, address: str, retries: int) -> None:
        if retries < 0:
            raise InputError("cannot use this number of retries", got=retries, expected="0 or more")
        self._transport, self._address, self._retries = transport, address, retries
        self._has_responded = False
        self._closed = threading.Event()

    def describe(self) -> dict[str, str]:
        """Return as :meth:`Transport.describe`."""
        return self._repeat(self._transport.describe)

    def document(self) -> str | None:
        """Return as :meth:`Transport.document`."""
        return self._repeat(self._transport.document)

    def infer(self, image: UInt8, trimap: UInt8) -> Float32:
        """Return as :meth:`Transport.infer`.

        Raises:
            BackendError: no response, an error of the server, or a response that is not of the protocol.
        """
        return self._repeat(lambda: self._transport.infer(image, trimap))

    def close(self) -> None:
        """Close the connections; requests that wait for their next attempt fail at once."""
        self._closed.set()
        self._transport.close()

    def _repeat(self, request: Callable[[], Result]) -> Result:
        for attempt in range(self._retries):
            try:
                result = request()
            except PassingError as error:
                if isinstance(error, UnreachableError) and not self._has_responded:
                    raise
                self._has_responded = True
                pause = max(_pause(attempt), min(error.pause, LONGEST_RETRY_AFTER))
                reason = error.why or error.got or error.problem
                _log.warning("%s: %s; attempt %d in %.1f s", self._address, reason, attempt + 2, pause)
                if self._closed.wait(pause):
                    raise
            else:
                self._has_responded = True
                return result
        return request()


def _pause(attempt: int) -> float:
    pause = min(FIRST_PAUSE * float(2**attempt), LONGEST_PAUSE)
    return pause * random.uniform(1 - JITTER, 1 + JITTER)


def unread(
    target: Target, why: str, *, kind: type[BackendError] = PassingError, fix: str = ""
) -> BackendError:
    """Return the error for a response that did not come, or not completely."""
    usual = f"start the server, check its address, or raise timeout= ({target.timeout:g} s)"
    if target.is_encrypted:
        # Over gRPC a server that misses the client's certificate only closes the connection.
        usual += "; certificate= and key= in tls= if the server requires the client's"
    return kind(f"no response from {target.server}", why=why, fix=fix or usual)


def untrusted(target: Target, why: str) -> BackendError:
    """Return the error for a TLS handshake that failed: one side does not trust the other."""
    fix = (
        'tls=Tls(ca="ca.pem"), the certificate that signed the server\'s; certificate= and key= if the '
        "server requires the client's; check the host name and the clock"
    )
    return BackendError(f"cannot agree on TLS with {target.server}", why=why, fix=fix)


def unreadable(target: Target, why: object) -> BackendError:
    """Return the error for a response that is not of the protocol."""
    return BackendError(
        f"cannot read the response of {target.server} for the model {target.model!r}",
        expected="the KServe v2 protocol (Open Inference Protocol), such as from Triton",
        why=str(why),
    )


def tls_file(path: str | Path) -> bytes:
    """Read a certificate or key; InputError if that fails."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}", why=error.strerror or str(error)) from error


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _: Any = parts.port  # raises ValueError
    except ValueError:
        return None
    return parts if parts.hostname and not parts.query and not parts.fragment else None


def _impossible(url: str) -> InputError:
    return InputError(
        "cannot use this address of a server",
        got=repr(_without_password(url)),
        expected="http://HOST:PORT, https://HOST, grpc://HOST:PORT or grpcs://HOST:PORT",
    )


def _without_password(url: str) -> str:
    head, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{head}{separator}{place.rpartition('@')[2]}{slash}{path}"
