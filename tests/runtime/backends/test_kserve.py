"""A model on a server: small servers in threads run the embedded model over HTTP and gRPC, and fail."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dim.arrays import Array
from dim.contract import ArtefactMetadata, ContractError
from dim.errors import InputError, MissingExtraError
from dim_runtime import Matting
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends import kserve_client, kserve_grpc, kserve_http
from dim_runtime.backends.base import network_bytes
from dim_runtime.backends.fake import FakeBackend
from dim_runtime.backends.kserve import KServeBackend, Tls
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.backends.open import default_model
from dim_runtime.errors import AlphaError, ArtefactError, BackendError

from .kserve_servers import (
    MODEL,
    Busy,
    FakeServer,
    GrpcFake,
    HttpFake,
    Stopped,
    Vanished,
    grpc_answer,
    http_answer,
    red,
)

pytest.importorskip("httpx", reason="extra kserve")
pytest.importorskip("tritonclient.grpc", reason="extra kserve")

PATIENCE = 60.0
"""Seconds after which a test that would wait forever fails."""
MANY = 10_000
"""Retries: as many as a test needs, however slow the machine is."""

Pair = Callable[..., tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kserve_client, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(kserve_client, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def http() -> Iterator[HttpFake]:
    """Alpha is the red channel, until a test gives it the embedded model."""
    made = HttpFake()
    yield made
    made.stop()


@pytest.fixture
def grpc() -> Iterator[GrpcFake]:
    made = GrpcFake()
    yield made
    made.stop()


@pytest.fixture(params=["http", "grpc"])
def server(request: pytest.FixtureRequest) -> FakeServer:
    made: FakeServer = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def with_network(server: FakeServer) -> FakeServer:
    pytest.importorskip("onnxruntime")
    backend = OnnxRuntimeBackend(default_model(), threads=1)
    server.compute = lambda image, trimap: backend.run(image, trimap).astype(np.float32)
    return server


def window(height: int, width: int, count: int = 1) -> tuple[Array, Array]:
    image = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)
    return image, np.full((count, height, width), 128, np.uint8)


def wide() -> tuple[Array, Array]:
    """Unknown everywhere; a tile of 128 and a context of 32 px cut it into several windows."""
    image = np.random.default_rng(1).integers(0, 256, (64, 1200, 3), np.uint8)
    return image, np.full((64, 1200), 128, np.uint8)


def tiled(server: FakeServer, **options: Any) -> Matting:
    """Return a matting that needs only 32 px of context, so that its windows are small."""
    document = read_metadata(default_model()).model_copy(update={"context": 32})
    return Matting.from_backend(KServeBackend(server.url, MODEL, metadata=document, **options), tile=128)


def test_the_same_alpha_as_with_the_engine_here(with_network: FakeServer, pair: Pair) -> None:
    """An engine here could leave out parts of windows; a server runs whole ones."""
    image, trimap = pair(90, 130)
    engine = OnnxRuntimeBackend(default_model(), threads=1)
    whole = FakeBackend(engine.metadata, engine.run)
    with (
        Matting.from_backend(KServeBackend(with_network.url, MODEL)) as far,
        Matting.from_backend(whole) as near,
    ):
        assert far.metadata == near.metadata
        np.testing.assert_array_equal(far(image, trimap), near(image, trimap))


def test_fixed_windows_are_cut_here_and_joined_exactly(with_network: FakeServer, pair: Pair) -> None:
    """What dim-export triton --windows makes of an artefact, over the wire."""
    document = read_metadata(default_model()).model_copy(update={"static_shape": (1, 672, 704)})
    with_network.document, with_network.frozen = document.to_json(), (1, 672, 704)
    image, trimap = pair(690, 740)
    engine = OnnxRuntimeBackend(default_model(), threads=1)
    with (
        Matting.from_backend(KServeBackend(with_network.url + "/", MODEL)) as far,
        Matting.from_backend(FakeBackend(document, engine.run)) as near,
    ):
        alpha = far(image, trimap)
        assert len(with_network.shapes) == 4
        assert set(with_network.shapes) == {(1, 672, 704)}
        np.testing.assert_array_equal(alpha, near(image, trimap))


def test_what_the_exporter_writes_is_what_the_client_reads(http: HttpFake, tmp_path: Path) -> None:
    import json

    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    from dim_export.triton.repository import write_repository
    from dim_export.triton.serving import Options

    write_repository([default_model()], tmp_path / "models", Options(windows=((672, 704),)))
    text = (tmp_path / "models" / f"{MODEL}_672x704" / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    written = json_format.MessageToDict(config, preserving_proto_field_name=True)
    http.config_answer = 200, json.dumps(written).encode(), {}
    assert KServeBackend(http.url, MODEL).metadata.static_shape == (1, 672, 704)


def test_a_version_is_requested(server: FakeServer, pair: Pair) -> None:
    backend = KServeBackend(server.url, MODEL, version="3")
    Matting.from_backend(backend)(*pair(64, 64))
    assert server.versions == {"3"}
    assert len(server.headers) == 3


def test_threads_may_share_one(server: FakeServer, pair: Pair) -> None:
    matting = Matting.from_backend(KServeBackend(server.url, MODEL))
    pairs = [pair(40 + 9 * index, 70, seed=index) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        alphas = list(pool.map(lambda one: matting(*one), pairs))
    for (image, trimap), alpha in zip(pairs, alphas, strict=True):
        np.testing.assert_array_equal(alpha[trimap == 128], image[..., 0][trimap == 128] / np.float32(255))


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_frozen_batch_is_filled_up(server: FakeServer, count: int) -> None:
    server.frozen = (3, 64, 32)
    document = read_metadata(default_model()).model_copy(update={"static_shape": server.frozen})
    image, trimap = window(64, 32, count)
    alpha = KServeBackend(server.url, MODEL, metadata=document).run(image, trimap)
    np.testing.assert_array_equal(alpha, image[..., 0] / np.float32(255))
    assert server.shapes == [(3, 64, 32)] * -(-count // 3)


def test_windows_are_in_flight_together_over_few_connections(http: HttpFake) -> None:
    image, trimap = wide()
    meeting = threading.Barrier(3)
    arrived: list[None] = []

    def meet(image: Array, trimap: Array) -> Array:
        arrived.append(None)
        if len(arrived) <= 3:
            meeting.wait(PATIENCE)
        return red(image, trimap)

    http.compute = meet
    with tiled(http, windows_in_flight=3) as matting:
        alpha = matting(image, trimap)
        again = matting(image, trimap)
        assert matting.plan(trimap).in_flight == 3
    assert len(http.shapes) > 12
    assert http.connections <= 3
    with tiled(http, windows_in_flight=1) as matting:
        for found in (alpha, again):
            np.testing.assert_array_equal(found, matting(image, trimap))
    assert http.connections <= 4


def test_windows_are_in_flight_together_over_grpc(grpc: GrpcFake) -> None:
    image, trimap = wide()
    meeting = threading.Barrier(3)
    grpc.compute = lambda image, trimap: red(image, trimap) if meeting.wait(PATIENCE) >= 0 else image
    images = [window(64, 64) for _ in range(3)]
    backend = KServeBackend(grpc.url, MODEL, windows_in_flight=3)
    found = list(Matting.from_backend(backend).map((image[0], trimap[0]) for image, trimap in images))
    assert len(found) == 3
    grpc.compute = red
    with tiled(grpc, windows_in_flight=3) as matting:
        np.testing.assert_array_equal(matting(image, trimap), image[..., 0] / np.float32(255))


@pytest.mark.parametrize("failure", [Busy, Vanished, Stopped])
def test_a_server_that_fails_for_a_while_is_tried_again(server: FakeServer, failure: type[Exception]) -> None:
    image, trimap = wide()
    left = [failure] * 7

    def compute(image: Array, trimap: Array) -> Array:
        if left:
            raise left.pop()
        return red(image, trimap)

    server.compute = compute
    with tiled(server) as matting:
        np.testing.assert_array_equal(matting(image, trimap), image[..., 0] / np.float32(255))
    assert not left


class _Restart(logging.Handler):
    """Starts the server again when the client repeats a request after the server has stopped."""

    def __init__(self, server: FakeServer, stopped: threading.Event) -> None:
        super().__init__()
        self.server, self.stopped, self.done = server, stopped, 0

    def emit(self, record: logging.LogRecord) -> None:
        # The log's lock is held here, so that this happens once.
        if not self.done and self.stopped.is_set():
            self.done += 1
            self.server.start_again()


def test_an_image_is_completed_after_a_restart_in_its_middle(server: FakeServer) -> None:
    image, trimap = wide()
    log = logging.getLogger(kserve_client.__name__)
    stopped = threading.Event()
    restart = _Restart(server, stopped)
    log.addHandler(restart)

    def compute(image: Array, trimap: Array) -> Array:
        if len(server.shapes) == 5:
            threading.Thread(target=lambda: (server.stop(), stopped.set())).start()
            assert stopped.wait(PATIENCE)
        return red(image, trimap)

    server.compute = compute
    try:
        with tiled(server, windows_in_flight=2, retries=MANY) as matting:
            np.testing.assert_array_equal(matting(image, trimap), image[..., 0] / np.float32(255))
    finally:
        log.removeHandler(restart)
    assert restart.done == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_every_status_of_a_busy_server(http: HttpFake, status: int) -> None:
    backend = KServeBackend(http.url, MODEL, retries=4)
    image, trimap = window(32, 32)
    busy = [None, None]

    def answer(_: Array) -> tuple[int, bytes, dict[str, str]]:
        if busy:
            busy.pop()
            return status, b"", {"Retry-After": "0"}
        return 200, *http_answer(red(image, trimap))

    http.answer = answer
    np.testing.assert_array_equal(backend.run(image, trimap), red(image, trimap))
    assert sum(path.endswith("/infer") for path in http.asked) == 3
    http.answer = lambda _: (status, b"", {})
    with pytest.raises(BackendError, match=f"status {status}"):
        backend.run(image, trimap)
    assert sum(path.endswith("/infer") for path in http.asked) == 3 + 5


def test_the_pauses(http: HttpFake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pauses: list[float] = []
    backend = KServeBackend(http.url, MODEL)
    monkeypatch.setattr(backend._client._closed, "wait", lambda pause: pauses.append(pause) or False)
    http.answer = lambda _: (503, b"", {})
    with pytest.raises(BackendError, match="503"):
        backend.run(*window(32, 32))
    usual = np.array([0.25, 0.5, 1, 2, 4, 8, 8, 8])
    assert ((usual * 0.8 <= pauses) & (pauses <= usual * 1.2)).all()
    pauses.clear()
    http.answer = lambda _: (429, b"", {"Retry-After": "30"})
    with pytest.raises(BackendError, match="429"):
        backend.run(*window(32, 32))
    assert pauses == [30.0] * 8
    pauses.clear()
    http.answer = lambda _: (429, b"", {"Retry-After": "86400"})
    with pytest.raises(BackendError, match="429"):
        backend.run(*window(32, 32))
    assert set(pauses) == {60.0}


def test_closing_ends_what_waits_for_its_next_attempt(
    http: HttpFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kserve_client, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(kserve_client, "LONGEST_PAUSE", 1000.0)
    backend = KServeBackend(http.url, MODEL)
    asked = threading.Event()

    def answer(_: Array) -> tuple[int, bytes, dict[str, str]]:
        asked.set()
        return 503, b"", {}

    http.answer = answer
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(backend.run, *window(32, 32))
        assert asked.wait(PATIENCE)
        backend.close()
        with pytest.raises(BackendError):
            running.result(PATIENCE)


def test_a_server_without_the_document(server: FakeServer) -> None:
    server.document = None
    with pytest.raises(ArtefactError, match=r"metadata=MODEL\.onnx"):
        KServeBackend(server.url, MODEL)
    assert KServeBackend(server.url, MODEL, metadata=default_model()).metadata.context == 320
    assert KServeBackend(server.url, MODEL, metadata=str(default_model())).metadata.context == 320


def test_a_configuration_without_the_document(http: HttpFake) -> None:
    for content in (b'{"parameters": {"other": {"string_value": "x"}}}', b"{}", b"<html>", b"[]"):
        http.config_answer = 200, content, {}
        with pytest.raises(ArtefactError, match="'dim'"):
            KServeBackend(http.url, MODEL)


def test_a_document_of_another_kind_is_an_error(server: FakeServer) -> None:
    server.document = "{}"
    with pytest.raises(ContractError, match=MODEL):
        KServeBackend(server.url, MODEL)


def test_the_header_of_an_engine_is_a_document(http: HttpFake, tmp_path: Path) -> None:
    from dim.contract import EngineInfo
    from dim_runtime.artefacts.engine_file import write_engine

    info = EngineInfo(
        builder="tensorrt", version="10.9", compute_capabilities=(), platform="",
        precision_read_from="engine", source_sha256="", plan_bytes=0, plan_sha256="",
    )  # fmt: skip
    document = read_metadata(default_model()).model_copy(update={"engine": info})
    write_engine(tmp_path / "dim.engine", document, b"plan")
    found = KServeBackend(http.url, MODEL, metadata=tmp_path / "dim.engine").metadata
    assert found.engine is not None
    assert found.context == document.context


def test_the_document_is_taken_as_it_is(http: HttpFake) -> None:
    document: ArtefactMetadata = read_metadata(default_model())
    assert KServeBackend(http.url, MODEL, metadata=document).metadata is document


def test_no_server_is_reported_at_once(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    server.stop()
    with pytest.raises(BackendError, match="no response from") as caught:
        KServeBackend(server.url, MODEL, metadata=default_model())
    assert "efused" in str(caught.value)
    assert not [record for record in caplog.records if "attempt" in record.getMessage()]
    server.start_again()  # for the fixture, which stops it


def test_a_server_that_takes_too_long(server: FakeServer) -> None:
    backend = KServeBackend(server.url, MODEL, timeout=0.2, retries=1)
    done = threading.Event()
    server.compute = lambda image, trimap: red(image, trimap) if done.wait(PATIENCE) else image
    with pytest.raises(BackendError, match="timed out"):
        backend.run(*window(32, 32))
    done.set()
    assert len(server.shapes) == 2


def test_a_response_that_trickles_is_cut_off(http: HttpFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte comes in time, and the whole does not."""
    now = [0.0]
    monkeypatch.setattr(kserve_http.time, "monotonic", lambda: now[0])
    backend = KServeBackend(http.url, MODEL, retries=0)
    read = kserve_http.HttpTransport._read

    def later(self: Any, response: Any, largest: int, deadline: float) -> bytearray:
        now[0] += 61
        return read(self, response, largest, deadline)

    monkeypatch.setattr(kserve_http.HttpTransport, "_read", later)
    with pytest.raises(BackendError, match="timed out at byte"):
        backend.run(*window(32, 32))


