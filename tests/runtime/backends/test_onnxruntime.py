"""ONNX Runtime: what it refuses, buffers on a device, and CUDA's calls with a fake engine."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dim.errors import InputError
from dim_runtime.backends import io_binding, onnxruntime
from dim_runtime.backends.cuda import Gpu
from dim_runtime.backends.io_binding import CUDA_PROVIDER, BoundSession
from dim_runtime.backends.onnxruntime import (
    CPU_PROVIDER,
    KeptMemory,
    OnnxRuntimeBackend,
    register_arena,
)
from dim_runtime.backends.open import default_model, open_backend
from dim_runtime.errors import ArtefactError, BackendError, DeviceError, MissingExtraError
from dim_runtime.memory import release_free_memory

from .fake_cuda import FakeCore, OnGpu


def altered(tmp_path: Path, old: bytes, new: bytes) -> Path:
    """Return the embedded model with other metadata of the same length."""
    content = default_model().read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    path = tmp_path / "altered.onnx"
    path.write_bytes(content.replace(old, new))
    return path


def windows(count: int, height: int, width: int) -> tuple[Any, Any]:
    """Random colours; background on the left, foreground on the right."""
    image = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)
    trimap = np.full((count, height, width), 128, np.uint8)
    trimap[..., :10], trimap[..., -10:] = 0, 255
    return image, trimap


@pytest.fixture(scope="module")
def backend() -> OnnxRuntimeBackend:
    pytest.importorskip("onnxruntime")
    return OnnxRuntimeBackend(default_model(), threads=1)


def test_a_window_gives_alpha_and_known_pixels(backend: OnnxRuntimeBackend) -> None:
    image, trimap = windows(1, 64, 96)
    alpha = backend.run(image, trimap)
    assert alpha.shape == trimap.shape
    assert alpha.dtype == np.float32
    assert ((alpha >= 0) & (alpha <= 1)).all()
    assert (alpha[trimap == 0] == 0).all()
    assert (alpha[trimap == 255] == 1).all()


def test_a_batch_is_its_windows(backend: OnnxRuntimeBackend) -> None:
    image, trimap = windows(3, 64, 32)
    singles = [backend.run(image[k : k + 1], trimap[k : k + 1])[0] for k in range(3)]
    np.testing.assert_array_equal(backend.run(image, trimap), np.stack(singles))


SHRINK = "memory.enable_memory_arena_shrinkage"


@pytest.fixture
def returned(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that grows with each run: whether the run returns the arena's memory."""
    engine = pytest.importorskip("onnxruntime")
    run, seen = engine.InferenceSession.run, []

    def spy(session: Any, names: Any, inputs: Any, options: Any = None) -> Any:
        try:
            seen.append(options.get_run_config_entry(SHRINK) == "cpu:0")
        except RuntimeError:
            seen.append(False)
        return run(session, names, inputs, options)

    monkeypatch.setattr(engine.InferenceSession, "run", spy)
    return seen


def test_a_large_window_returns_its_memory(
    backend: OnnxRuntimeBackend, returned: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime frees a window's memory after a run only if that run requests it."""
    backend.release_memory()
    del returned[:]
    monkeypatch.setattr(onnxruntime, "KEPT_BYTES", 0)
    for height in (32, 64):
        backend.run(*windows(1, height, 96))
    # The embedded network and the propagation of its alpha are two sessions.
    assert returned == [True] * 4


def test_small_windows_of_one_shape_keep_their_memory(
    backend: OnnxRuntimeBackend, returned: list[bool]
) -> None:
    """Before a window of another shape, and on request, it is returned by a graph of one node."""
    backend.release_memory()
    del returned[:]
    for height in (32, 32, 64):
        backend.run(*windows(1, height, 96))
    backend.release_memory()
    backend.release_memory()
    assert returned == [False] * 4 + [True] + [False] * 2 + [True]


def test_kept_memory_is_used_again(backend: OnnxRuntimeBackend) -> None:
    resource = pytest.importorskip("resource")
    pair = windows(1, 512, 512)

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        backend.run(*pair)
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt) - before

    backend.release_memory()
    release_free_memory()
    first, _, third = faults(), faults(), faults()
    assert third < first / 2


def test_of_windows_that_run_at_once_one_keeps_its_memory() -> None:
    memory = KeptMemory(pytest.importorskip("onnxruntime"))
    shape = (1, 32, 32)
    first, second = memory.run("network", shape, 1), memory.run("network", shape, 1)
    keeping, returning = first.__enter__(), second.__enter__()
    assert keeping is not returning
    # What the first leaves would remain beside the memory of the second.
    first.__exit__(None, None, None)
    assert not memory.keeps
    second.__exit__(None, None, None)
    assert not memory.keeps
    with memory.run("network", shape, 1):
        pass
    assert memory.keeps
    with memory.run("network", (1, 32, 64), onnxruntime.KEPT_BYTES + 1):
        pass
    assert not memory.keeps


