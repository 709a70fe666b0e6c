"""Two small servers of the Open Inference Protocol in threads, HTTP and gRPC, that tests can break."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from dim.arrays import Array
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import SHIPPED_MODELS, default_model

MODEL = SHIPPED_MODELS[0]
TYPES = {"image": "UINT8", "trimap": "UINT8", "alpha": "FP32"}

Compute = Callable[[Array, Array], Array]
HttpAnswer = tuple[int, bytes, dict[str, str]]


class Busy(Exception):  # noqa: N818 - what a server is
    """Raised by ``compute`` to have the server report that it is busy."""


class Vanished(Exception):  # noqa: N818 - the same
    """Raised by ``compute`` to have the server drop the connection without a response."""


class Stopped(Exception):  # noqa: N818 - the same
    """Raised by ``compute`` to have the server cancel the request, as one does that stops."""


def red(image: Array, trimap: Array) -> Array:
    """Return the red channel as alpha."""
    return (image[..., 0] / np.float32(255)).astype(np.float32)


class ServerTls:
    """Certificate of 127.0.0.1 by an authority of trustme.

    Args:
        authority: issues it.
        clients: another one, whose certificates clients must have.
    """

    def __init__(self, authority: Any, clients: Any = None) -> None:
        self.leaf, self.clients = authority.issue_cert("127.0.0.1"), clients

    def context(self) -> ssl.SSLContext:
        """Return the settings for the HTTP server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.leaf.configure_cert(context)
        if self.clients is not None:
            self.clients.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def credentials(self) -> Any:
        """Return the settings for the gRPC server."""
        import grpc

        chain = b"".join(pem.bytes() for pem in self.leaf.cert_chain_pems)
        roots = self.clients.cert_pem.bytes() if self.clients is not None else None
        return grpc.ssl_server_credentials(
            [(self.leaf.private_key_pem.bytes(), chain)], roots, require_client_auth=roots is not None
        )


class FakeServer(ABC):
    """One model.

    Attributes:
        compute: alpha of windows, float32.
        types: datatypes of the tensors that the model declares.
        document: the artefact's document in the configuration; None for a server without that extension.
        frozen: the only N, H, W that it takes.
        shapes: N, H, W of every inference.
        headers: of every request.
        versions: that were requested.
    """

    def __init__(self, tls: ServerTls | None = None) -> None:
        self.tls = tls
        self.compute: Compute = red
        self.types = dict(TYPES)
        self.document: str | None = read_metadata(default_model()).to_json()
        self.frozen: tuple[int, ...] | None = None
        self.shapes: list[tuple[int, ...]] = []
        self.headers: list[dict[str, str]] = []
        self.versions: set[str] = set()

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def stop(self) -> None:
        """End the server at once, with its connections."""

    @abstractmethod
    def start_again(self) -> None:
        """Start it at the same address."""

    def infer(self, image: Array, trimap: Array) -> Array:
        self.shapes.append(trimap.shape)
        if self.frozen not in (None, trimap.shape):
            raise ValueError(f"unexpected shape for input 'trimap': {list(trimap.shape)}")
        return self.compute(image, trimap)


class HttpFake(FakeServer):
    """Over HTTP. ``answer`` makes the whole response; ``binary`` False returns numbers in JSON."""

    def __init__(self, tls: ServerTls | None = None) -> None:
        super().__init__(tls)
        self.binary = True
        self.answer: Callable[[Array], HttpAnswer] | None = None
        self.model_answer: HttpAnswer | None = None
        self.config_answer: HttpAnswer | None = None
        self.asked: list[str] = []
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._http = self._started(0)

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self._http.server_port}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._open):
            # The handler's thread sees the end of its connection.
            connection.shutdown(socket.SHUT_RDWR)

    def start_again(self) -> None:
        self._http = self._started(self._http.server_port)

    def _started(self, port: int) -> _Http:
        http = _Http(self, port)
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        return http


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, fake: HttpFake, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.fake = fake
        if fake.tls:
            # The handshake is made by the connection's own thread.
            self.socket = fake.tls.context().wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of these tests."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.fake.connections += 1
        self.server.fake._open.add(self.connection)

    def finish(self) -> None:
        self.server.fake._open.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        fake = self.server.fake
        path = self._noted()
        if path == f"/v2/models/{MODEL}":
            tensors = [{"name": name, "datatype": kind} for name, kind in fake.types.items()]
            document = {"name": MODEL, "inputs": tensors[:2], "outputs": tensors[2:]}
            self._send(*(fake.model_answer or (200, json.dumps(document).encode(), {})))
        elif path == f"/v2/models/{MODEL}/config" and (fake.config_answer or fake.document is not None):
            config = {"parameters": {"dim": {"string_value": fake.document}}}
            self._send(*(fake.config_answer or (200, json.dumps(config).encode(), {})))
        else:
            self._json(404, {"error": f"Request for unknown model: {path}"})

    def do_POST(self) -> None:
        fake = self.server.fake
        self._noted()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = int(self.headers.get("Inference-Header-Content-Length", len(body)))
        image, trimap = _tensors(json.loads(body[:length]), body[length:])
        if fake.answer is not None:
            return self._send(*fake.answer(trimap))
        try:
            self._send(200, *http_answer(fake.infer(image, trimap), binary=fake.binary))
        except Busy:
            self._json(503, {"error": "busy"})
        except (Vanished, Stopped):
            self.close_connection = True
        except ValueError as error:
            self._json(400, {"error": str(error)})

    def _noted(self) -> str:
        fake = self.server.fake
        fake.asked.append(self.path)
        fake.headers.append(dict(self.headers))
        path, separator, version = self.path.partition("/versions/")
        if separator:
            number, _, rest = version.partition("/")
            fake.versions.add(number)
            path += f"/{rest}" if rest else ""
        return path

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
    assert request["id"]  # KServe's Python server requires it
    found, offset = [], 0
    for entry in request["inputs"]:
        assert entry["datatype"] == "UINT8"
        if "data" in entry:
            found.append(np.array(entry["data"], np.uint8).reshape(entry["shape"]))
            continue
        size = entry["parameters"]["binary_data_size"]
        found.append(np.frombuffer(binary[offset : offset + size], np.uint8).reshape(entry["shape"]))
        offset += size
    assert offset == len(binary)
    return found


