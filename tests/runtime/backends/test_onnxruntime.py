"""ONNX Runtime: what it refuses, and that windows agree with the whole image."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dim.errors import InputError
from dim_runtime.backends.onnxruntime import CUDA_PROVIDER, OnnxRuntimeBackend
from dim_runtime.backends.opening import open_backend
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


@pytest.fixture
def backend() -> OnnxRuntimeBackend:
    pytest.importorskip("onnxruntime")
    return OnnxRuntimeBackend(default_model(), threads=1)


def test_a_window_gives_alpha_and_known_pixels(backend: OnnxRuntimeBackend) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    trimap = np.full((1, 64, 96), 128, np.uint8)
    trimap[:, :10], trimap[:, -10:] = 0, 255
    alpha = backend.run(image, trimap)
    assert alpha.shape == trimap.shape
    assert alpha.dtype == np.float32
    assert ((alpha >= 0) & (alpha <= 1)).all()
    assert (alpha[trimap == 0] == 0).all()
    assert (alpha[trimap == 255] == 1).all()


def test_a_failing_run_is_a_typed_error(backend: OnnxRuntimeBackend) -> None:
    with pytest.raises(BackendError, match="failed while running"):
        backend.run(np.zeros((1, 33, 32, 3), np.uint8), np.zeros((1, 33, 32), np.uint8))


def test_bf16_does_not_run_on_the_cpu(tmp_path: Path) -> None:
    path = altered(tmp_path, b'"precision":"fp32"', b'"precision":"bf16"')
    with pytest.raises(BackendError, match="OpenVINO and TensorRT"):
        open_backend(path)


def test_damage_inside_the_graph_is_a_typed_error(tmp_path: Path) -> None:
    content = bytearray(default_model().read_bytes())
    content[200:4000] = b"\xff" * 3800
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtefactError):
        open_backend(path)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:", "tpu:0", ""])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(DeviceError, match="cuda:N"):
        open_backend(default_model(), device=device)


def test_cuda_is_an_error_where_it_is_not() -> None:
    engine = pytest.importorskip("onnxruntime")
    if CUDA_PROVIDER in engine.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(DeviceError, match=CUDA_PROVIDER):
        open_backend(default_model(), device="cuda:0")


class _CpuSession:
    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_cuda_that_does_not_start_is_not_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SimpleNamespace(
        __version__="1.0",
        get_available_providers=lambda: [CUDA_PROVIDER, "CPUExecutionProvider"],
        SessionOptions=SimpleNamespace,
        InferenceSession=lambda *_, **__: _CpuSession(),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", engine)
    with pytest.raises(DeviceError, match="did not load"):
        open_backend(default_model(), device="cuda")


def test_without_onnxruntime_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[cpu\]"):
        open_backend(default_model())


def test_engines_of_later_releases_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="ONNX Runtime only"):
        open_backend(default_model(), backend="openvino")
    with pytest.raises(BackendError, match="TensorRT engine"):
        open_backend(tmp_path / "model.engine")
    with pytest.raises(BackendError, match="suffix"):
        open_backend(tmp_path / "model.txt")


def test_impossible_options() -> None:
    with pytest.raises(InputError, match="onnxruntime"):
        open_backend(default_model(), backend="onnx")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads"):
        open_backend(default_model(), threads=0)


def test_another_precision_is_not_made_up() -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(BackendError, match="--precision bf16"):
        open_backend(default_model(), precision="bf16")
