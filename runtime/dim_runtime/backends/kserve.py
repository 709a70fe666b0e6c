"""A model on an inference server: Triton, or any other that speaks the KServe v2 protocol."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dim.arrays import Floating, UInt8
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, METADATA_KEY, OUTPUT_ALPHA, ArtefactMetadata
from dim_runtime.artefacts.engine_file import read_header
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.base import Backend
from dim_runtime.backends.kserve_client import KServeClient
from dim_runtime.errors import ArtefactError, BackendError

_EXPECTED = {INPUT_IMAGE: "UINT8", INPUT_TRIMAP: "UINT8", OUTPUT_ALPHA: "FP32"}
_BYTES_PER_PIXEL = 3 * (3 + 1) + 2 * 4
"""Here a window is held three times (arrays, tensors, body) and its alpha twice; the network is elsewhere."""
_CONNECTION_BYTES = 4 * 10**6


class KServeBackend(Backend):
    """An artefact that a server runs; the windows are planned, cut and stitched here.

    ::

        matting = Matting.from_backend(KServeBackend("http://localhost:8000", "dim-compact"))

    Threads may share one. Windows of one shape that come at the same time are what a server can batch.

    Args:
        url: where the server's HTTP is, such as "http://localhost:8000".
        model: its name there.
        version: one of its versions; "" lets the server choose.
        timeout: seconds to wait for one window.
        metadata: the artefact's document, or the ``.onnx`` or ``.engine`` file that the server has. None asks
            the server, which knows it if ``dim-export triton`` made its repository.

        retries: as :class:`~dim_runtime.backends.kserve_client.KServeClient` takes it.
        headers: the same.
        ssl_context: the same.

    Raises:
        InputError: an impossible address.
        BackendError: no answer, no such model, or one with other inputs and outputs.
        ArtefactError: the server does not know the document, and ``metadata`` was not given.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: str = "",
        timeout: float = 60.0,
        metadata: ArtefactMetadata | str | Path | None = None,
        retries: int = 4,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._client = KServeClient(
            url,
            model,
            version=version,
            timeout=timeout,
            retries=retries,
            headers=headers,
            ssl_context=ssl_context,
        )
        _require_contract(self._client)
        self._metadata = _document(metadata) if metadata is not None else _told(self._client)

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        frozen = self._metadata.static_shape
        size = frozen[0] if frozen else len(trimap)
        starts = range(0, len(trimap), size)
        alphas = [self._infer(image[at : at + size], trimap[at : at + size], size) for at in starts]
        return alphas[0] if len(alphas) == 1 else np.concatenate(alphas)

    def window_bytes(self, height: int, width: int) -> int:
        return _CONNECTION_BYTES + _BYTES_PER_PIXEL * height * width

    def _infer(self, image: UInt8, trimap: UInt8, size: int) -> Floating:
        """Alpha of some windows; a graph whose batch is frozen gets windows of zeros behind them."""
        count = len(trimap)
        inputs = {INPUT_IMAGE: _filled(image, size), INPUT_TRIMAP: _filled(trimap, size)}
        alpha = self._client.infer(inputs, OUTPUT_ALPHA)
        if alpha.shape != (size, *trimap.shape[1:]):
            raise BackendError(
                f"cannot use what {self._client.address} answered",
                got=f"alpha of shape {alpha.shape}",
                expected=(size, *trimap.shape[1:]),
            )
        return alpha[:count]


def _filled(array: UInt8, size: int) -> UInt8:
    missing = size - len(array)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), np.uint8)]) if missing else array


def _require_contract(client: KServeClient) -> None:
    described = client.describe()
    tensors = [*described.get("inputs", []), *described.get("outputs", [])]
    found = {tensor.get("name"): tensor.get("datatype") for tensor in tensors}
    if any(found.get(name) != datatype for name, datatype in _EXPECTED.items()):
        raise BackendError(
            f"cannot matte with {client.address}: its inputs and outputs are not those of an artefact",
            got=_listed(found),
            expected=_listed(_EXPECTED),
            fix="serve a model of this toolkit: dim-export triton MODEL -o REPOSITORY",
        )


def _listed(tensors: dict[str, str]) -> str:
    return ", ".join(f"{name} {datatype}" for name, datatype in tensors.items()) or "none"


def _told(client: KServeClient) -> ArtefactMetadata:
    configuration = client.configuration() or {}
    parameter: Any = configuration.get("parameters", {}).get(METADATA_KEY, {})
    document = parameter.get("string_value") if isinstance(parameter, dict) else None
    if document is None:
        raise ArtefactError(
            f"cannot tile with {client.address}",
            got=f"a server that does not tell the parameter {METADATA_KEY!r} of the model",
            expected="the artefact's document: context, precision, shapes",
            fix="metadata=MODEL.onnx, the file that is served; or serve what dim-export triton writes",
        )
    return ArtefactMetadata.from_json(document, source=client.address)


def _document(metadata: ArtefactMetadata | str | Path) -> ArtefactMetadata:
    if isinstance(metadata, ArtefactMetadata):
        return metadata
    path = Path(metadata)
    if path.suffix == ".engine":
        return read_header(path).metadata
    return read_metadata(path)
