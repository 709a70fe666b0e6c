"""The TensorRT back end: the order of its calls, with stand-ins for TensorRT and cuda.core."""

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
from dim_runtime.backends.cuda import Gpu, import_core
from dim_runtime.backends.tensorrt import TensorRTBackend, open_engine
from dim_runtime.errors import ArtefactError, BackendError, DeviceError, MissingExtraError

from .fake_cuda import FakeCore, OnGpu
from .fake_tensorrt import FakeTensorRT, Kind

Pair = Callable[..., tuple[UInt8, UInt8]]
Opened = Callable[..., TensorRTBackend]

ADDRESSES = ["address image", "address trimap", "address alpha"]
BIND = ["shape image", "shape trimap", *(["pin", "allocate"] * 3), *ADDRESSES]
ENQUEUE = ["copy", "copy", "execute", "copy"]
RUN = [*ENQUEUE, "sync"]
FREE = ["close pin", "close allocate"] * 3


@pytest.fixture
def core() -> FakeCore:
    return FakeCore()


@pytest.fixture
def engine(core: FakeCore) -> FakeTensorRT:
    return FakeTensorRT(core)


@pytest.fixture
def path(metadata: Callable[..., ArtefactMetadata], tmp_path: Path) -> Callable[..., Path]:
    """Write an engine file whose plan is arbitrary bytes."""

    def make(static_shape: tuple[int, int, int] | None = None, **changes: object) -> Path:
        profile = ShapeProfile(min=(1, 32, 32), opt=(1, 64, 64), max=(2, 640, 640))
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
def opened(path: Callable[..., Path], core: FakeCore, engine: FakeTensorRT) -> Opened:
    def make(static_shape: tuple[int, int, int] | None = None, **options: object) -> TensorRTBackend:
        backend = TensorRTBackend(path(static_shape), engine=engine, core=core, **options)  # type: ignore[arg-type]
        core.calls.clear()
        return backend

    return make


def window(height: int, width: int, count: int = 1, seed: int = 0) -> tuple[UInt8, UInt8]:
    image = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
    return image, np.full((count, height, width), 128, np.uint8)


def test_the_first_window(opened: Opened, core: FakeCore) -> None:
    """Shapes, then addresses, then copies and execution, then the wait: in this order."""
    image, trimap = window(64, 96)
    alpha = opened().run(image, trimap)
    assert core.calls == ["set_current", "create_stream", *BIND, *RUN]
    assert alpha.dtype == np.float32
    assert alpha.shape == trimap.shape
    np.testing.assert_array_equal(alpha, image[..., 0] / np.float32(255))


def test_the_same_shape_again_allocates_and_binds_nothing(opened: Opened, core: FakeCore) -> None:
    backend = opened()
    first = backend.run(*window(64, 96))
    core.calls.clear()
    image, trimap = window(64, 96, seed=1)
    second = backend.run(image, trimap)
    assert core.calls == ["set_current", *RUN]
    np.testing.assert_array_equal(second, image[..., 0] / np.float32(255))
    # The first result is the caller's own, not the buffer of the second.
    np.testing.assert_array_equal(first, window(64, 96)[0][..., 0] / np.float32(255))


def expected(image: UInt8) -> Any:
    """Alpha as the fake engine computes it."""
    return image[..., 0] / np.float32(255)


def test_windows_that_lie_on_the_gpu_are_not_copied(opened: Opened, core: FakeCore) -> None:
    backend = opened()
    image, trimap = window(64, 96, count=2)
    result = backend.run_on_device(OnGpu(image, core), OnGpu(trimap, core))
    # The default stream allocates, our stream waits for that.
    bind = ["shape image", "shape trimap", *ADDRESSES]
    assert core.calls == ["set_current", "create_stream", "allocate", "wait", *bind, "execute", "sync"]
    np.testing.assert_array_equal(result.values(), expected(image))
    assert result.__dlpack_device__() == (2, 0)
    # Host windows of the same shape, before and after, go through the slot's own buffers.
    np.testing.assert_array_equal(backend.run(image, trimap), expected(image))
    again, _ = window(64, 96, count=2, seed=1)
    other = backend.run_on_device(OnGpu(again, core), OnGpu(trimap, core))
    np.testing.assert_array_equal(other.values(), expected(again))
    np.testing.assert_array_equal(result.values(), expected(image))
    address = result.ptr
    del result
    gc.collect()
    assert address not in core.live


