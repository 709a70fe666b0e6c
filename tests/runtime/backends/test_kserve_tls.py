"""TLS handshakes of the client with servers over HTTP and gRPC; the certificates are made by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dim_runtime import Matting
from dim_runtime.backends.kserve import KServeBackend, Tls
from dim_runtime.errors import BackendError

from .kserve_servers import MODEL, FakeServer, GrpcFake, HttpFake, ServerTls

trustme = pytest.importorskip("trustme", reason="extra dev")
pytest.importorskip("httpx", reason="extra kserve")
pytest.importorskip("tritonclient.grpc", reason="extra kserve")

Serve = Callable[[ServerTls], FakeServer]


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> Any:
    """Return an authority that the other side does not know."""
    return trustme.CA()


@pytest.fixture(params=[HttpFake, GrpcFake])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Start servers with TLS, of one transport."""
    started: list[FakeServer] = []

    def start(tls: ServerTls) -> FakeServer:
        started.append(request.param(tls))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def root(authority: Any, folder: Path) -> Path:
    """Write the authority's certificate."""
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def client_certificate(authority: Any, folder: Path) -> tuple[Path, Path]:
    """Write the certificate of a client and its key."""
    leaf = authority.issue_cert("client@example.org")
    certificate, key = folder / "client.pem", folder / "client.key"
    certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(key)
    return certificate, key


def alpha(backend: KServeBackend) -> Any:
    """Return the alpha of a small image whose red channel is 51, which the server returns as alpha."""
    image = np.full((32, 32, 3), 51, np.uint8)
    with Matting.from_backend(backend) as matting:
        return matting(image, np.full((32, 32), 128, np.uint8))


def test_the_servers_authority_is_trusted(serve: Serve, authority: Any, tmp_path: Path) -> None:
    server = serve(ServerTls(authority))
    found = alpha(KServeBackend(server.url, MODEL, tls=Tls(ca=root(authority, tmp_path))))
    np.testing.assert_allclose(found, 0.2, atol=1e-6)


@pytest.mark.parametrize("known", ["another authority", "the system's"])
def test_another_authority_is_not(
    serve: Serve, authority: Any, stranger: Any, tmp_path: Path, known: str
) -> None:
    server = serve(ServerTls(authority))
    tls = Tls(ca=root(stranger, tmp_path)) if known == "another authority" else None
    with pytest.raises(BackendError, match="cannot agree on TLS") as caught:
        KServeBackend(server.url, MODEL, tls=tls, retries=0)
    assert 'tls=Tls(ca="ca.pem")' in str(caught.value)
    assert not server.headers, "nothing is sent before the server is trusted"


def test_a_certificate_of_another_host_is_not(serve: Serve, authority: Any, tmp_path: Path) -> None:
    other = ServerTls(authority)
    other.leaf = authority.issue_cert("models.example")
    server = serve(other)
    with pytest.raises(BackendError, match="check the host name"):
        KServeBackend(server.url, MODEL, tls=Tls(ca=root(authority, tmp_path)), retries=0)


def test_a_client_shows_its_certificate(serve: Serve, authority: Any, stranger: Any, tmp_path: Path) -> None:
    server = serve(ServerTls(authority, clients=stranger))
    ca = root(authority, tmp_path)
    certificate, key = client_certificate(stranger, tmp_path)
    found = alpha(KServeBackend(server.url, MODEL, tls=Tls(ca=ca, certificate=certificate, key=key)))
    np.testing.assert_allclose(found, 0.2, atol=1e-6)
    with pytest.raises(BackendError, match="certificate= and key="):
        KServeBackend(server.url, MODEL, tls=Tls(ca=ca), retries=0)