def test_a_connection_that_breaks_is_a_typed_error(http: HttpFake) -> None:
    backend = KServeBackend(http.url, MODEL, retries=1)

    def half(_: Array) -> tuple[int, bytes, dict[str, str]]:
        threading.Thread(target=http.stop).start()
        return 200, b"half of it", {"Content-Length": "1000", "Connection": "close"}

    http.answer = half
    with pytest.raises(BackendError, match="no response from"):
        backend.run(*window(32, 32))
    http.start_again()


def test_a_response_that_is_too_large(
    http: HttpFake, grpc: GrpcFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kserve_http, "DOCUMENT_BYTES", 1000)
    monkeypatch.setattr(kserve_grpc, "OPTIONS", (("grpc.max_receive_message_length", 10_000),))
    large = np.zeros((1, 512, 512), np.float32)
    http.model_answer = 200, json.dumps({"name": MODEL}).encode(), {}
    http.answer = lambda _: (200, *http_answer(large))
    with pytest.raises(BackendError, match="more than 33768 bytes"):
        KServeBackend(http.url, MODEL, metadata=default_model()).run(*window(32, 32))
    grpc.answer = lambda _: grpc_answer(large)
    with pytest.raises(BackendError, match="larger than max") as caught:
        KServeBackend(grpc.url, MODEL, metadata=default_model()).run(*window(32, 32))
    assert "a smaller tile=" in str(caught.value)
    assert len(grpc.headers) == 2  # not repeated


