"""A model on an inference server: Triton, KServe, MLServer, or another of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dim.arrays import Floating, UInt8
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, METADATA_KEY, OUTPUT_ALPHA, ArtefactMetadata
from dim.errors import InputError
from dim_runtime.artefacts.engine_file import read_header
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.base import Backend
from dim_runtime.backends.kserve_client import KServeClient, Target, Tls, Transport
from dim_runtime.backends.kserve_grpc import GrpcTransport
from dim_runtime.backends.kserve_http import HttpTransport
from dim_runtime.backends.kserve_protocol import ALPHA_TYPE, IMAGE_TYPE, TRIMAP_TYPE
from dim_runtime.errors import ArtefactError, BackendError

__all__ = ["KServeBackend", "Tls"]

_EXPECTED = {INPUT_IMAGE: IMAGE_TYPE, INPUT_TRIMAP: TRIMAP_TYPE, OUTPUT_ALPHA: ALPHA_TYPE}


class KServeBackend(Backend):
    """An artefact that a server runs; the windows are planned, cut and stitched here.

    ::

        matting = Matting.from_backend(KServeBackend("http://localhost:8000", "dim-clean"))
        matting = Matting.from_backend(KServeBackend("grpc://localhost:8001", "dim-clean"))

    Threads may share one. A request that gets no response, times out, or gets a status of a server that is
    busy or starting (429, 502, 503, 504 and their like in gRPC) is repeated, with growing pauses.

    Args:
        url: http://HOST:PORT, https://HOST, grpc://HOST:PORT or grpcs://HOST:PORT.
        model: its name there.
        version: one of its versions; "" lets the server choose.
        timeout: seconds for one attempt at one window.
        metadata: the artefact's document, or the ``.onnx`` or ``.engine`` file that the server has. None
            requests it from the server, which has it if ``dim-export triton`` made its repository.
        windows_in_flight: windows that are with the server at one time, at most; the server can join those
            of one shape to a batch, or give them to several instances. Each takes memory here.
        binary: False sends tensors as numbers in JSON, for servers whose HTTP reads no binary tensors; that
            takes ten times the memory and the bytes. gRPC is always binary.
        retries: further attempts at each request: 8 of them take about half a minute.
        headers: sent with every request, for example ``{"Authorization": "Bearer …"}``.
        tls: certificates for https and grpcs.

    Raises:
        InputError: an impossible address or option.
        MissingExtraError: httpx or gRPC is not installed.
        BackendError: no response, no such model, or one with other inputs and outputs.
        ArtefactError: the server does not have the document, and ``metadata`` was not given.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: str = "",
        timeout: float = 60.0,
        metadata: ArtefactMetadata | str | Path | None = None,
        windows_in_flight: int = 4,
        binary: bool = True,
        retries: int = 8,
        headers: Mapping[str, str] | None = None,
        tls: Tls | None = None,
    ) -> None:
        if windows_in_flight < 1:
            raise InputError(
                "cannot use this number of windows in flight", got=windows_in_flight, expected="1 or more"
            )
        self._in_flight = windows_in_flight
        self._target = Target(url, model, version, timeout, dict(headers or {}), tls or Tls())
        self._transport = _transport(self._target, binary=binary)
        self._client = KServeClient(self._transport, f"{self._target.server} {model}", retries)
        try:
            self._require_contract()
            self._metadata = _document(metadata) if metadata is not None else self._served_document()
        except BaseException:
            self._client.close()
            raise

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        frozen = self._metadata.static_shape
        size = frozen[0] if frozen else len(trimap)
        starts = range(0, len(trimap), size)
        alphas = [self._infer(image[at : at + size], trimap[at : at + size], size) for at in starts]
        return alphas[0] if len(alphas) == 1 else np.concatenate(alphas)

    def window_bytes(self, height: int, width: int) -> int:
        return self._transport.window_bytes(height * width)

    def close(self) -> None:
        self._client.close()

    def _infer(self, image: UInt8, trimap: UInt8, size: int) -> Floating:
        """Return the alpha of some windows; a frozen batch is filled up with windows of zeros."""
        return self._client.infer(_filled(image, size), _filled(trimap, size))[: len(trimap)]

    def _require_contract(self) -> None:
        """Raise BackendError for a model that declares other tensors; some servers declare none."""
        found = self._client.describe()
        if found and any(found.get(name) != datatype for name, datatype in _EXPECTED.items()):
            raise BackendError(
                f"cannot matte with the model {self._target.model!r} of {self._target.server}",
                got=_listed(found),
                expected=_listed(_EXPECTED),
                why="its inputs and outputs are not those of an artefact",
                fix="serve a model of this toolkit: dim-export triton MODEL -o REPOSITORY",
            )

    def _served_document(self) -> ArtefactMetadata:
        document = self._client.document()
        if document is None:
            raise ArtefactError(
                f"cannot tile with the model {self._target.model!r} of {self._target.server}",
                got=f"a server that does not have the parameter {METADATA_KEY!r} of the model",
                expected="the artefact's document: context, precision, shapes",
                fix="metadata=MODEL.onnx, the file that is served; or serve what dim-export triton writes",
            )
        return ArtefactMetadata.from_json(document, source=f"{self._target.server} {self._target.model}")


def _transport(target: Target, *, binary: bool) -> Transport:
    return GrpcTransport(target) if target.is_grpc else HttpTransport(target, binary=binary)


def _filled(array: UInt8, size: int) -> UInt8:
    missing = size - len(array)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), np.uint8)]) if missing else array


def _listed(tensors: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {datatype}" for name, datatype in tensors.items()) or "none"


def _document(metadata: ArtefactMetadata | str | Path) -> ArtefactMetadata:
    if isinstance(metadata, ArtefactMetadata):
        return metadata
    path = Path(metadata)
    if path.suffix == ".engine":
        return read_header(path).metadata
    return read_metadata(path)