def test_the_producers_of_arrays_order_their_work_before_the_slot_s_stream(
    opened: Opened, core: FakeCore
) -> None:
    """DLPack's stream argument: without it, arrays that are still being computed could be read."""
    backend = opened()
    image, trimap = (OnGpu(array, core) for array in window(64, 96))
    backend.run_on_device(image, trimap)
    (slot,) = backend._idle
    assert core.waited == [slot._stream.handle] * 2


def test_a_failed_run_on_the_gpu_keeps_no_memory(
    opened: Opened, core: FakeCore, engine: FakeTensorRT
) -> None:
    backend = opened()
    image, trimap = (OnGpu(array, core) for array in window(64, 96))
    backend.run_on_device(image, trimap)
    engine.contexts[0].refuses.add("execute_async_v3")
    before = core.held()
    with pytest.raises(BackendError, match="1 windows of 96×64 px"):
        backend.run_on_device(image, trimap)
    assert core.held() <= before


@pytest.mark.parametrize("sides", [(64, 70), (32, 96)])
def test_wrong_windows_on_the_gpu(
    sides: tuple[int, int], opened: Opened, core: FakeCore, engine: FakeTensorRT
) -> None:
    image, trimap = window(64, 96)[0], window(*sides)[1]
    backend = opened()
    with pytest.raises(InputError, match="cannot run these windows"):
        backend.run_on_device(OnGpu(image, core), OnGpu(trimap, core))
    with pytest.raises(InputError, match="device 1"):
        backend.run_on_device(OnGpu(image, core, number=1), OnGpu(trimap, core))
    with pytest.raises(InputError, match="kind 1"):
        backend.run_on_device(image, trimap)
    # A refused array costs no slot.
    assert len(engine.contexts) == 1


@pytest.mark.parametrize(
    ("array", "reported"),
    [
        (np.zeros((2, 32, 32), np.float32), "uint8"),
        (np.zeros((2, 32, 32), np.int8), "uint8"),
        (np.zeros((2, 32, 64), np.uint8)[..., ::2], "contiguous"),
        ([1, 2], "supports DLPack"),
    ],
)
def test_arrays_of_another_kind_are_refused(
    array: Any, reported: str, opened: Opened, core: FakeCore
) -> None:
    image = OnGpu(window(32, 32, count=2)[0], core)
    trimap = OnGpu(array, core) if isinstance(array, np.ndarray) else array
    with pytest.raises(InputError, match=reported):
        opened().run_on_device(image, trimap)


def test_an_axis_of_one_entry_may_have_any_stride(opened: Opened, core: FakeCore) -> None:
    image, trimap = window(64, 96, count=4)
    result = opened().run_on_device(OnGpu(image[::2][:1], core), OnGpu(trimap[::2][:1], core))
    np.testing.assert_array_equal(result.values(), expected(image[:1]))


def test_the_real_view_borrows_and_gives_back() -> None:
    """What the stand-in takes from the real package: no copy, and the owner is free again afterwards."""
    views = pytest.importorskip("cuda.core.utils").StridedMemoryView
    array = np.zeros((2, 3, 4), np.uint8)
    view = views.from_dlpack(array, stream_ptr=-1)
    assert (view.ptr, tuple(view.shape), view.dtype) == (array.ctypes.data, (2, 3, 4), np.uint8)
    with pytest.raises(ValueError, match="resize"):
        array.resize((1, 1, 1))
    del view
    gc.collect()
    array.resize((1, 1, 1))


