"""Serve an artefact with KServe's Python server, over HTTP and gRPC.

    pip install kserve onnxruntime
    python kserve_model.py --artefact model.onnx --model_name model --http_port 8080 --grpc_port 8081

Windows in flight run side by side, each with ``--threads`` threads.
"""

from __future__ import annotations

import argparse
import asyncio

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server


class Artefact(Model):
    """An exported file; its inputs and output are those of the graph.

    Args:
        name: of the model on the server.
        path: the .onnx file.
        threads: of ONNX Runtime, for one window.
    """

    def __init__(self, name: str, path: str, threads: int) -> None:
        super().__init__(name)
        self.path, self.threads = path, threads

    def load(self) -> bool:
        """Open the file; KServe reports the model as ready from then on."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        self.ready = True
        return self.ready

    async def get_input_types(self) -> list[dict[str, object]]:
        """Return the description of the inputs."""
        return [
            {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
            {"name": "trimap", "datatype": "UINT8", "shape": [-1, -1, -1]},
        ]

    async def get_output_types(self) -> list[dict[str, object]]:
        """Return the description of the output."""
        return [{"name": "alpha", "datatype": "FP32", "shape": [-1, -1, -1]}]

    async def predict(
        self, payload: InferRequest, headers: object = None, response_headers: object = None
    ) -> InferResponse:
        """Run one request in a thread: image uint8 N, H, W, 3 and trimap uint8 N, H, W to alpha."""
        arrays = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        (alpha,) = await asyncio.to_thread(self.session.run, ["alpha"], arrays)
        output = InferOutput("alpha", list(alpha.shape), "FP32")
        output.set_data_from_numpy(alpha)
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser], conflict_handler="resolve")
    parser.add_argument("--artefact", required=True, help="the .onnx file")
    parser.add_argument("--threads", type=int, default=1, help="for one window")
    arguments = parser.parse_args()
    model = Artefact(arguments.model_name, arguments.artefact, arguments.threads)
    model.load()
    ModelServer().start([model])
