"""A model on a server: a small KServe v2 server in a thread runs the embedded model; and servers fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dim.arrays import Array
from dim.contract import ArtefactMetadata, ContractError
from dim.errors import InputError
from dim_runtime import Matting
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends import kserve_client
from dim_runtime.backends.base import network_bytes
from dim_runtime.backends.kserve import KServeBackend
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.errors import ArtefactError, BackendError
from dim_runtime.matting import default_model

MODEL = "dim-compact"
TYPES = {"image": "UINT8", "trimap": "UINT8", "alpha": "FP32"}


class Server(ThreadingHTTPServer):
    """Serves one model as Triton does.

    ``config`` is the answer to /config, None for a server without that extension. ``frozen`` is the only
    N, H, W that it takes. ``answer`` makes the answer to /infer; ``binary`` False answers numbers in JSON.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.backend: OnnxRuntimeBackend | None = None
        self.types = dict(TYPES)
        self.config: dict[str, Any] | None = {
            "parameters": {"dim": {"string_value": read_metadata(default_model()).to_json()}}
        }
        self.frozen: tuple[int, ...] | None = None
        self.binary = True
        self.answer: Callable[[Array], tuple[int, bytes, dict[str, str]]] | None = None
        self.asked: list[str] = []
        self.shapes: list[tuple[int, ...]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of these tests."""

    def infer(self, image: Array, trimap: Array) -> Array:
        self.shapes.append(trimap.shape)
        if self.backend is None:
            return image[..., 0] / np.float32(255)
        return self.backend.run(image, trimap).astype(np.float32)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path.replace("/versions/3", "")
        if path == f"/v2/models/{MODEL}":
            tensors = [{"name": name, "datatype": kind} for name, kind in self.server.types.items()]
            self._json(200, {"name": MODEL, "inputs": tensors[:2], "outputs": tensors[2:]})
        elif path == f"/v2/models/{MODEL}/config" and self.server.config is not None:
            self._json(200, self.server.config)
        else:
            self._json(404, {"error": f"Request for unknown model: {self.path}"})

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = int(self.headers["Inference-Header-Content-Length"])
        request = json.loads(body[:length])
        image, trimap = _tensors(request, body[length:])
        if self.server.answer is not None:
            self._send(*self.server.answer(trimap))
        elif self.server.frozen not in (None, trimap.shape):
            self._json(400, {"error": f"unexpected shape for input 'trimap': {list(trimap.shape)}"})
        else:
            self._send(200, *_answer(self.server.infer(image, trimap), binary=self.server.binary))

    def _json(self, status: int, document: object) -> None:
        self._send(status, json.dumps(document).encode(), {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def _tensors(request: dict[str, Any], binary: bytes) -> list[Array]:
    assert [entry["name"] for entry in request["outputs"]] == ["alpha"]
    assert [entry["name"] for entry in request["inputs"]] == ["image", "trimap"]
    found, offset = [], 0
    for entry in request["inputs"]:
        assert entry["datatype"] == "UINT8"
        size = entry["parameters"]["binary_data_size"]
        found.append(np.frombuffer(binary[offset : offset + size], np.uint8).reshape(entry["shape"]))
        offset += size
    assert offset == len(binary)
    return found


def _answer(alpha: Array, *, binary: bool = True, **more: Any) -> tuple[bytes, dict[str, str]]:
    output: dict[str, Any] = {"name": "alpha", "datatype": "FP32", "shape": list(alpha.shape), **more}
    if not binary:
        return json.dumps({"outputs": [{**output, "data": alpha.ravel().tolist()}]}).encode(), {}
    # Another output in front: its bytes must be skipped.
    other = {"name": "other", "datatype": "UINT8", "shape": [3], "parameters": {"binary_data_size": 3}}
    content = alpha.astype("<f4").tobytes()
    output["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps({"outputs": [other, output]}).encode()
    return head + b"abc" + content, {"Inference-Header-Content-Length": str(len(head))}


@pytest.fixture
def server() -> Iterator[Server]:
    """Alpha is the red channel, until a test gives it the embedded model."""
    made = Server()
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def with_network(server: Server) -> Server:
    pytest.importorskip("onnxruntime")
    server.backend = OnnxRuntimeBackend(default_model(), threads=1)
    return server


Pair = Callable[..., tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]


def test_the_same_alpha_as_with_the_engine_here(with_network: Server, pair: Pair) -> None:
    image, trimap = pair(90, 130)
    with Matting.from_backend(KServeBackend(with_network.url, MODEL)) as far, Matting(threads=1) as near:
        assert far.metadata == near.metadata
        np.testing.assert_array_equal(far(image, trimap), near(image, trimap))


def test_fixed_windows_are_cut_here_and_joined_exactly(with_network: Server, pair: Pair) -> None:
    """What dim-export triton --windows makes of an artefact, over the wire."""
    document = read_metadata(default_model()).model_copy(update={"static_shape": (1, 672, 704)})
    with_network.config = {"parameters": {"dim": {"string_value": document.to_json()}}}
    with_network.frozen = (1, 672, 704)
    image, trimap = pair(690, 740)
    with (
        Matting.from_backend(KServeBackend(with_network.url + "/", MODEL)) as far,
        Matting(threads=1) as near,
    ):
        alpha = far(image, trimap)
        assert len(with_network.shapes) == 4
        assert set(with_network.shapes) == {(1, 672, 704)}
        assert np.abs(alpha - near(image, trimap)).max() < 2e-3  # an arg-max may flip; the windows differ


def test_what_the_exporter_writes_is_what_the_client_reads(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc")
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    from dim_export.triton.repository import write_repository
    from dim_export.triton.serving import Options

    write_repository([default_model()], tmp_path / "models", Options(windows=((672, 704),)))
    text = (tmp_path / "models" / f"{MODEL}_672x704" / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    server.config = json_format.MessageToDict(config, preserving_proto_field_name=True)
    assert KServeBackend(server.url, MODEL).metadata.static_shape == (1, 672, 704)


def test_a_version_is_asked_for(server: Server, pair: Pair) -> None:
    backend = KServeBackend(server.url, MODEL, version="3")
    Matting.from_backend(backend)(*pair(64, 64))
    assert {path.split("/versions/")[0] for path in server.asked} == {f"/v2/models/{MODEL}"}
    assert server.asked[-1].endswith("/versions/3/infer")


def test_threads_may_share_one(server: Server, pair: Pair) -> None:
    matting = Matting.from_backend(KServeBackend(server.url, MODEL))
    pairs = [pair(40 + 9 * index, 70, seed=index) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        alphas = list(pool.map(lambda one: matting(*one), pairs))
    for (image, trimap), alpha in zip(pairs, alphas, strict=True):
        np.testing.assert_array_equal(alpha[trimap == 128], image[..., 0][trimap == 128] / np.float32(255))


def test_numbers_in_json_are_read_too(server: Server) -> None:
    server.binary = False
    image, trimap = _window(64, 32)
    alpha = KServeBackend(server.url, MODEL).run(image, trimap)
    np.testing.assert_array_equal(alpha, image[..., 0] / np.float32(255))


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_a_frozen_batch_is_filled_up(server: Server, count: int) -> None:
    server.frozen = (3, 64, 32)
    document = read_metadata(default_model()).model_copy(update={"static_shape": server.frozen})
    image, trimap = _window(64, 32, count)
    alpha = KServeBackend(server.url, MODEL, metadata=document).run(image, trimap)
    np.testing.assert_array_equal(alpha, image[..., 0] / np.float32(255))
    assert server.shapes == [(3, 64, 32)] * -(-count // 3)


def test_a_server_that_does_not_know_the_document(server: Server) -> None:
    server.config = None
    with pytest.raises(ArtefactError, match=r"metadata=MODEL\.onnx"):
        KServeBackend(server.url, MODEL)
    assert KServeBackend(server.url, MODEL, metadata=default_model()).metadata.context == 320
    assert KServeBackend(server.url, MODEL, metadata=str(default_model())).metadata.context == 320
    server.config = {"parameters": {"other": {"string_value": "x"}}}
    with pytest.raises(ArtefactError, match="'dim'"):
        KServeBackend(server.url, MODEL)


def test_a_document_of_another_kind_is_an_error(server: Server) -> None:
    server.config = {"parameters": {"dim": {"string_value": "{}"}}}
    with pytest.raises(ContractError, match=MODEL):
        KServeBackend(server.url, MODEL)


def test_the_header_of_an_engine_is_a_document(server: Server, tmp_path: Path) -> None:
    from dim.contract import EngineInfo
    from dim_runtime.artefacts.engine_file import write_engine

    info = EngineInfo(
        builder="tensorrt", version="10.9", compute_capabilities=(), platform="",
        precision_read_from="engine", source_sha256="", plan_bytes=0, plan_sha256="",
    )  # fmt: skip
    document = read_metadata(default_model()).model_copy(update={"engine": info})
    write_engine(tmp_path / "dim.engine", document, b"plan")
    found = KServeBackend(server.url, MODEL, metadata=tmp_path / "dim.engine").metadata
    assert found.engine is not None
    assert found.context == document.context


def test_no_server() -> None:
    gone = Server()
    gone.server_close()
    with pytest.raises(BackendError, match="no answer from") as caught:
        KServeBackend(gone.url, MODEL)
    assert "refused" in str(caught.value)


def test_a_server_that_does_not_answer_in_time(server: Server) -> None:
    backend = KServeBackend(server.url, MODEL, timeout=0.2)
    done = threading.Event()

    def wait(_: Array) -> tuple[int, bytes, dict[str, str]]:
        done.wait(5)
        return 200, b"", {}

    server.answer = wait
    with pytest.raises(BackendError, match="timed out"):
        backend.run(*_window(32, 32))
    done.set()


def test_a_connection_that_breaks_is_a_typed_error(server: Server) -> None:
    backend = KServeBackend(server.url, MODEL)
    server.answer = lambda _: (200, b"half of it", {"Content-Length": "1000"})
    with pytest.raises(BackendError, match="no answer from"):
        backend.run(*_window(32, 32))


def test_an_unknown_model(server: Server) -> None:
    with pytest.raises(BackendError, match="unknown model") as caught:
        KServeBackend(server.url, "no such/model")
    assert "404" in str(caught.value)
    assert "no%20such%2Fmodel" in str(caught.value)


def test_a_model_of_something_else(server: Server) -> None:
    server.types = {"INPUT__0": "FP32", "trimap": "UINT8", "alpha": "FP32"}
    with pytest.raises(BackendError, match="INPUT__0 FP32"):
        KServeBackend(server.url, MODEL)


def test_a_shape_that_the_server_does_not_take(server: Server) -> None:
    server.frozen = (1, 512, 512)
    with pytest.raises(BackendError, match=r"unexpected shape .*\[1, 32, 64\]"):
        KServeBackend(server.url, MODEL).run(*_window(32, 64))


def test_an_internal_error_of_the_server(server: Server) -> None:
    backend = KServeBackend(server.url, MODEL)
    server.answer = lambda _: (500, b"<html>no JSON</html>", {})
    with pytest.raises(BackendError, match="status 500") as caught:
        backend.run(*_window(32, 32))
    assert "html" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_answer(np.zeros((1, 32, 64), np.float32)), "alpha of shape"),
        (_answer(np.zeros((1, 32, 32), np.float32), datatype="FP16"), "datatype FP16"),
        ((_answer(np.zeros((1, 32, 32), np.float32))[0][:-4], {}), "cannot read"),
        ((b'{"outputs": []}', {}), "cannot read"),
        ((b"[]", {}), "cannot read"),
        ((b"", {}), "cannot read"),
        (
            (b'{"outputs": [{"name": "alpha", "datatype": "FP32", "shape": [9], "data": [1]}]}', {}),
            "cannot read",
        ),
    ],
)
def test_answers_that_make_no_sense(server: Server, answer: tuple[bytes, dict[str, str]], words: str) -> None:
    backend = KServeBackend(server.url, MODEL)
    server.answer = lambda _: (200, *answer)
    with pytest.raises(BackendError, match=words):
        backend.run(*_window(32, 32))


def test_a_page_instead_of_the_protocol(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda self: self._send(200, b"<html>hello</html>", {}))
    with pytest.raises(BackendError, match="KServe v2"):
        KServeBackend(server.url, MODEL)


@pytest.mark.parametrize("url", ["localhost:8000", "grpc://localhost:8001", "http://", "", "http://h/?q=1"])
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(InputError, match="http://HOST:PORT"):
        KServeBackend(url, MODEL)


def test_memory_counts_what_is_here_and_not_the_network(server: Server) -> None:
    backend = KServeBackend(server.url, MODEL)
    here = network_bytes(backend.metadata, 1024 * 1024)
    assert 1024 * 1024 * 12 < backend.window_bytes(1024, 1024) < here / 4


def _window(height: int, width: int, count: int = 1) -> tuple[Array, Array]:
    image = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)
    return image, np.full((count, height, width), 128, np.uint8)


def test_the_document_is_taken_as_it_is(server: Server) -> None:
    document: ArtefactMetadata = read_metadata(default_model())
    assert KServeBackend(server.url, MODEL, metadata=document).metadata is document


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_tried_again(server: Server, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(kserve_client, "FIRST_PAUSE", 0.001)
    backend = KServeBackend(server.url, MODEL)
    image, trimap = _window(32, 32)
    busy = [None, None]

    def answer(_: Array) -> tuple[int, bytes, dict[str, str]]:
        if busy:
            busy.pop()
            return status, b"", {}
        return 200, *_answer(image[..., 0] / np.float32(255))

    server.answer = answer
    np.testing.assert_array_equal(backend.run(image, trimap), image[..., 0] / np.float32(255))
    assert sum(path.endswith("/infer") for path in server.asked) == 3
    server.answer = lambda _: (status, b"", {})
    with pytest.raises(BackendError, match=f"status {status}"):
        backend.run(image, trimap)
    assert sum(path.endswith("/infer") for path in server.asked) == 3 + 5


def test_headers_are_sent_and_passwords_are_not_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    get = Handler.do_GET
    monkeypatch.setattr(
        Handler, "do_GET", lambda self: (seen.append(self.headers["Authorization"]), get(self))[1]
    )
    KServeBackend(server.url, MODEL, headers={"Authorization": "Bearer abc"})
    assert set(seen) == {"Bearer abc"}
    gone = server.url.replace("http://", "ftp://user:secret@")
    with pytest.raises(InputError, match="127") as caught:
        KServeBackend(gone, MODEL)
    assert "secret" not in str(caught.value)
    with pytest.raises(BackendError, match="no answer") as unread:
        KServeBackend("http://user:secret@127.0.0.1:1", MODEL)
    assert "secret" not in str(unread.value)
