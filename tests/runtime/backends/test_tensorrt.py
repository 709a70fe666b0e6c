"""The TensorRT back end: the order of its calls, with a fake engine and a fake CUDA."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dim.arrays import UInt8
from dim.contract import ArtefactMetadata, EngineInfo, ShapeProfile
from dim.errors import InputError
from dim_runtime import Matting
from dim_runtime.artefacts.engine_compatibility import this_platform
from dim_runtime.artefacts.engine_file import write_engine
from dim_runtime.backends.cuda import Cuda, cuda_runtime
from dim_runtime.backends.tensorrt import TensorRTBackend, open_engine
from dim_runtime.errors import ArtefactError, BackendError, DeviceError, MissingExtraError

from .fake_tensorrt import FakeCuda, FakeTensorRT, Kind

Pair = Callable[..., tuple[UInt8, UInt8]]
Opened = Callable[..., TensorRTBackend]

BIND = ["shape image", "shape trimap"] + [
    call
    for name in ("image", "trimap", "alpha")
    for call in ("cudaMalloc", "cudaMallocHost", f"address {name}")
]
ENQUEUE = ["cudaMemcpyAsync", "cudaMemcpyAsync", "execute", "cudaMemcpyAsync"]
RUN = [*ENQUEUE, "cudaStreamSynchronize"]
FREE = ["cudaFree", "cudaFreeHost"] * 3


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def engine(cuda: FakeCuda) -> FakeTensorRT:
    return FakeTensorRT(cuda)


@pytest.fixture
def path(metadata: Callable[..., ArtefactMetadata], tmp_path: Path) -> Callable[..., Path]:
    """Writes an engine file whose plan says nothing."""

    def make(static_shape: tuple[int, int, int] | None = None, **changes: object) -> Path:
        profile = ShapeProfile(least=(1, 32, 32), tuned=(1, 64, 64), most=(2, 640, 640))
        info = EngineInfo(
            builder="tensorrt-rtx",
            version="1.7.1.116",
            compute_capabilities=("8.6",),
            platform=this_platform(),
            profile=None if static_shape else profile,
            precision_read_from="engine",
            source_sha256="",
            plan_bytes=0,
            plan_sha256="",
        ).model_copy(update=changes)
        document = metadata(static_shape=static_shape).model_copy(update={"engine": info})
        write_engine(tmp_path / "dim.engine", document, b"a plan")
        return tmp_path / "dim.engine"

    return make


@pytest.fixture
def opened(path: Callable[..., Path], cuda: FakeCuda, engine: FakeTensorRT) -> Opened:
    def make(static_shape: tuple[int, int, int] | None = None, **options: object) -> TensorRTBackend:
        backend = TensorRTBackend(path(static_shape), engine=engine, runtime=cuda, **options)  # type: ignore[arg-type]
        cuda.calls.clear()
        return backend

    return make


def window(height: int, width: int, count: int = 1, seed: int = 0) -> tuple[UInt8, UInt8]:
    image = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
    return image, np.full((count, height, width), 128, np.uint8)


def test_the_first_window(opened: Opened, cuda: FakeCuda) -> None:
    """Shapes, then addresses, then copies and execution, then the wait: in this order."""
    image, trimap = window(64, 96)
    alpha = opened().run(image, trimap)
    assert cuda.calls == ["cudaSetDevice", "cudaStreamCreateWithFlags", *BIND, *RUN]
    assert alpha.dtype == np.float32
    assert alpha.shape == trimap.shape
    np.testing.assert_array_equal(alpha, image[..., 0] / np.float32(255))


def test_the_same_shape_again_allocates_and_binds_nothing(opened: Opened, cuda: FakeCuda) -> None:
    backend = opened()
    first = backend.run(*window(64, 96))
    cuda.calls.clear()
    image, trimap = window(64, 96, seed=1)
    second = backend.run(image, trimap)
    assert cuda.calls == ["cudaSetDevice", *RUN]
    np.testing.assert_array_equal(second, image[..., 0] / np.float32(255))
    # The first result is the caller's own, not the buffer of the second.
    np.testing.assert_array_equal(first, window(64, 96)[0][..., 0] / np.float32(255))


class OnGpu:
    """A numpy array that passes for one in the fake GPU's memory."""

    def __init__(self, array: UInt8, cuda: FakeCuda, number: int = 0) -> None:
        self.array, self.number = array, number
        cuda.live[array.ctypes.data] = array.data.cast("B") if array.flags.c_contiguous else array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.number

    def __dlpack__(self) -> object:
        return self.array.__dlpack__()


def alpha_of(result: Any, cuda: FakeCuda) -> Any:
    return np.frombuffer(cuda.live[result.address], np.float32).reshape(result.shape)


