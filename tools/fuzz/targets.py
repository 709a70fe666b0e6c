"""The readers that are fuzzed. Each gets the path of a mutated file, and may raise our errors only."""

from __future__ import annotations

import shutil
import socket
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fuzz import mutations, seeds

if TYPE_CHECKING:
    from dim_runtime.backends.kserve_grpc import GrpcTransport
    from dim_runtime.backends.kserve_http import HttpTransport


class Target(NamedTuple):
    """One reader.

    Attributes:
        seeds: makes the valid files.
        mutate: changes one of them.
        read: reads the file; raises :class:`dim.errors.DimError` for one that it cannot use.
        beside: makes the files that stand beside the mutated one.
    """

    seeds: Callable[[], seeds.Files]
    mutate: mutations.Mutation
    read: Callable[[Path], None]
    beside: Callable[[], seeds.Files] = dict


def _image(path: Path) -> None:
    from dim.images import read_image

    read_image(path)


def _trimap(path: Path) -> None:
    from dim.errors import DimError
    from dim.images import read_alpha, read_mask, read_trimap

    for read in (read_trimap, read_mask):
        with suppress(DimError):
            read(path)
    read_alpha(path)


def _windows(path: Path) -> None:
    from dim.images.tiff_reader import TiffReader
    from dim_runtime.images.tiff_windows import TiffImage

    with TiffReader(path) as reader:
        image = TiffImage(reader)
        for start in range(0, min(image.shape[0], 64), 16):
            np.asarray(image[start : start + 16, 0:32])


def _profile(path: Path) -> None:
    from dim.images.files import read_photograph, write_image

    photograph = read_photograph(path)
    for suffix in (".png", ".jpg", ".tif"):
        out = path.with_name(f"out{suffix}")
        write_image(out, photograph.image, metadata=photograph.metadata)
        out.unlink()


def _pair(path: Path) -> None:
    """Matte the image and write a cut-out; an error must leave no output, success a readable one."""
    from dim.errors import DimError
    from dim.images import read_rgba
    from dim_runtime import Matting
    from dim_runtime.backends.fake import FakeBackend
    from dim_runtime.outputs.pair import run_pair
    from dim_runtime.outputs.spec import Foreground, Output, OutputSpec

    out = path.with_name("out.png")
    spec = OutputSpec(output=Output.CUTOUT, foreground=Foreground.IMAGE)
    try:
        run_pair(Matting.from_backend(FakeBackend()), path, path.with_name("trimap.png"), out, spec)
    except DimError:
        if out.exists():
            raise AssertionError("an error, and an output") from None
        raise
    read_rgba(out)
    out.unlink()


def _onnx(path: Path) -> None:
    from dim_runtime.artefacts.onnx_file import read_metadata

    read_metadata(path)


def _engine(path: Path) -> None:
    from dim_runtime.artefacts.engine_file import read_header, read_plan

    read_plan(path, read_header(path))


def _checkpoint(path: Path) -> None:
    from dim import checkpoint

    checkpoint.load(path)


def _pickle(path: Path) -> None:
    from dim import checkpoint
    from dim.checkpoint import pickle_reader

    pickle_reader.load(path)
    if path.name.startswith("network"):
        checkpoint.load(path)


def _recipe(path: Path) -> None:
    from dim_training.config import read_config

    read_config(path)


def _annotations(path: Path) -> None:
    from dim.errors import DimError
    from dim_training.data import annotations

    try:
        annotations.read(path, path.parent, composed=True)
    except DimError:
        annotations.read_test(path, path.parent)


def _table(path: Path) -> None:
    from dim_runtime.batch.items import read_items
    from dim_runtime.batch.run import inputs_of

    for item in read_items(str(path)):
        inputs_of(item)


def _journal(path: Path) -> None:
    from dim_runtime.batch.journal import NAME, Journal

    folder = path.parent / "batch"
    folder.mkdir()
    shutil.copy(path, folder / f"{NAME}.jsonl")
    try:
        journal = Journal(str(folder), {"tile": 1024, "model": "x"})
        journal.claim(["c.png"])
        journal.finish("c.png", "c.jpg 3 4")
        journal.close()
    finally:
        shutil.rmtree(folder)


def _state(path: Path) -> None:
    from dim_training.run_state import read_generators, read_state

    run = path.parent / "run"
    shutil.copytree(path.parent, run / "last")
    try:
        read_state(run)
        read_generators(run, 0)
    finally:
        shutil.rmtree(run)


def _answer(path: Path) -> None:
    from dim_runtime.backends.kserve_client import Target as Server
    from dim_runtime.backends.kserve_http import HttpTransport

    port = _server(path.read_bytes())
    transport = HttpTransport(Server(f"http://127.0.0.1:{port}", "model"))
    _call(transport, path, windows=("binary", "numbers"))