def http_answer(alpha: Array, *, binary: bool = True, **more: Any) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a response with this alpha."""
    output: dict[str, Any] = {"name": "alpha", "datatype": "FP32", "shape": list(alpha.shape), **more}
    if not binary:
        return json.dumps({"outputs": [{**output, "data": alpha.ravel().tolist()}]}).encode(), {}
    # Another output in front: its bytes must be skipped.
    other = {"name": "other", "datatype": "UINT8", "shape": [3], "parameters": {"binary_data_size": 3}}
    content = alpha.astype("<f4").tobytes()
    output["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps({"outputs": [other, output]}).encode()
    return head + b"abc" + content, {"Inference-Header-Content-Length": str(len(head))}


class GrpcFake(FakeServer):
    """Over gRPC, with Triton's service. ``answer`` makes the whole response."""

    def __init__(self, tls: ServerTls | None = None) -> None:
        super().__init__(tls)
        self.answer: Callable[[Array], Any] | None = None
        self._port = 0
        self.start_again()

    @property
    def url(self) -> str:
        return f"grpc{'s' if self.tls else ''}://127.0.0.1:{self._port}"

    def stop(self) -> None:
        self._server.stop(0).wait()

    def start_again(self) -> None:
        import grpc
        from tritonclient.grpc import service_pb2_grpc

        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(16), options=unlimited)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_service(self), self._server)
        place = f"127.0.0.1:{self._port}"
        self._port = (
            self._server.add_secure_port(place, self.tls.credentials())
            if self.tls
            else self._server.add_insecure_port(place)
        )
        self._server.start()


def grpc_answer(alpha: Array, **more: Any) -> Any:
    """Return a ModelInferResponse with this alpha behind another output."""
    from tritonclient.grpc import service_pb2

    response = service_pb2.ModelInferResponse(model_name=MODEL)
    response.outputs.add(name="other", datatype="UINT8", shape=[3])
    response.outputs.add(**{"name": "alpha", "datatype": "FP32", "shape": alpha.shape, **more})
    response.raw_output_contents.extend([b"abc", alpha.astype("<f4").tobytes()])
    return response


def _service(fake: GrpcFake) -> Any:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's names
            self._note(request.name, request.version, context)
            response = service_pb2.ModelMetadataResponse(name=MODEL)
            for name, datatype in list(fake.types.items())[:2]:
                response.inputs.add(name=name, datatype=datatype)
            for name, datatype in list(fake.types.items())[2:]:
                response.outputs.add(name=name, datatype=datatype)
            return response

        def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
            self._note(request.name, request.version, context)
            if fake.document is None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")
            response = service_pb2.ModelConfigResponse()
            response.config.parameters["dim"].string_value = fake.document
            return response

        def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
            self._note(request.model_name, request.model_version, context)
            assert [output.name for output in request.outputs] == ["alpha"]
            image, trimap = (
                np.frombuffer(raw, np.uint8).reshape(tuple(entry.shape))
                for entry, raw in zip(request.inputs, request.raw_input_contents, strict=True)
            )
            if fake.answer is not None:
                return fake.answer(trimap)
            try:
                return grpc_answer(fake.infer(image, trimap))
            except Busy:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
            except Vanished:
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            except Stopped:
                context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
            except ValueError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

        def _note(self, name: str, version: str, context: Any) -> None:
            fake.headers.append(dict(context.invocation_metadata()))
            if version:
                fake.versions.add(version)
            if name != MODEL:
                context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: {name}")

    return Service()