def test_a_failing_run_is_a_typed_error(backend: OnnxRuntimeBackend) -> None:
    with pytest.raises(BackendError, match=r"(?s)failed while running.*1 windows of 32×33 px"):
        backend.run(np.zeros((1, 33, 32, 3), np.uint8), np.zeros((1, 33, 32), np.uint8))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bf16_does_not_run(device: str, tmp_path: Path) -> None:
    """CUDA has no bf16 kernels of Resize and Reciprocal: refused before ONNX Runtime tries."""
    path = altered(tmp_path, b'"precision":"fp32"', b'"precision":"bf16"')
    with pytest.raises(BackendError, match="OpenVINO and TensorRT"):
        open_backend(path, device=device)


def test_another_precision_is_not_made_up() -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(BackendError, match="--precision bf16"):
        open_backend(default_model(), precision="bf16")


def test_damage_inside_the_graph_is_a_typed_error(tmp_path: Path) -> None:
    content = bytearray(default_model().read_bytes())
    content[200:4000] = b"\xff" * 3800
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtefactError):
        open_backend(path)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:", "tpu:0", "cuda:²", ""])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(DeviceError, match="cuda:N"):
        open_backend(default_model(), device=device)


def test_cuda_is_an_error_where_it_is_not() -> None:
    engine = pytest.importorskip("onnxruntime")
    if CUDA_PROVIDER in engine.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(DeviceError, match=CUDA_PROVIDER):
        open_backend(default_model(), device="cuda:0")


def test_without_onnxruntime_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[cpu\]"):
        open_backend(default_model())


def test_arrays_on_a_gpu_need_a_back_end_there(backend: OnnxRuntimeBackend) -> None:
    with pytest.raises(BackendError, match="numpy arrays"):
        backend.run_on_device(*windows(1, 32, 32))


# Bound buffers in host memory, with ONNX Runtime's CPU provider: the same calls as on a GPU.


@pytest.fixture
def core() -> FakeCore:
    return FakeCore(eager=True)


@pytest.fixture
def bound(core: FakeCore) -> BoundSession:
    engine = pytest.importorskip("onnxruntime")
    if not hasattr(engine.OrtValue, "from_dlpack"):
        pytest.skip("ONNX Runtime has DLPack in Python since 1.26")
    session = engine.InferenceSession(str(default_model()), providers=[CPU_PROVIDER])
    gpu = Gpu(core)
    return BoundSession(gpu, gpu.new_stream(), session, kind="cpu")


def test_bound_buffers_give_the_same_alpha(bound: BoundSession, backend: OnnxRuntimeBackend) -> None:
    large, small = windows(2, 64, 96), windows(1, 32, 64)
    first = bound.run(*large)
    np.testing.assert_array_equal(bound.run(*small), backend.run(*small))
    # The result is not a view of the buffer that the next window of this shape writes into.
    bound.run(large[0][::-1], large[1][::-1])
    np.testing.assert_array_equal(first, backend.run(*large))


def test_buffers_are_those_of_the_largest_window(bound: BoundSession, core: FakeCore) -> None:
    for side in [32, 64, 32, 96, 64]:
        bound.run(*windows(1, 32, side))
    assert core.held() == 6
    assert core.calls.count("allocate") == 9
    bound.close()
    bound.close()
    assert core.held() == 0
    assert not core.streams


def test_arrays_with_dlpack_go_in_and_out(
    bound: BoundSession, backend: OnnxRuntimeBackend, core: FakeCore
) -> None:
    image, trimap = windows(2, 32, 64)
    alpha = bound.run_on_device(OnGpu(image, core), OnGpu(trimap, core))
    np.testing.assert_array_equal(alpha.values(), backend.run(image, trimap))
    # The producers had to finish before the session's stream continues.
    assert core.waited == [bound._stream.handle] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image, trimap: (image.astype(np.float32), trimap), "uint8"),
        (lambda image, trimap: (image[..., ::2, :], trimap), "contiguous"),
        (lambda image, trimap: (image, trimap[:, :16].copy()), "multiples of 32"),
        (lambda image, trimap: (image[:, :16].copy(), trimap[:, :16].copy()), "multiples of 32"),
    ],
    ids=["float", "strided", "another height", "half a stride"],
)
def test_wrong_device_arrays(
    bound: BoundSession, core: FakeCore, change: Callable[..., Any], message: str
) -> None:
    image, trimap = change(*windows(1, 32, 64))
    with pytest.raises(InputError, match=message):
        bound.run_on_device(OnGpu(image, core), OnGpu(trimap, core))


def test_arrays_elsewhere_are_errors(bound: BoundSession, core: FakeCore) -> None:
    image, trimap = windows(1, 32, 64)
    with pytest.raises(InputError, match=r"(?s)device 1.*cuda:1"):
        bound.run_on_device(OnGpu(image, core, number=1), OnGpu(trimap, core))
    with pytest.raises(InputError, match="supports DLPack"):
        bound.run_on_device(OnGpu(image, core), [[1]])


