"""Serve an artefact with MLServer; model-settings.json beside this file names it.

    pip install mlserver onnxruntime
    cp model.onnx . && mlserver start .

MLServer 1.7 reads binary tensors over gRPC only: connect to grpc://localhost:8081, or pass binary=False.
"""

from __future__ import annotations

import asyncio

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Artefact(MLModel):
    """An exported file. ``parameters.uri`` is its path, ``parameters.extra.threads`` those of one window."""

    async def load(self) -> bool:
        """Open the file."""
        parameters = self.settings.parameters
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = (parameters.extra or {}).get("threads", 1)
        self.session = onnxruntime.InferenceSession(
            parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one request in a thread: image uint8 N, H, W, 3 and trimap uint8 N, H, W to alpha."""
        arrays = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        (alpha,) = await asyncio.to_thread(self.session.run, ["alpha"], arrays)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("alpha", alpha)])