def test_an_unknown_model(server: FakeServer) -> None:
    with pytest.raises(BackendError, match="unknown model") as caught:
        KServeBackend(server.url, "no such/modèle")
    assert "no such/modèle" in str(caught.value)
    if isinstance(server, HttpFake):
        assert "404" in str(caught.value)
        assert "no%20such%2Fmod%C3%A8le" in str(caught.value)


def test_a_model_of_something_else(server: FakeServer) -> None:
    server.types = {"INPUT__0": "FP32", "trimap": "UINT8", "alpha": "FP32"}
    with pytest.raises(BackendError, match="INPUT__0 FP32"):
        KServeBackend(server.url, MODEL)


def test_a_model_that_declares_nothing(server: FakeServer) -> None:
    """KServe's Python server declares tensors only if the model's author wrote that."""
    server.types = {}
    image, trimap = window(32, 32)
    np.testing.assert_array_equal(KServeBackend(server.url, MODEL).run(image, trimap), red(image, trimap))


def test_a_shape_that_the_server_does_not_take(server: FakeServer) -> None:
    server.frozen = (1, 512, 512)
    with pytest.raises(BackendError, match=r"unexpected shape .*\[1, 32, 64\]"):
        KServeBackend(server.url, MODEL).run(*window(32, 64))
    assert len(server.shapes) == 1  # not repeated