# CUDA with a fake engine.


class _Session:
    """Alpha is the red channel where the trimap is unknown; CUDA starts."""

    started = (CUDA_PROVIDER, CPU_PROVIDER)

    def __init__(self, _path: str, _options: Any, providers: list[Any], enable_fallback: int) -> None:
        assert enable_fallback == 0
        self.providers = providers

    def get_providers(self) -> list[str]:
        return list(self.started)

    def io_binding(self) -> Any:
        bound: dict[str, Any] = {}

        def bind(name: str, kind: str, number: int, dtype: type, shape: Any, address: int) -> None:
            assert (kind, number) == ("cuda", 3)
            size = np.dtype(dtype).itemsize * int(np.prod(shape))
            memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
            bound[name] = memory.view(dtype).reshape(shape)

        return SimpleNamespace(bound=bound, bind_input=bind, bind_output=bind)

    def run_with_iobinding(self, binding: Any, _options: Any) -> None:
        bound = binding.bound
        bound["alpha"][:] = np.where(bound["trimap"] == 128, bound["image"][..., 0] / 255, 0)


class _CpuSession(_Session):
    started = (CPU_PROVIDER,)  # type: ignore[assignment]


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], Any]:
    """Installs an ONNX Runtime with CUDA, and four GPUs."""

    def install(session: type) -> Any:
        loaded: list[str] = []
        engine = SimpleNamespace(
            __version__="1.0",
            get_available_providers=lambda: [CUDA_PROVIDER, CPU_PROVIDER],
            preload_dlls=lambda: loaded.append("dlls"),
            SessionOptions=SimpleNamespace,
            RunOptions=SimpleNamespace,
            InferenceSession=session,
            loaded=loaded,
        )
        monkeypatch.setitem(sys.modules, "onnxruntime", engine)
        monkeypatch.setattr(io_binding, "import_core", lambda extra: FakeCore(devices=4, eager=True))
        return engine

    return install


def test_cuda_runs_through_bound_buffers_on_its_device(fake_cuda: Callable[[type], Any]) -> None:
    engine = fake_cuda(_Session)
    opened: Any = open_backend(default_model(), device="cuda:3")
    assert engine.loaded == ["dlls"]
    name, options = opened._bound._session.providers[0]
    assert (name, options["device_id"], options["use_tf32"]) == (CUDA_PROVIDER, "3", "0")
    assert options["user_compute_stream"] == str(opened._bound._stream.handle)
    image, trimap = windows(2, 32, 64)
    for _ in range(2):
        alpha = opened.run(image, trimap)
    np.testing.assert_allclose(alpha, np.where(trimap == 128, image[..., 0] / 255, 0), atol=1e-7)
    # What the tensors take is the GPU's memory; the host holds the arrays only.
    assert opened.window_bytes(1536, 1536) < 60_000_000
    opened.close()
    opened.close()


def test_cuda_that_does_not_start_is_not_replaced_by_the_cpu(fake_cuda: Callable[[type], Any]) -> None:
    fake_cuda(_CpuSession)
    with pytest.raises(DeviceError, match="did not load"):
        open_backend(default_model(), device="cuda")


def test_a_gpu_that_is_not_there(fake_cuda: Callable[[type], Any]) -> None:
    fake_cuda(_Session)
    with pytest.raises(DeviceError, match="cuda:3"):
        open_backend(default_model(), device="cuda:4")


class _EngineThatRefuses:
    """ONNX Runtime 1.19 where an allocator is shared already, or where something else is wrong."""

    def __init__(self, message: str) -> None:
        self.message = message
        self.OrtAllocatorType = self.OrtMemType = self
        self.ORT_ARENA_ALLOCATOR = self.DEFAULT = 0

    def OrtMemoryInfo(self, *_: object) -> None: ...  # noqa: N802

    def OrtArenaCfg(self, *_: object) -> None: ...  # noqa: N802

    def create_and_register_allocator(self, *_: object) -> None:
        raise RuntimeError(self.message)


def test_an_arena_that_is_shared_already_is_used() -> None:
    register_arena(_EngineThatRefuses("An allocator has already been registered for sharing."))
    with pytest.raises(RuntimeError, match="no memory"):
        register_arena(_EngineThatRefuses("no memory"))


def test_a_back_end_that_was_closed_meanwhile_is_an_error_that_states_so() -> None:
    pytest.importorskip("onnxruntime")
    closed = OnnxRuntimeBackend(default_model(), threads=1)
    closed.close()
    with pytest.raises(BackendError, match="it was closed"):
        closed.run(np.zeros((1, 64, 64, 3), np.uint8), np.full((1, 64, 64), 128, np.uint8))
