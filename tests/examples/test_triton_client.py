"""The client's example, with the engine here in place of a server; the wire has its own tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from dim_runtime import Matting
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.backends.open import default_model
from dim_runtime.images.samples import lemur

EXAMPLE = Path(__file__).parents[2] / "examples" / "triton_client.py"


def _module() -> ModuleType:
    specification = importlib.util.spec_from_file_location("triton_client", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_it_writes_the_alpha(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    asked = []

    def here(url: str, model: str) -> OnnxRuntimeBackend:
        asked.append((url, model))
        return OnnxRuntimeBackend(default_model(), threads=1)

    example = _module()
    example.KServeBackend = here
    image, trimap = (array[60:190, 200:360] for array in lemur())
    photo, hints, output = (str(tmp_path / name) for name in ("photo.png", "trimap.png", "alpha.png"))
    cv2.imwrite(photo, image[..., ::-1])
    cv2.imwrite(hints, trimap)
    example.main("http://localhost:8000", "dim-compact", photo, hints, output)

    assert asked == [("http://localhost:8000", "dim-compact")]
    assert "1 windows" in capsys.readouterr().out
    found = cv2.imread(output, cv2.IMREAD_GRAYSCALE)
    with Matting(threads=1) as matting:
        np.testing.assert_array_equal(found, np.rint(matting(image, trimap) * 255))