def test_the_real_array_frees_its_memory_after_its_last_user() -> None:
    """A result of `Gpu.new_alpha` is a real Buffer and a real StridedMemoryView: here over host memory."""
    real = pytest.importorskip("cuda.core")

    class Host(real.MemoryResource):  # type: ignore[misc, name-defined]
        is_device_accessible, is_host_accessible, device_id = False, True, -1

        def __init__(self) -> None:
            self.freed: list[int] = []

        def allocate(self, size: int, *, stream: Any = None) -> Any:
            self.memory = np.arange(size // 4, dtype=np.float32)
            return real.Buffer.from_handle(self.memory.ctypes.data, size, mr=self)

        def deallocate(self, pointer: Any, size: int, *, stream: Any = None) -> None:
            self.freed.append(int(pointer))

    host = Host()
    made = real.utils.StridedMemoryView.from_buffer(host.allocate(96), (2, 3, 4), dtype=np.dtype(np.float32))
    seen = np.from_dlpack(made)
    np.testing.assert_array_equal(seen, np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    del made
    gc.collect()
    assert not host.freed
    del seen
    gc.collect()
    assert host.freed == [host.memory.ctypes.data]


def test_buffers_grow_and_never_shrink(opened: Opened, core: FakeCore) -> None:
    backend = opened()
    backend.run(*window(64, 64))
    core.calls.clear()
    backend.run(*window(32, 64))
    assert not {"allocate", "close allocate"} & set(core.calls)
    assert core.calls[1:3] == ["shape image", "shape trimap"]
    backend.run(*window(64, 64, count=2))
    assert core.calls.count("allocate") == core.calls.count("close allocate") == 3
    assert core.held() == 6


def test_strided_windows(opened: Opened) -> None:
    image, trimap = window(64, 192)
    alpha = opened().run(image[:, :, 32:96], trimap[:, :, 32:96])
    np.testing.assert_array_equal(alpha, image[:, :, 32:96, 0] / np.float32(255))


def test_close_frees_everything(opened: Opened, core: FakeCore) -> None:
    backend = opened()
    backend.run(*window(64, 64))
    core.calls.clear()
    backend.close()
    backend.close()
    assert core.calls == ["set_current", *FREE, "close stream"]
    assert not core.held()
    assert not core.streams
    with pytest.raises(BackendError, match="closed"):
        backend.run(*window(64, 64))


@pytest.fixture
def frozen(core: FakeCore, path: Callable[..., Path]) -> tuple[TensorRTBackend, FakeTensorRT]:
    """Return an engine of TensorRT for one shape, which replays recorded launches."""
    engine = FakeTensorRT(core)
    engine.__version__ = "10.14.1.48"  # type: ignore[misc]
    file = path((1, 64, 64), builder="tensorrt", version="10.14.1.48")
    return TensorRTBackend(file, engine=engine, core=core), engine


Frozen = tuple[TensorRTBackend, FakeTensorRT]


def test_graphs_of_a_frozen_shape(frozen: Frozen, core: FakeCore) -> None:
    """The first run prepares, the second records and launches, the rest launch."""
    backend, _ = frozen
    backend.run(*window(64, 64))
    core.calls.clear()
    for seed in (1, 2):
        image, trimap = window(64, 64, seed=seed)
        np.testing.assert_array_equal(backend.run(image, trimap), expected(image))
    launch = ["launch", "sync"]
    record = ["record thread_local", *ENQUEUE, "recorded"]
    assert core.calls == ["set_current", *record, *launch, "set_current", *launch]
    backend.close()
    assert not core.graphs
    assert not core.held()


def test_a_graph_is_dropped_when_the_shape_is_bound_anew(frozen: Frozen, core: FakeCore) -> None:
    """Arrays on the GPU have other addresses than the recorded ones."""
    backend, _ = frozen
    for seed in range(3):
        backend.run(*window(64, 64, seed=seed))
    assert core.graphs == 1
    image, trimap = window(64, 64, seed=5)
    result = backend.run_on_device(OnGpu(image, core), OnGpu(trimap, core))
    assert not core.graphs
    np.testing.assert_array_equal(result.values(), expected(image))
    np.testing.assert_array_equal(backend.run(image, trimap), expected(image))


def test_windows_of_free_shapes_are_not_recorded(path: Callable[..., Path], core: FakeCore) -> None:
    engine = FakeTensorRT(core)
    engine.__version__ = "10.14.1"  # type: ignore[misc]
    backend = TensorRTBackend(path(builder="tensorrt", version="10.14.1"), engine=engine, core=core)
    for shape in ((64, 64), (64, 64), (32, 64), (64, 64)):
        image, trimap = window(*shape)
        np.testing.assert_array_equal(backend.run(image, trimap), expected(image))
    assert "record thread_local" not in core.calls


def test_a_failed_recording_leaves_a_stream_that_runs(frozen: Frozen, core: FakeCore) -> None:
    backend, engine = frozen
    backend.run(*window(64, 64))
    engine.contexts[0].refuses.add("execute_async_v3")
    with pytest.raises(BackendError, match="execute_async_v3"):
        backend.run(*window(64, 64))
    assert not core.held()
    backend.run(*window(64, 64))
    assert len(engine.contexts) == 2
    assert all(stream.recording is None for stream in core.streams.values())
    backend.close()
    assert not core.graphs


def test_tensorrt_rtx_records_by_itself(opened: Opened, core: FakeCore, engine: FakeTensorRT) -> None:
    backend = opened((1, 64, 64))
    for _ in range(3):
        backend.run(*window(64, 64))
    assert engine.contexts[0].config.cuda_graph_strategy == "whole"
    assert "record thread_local" not in core.calls


def test_tensorrt_rtx_compiles_each_kernel_once_and_never_swaps_it(
    opened: Opened, engine: FakeTensorRT
) -> None:
    backend = opened()
    with backend._slot(), backend._slot():
        first, second = (context.config for context in engine.contexts)
    assert first.cache is second.cache
    assert first.dynamic_shapes_kernel_specialization_strategy == "none"
    assert not hasattr(first, "cuda_graph_strategy")


def test_threads_share_two_slots(opened: Opened, core: FakeCore, engine: FakeTensorRT) -> None:
    backend = opened(device="cuda:1")

    def one(seed: int) -> bool:
        image, trimap = window(64, 64 + 32 * (seed % 3), seed=seed)
        alpha = backend.run(image, trimap)
        return core.current.device == 1 and bool((alpha == image[..., 0] / np.float32(255)).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(64)))
    assert 1 <= len(engine.contexts) <= 2
    assert len(core.streams) == len(engine.contexts)
    backend.close()
    assert not core.held()


def test_a_matting_around_it(opened: Opened, pair: Pair) -> None:
    """Plans, tiles and stitches as with any other back end."""
    image, trimap = pair(900, 700)
    with Matting.from_backend(opened(), tile=640) as matting:
        alpha = matting(image, trimap)
    unknown = trimap == 128
    np.testing.assert_array_equal(alpha[unknown], (image[..., 0] / np.float32(255))[unknown])
    assert (alpha[trimap == 255] == 1).all()


@pytest.mark.parametrize("name", ["allocate", "pin", "copy", "sync", "set_current"])
def test_a_failing_cuda_call(name: str, opened: Opened, core: FakeCore) -> None:
    backend = opened()
    core.failing = {name}
    with pytest.raises(BackendError, match="CUDA_ERROR_OUT_OF_MEMORY") as caught:
        backend.run(*window(64, 64))
    assert caught.value.fix
    core.failing = set()
    assert not core.held()
    image, trimap = window(64, 64)
    np.testing.assert_array_equal(backend.run(image, trimap), expected(image))
    backend.close()
    assert not core.held()


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_a_refusal_of_tensorrt(call: str, opened: Opened, engine: FakeTensorRT) -> None:
    backend = opened()
    backend.run(*window(64, 64))
    engine.contexts[0].refuses.add(call)
    with pytest.raises(BackendError, match=call):
        backend.run(*window(32, 64))


def test_a_failure_to_release_is_reported_and_the_stream_is_closed(opened: Opened, core: FakeCore) -> None:
    backend = opened()
    backend.run(*window(64, 64))
    core.failing = {"close pin"}
    with pytest.raises(BackendError, match="release memory"):
        backend.close()
    assert "close stream" in core.calls


def test_shapes_outside_the_profile(opened: Opened, core: FakeCore) -> None:
    backend = opened()
    with pytest.raises(BackendError, match="N, H, W = ") as caught:
        backend.run(*window(672, 640))
    assert "tile=640" in str(caught.value)
    assert "--tile 672" in str(caught.value)
    with pytest.raises(BackendError, match="shape"):
        backend.run(*window(32, 32, count=3))
    assert not core.calls
    assert backend.preferred_batch == 2


def test_shapes_other_than_the_frozen_one(opened: Opened) -> None:
    backend = opened((1, 64, 64))
    backend.run(*window(64, 64))
    with pytest.raises(BackendError, match="without --shape"):
        backend.run(*window(64, 32))
    assert backend.preferred_batch == 1


@pytest.mark.parametrize("device", ["cpu", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", ""])
def test_other_devices_are_refused(device: str, path: Callable[..., Path], engine: FakeTensorRT) -> None:
    with pytest.raises(DeviceError, match="cuda:N"):
        TensorRTBackend(path(), device=device, engine=engine, core=engine.core)


def test_a_gpu_that_is_not_there(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    with pytest.raises(DeviceError, match="cuda:0, cuda:1"):
        TensorRTBackend(path(), device="cuda:2", engine=engine, core=engine.core)


def test_a_machine_without_a_driver(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    engine.core.failing = {"devices"}
    with pytest.raises(DeviceError, match="no NVIDIA GPU") as caught:
        TensorRTBackend(path(), engine=engine, core=engine.core)
    assert "580" in str(caught.value.fix)


def test_the_real_cuda_without_a_gpu() -> None:
    core = pytest.importorskip("cuda.core")
    try:
        found = core.Device.get_all_devices()
    except Exception:
        found = ()
    if found:
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="GPU") as caught:
        Gpu(core)
    assert "580" in str(caught.value.fix)


def test_without_the_packages_the_error_names_the_extra(
    path: Callable[..., Path], core: FakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[tensorrt-rtx\]"):
        TensorRTBackend(path(), core=core)
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(MissingExtraError, match=r"(?s)cuda-core.*dim-matting\[tensorrt\]"):
        import_core("tensorrt")


def test_the_other_builder_is_refused_before_anything_is_loaded(path: Callable[..., Path]) -> None:
    with pytest.raises(BackendError, match=r"TensorRT-RTX 1\.7\.1\.116"):
        TensorRTBackend(path(), builder="tensorrt")


def test_another_release_or_gpu(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    with pytest.raises(BackendError, match=r"compute capability 8\.6"):
        TensorRTBackend(path(compute_capabilities=("12.0",)), engine=engine, core=engine.core)
    with pytest.raises(BackendError, match=r"1\.6\.0"):
        TensorRTBackend(path(version="1.6.0"), engine=engine, core=engine.core)
    assert not engine.plans


def test_a_plan_that_does_not_load(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    engine.loads = False
    with pytest.raises(ArtefactError, match="of another world") as caught:
        TensorRTBackend(path(), engine=engine, core=engine.core)
    assert "just a note" not in str(caught.value)
    assert engine.plans == [b"a plan"]


def test_tensors_that_are_not_the_contract_s(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    engine.tensors["alpha"] = Kind.UINT8
    with pytest.raises(ArtefactError, match="not those of the contract"):
        TensorRTBackend(path(), engine=engine, core=engine.core)


def test_host_code_is_allowed_for_version_compatible_plans_only(
    path: Callable[..., Path], engine: FakeTensorRT
) -> None:
    TensorRTBackend(path(), engine=engine, core=engine.core)
    assert not engine.host_code_allowed
    TensorRTBackend(path(version_compatible=True), engine=engine, core=engine.core)
    assert engine.host_code_allowed


def test_no_context(opened: Opened, engine: FakeTensorRT) -> None:
    engine.makes_contexts = False
    with pytest.raises(BackendError, match="no execution context"):
        opened().run(*window(64, 64))


def test_a_runtime_that_does_not_start(path: Callable[..., Path], engine: FakeTensorRT) -> None:
    engine.starts = False
    with pytest.raises(BackendError, match="no driver"):
        TensorRTBackend(path(), engine=engine, core=engine.core)


def test_host_memory_of_a_window(opened: Opened, core: FakeCore) -> None:
    """Pinned memory is counted, device memory is not the host's."""
    backend = opened()
    backend.run(*window(640, 640))
    assert core.held("pin") == 3
    assert backend.window_bytes(640, 640) > (3 + 1 + 4 + 4) * 640 * 640


def test_options_that_an_engine_does_not_have(path: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="threads"):
        open_engine(path(), threads=1)
    with pytest.raises(BackendError, match="--precision fp16"):
        open_engine(path(), precision="fp16")
    with pytest.raises(DeviceError, match="NVIDIA GPUs only"):
        open_engine(path(), precision="fp32", device="cpu")
