"""ONNX Runtime: what it refuses, buffers on a device, and CUDA's calls with a fake engine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dim.errors import InputError
from dim_runtime.backends.io_binding import KEPT_SHAPES, BoundSession, is_on_gpu
from dim_runtime.backends.onnxruntime import CPU_PROVIDER, CUDA_PROVIDER, OnnxRuntimeBackend, _register_arena
from dim_runtime.backends.open import open_backend
from dim_runtime.errors import ArtefactError, BackendError, DeviceError, MissingExtraError
from dim_runtime.matting import default_model


def altered(tmp_path: Path, old: bytes, new: bytes) -> Path:
    """The embedded model with other metadata of the same length."""
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


def test_a_failing_run_is_a_typed_error(backend: OnnxRuntimeBackend) -> None:
    with pytest.raises(BackendError, match=r"(?s)failed while running.*1 windows of 32×33 px"):
        backend.run(np.zeros((1, 33, 32, 3), np.uint8), np.zeros((1, 33, 32), np.uint8))


def test_bf16_does_not_run_on_the_cpu(tmp_path: Path) -> None:
    path = altered(tmp_path, b'"precision":"fp32"', b'"precision":"bf16"')
    with pytest.raises(BackendError, match="OpenVINO and TensorRT"):
        open_backend(path)


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


# Bound buffers, in the memory of the CPU: the same calls as on a GPU.


@pytest.fixture
def bound() -> BoundSession:
    engine = pytest.importorskip("onnxruntime")
    session = engine.InferenceSession(str(default_model()), providers=[CPU_PROVIDER])
    return BoundSession(engine, session, 0, kind="cpu")


def test_bound_buffers_give_the_same_alpha(bound: BoundSession, backend: OnnxRuntimeBackend) -> None:
    large, small = windows(2, 64, 96), windows(1, 32, 64)
    first = bound.run(*large)
    np.testing.assert_array_equal(bound.run(*small), backend.run(*small))
    # The result is not a view of the buffer that the next window of this shape writes into.
    bound.run(large[0][::-1], large[1][::-1])
    np.testing.assert_array_equal(first, backend.run(*large))


def test_buffers_are_made_once_for_a_shape_and_are_few(bound: BoundSession) -> None:
    made: list[Any] = []
    bind = bound._bound
    bound._bound = lambda *values: made.append(values) or bind(*values)  # type: ignore[method-assign, func-returns-value]
    for side in [32, 64, 32, 64]:
        bound.run(*windows(1, 32, side))
    assert len(made) == 2
    for number in range(KEPT_SHAPES + 3):
        bound.run(*windows(1, 32, 32 * (number + 1)))
    assert len(bound._kept) == KEPT_SHAPES


def test_arrays_that_speak_dlpack_go_in_and_out(bound: BoundSession, backend: OnnxRuntimeBackend) -> None:
    image, trimap = windows(2, 32, 64)
    alpha = bound.run_on_device(image, trimap)
    np.testing.assert_array_equal(np.from_dlpack(alpha), backend.run(image, trimap))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image, trimap: (image.astype(np.float32), trimap), "uint8"),
        (lambda image, trimap: (image[..., ::2, :], trimap), "contiguous"),
        (lambda image, trimap: (image, trimap[:, :16]), "multiples of 32"),
        (lambda image, trimap: (image[:, :16], trimap[:, :16]), "multiples of 32"),
        (lambda image, trimap: (image, [[1]]), "speaks DLPack"),
    ],
    ids=["float", "strided", "another height", "half a stride", "list"],
)
def test_wrong_device_arrays(bound: BoundSession, change: Callable[..., Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bound.run_on_device(*change(*windows(1, 32, 64)))


class _Elsewhere:
    """Says that it lies on the second GPU."""

    def __dlpack__(self) -> None: ...

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 1)


def test_an_array_on_another_gpu_is_an_error(bound: BoundSession) -> None:
    with pytest.raises(InputError, match=r"(?s)device 1.*cuda:1"):
        bound.run_on_device(_Elsewhere(), _Elsewhere())


def test_arrays_tell_where_they_are() -> None:
    assert is_on_gpu(_Elsewhere())
    assert not is_on_gpu(np.zeros(1))
    assert not is_on_gpu([1])


# CUDA with a fake engine.


class _Value:
    """An OrtValue that remembers where it was made."""

    made: list[tuple[Any, ...]]

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: list[int], dtype: type, kind: str, number: int) -> _Value:
        cls.made.append((tuple(shape), dtype, kind, number))
        value = cls()
        value.array = np.zeros(shape, dtype)
        return value

    def update_inplace(self, array: Any) -> None:
        self.array[:] = array

    def numpy(self) -> Any:
        return self.array


class _Session:
    """Alpha is the red channel; on the first of these providers."""

    def __init__(self, _path: str, _options: Any, providers: list[Any]) -> None:
        self.providers = providers

    def get_providers(self) -> list[str]:
        return [CUDA_PROVIDER, CPU_PROVIDER]

    def io_binding(self) -> Any:
        bound: dict[str, Any] = {}
        return SimpleNamespace(
            bound=bound, bind_ortvalue_input=bound.__setitem__, bind_ortvalue_output=bound.__setitem__
        )

    def run_with_iobinding(self, binding: Any, _options: Any) -> None:
        bound = binding.bound
        bound["alpha"].array[:] = np.where(
            bound["trimap"].array == 128, bound["image"].array[..., 0] / 255, 0
        )


class _CpuSession(_Session):
    def get_providers(self) -> list[str]:
        return [CPU_PROVIDER]


def fake_engine(session: type) -> Any:
    _Value.made = []
    return SimpleNamespace(
        __version__="1.0",
        get_available_providers=lambda: [CUDA_PROVIDER, CPU_PROVIDER],
        SessionOptions=SimpleNamespace,
        RunOptions=SimpleNamespace,
        InferenceSession=session,
        OrtValue=_Value,
    )


def test_cuda_runs_through_bound_buffers_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_engine(_Session))
    opened: Any = open_backend(default_model(), device="cuda:3")
    name, options = opened._session.providers[0]
    assert (name, options["device_id"], options["use_tf32"]) == (CUDA_PROVIDER, 3, 0)
    image, trimap = windows(2, 32, 64)
    for _ in range(2):
        alpha = opened.run(image, trimap)
    np.testing.assert_allclose(alpha, np.where(trimap == 128, image[..., 0] / 255, 0), atol=1e-7)
    assert {place[2:] for place in _Value.made} == {("cuda", 3)}
    assert len(_Value.made) == 3
    # What the tensors take is the GPU's memory; the host holds the arrays only.
    assert opened.window_bytes(1536, 1536) < 60_000_000


def test_cuda_that_does_not_start_is_not_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_engine(_CpuSession))
    with pytest.raises(DeviceError, match="did not load"):
        open_backend(default_model(), device="cuda")


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
    _register_arena(_EngineThatRefuses("An allocator has already been registered for sharing."))
    with pytest.raises(RuntimeError, match="no memory"):
        _register_arena(_EngineThatRefuses("no memory"))
