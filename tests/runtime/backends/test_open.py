"""Which back end opens a file: the user decides, or else the suffix, and nothing is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dim.errors import InputError
from dim_runtime.backends import tensorrt
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.backends.open import default_model, open_backend
from dim_runtime.backends.openvino import OpenVinoBackend
from dim_runtime.errors import BackendError, DeviceError


def test_an_artefact_opens_in_onnx_runtime_if_nothing_is_said() -> None:
    pytest.importorskip("onnxruntime")
    assert isinstance(open_backend(default_model(), threads=1), OnnxRuntimeBackend)


def test_openvino_opens_where_it_is_named() -> None:
    pytest.importorskip("openvino")
    assert isinstance(open_backend(default_model(), backend="openvino", threads=1), OpenVinoBackend)


@pytest.mark.parametrize(
    ("backend", "builder"), [(None, None), ("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt-rtx")]
)
def test_an_engine_opens_in_what_built_it(
    monkeypatch: pytest.MonkeyPatch, backend: Any, builder: str | None
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(tensorrt, "open_engine", lambda path, **options: asked.update(options, path=path))
    open_backend(Path("m.engine"), backend=backend, device="cuda:1", precision="fp16", threads=2)
    assert asked == {
        "path": Path("m.engine"),
        "builder": builder,
        "device": "cuda:1",
        "precision": "fp16",
        "threads": 2,
    }


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_does_not_read_artefacts(backend: Any) -> None:
    with pytest.raises(BackendError, match=f"dim-export trt .* --builder {backend}"):
        open_backend(default_model(), backend=backend)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_engines_run_in_tensorrt_only(backend: Any) -> None:
    with pytest.raises(BackendError, match="tensorrt and tensorrt-rtx"):
        open_backend(Path("model.engine"), backend=backend)


def test_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"(?s)suffix '\.txt'.*\.onnx or \.engine"):
        open_backend(tmp_path / "model.txt")


def test_impossible_options() -> None:
    with pytest.raises(InputError, match="onnxruntime, openvino, tensorrt, tensorrt-rtx"):
        open_backend(default_model(), backend="onnx")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads"):
        open_backend(default_model(), threads=0)


def test_openvino_is_not_asked_for_a_gpu() -> None:
    with pytest.raises(DeviceError, match='"cpu"'):
        open_backend(default_model(), backend="openvino", device="cuda")