def _grpc_answer(path: Path) -> None:
    from dim_runtime.backends.kserve_client import Target as Server
    from dim_runtime.backends.kserve_grpc import GrpcTransport

    server = _grpc_server()
    server.message = path.read_bytes()
    transport = GrpcTransport(Server(f"grpc://127.0.0.1:{server.port}", "model"))
    _call(transport, path, windows=("infer",))


def _call(transport: HttpTransport | GrpcTransport, path: Path, windows: tuple[str, ...]) -> None:
    """Send the request whose response a file holds: its name begins with the kind."""
    try:
        if path.name.startswith(windows):
            transport.infer(np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 32, 32), np.uint8))
        elif path.name.startswith("configuration"):
            transport.document()
        else:
            transport.describe()
    finally:
        transport.close()


class _GrpcServer:
    """A gRPC server that returns the same bytes for every method.

    Attributes:
        message: the bytes.
        port: its port on 127.0.0.1.
    """

    def __init__(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        import grpc

        self.message = b""
        # Handlers without a serialiser send the bytes as they are.
        handler = grpc.unary_unary_rpc_method_handler(lambda request, context: self.message)
        every = type("Every", (grpc.GenericRpcHandler,), {"service": lambda *_: handler})
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=[every()])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()


@cache
def _grpc_server() -> _GrpcServer:
    return _GrpcServer()


def _server(response: bytes) -> int:
    """Serve one response, whatever the request is; return the port."""
    listener = _listener()
    threading.Thread(target=_serve_once, args=(listener, response), daemon=True).start()
    return int(listener.getsockname()[1])


@cache
def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _serve_once(listener: socket.socket, response: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        try:
            _receive(connection)
            connection.sendall(response)
        except OSError:
            # The client hung up.
            pass


def _receive(connection: socket.socket) -> None:
    """Read a request to the end of its body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0].partition(b":")[2]) - len(body) if lengths else 0
    while missing > 0:
        missing -= len(connection.recv(65536))


def _beside_a_state() -> seeds.Files:
    import torch
    from safetensors.numpy import save

    made = seeds.checkpoints()
    generators = save({"cpu": torch.get_rng_state().numpy()})
    return made | {
        "optimizer.safetensors": save({"a": np.zeros(3, np.float32)}),
        "random-0.safetensors": generators,
    }


def _beside_a_table() -> seeds.Files:
    return {f"{name}{suffix}": b"" for name in "abcd" for suffix in (".jpg", ".png")} | {"d, e.jpg": b""}


def _annotated() -> seeds.Files:
    image = seeds.images()["gray.png"]
    return {f"{key}.png": image for key in ("alpha", "fg", "bg", "merged", "trimap")}


def _beside_an_image() -> seeds.Files:
    return {"trimap.png": seeds.trimaps()["trimap.png"]}


TARGETS: dict[str, Target] = {
    "image": Target(seeds.images, mutations.of_image, _image),
    "trimap": Target(seeds.trimaps, mutations.of_image, _trimap),
    "windows": Target(seeds.tiffs, mutations.of_image, _windows),
    "profile": Target(seeds.profiles, mutations.of_image, _profile),
    "pair": Target(seeds.images, mutations.of_image, _pair, _beside_an_image),
    "onnx": Target(seeds.onnx_models, mutations.of_bytes, _onnx),
    "engine": Target(seeds.engines, mutations.of_sized_json(b"DIM-TRT1", "<I"), _engine),
    "safetensors": Target(seeds.checkpoints, mutations.of_sized_json(b"", "<Q"), _checkpoint),
    "pickle": Target(seeds.pickles, mutations.of_any_pickle, _pickle),
    "recipe": Target(seeds.recipes, mutations.of_text, _recipe),
    "annotations": Target(seeds.annotation_lists, mutations.of_json, _annotations, _annotated),
    "table": Target(seeds.tables, mutations.of_text, _table, _beside_a_table),
    "journal": Target(seeds.journals, mutations.of_text, _journal),
    "state": Target(seeds.states, mutations.of_json, _state, _beside_a_state),
    "kserve": Target(seeds.answers, mutations.of_response, _answer),
    "grpc": Target(seeds.grpc_answers, mutations.of_bytes, _grpc_answer),
}


def read_quietly(target: Target, path: Path) -> None:
    """Read a file without the warnings of readers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target.read(path)


def inputs_beside(target: Target, folder: Path) -> None:
    """Write the files that stand beside the mutated one."""
    for name, content in target.beside().items():
        (folder / name).write_bytes(content)
