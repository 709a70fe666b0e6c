"""The runtime stands alone: no torch, no engine until one is opened, and little time to import."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

BLOCKED = (
    *("torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "openvino", "cuda"),
    *("pymatting", "ray", "fsspec", "zarr", "tritonclient", "fastapi", "uvicorn", "prometheus_client"),
)

IMPORT_ALL = f"""
import importlib, pkgutil, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Block())
import dim_runtime
names = [module.name for module in pkgutil.walk_packages(dim_runtime.__path__, "dim_runtime.")]
for name in names:
    if not name.startswith("dim_runtime.serve."):  # all of it needs its extra
        importlib.import_module(name)
print(len(names))
"""


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_every_module_imports_without_any_engine() -> None:
    assert int(python(IMPORT_ALL)) > 15


def test_no_engine_is_loaded_by_importing() -> None:
    found = python(
        # Packages may load themselves at the start of Python: cuda-bindings 12 does.
        f"import sys; before = set(sys.modules); import dim_runtime.cli; "
        f"print([name for name in {BLOCKED!r} if name in sys.modules and name not in before])"
    )
    assert found.strip() == "[]"


def _seconds(code: str) -> float:
    """Processor time, the best of three: what else the machine does must not count."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python(code)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(3))


@pytest.mark.bench
def test_the_command_line_imports_quickly() -> None:
    assert _seconds("import dim_runtime.cli") - _seconds("import numpy, cv2") < 0.5