def test_windows_that_lie_on_the_gpu_are_not_copied(opened: Opened, cuda: FakeCuda) -> None:
    backend = opened()
    image, trimap = window(64, 96, count=2)
    result = backend.run_on_device(OnGpu(image, cuda), OnGpu(trimap, cuda))
    assert cuda.calls == [
        "cudaSetDevice", "cudaStreamCreateWithFlags", "cudaMalloc",
        "shape image", "shape trimap", "address image", "address trimap", "address alpha",
        "execute", "cudaStreamSynchronize",
    ]  # fmt: skip
    np.testing.assert_array_equal(alpha_of(result, cuda), image[..., 0] / np.float32(255))
    assert result.__dlpack_device__() == (2, 0)
    # Host windows of the same shape, before and after, go through the lane's own buffers.
    np.testing.assert_array_equal(backend.run(image, trimap), image[..., 0] / np.float32(255))
    again, _ = window(64, 96, count=2, seed=1)
    other = backend.run_on_device(OnGpu(again, cuda), OnGpu(trimap, cuda))
    np.testing.assert_array_equal(alpha_of(other, cuda), again[..., 0] / np.float32(255))
    np.testing.assert_array_equal(alpha_of(result, cuda), image[..., 0] / np.float32(255))
    address = result.address
    del result
    gc.collect()
    assert address not in cuda.live


def test_a_failed_run_on_the_gpu_keeps_no_memory(
    opened: Opened, cuda: FakeCuda, engine: FakeTensorRT
) -> None:
    backend = opened()
    image, trimap = (OnGpu(array, cuda) for array in window(64, 96))
    backend.run_on_device(image, trimap)
    engine.contexts[0].refuses.add("execute_async_v3")
    gc.collect()
    before = set(cuda.live)
    with pytest.raises(BackendError, match="1 windows of 96×64 px"):
        backend.run_on_device(image, trimap)
    gc.collect()
    assert set(cuda.live) <= before


@pytest.mark.parametrize("sides", [(64, 70), (32, 96)])
def test_wrong_windows_on_the_gpu(sides: tuple[int, int], opened: Opened, cuda: FakeCuda) -> None:
    image, trimap = window(64, 96)[0], window(*sides)[1]
    with pytest.raises(InputError, match="cannot run these windows"):
        opened().run_on_device(OnGpu(image, cuda), OnGpu(trimap, cuda))
    with pytest.raises(InputError, match="device 1"):
        opened().run_on_device(OnGpu(image, cuda, number=1), OnGpu(trimap, cuda))


def test_buffers_grow_and_never_shrink(opened: Opened, cuda: FakeCuda) -> None:
    backend = opened()
    backend.run(*window(64, 64))
    cuda.calls.clear()
    backend.run(*window(32, 64))
    assert not {"cudaMalloc", "cudaFree"} & set(cuda.calls)
    assert cuda.calls[1:3] == ["shape image", "shape trimap"]
    backend.run(*window(64, 64, count=2))
    assert cuda.calls.count("cudaMalloc") == cuda.calls.count("cudaFree") == 3
    assert len(cuda.live) == 6


def test_strided_windows(opened: Opened) -> None:
    image, trimap = window(64, 192)
    alpha = opened().run(image[:, :, 32:96], trimap[:, :, 32:96])
    np.testing.assert_array_equal(alpha, image[:, :, 32:96, 0] / np.float32(255))


def test_close_frees_everything(opened: Opened, cuda: FakeCuda) -> None:
    backend = opened()
    backend.run(*window(64, 64))
    cuda.calls.clear()
    backend.close()
    backend.close()
    assert cuda.calls == ["cudaSetDevice", *FREE, "cudaStreamDestroy"]
    assert not cuda.live
    assert not cuda.streams
    with pytest.raises(BackendError, match="closed"):
        backend.run(*window(64, 64))


def test_graphs_of_a_frozen_shape(opened: Opened, cuda: FakeCuda, path: Callable[..., Path]) -> None:
    """TensorRT: the first run prepares, the second records and launches, the rest launch."""
    file = path((1, 64, 64), builder="tensorrt", version="10.14.1.48")
    engine = FakeTensorRT(cuda)
    engine.__version__ = "10.14.1.48"  # type: ignore[misc]
    backend = TensorRTBackend(file, engine=engine, runtime=cuda)
    backend.run(*window(64, 64))
    cuda.calls.clear()
    for seed in (1, 2):
        image, trimap = window(64, 64, seed=seed)
        np.testing.assert_array_equal(backend.run(image, trimap), image[..., 0] / np.float32(255))
    launch = ["cudaGraphLaunch", "cudaStreamSynchronize"]
    record = ["cudaStreamBeginCapture", *ENQUEUE, "cudaStreamEndCapture", "cudaGraphInstantiate"]
    assert cuda.calls == ["cudaSetDevice", *record, "cudaGraphDestroy", *launch, "cudaSetDevice", *launch]
    backend.close()
    assert not cuda.graphs
    assert not cuda.live


