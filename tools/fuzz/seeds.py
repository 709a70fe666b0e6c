"""Valid files from which the mutations start. Every function makes its files and returns their bytes."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dim.contract import METADATA_KEY, EngineInfo, ShapeProfile
from dim_runtime.artefacts.engine_file import write_engine
from dim_runtime.backends.fake import fake_metadata

SIDE = (40, 64)
"""Height and width of the images, pixels."""

Files = dict[str, bytes]
"""Contents by file name; the suffix names the kind."""


def colours(samples: int = 3, depth: int = 8) -> Any:
    """Return an image of gradients, H, W, samples."""
    y, x, s = np.mgrid[: SIDE[0], : SIDE[1], :samples]
    return ((y * 9 + x * 5 + s * 60) % 2**depth).astype(np.uint8 if depth == 8 else np.uint16)


def levels() -> Any:
    """Return a trimap, uint8 H, W."""
    trimap = np.full(SIDE, 255, np.uint8)
    trimap[:, :12], trimap[:, 12:28] = 0, 128
    return trimap


def images() -> Files:
    """Return one image for each format that is read."""
    suffixes = (".png", ".jpg", ".webp", ".bmp", ".ppm", ".avif", ".gif", ".jp2")
    made = {f"image{suffix}": _encoded(suffix, colours()) for suffix in suffixes}
    made |= {f"sixteen{suffix}": _encoded(suffix, colours(depth=16)) for suffix in (".png", ".tif")}
    made["alpha.png"] = _encoded(".png", colours(4))
    made["gray.png"] = _encoded(".png", levels())
    return made | tiffs()


def trimaps() -> Files:
    """Return trimaps: gray, with an alpha channel, in 16 bits, as TIFF."""
    alpha = np.dstack([np.zeros((*SIDE, 3), np.uint8), levels()])
    return {
        "trimap.png": _encoded(".png", levels()),
        "trimap.bmp": _encoded(".bmp", levels()),
        "alpha.png": _encoded(".png", alpha),
        "sixteen.png": _encoded(".png", levels().astype(np.uint16) * 257),
        "plain.tif": _tiff(levels(), photometric="minisblack"),
        "white.tif": _tiff(255 - levels(), photometric="miniswhite", compression="zlib"),
        "strips.tif": _tiff(levels(), photometric="minisblack", rowsperstrip=5),
    }


def tiffs() -> Files:
    """Return TIFFs of several layouts."""
    rgb = colours()
    options: dict[str, dict[str, Any]] = {
        "strip": {},
        "strips": {"rowsperstrip": 7},
        "big_endian": {"byteorder": ">", "rowsperstrip": 7},
        "big_tiff": {"bigtiff": True},
        "tiles": {"tile": (16, 16)},
        "deflate": {"compression": "zlib", "predictor": True, "rowsperstrip": 7},
        "packbits": {"compression": "packbits"},
        "turned": {"extratags": [(274, "H", 1, 6, True)]},
    }
    made = {f"{name}.tif": _tiff(rgb, photometric="rgb", **chosen) for name, chosen in options.items()}
    made["planes.tif"] = _tiff(rgb.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate")
    made["rgba16.tif"] = _tiff(colours(4, 16), photometric="rgb", extrasamples=["unassalpha"])
    return made


def profiles() -> Files:
    """Return images with an ICC profile, an EXIF block and a resolution."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    blocks = [np.frombuffer(profile, np.uint8), np.frombuffer(exif, np.uint8)]
    kinds = [cv2.IMAGE_METADATA_ICCP, cv2.IMAGE_METADATA_EXIF]
    made = {}
    for suffix in (".png", ".jpg", ".webp"):
        done, encoded = cv2.imencodeWithMetadata(suffix, colours(), kinds, blocks)
        assert done
        made[f"profile{suffix}"] = encoded.tobytes()
    made["profile.tif"] = _tiff(colours(), photometric="rgb", iccprofile=profile, resolution=(300, 300))
    return made


def onnx_models() -> Files:
    """Return ONNX files with this toolkit's metadata and a graph of two nodes and one weight."""
    import onnx
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [0.5, 0.25])
    nodes = [helper.make_node("Add", ["x", "w"], ["s"]), helper.make_node("Mul", ["s", "s"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight]))
    helper.set_model_props(model, {METADATA_KEY: fake_metadata().to_json(), "author": "seed"})
    return {"model.onnx": onnx.ModelProto.SerializeToString(model)}


def engines() -> Files:
    """Return an engine file whose plan is a few bytes."""
    engine = EngineInfo(
        builder="tensorrt-rtx",
        version="1.4.0.76",
        compute_capabilities=("8.6",),
        platform="Linux x86_64",
        profile=ShapeProfile(min=(1, 32, 32), opt=(1, 64, 64), max=(1, 96, 96)),
        convolutions={"fp32": 3},
        precision_read_from="engine",
        source_sha256="0" * 64,
        plan_bytes=0,
        plan_sha256="",
    )
    metadata = fake_metadata().model_copy(update={"engine": engine})
    return {"model.engine": _written("model.engine", lambda path: write_engine(path, metadata, b"plan" * 9))}


def network(width: float) -> Any:
    """Return a network of stage 1 whose weights are the same each time."""
    import torch

    from dim.contract import NetworkConfig
    from dim.network import DIM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DIM(NetworkConfig(stage=1, width=width)).eval()


def checkpoints() -> Files:
    """Return a network of a sixteenth of the width in safetensors."""
    from dim import checkpoint

    model = network(1 / 16)
    return {"model.safetensors": _written("model.safetensors", lambda path: checkpoint.save(model, path))}