def test_an_internal_error_of_the_server(http: HttpFake) -> None:
    backend = KServeBackend(http.url, MODEL)
    http.answer = lambda _: (500, b"<html>no JSON</html>", {})
    with pytest.raises(BackendError, match="status 500") as caught:
        backend.run(*window(32, 32))
    assert "html" not in str(caught.value)
    assert "binary=False" in str(caught.value)


def test_numbers_in_json_instead_of_binary_tensors(http: HttpFake) -> None:
    http.binary = False
    image, trimap = window(32, 64)
    backend = KServeBackend(http.url, MODEL, binary=False)
    np.testing.assert_array_equal(backend.run(image, trimap), red(image, trimap))
    assert "inference-header-content-length" not in {name.lower() for name in http.headers[-1]}
    assert backend.window_bytes(1024, 1024) > 150 * 1024 * 1024


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (http_answer(np.zeros((1, 32, 64), np.float32)), "alpha of shape"),
        (http_answer(np.zeros((1, 32, 32), np.float32), datatype="FP16"), "datatype FP16"),
        ((http_answer(np.zeros((1, 32, 32), np.float32))[0][:-4], {}), "cannot read"),
        ((b'{"outputs": []}', {}), "cannot read"),
        ((b"[]", {}), "cannot read"),
        ((b"", {}), "cannot read"),
        (
            (b'{"outputs": [{"name": "alpha", "datatype": "FP32", "shape": [9], "data": [1]}]}', {}),
            "cannot read",
        ),
    ],
)
def test_responses_that_make_no_sense(
    http: HttpFake, reply: tuple[bytes, dict[str, str]], words: str
) -> None:
    backend = KServeBackend(http.url, MODEL)
    http.answer = lambda _: (200, *reply)
    with pytest.raises(BackendError, match=words):
        backend.run(*window(32, 32))


