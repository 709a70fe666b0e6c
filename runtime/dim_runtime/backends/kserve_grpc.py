"""The Open Inference Protocol over gRPC: one HTTP/2 connection, shared by all windows in flight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from dim.arrays import Float32, UInt8
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, METADATA_KEY, OUTPUT_ALPHA
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
from dim_runtime.backends.kserve_protocol import IMAGE_TYPE, TRIMAP_TYPE, ProtocolError, to_alpha
from dim_runtime.errors import BackendError

LARGEST_MESSAGE = 512 << 20
"""Bytes of a response: the alpha of a window of 134 megapixels. gRPC's own limit is 4 MB."""
OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", -1),
    # A server that restarts is tried again soon; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
_BYTES_PER_PIXEL = 4 + 3 * 4 + 3 * 4
"""Of a window here: its arrays; the request as message, text and buffers of gRPC; the response likewise."""
_CONNECTION_BYTES = 8 * 10**6
_LONGEST_REASON = 300
_TLS_WORDS = ("ssl", "certificate", "verification check")
"""Words of gRPC's errors about a handshake, which have the status of a server that is not there."""


class GrpcTransport(Transport):
    """See :class:`~dim_runtime.backends.kserve_client.Transport`.

    Args:
        target: grpc or grpcs.
    """

    def __init__(self, target: Target) -> None:
        require("reach an inference server over gRPC", "grpc", "tritonclient.grpc", extra="kserve")
        from tritonclient.grpc import service_pb2_grpc

        self._target = target
        self._channel = _channel(target)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = tuple((name.lower(), value) for name, value in target.headers.items())

    def describe(self) -> dict[str, str]:
        from tritonclient.grpc import service_pb2

        request = service_pb2.ModelMetadataRequest(name=self._target.model, version=self._target.version)
        found = self._call(self._stub.ModelMetadata, request)
        return {tensor.name: tensor.datatype for tensor in (*found.inputs, *found.outputs)}

    def document(self) -> str | None:
        from tritonclient.grpc import service_pb2

        request = service_pb2.ModelConfigRequest(name=self._target.model, version=self._target.version)
        try:
            found = self._call(self._stub.ModelConfig, request)
        except RefusedError:
            return None  # an extension of Triton's
        parameters = found.config.parameters
        return str(parameters[METADATA_KEY].string_value) if METADATA_KEY in parameters else None

    def infer(self, image: UInt8, trimap: UInt8) -> Float32:
        response = self._call(self._stub.ModelInfer, self._request(image, trimap))
        try:
            return read_alpha(response, trimap.shape)
        except ProtocolError as error:
            raise unreadable(self._target, error) from error

    def window_bytes(self, pixels: int) -> int:
        return _CONNECTION_BYTES + _BYTES_PER_PIXEL * pixels

    def close(self) -> None:
        self._channel.close()

    def _request(self, image: UInt8, trimap: UInt8) -> Any:
        from tritonclient.grpc import service_pb2

        request = service_pb2.ModelInferRequest(
            model_name=self._target.model, model_version=self._target.version
        )
        inputs = ((INPUT_IMAGE, IMAGE_TYPE, image), (INPUT_TRIMAP, TRIMAP_TYPE, trimap))
        for name, datatype, array in inputs:
            request.inputs.add(name=name, datatype=datatype, shape=array.shape)
            request.raw_input_contents.append(np.ascontiguousarray(array).tobytes())
        request.outputs.add(name=OUTPUT_ALPHA)
        return request

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        import grpc

        try:
            return method(request, timeout=self._target.timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failed(error.code(), str(error.details())) from error
        except ValueError as error:  # a channel that was closed
            raise unread(self._target, str(error), kind=BackendError) from error

    def _failed(self, code: Any, details: str) -> BackendError:
        import grpc

        details = details[:_LONGEST_REASON]
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return unread(self._target, f"timed out: {details}")
        if code is grpc.StatusCode.UNAVAILABLE:
            if any(word in details.lower() for word in _TLS_WORDS):
                return untrusted(self._target, details)
            is_connected = "failed to connect" not in details.lower()
            return unread(self._target, details, kind=PassingError if is_connected else UnreachableError)
        is_too_large = "larger than max" in details
        is_busy = code is grpc.StatusCode.RESOURCE_EXHAUSTED and not is_too_large
        # This client cancels nothing: a server that stops cancels what it computes.
        is_stopping = code is grpc.StatusCode.CANCELLED
        kind = PassingError if is_busy or is_stopping else RefusedError
        return kind(
            f"{self._target.server} refused a request for the model {self._target.model!r}",
            got=f"status {code.name}",
            why=details,
            fix="a smaller tile=, or a server that takes larger messages" if is_too_large else None,
        )


def read_alpha(response: Any, shape: tuple[int, ...]) -> Float32:
    """Return the alpha in a ModelInferResponse: float32 N, H, W; ProtocolError for anything else."""
    for index, output in enumerate(response.outputs):
        if output.name == OUTPUT_ALPHA:
            raw = response.raw_output_contents
            if raw and index >= len(raw):
                raise ProtocolError(f"{len(raw)} tensors for {len(response.outputs)} outputs")
            values = raw[index] if raw else list(output.contents.fp32_contents)
            return to_alpha(output.datatype, output.shape, values, shape)
    raise ProtocolError(
        f"outputs {[output.name[:40] for output in response.outputs][:10]}, not {OUTPUT_ALPHA!r}"
    )


def _channel(target: Target) -> Any:
    import grpc

    place = urlsplit(target.url).netloc
    if not target.is_encrypted:
        return grpc.insecure_channel(place, OPTIONS)
    files = (target.tls.ca, target.tls.key or target.tls.certificate, target.tls.certificate)
    ca, key, certificate = (tls_file(path) if path is not None else None for path in files)
    return grpc.secure_channel(place, grpc.ssl_channel_credentials(ca, key, certificate), OPTIONS)