def test_a_graph_is_dropped_when_the_shape_changes(cuda: FakeCuda, path: Callable[..., Path]) -> None:
    engine = FakeTensorRT(cuda)
    engine.__version__ = "10.14.1"  # type: ignore[misc]
    file = path(builder="tensorrt", version="10.14.1")
    backend = TensorRTBackend(file, engine=engine, runtime=cuda, cuda_graphs=True)
    for shape in ((64, 64), (64, 64), (32, 64), (64, 64)):
        image, trimap = window(*shape)
        np.testing.assert_array_equal(backend.run(image, trimap), image[..., 0] / np.float32(255))
    assert not cuda.graphs
    assert cuda.calls.count("cudaStreamBeginCapture") == 1


def test_a_failed_recording_leaves_a_stream_that_runs(cuda: FakeCuda, path: Callable[..., Path]) -> None:
    engine = FakeTensorRT(cuda)
    engine.__version__ = "10.14.1"  # type: ignore[misc]
    file = path((1, 64, 64), builder="tensorrt", version="10.14.1")
    backend = TensorRTBackend(file, engine=engine, runtime=cuda)
    backend.run(*window(64, 64))
    engine.contexts[0].refuses.add("execute_async_v3")
    with pytest.raises(BackendError, match="execute_async_v3"):
        backend.run(*window(64, 64))
    assert not cuda.recording
    assert not cuda.live
    backend.run(*window(64, 64))
    assert len(engine.contexts) == 2
    backend.close()
    assert not cuda.graphs


def test_tensorrt_rtx_records_by_itself(opened: Opened, cuda: FakeCuda, engine: FakeTensorRT) -> None:
    backend = opened((1, 64, 64))
    for _ in range(3):
        backend.run(*window(64, 64))
    assert engine.contexts[0].config.cuda_graph_strategy == "whole"
    assert "cudaStreamBeginCapture" not in cuda.calls


def test_threads_share_two_lanes(opened: Opened, cuda: FakeCuda, engine: FakeTensorRT) -> None:
    backend = opened(device="cuda:1")

    def one(seed: int) -> bool:
        image, trimap = window(64, 64 + 32 * (seed % 3), seed=seed)
        alpha = backend.run(image, trimap)
        return cuda.current.device == 1 and bool((alpha == image[..., 0] / np.float32(255)).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(64)))
    assert 1 <= len(engine.contexts) <= 2
    assert len(cuda.streams) == len(engine.contexts)
    backend.close()
    assert not cuda.live


def test_a_matting_around_it(opened: Opened, pair: Pair) -> None:
    """Plans, tiles and stitches as with any other back end."""
    image, trimap = pair(900, 700)
    with Matting.from_backend(opened(), tile=640) as matting:
        alpha = matting(image, trimap)
    unknown = trimap == 128
    np.testing.assert_array_equal(alpha[unknown], (image[..., 0] / np.float32(255))[unknown])
    assert (alpha[trimap == 255] == 1).all()


@pytest.mark.parametrize(
    "name", ["cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaSetDevice"]
)
def test_a_failing_cuda_call(name: str, opened: Opened, cuda: FakeCuda) -> None:
    backend = opened()
    cuda.failing = {name}
    with pytest.raises(BackendError, match="out of memory") as caught:
        backend.run(*window(64, 64))
    assert name in str(caught.value)
    assert caught.value.fix
    cuda.failing = set()
    assert not cuda.live
    image, trimap = window(64, 64)
    np.testing.assert_array_equal(backend.run(image, trimap), image[..., 0] / np.float32(255))
    backend.close()
    assert not cuda.live


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_a_refusal_of_tensorrt(call: str, opened: Opened, engine: FakeTensorRT) -> None:
    backend = opened()
    backend.run(*window(64, 64))
    engine.contexts[0].refuses.add(call)
    with pytest.raises(BackendError, match=call):
        backend.run(*window(32, 64))


def test_a_failure_to_free_is_told_and_the_rest_is_freed(opened: Opened, cuda: FakeCuda) -> None:
    backend = opened()
    backend.run(*window(64, 64))
    cuda.failing = {"cudaFreeHost"}
    with pytest.raises(BackendError, match="cudaFreeHost"):
        backend.close()
    assert len(cuda.live) == 3
    assert not cuda.streams


def test_shapes_outside_the_profile(opened: Opened, cuda: FakeCuda) -> None:
    backend = opened()
    with pytest.raises(BackendError, match="N, H, W = ") as caught:
        backend.run(*window(672, 640))
    assert "tile=640" in str(caught.value)
    assert "--tile 672" in str(caught.value)
    with pytest.raises(BackendError, match="shape"):
        backend.run(*window(32, 32, count=3))
    assert not cuda.calls
    assert backend.preferred_batch == 2