def _numbers(alpha: Array) -> Any:
    response = grpc_answer(alpha)
    del response.outputs[0], response.raw_output_contents[:]
    response.outputs[0].contents.fp32_contents.extend(alpha.ravel())
    return response


def _without_tensors(alpha: Array) -> Any:
    response = grpc_answer(alpha)
    del response.raw_output_contents[1:]
    return response


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (lambda alpha: grpc_answer(alpha, name="beta"), "not 'alpha'"),
        (lambda alpha: grpc_answer(alpha, datatype="FP16"), "datatype FP16"),
        (lambda alpha: grpc_answer(alpha, shape=[1, 32]), "alpha of shape"),
        (lambda alpha: grpc_answer(alpha[..., 1:], shape=[1, 32, 32]), "992 values"),
        (_without_tensors, "1 tensors for 2 outputs"),
        (lambda alpha: _numbers(alpha[:, 1:]), "alpha of shape"),
    ],
)
def test_messages_that_make_no_sense(grpc: GrpcFake, reply: Callable[[Array], Any], words: str) -> None:
    backend = KServeBackend(grpc.url, MODEL)
    alpha = np.zeros((1, 32, 32), np.float32)
    grpc.answer = lambda _: reply(alpha)
    with pytest.raises(BackendError, match=words):
        backend.run(*window(32, 32))
    grpc.answer = lambda _: _numbers(alpha + 0.5)
    np.testing.assert_array_equal(backend.run(*window(32, 32)), alpha + 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -640])