def pickles() -> Files:
    """Return state dicts as PyTorch writes them: zip archives, the older layout; and a bare pickle."""
    import torch

    weights = network(1 / 32).state_dict()
    tensors = {f"layer{number}.weight": torch.arange(8.0).reshape(2, 4) for number in range(3)}
    state = {
        "meta": {"epoch": 1, "time": "now"},
        "state_dict": OrderedDict(tensors),
        "optimizer": [1, (2.0, None)],
    }
    made = {}
    for name, content, is_zip in (("zip", state, True), ("legacy", state, False), ("network", weights, True)):
        written = io.BytesIO()
        torch.save(content, written, _use_new_zipfile_serialization=is_zip)
        made[f"{name}.pth"] = written.getvalue()
    return made | {"bare.pth": pickle.dumps({"state_dict": {"a": [1, 2, {"b": (3, "text")}]}}, protocol=2)}


def recipes() -> Files:
    """Return two recipes that are shipped."""
    from dim_training import recipes as shipped

    return {f"{name}.toml": shipped.locate(name).read_bytes() for name in ("compact", "stage1")}


def annotation_lists() -> Files:
    """Return annotation lists of both layouts; the images that they name exist beside them."""
    entry = {f"{key}_path": f"{key}.png" for key in ("alpha", "fg", "bg", "merged", "trimap")}
    return {
        "list.json": json.dumps([entry, entry]).encode(),
        "metainfo.json": json.dumps({"metainfo": {"a": 1}, "data_list": [entry]}).encode(),
    }


def tables() -> Files:
    """Return tables of a batch."""
    rows = [{"image": f"{name}.jpg", "trimap": f"{name}.png", "output": f"out/{name}.png"} for name in "abc"]
    lines = ["image,trimap,output", *(",".join(row.values()) for row in rows), '"d, e.jpg",d.png,']
    return {
        "table.csv": "\n".join(lines).encode(),
        "table.jsonl": "\n".join(json.dumps(row) for row in rows).encode(),
    }


def journals() -> Files:
    """Return the journal of a batch."""
    lines: list[dict[str, Any]] = [
        {"made": {"tile": 1024, "model": "x"}},
        {"claimed": ["a.png", "b.png"]},
        {"done": "a.png", "inputs": "a.jpg 1 2"},
    ]
    return {"journal.jsonl": b"".join(json.dumps(line).encode() + b"\n" for line in lines)}


def states() -> Files:
    """Return the document of a training run's state."""
    position = {"step": 3, "samples": 12, "seconds": 4.5, "best": None}
    return {
        "state.json": json.dumps({"format": 2, **position, "averages": 3, "scaler": {"scale": 2.0}}).encode()
    }


def answers() -> Files:
    """Return HTTP responses of an inference server: documents, and an alpha in binary and in JSON."""
    alpha = np.full((1, 32, 32), 0.5, "<f4")
    output: dict[str, Any] = {"name": "alpha", "datatype": "FP32", "shape": [1, 32, 32]}
    binary = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": alpha.nbytes}}]}).encode()
    numbers = json.dumps({"outputs": [{**output, "data": alpha.ravel().tolist()}]}).encode()
    described = json.dumps(
        {"name": "m", "inputs": [{"name": "image", "datatype": "UINT8"}], "outputs": [output]}
    )
    parameters = {METADATA_KEY: {"string_value": fake_metadata().to_json()}}
    configuration = json.dumps({"parameters": parameters})
    return {
        "binary.http": _response(
            binary + alpha.tobytes(), f"Inference-Header-Content-Length: {len(binary)}\r\n"
        ),
        "numbers.http": _response(numbers),
        "configuration.http": _response(configuration.encode()),
        "described.http": _response(described.encode()),
        "refused.http": _response(b'{"error": "no such model"}', status="404 Not Found"),
    }


def grpc_answers() -> Files:
    """Return gRPC messages of an inference server: alphas in raw bytes and in numbers, and two documents."""
    from tritonclient.grpc import service_pb2

    alpha = np.full((1, 32, 32), 0.5, "<f4")
    raw = service_pb2.ModelInferResponse(model_name="model", raw_output_contents=[alpha.tobytes()])
    numbers = service_pb2.ModelInferResponse(model_name="model")
    for message in (raw, numbers):
        message.outputs.add(name="alpha", datatype="FP32", shape=alpha.shape)
    numbers.outputs[0].contents.fp32_contents.extend(alpha.ravel().tolist())
    described = service_pb2.ModelMetadataResponse(name="model")
    described.inputs.add(name="image", datatype="UINT8", shape=[-1, -1, -1, 3])
    configuration = service_pb2.ModelConfigResponse()
    configuration.config.parameters[METADATA_KEY].string_value = fake_metadata().to_json()
    messages = {"infer raw": raw, "infer numbers": numbers, "described": described}
    messages["configuration"] = configuration
    return {f"{name}.pb": bytes(message.SerializeToString()) for name, message in messages.items()}


def _response(body: bytes, headers: str = "", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _encoded(suffix: str, pixels: Any) -> bytes:
    done, encoded = cv2.imencode(suffix, pixels)
    assert done, suffix
    return bytes(encoded.tobytes())


def _tiff(pixels: Any, **options: Any) -> bytes:
    import tifffile

    written = io.BytesIO()
    tifffile.imwrite(written, pixels, metadata=None, **options)
    return written.getvalue()


def _written(name: str, write: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()
