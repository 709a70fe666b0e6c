"""Every call into TensorRT, TensorRT-RTX, cuda.core and ONNX Runtime fits the packages' own signatures.

TensorRT's bindings (the packages tensorrt-cu12-bindings and tensorrt-cu13-bindings, 1.3 MB) are tried as
installed, and from the folders in DIM_TENSORRT_BINDINGS (separated as in PATH; each an unpacked wheel): their
libraries need a GPU's machine, so that stand-ins with the same symbols are linked for the test.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from . import vendor_calls
from .vendor_calls import TENSORRT_ONLY, problems, unlisted, uses

MODULES = {"tensorrt": "tensorrt_rtx"} | {
    name: name for name in ("cuda.core", "cuda.bindings.driver", "onnxruntime")
}


@pytest.mark.parametrize(("package", "module"), MODULES.items())
def test_the_installed_package_has_every_call(package: str, module: str) -> None:
    found = pytest.importorskip(module)
    assert problems(package, found, without=TENSORRT_ONLY if package == "tensorrt" else set()) == []


@pytest.mark.parametrize(("package", "module"), MODULES.items())
def test_no_use_is_missing_from_the_table(package: str, module: str) -> None:
    assert unlisted(package, pytest.importorskip(module)) == []


def test_the_walk_finds_the_calls() -> None:
    found = {use.name for package in MODULES for use in uses(package) if use.call is not None}
    assert {"execute_async_v3", "build_serialized_network", "from_dlpack", "copy_to", "bind_input"} <= found
    assert len(found) > 50


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (".execute_async_v3(", ".execute_async_v4(", "IExecutionContext has no such name"),
        ("set_input_shape(INPUT_TRIMAP, shape)", "set_input_shape(INPUT_TRIMAP)", "called with 1 arguments"),
        ("execute_async_v3(int(", "execute_async_v3(stream=int(", "called with 0 arguments"),
    ],
)
def test_a_wrong_call_is_found(
    old: str, new: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("tensorrt_rtx")
    for file in vendor_calls.SOURCES["tensorrt"]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(vendor_calls.ROOT / file, tmp_path / file)
    slot = tmp_path / vendor_calls.BACKENDS / "tensorrt_slot.py"
    text = slot.read_text(encoding="utf-8")
    assert old in text
    slot.write_text(text.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(vendor_calls, "ROOT", tmp_path)
    found = problems("tensorrt", module, without=TENSORRT_ONLY)
    assert len(found) == 1
    assert problem in found[0]


def bindings() -> list[Path]:
    """Return the folders of TensorRT's bindings: as installed, and those that the environment names."""
    installed = importlib.util.find_spec("tensorrt_bindings")
    own = [Path(installed.origin).parents[1]] if installed and installed.origin else []
    named = os.environ.get("DIM_TENSORRT_BINDINGS", "").split(os.pathsep)
    return own + [Path(folder) for folder in named if folder]


def output(*command: str | Path) -> list[str]:
    """Return the lines that a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def link_stand_ins(library: Path, target: Path) -> None:
    """Link libraries with the names and symbols that ``library`` needs and no system library has."""
    needed = [line for line in output("readelf", "-d", library) if "NEEDED" in line and "libnv" in line]
    listed = [line for line in output("nm", "-D", "--undefined-only", library) if " U " in line]
    # Versioned symbols are those of system libraries, Python's come from the interpreter.
    missing = [line.split()[-1] for line in listed if "@" not in line]
    symbols = [name for name in missing if not name.startswith(("Py", "_Py", "dl"))]
    # No function is called: one word of data for each symbol is enough for the loader.
    source = target / "symbols.s"
    source.write_text(".data\n" + "".join(f".globl {name}\n{name}: .quad 0\n" for name in symbols))
    for name in (line.split("[")[1].rstrip("]") for line in needed):
        command = ["gcc", "-shared", "-nostdlib", "-o", target / name, f"-Wl,-soname,{name}", source]
        subprocess.run(command, check=True, capture_output=True)


@pytest.mark.skipif(sys.platform != "linux", reason="links stand-ins of shared libraries for Linux")
def test_tensorrt_s_own_bindings_have_every_call(tmp_path: Path) -> None:
    folders = bindings()
    if not folders:
        pytest.skip("neither tensorrt-cu13-bindings nor DIM_TENSORRT_BINDINGS")
    for tool in ("gcc", "nm", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} to link stand-ins of TensorRT's libraries")
    for number, folder in enumerate(folders):
        libraries = tmp_path / str(number)
        libraries.mkdir()
        link_stand_ins(folder / "tensorrt_bindings" / "tensorrt.so", libraries)
        environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
        command = [sys.executable, vendor_calls.__file__, "tensorrt", "tensorrt_bindings"]
        environment["PYTHONPATH"] = str(folder)
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        release, found = json.loads(done.stdout.splitlines()[-1])
        assert found == [], release


def test_cuda_provider_s_library_knows_the_options() -> None:
    """The names of the provider's options are strings in its library: a misspelt one is refused there."""
    module = pytest.importorskip("onnxruntime")
    library = Path(module.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not library.exists():
        pytest.skip("this ONNX Runtime has no CUDA provider: pip install onnxruntime-gpu")
    source = (vendor_calls.ROOT / vendor_calls.BACKENDS / "io_binding.py").read_text(encoding="utf-8")
    content = library.read_bytes()
    names = ("use_tf32", "cudnn_conv_algo_search", "arena_extend_strategy", "user_compute_stream")
    for name in names:
        assert f'"{name}"' in source
        assert name.encode() in content, name