def test_shapes_other_than_the_frozen_one(opened: Opened) -> None:
    backend = opened((1, 64, 64))
    backend.run(*window(64, 64))
    with pytest.raises(BackendError, match="without --shape"):
        backend.run(*window(64, 32))
    assert backend.preferred_batch == 1


@pytest.mark.parametrize("device", ["cpu", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", ""])
def test_other_devices_are_refused(device: str, path: Callable[..., Path], engine: FakeTensorRT) -> None:
    with pytest.raises(DeviceError, match="NVIDIA GPUs only"):
        TensorRTBackend(path(), device=device, engine=engine, runtime=engine.cuda)


def test_a_gpu_that_is_not_there(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    with pytest.raises(DeviceError, match="cuda:0, cuda:1"):
        TensorRTBackend(path(), device="cuda:2", engine=engine, runtime=engine.cuda)


def test_a_machine_without_a_driver(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    engine.cuda.failing = {"cudaGetDeviceCount"}
    with pytest.raises(DeviceError, match="no NVIDIA GPU"):
        TensorRTBackend(path(), engine=engine, runtime=engine.cuda)


def test_the_real_cuda_without_a_gpu() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="no NVIDIA GPU") as caught:
        Cuda(runtime)
    assert caught.value.why


def test_the_real_cuda_has_every_function_that_is_called(opened: Opened, cuda: FakeCuda) -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    backend = opened()
    backend.run(*window(64, 64))
    backend.close()
    for name in (call for call in cuda.calls if call.startswith("cuda")):
        assert hasattr(runtime, name), name
    for name in ("cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphLaunch"):
        assert hasattr(runtime, name), name


def test_without_the_packages_the_error_names_the_extra(
    path: Callable[..., Path], cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[tensorrt-rtx\]"):
        TensorRTBackend(path(), runtime=cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingExtraError, match=r"cuda-python.*\n.*dim-matting\[tensorrt\]"):
        cuda_runtime("tensorrt")


def test_the_other_builder_is_refused_before_anything_is_loaded(path: Callable[..., Path]) -> None:
    with pytest.raises(BackendError, match=r"TensorRT-RTX 1\.7\.1\.116"):
        TensorRTBackend(path(), builder="tensorrt")


def test_another_release_or_gpu(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    with pytest.raises(BackendError, match=r"compute capability 8\.6"):
        TensorRTBackend(path(compute_capabilities=("12.0",)), engine=engine, runtime=engine.cuda)
    with pytest.raises(BackendError, match=r"1\.6\.0"):
        TensorRTBackend(path(version="1.6.0"), engine=engine, runtime=engine.cuda)
    assert not engine.plans


def test_a_plan_that_does_not_load(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    engine.loads = False
    with pytest.raises(ArtefactError, match="of another world") as caught:
        TensorRTBackend(path(), engine=engine, runtime=engine.cuda)
    assert "just a note" not in str(caught.value)
    assert engine.plans == [b"a plan"]


def test_tensors_that_are_not_the_contract_s(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    engine.tensors["alpha"] = Kind.UINT8
    with pytest.raises(ArtefactError, match="not those of the contract"):
        TensorRTBackend(path(), engine=engine, runtime=engine.cuda)


def test_host_code_is_allowed_for_version_compatible_plans_only(
    path: Callable[..., Path], engine: FakeTensorRT
) -> None:
    TensorRTBackend(path(), engine=engine, runtime=engine.cuda)
    assert not engine.host_code_allowed
    TensorRTBackend(path(version_compatible=True), engine=engine, runtime=engine.cuda)
    assert engine.host_code_allowed


def test_no_context(opened: Opened, engine: FakeTensorRT) -> None:
    engine.makes_contexts = False
    with pytest.raises(BackendError, match="no execution context"):
        opened().run(*window(64, 64))


def test_impossible_lanes(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    with pytest.raises(InputError, match="lanes"):
        TensorRTBackend(path(), engine=engine, runtime=engine.cuda, lanes=0)


def test_host_memory_of_a_window(opened: Opened, cuda: FakeCuda) -> None:
    """Pinned memory is counted, device memory is not the host's."""
    backend = opened()
    backend.run(*window(640, 640))
    pinned = sum(len(memory) for memory in cuda.live.values()) // 2
    assert backend.window_bytes(640, 640) > pinned + 4 * 640 * 640


def test_options_that_an_engine_does_not_have(path: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="threads"):
        open_engine(path(), threads=1)
    with pytest.raises(BackendError, match="--precision fp16"):
        open_engine(path(), precision="fp16")
    with pytest.raises(DeviceError, match="NVIDIA GPUs only"):
        open_engine(path(), precision="fp32", device="cpu")
