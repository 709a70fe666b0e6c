"""An artefact in KServe's Python server and in MLServer, as examples/deploy/servers starts them.

``make test-servers`` runs these tests. The servers have their own environment, whose Python ``--servers``
names, with the same ONNX Runtime as here.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dim.arrays import Array
from dim_runtime import Matting
from dim_runtime.backends.fake import FakeBackend
from dim_runtime.backends.kserve import KServeBackend
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.backends.open import default_model
from dim_runtime.errors import BackendError
from dim_runtime.images.samples import lemur

pytestmark = pytest.mark.servers

EXAMPLES = Path(__file__).parents[2] / "examples" / "deploy" / "servers"
START_SECONDS = 180.0
"""How long a server may take until it is ready; a server that ends before is an error at once."""
WINDOWS: dict[str, Any] = {"tile": 320, "context": 64}
"""Small windows, so that the photograph has several; they are not exact, and the same ones everywhere."""
RETRIES = 40
"""About five minutes: a restarted server imports its packages first."""


class RealServer(ABC):
    """A server process with the embedded model at ports of this machine."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder
        self.http, self.grpc, self.metrics = (_free_port() for _ in range(3))
        self._log = (folder / "log.txt").open("wb")
        self.prepare()
        self.start()
        self._wait()

    @abstractmethod
    def prepare(self) -> None:
        """Write what the server reads."""

    @abstractmethod
    def command(self) -> list[str]: ...

    def start(self) -> None:
        """Start the process without waiting until it is ready."""
        self._process = subprocess.Popen(
            self.command(), cwd=self.folder, stdout=self._log, stderr=subprocess.STDOUT
        )

    def kill(self) -> None:
        """End the process as a crash does."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._log.close()

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{self.http}/v2/models/model/ready").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        log = (self.folder / "log.txt").read_text(errors="replace")
        raise RuntimeError(f"{type(self).__name__} did not start:\n{log[-3000:]}")


class KServe(RealServer):
    def prepare(self) -> None:
        """Write nothing: the command names the artefact."""

    def command(self) -> list[str]:
        return [
            str(self.python), str(EXAMPLES / "kserve_model.py"), "--artefact", str(default_model()),
            "--model_name", "model", "--http_port", str(self.http), "--grpc_port", str(self.grpc),
        ]  # fmt: skip


class MLServer(RealServer):
    def prepare(self) -> None:
        for path in (EXAMPLES / "mlserver").iterdir():
            if path.is_file():
                shutil.copy(path, self.folder)
        shutil.copy(default_model(), self.folder / "model.onnx")

    def command(self) -> list[str]:
        ports = (f"MLSERVER_HTTP_PORT={self.http}", f"MLSERVER_GRPC_PORT={self.grpc}")
        metrics = f"MLSERVER_METRICS_PORT={self.metrics}"
        return ["env", *ports, metrics, str(self.python.with_name("mlserver")), "start", "."]


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--servers")).absolute()


@pytest.fixture(scope="module", params=[KServe, MLServer])
def server(
    request: pytest.FixtureRequest, python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealServer]:
    made = request.param(python, tmp_path_factory.mktemp(request.param.__name__))
    yield made
    made.close()


@pytest.fixture(scope="module")
def local() -> Array:
    engine = OnnxRuntimeBackend(default_model(), threads=1)
    # Whole windows, as the servers run them.
    with Matting.from_backend(FakeBackend(engine.metadata, engine.run), **WINDOWS) as matting:
        image, trimap = lemur()
        assert len(matting.plan(trimap).windows) >= 4
        return matting(image, trimap)


def backend(server: RealServer, transport: str, windows_in_flight: int = 4) -> KServeBackend:
    binary = transport == "grpc" or isinstance(server, KServe)
    port = server.grpc if transport == "grpc" else server.http
    return KServeBackend(
        f"{transport}://127.0.0.1:{port}", "model",
        metadata=default_model(), windows_in_flight=windows_in_flight, binary=binary,
        retries=RETRIES, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_alphas_are_those_of_this_process(server: RealServer, transport: str, local: Array) -> None:
    with Matting.from_backend(backend(server, transport), **WINDOWS) as matting:
        np.testing.assert_array_equal(matting(*lemur()), local)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_killed_and_restarted_server_completes_the_image(
    server: RealServer, transport: str, local: Array
) -> None:
    """One window is in flight, so that the others come after the end of the first process."""
    killed: list[int] = []

    def kill_once(done: int, total: int) -> None:
        if done == 1 and not killed:
            killed.append(total)
            server.kill()
            server.start()

    far = backend(server, transport, windows_in_flight=1)
    with Matting.from_backend(far, **WINDOWS, progress=kill_once) as matting:
        np.testing.assert_array_equal(matting(*lemur()), local)
    assert killed[0] >= 4


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_an_unknown_model_is_a_typed_error(server: RealServer, transport: str) -> None:
    port = server.grpc if transport == "grpc" else server.http
    with pytest.raises(BackendError, match="no-such-model"):
        KServeBackend(f"{transport}://127.0.0.1:{port}", "no-such-model", metadata=default_model())


def test_a_server_without_binary_tensors_gets_the_advice(server: RealServer) -> None:
    if isinstance(server, KServe):
        pytest.skip("KServe's server reads binary tensors")
    url = f"http://127.0.0.1:{server.http}"
    with Matting.from_backend(KServeBackend(url, "model", metadata=default_model())) as matting:
        image, trimap = lemur()
        with pytest.raises(BackendError, match="binary=False"):
            matting(image[:64, :64], trimap[:64, :64] * 0 + 128)