def test_values_that_are_no_alpha(server: FakeServer, value: float) -> None:
    server.compute = lambda image, trimap: np.full(trimap.shape, value, np.float32)
    with pytest.raises(AlphaError, match="finite"):
        tiled(server)(*wide())


@pytest.mark.parametrize("page", [b"<html>hello</html>", b"[]", b"{}", b'"x"', b"\xff", b"[" * 10**5])
def test_a_page_instead_of_the_protocol(http: HttpFake, page: bytes) -> None:
    http.model_answer = 200, page, {}
    with pytest.raises(BackendError, match="KServe v2"):
        KServeBackend(http.url, MODEL)


def test_a_redirection_is_not_followed(http: HttpFake) -> None:
    http.model_answer = 302, b"", {"Location": "http://127.0.0.1:1/"}
    with pytest.raises(BackendError, match="status 302"):
        KServeBackend(http.url, MODEL, headers={"Authorization": "Bearer abc"})


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000", "ftp://localhost:8001", "http://", "", "http://h/?q=1", "http://h:port",
        "grpc://localhost", "grpc://localhost:8001/path", "grpc://user:word@localhost:8001",
    ],
)  # fmt: skip
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(InputError, match="http://HOST:PORT"):
        KServeBackend(url, MODEL)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"windows_in_flight": 0}, "in flight"), ({"retries": -1}, "retries"), ({"timeout": 0}, "timeout")],
)
def test_options_that_cannot_be(http: HttpFake, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        KServeBackend(http.url, MODEL, **options)


def test_memory_counts_what_is_here_and_not_the_network(server: FakeServer) -> None:
    backend = KServeBackend(server.url, MODEL)
    here = network_bytes(backend.metadata, 1024 * 1024)
    assert 1024 * 1024 * 12 < backend.window_bytes(1024, 1024) < here / 4


def test_headers_are_sent_and_passwords_are_not_shown(server: FakeServer) -> None:
    tiled(server, headers={"Authorization": "Bearer abc"})(*wide())
    sent = [{name.lower(): value for name, value in headers.items()} for headers in server.headers]
    assert {headers["authorization"] for headers in sent} == {"Bearer abc"}
    for url, kind in (
        ("ftp://user:secret@127.0.0.1", InputError),
        ("http://user:secret@127.0.0.1:1", BackendError),
        ("http://user:sec@ret@127.0.0.1:1/a/b", BackendError),
        ("https://user:secret@127.0.0.1:http", InputError),
    ):
        with pytest.raises(kind, match=r"127\.0\.0\.1") as caught:
            KServeBackend(url, MODEL)
        assert "sec" not in str(caught.value)


def test_certificates(http: HttpFake, tmp_path: Path) -> None:
    for url in ("https://127.0.0.1:1", "grpcs://127.0.0.1:1"):
        with pytest.raises(InputError, match=r"gone\.pem"):
            KServeBackend(url, MODEL, tls=Tls(ca=tmp_path / "gone.pem"))
    (tmp_path / "other.pem").write_text("no certificate")
    with pytest.raises(InputError, match="certificates"):
        KServeBackend("https://127.0.0.1:1", MODEL, tls=Tls(ca=tmp_path / "other.pem"))
    with pytest.raises(BackendError, match="127"):  # a server without TLS
        KServeBackend(http.url.replace("http", "https"), MODEL, retries=0)


@pytest.mark.parametrize(
    ("url", "package"), [("http://127.0.0.1:1", "httpx"), ("grpc://127.0.0.1:1", "tritonclient.grpc")]
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, url: str, package: str) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"\[kserve\]"):
        KServeBackend(url, MODEL)
