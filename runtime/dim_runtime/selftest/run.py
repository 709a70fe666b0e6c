"""The self-test itself: the machine, then every back end that is installed."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import dim
from dim.arrays import UInt8
from dim.errors import install_command
from dim.extras import silence_onnxruntime
from dim.files import sha256
from dim_runtime.artefacts.engine_compatibility import RTX_BUILDABLE
from dim_runtime.backends.base import Backend
from dim_runtime.backends.cuda import DRIVER_ADVICE, Gpu, import_core
from dim_runtime.backends.device import parse_device
from dim_runtime.backends.open import BackendName, default_model, open_backend
from dim_runtime.errors import BackendError
from dim_runtime.memory import release_free_memory, resident_bytes
from dim_runtime.selftest.checks import CHECKS, Device, check_backend
from dim_runtime.selftest.references import DATA, PRODUCT, Network, model_path, read_embedded_sha256
from dim_runtime.selftest.report import Check, Recorder, Report, Value, Verdict

PACKAGES = (
    "onnxruntime-gpu", "onnxruntime", "tensorrt", "tensorrt-rtx", "cuda-core", "cuda-bindings", "numpy",
)  # fmt: skip
BUILD = "from dim_export.cli import main; main()"
BUILD_SECONDS = 900
PRODUCT_SIDE, PRODUCT_SIDE_CPU, PRODUCT_RUNS = 8192, 1024, 7
BUDGET = 1_000_000_000_000


class Candidate(NamedTuple):
    """A back end to test.

    Attributes:
        name: of the back end.
        module: import name of its package.
        extra: of dim-matting, that installs it.
        unsupported: why this device cannot run it; None if it can.
    """

    name: BackendName
    module: str
    extra: str
    unsupported: str | None = None


Prepare = Callable[[Network], Path]
Open = Callable[[Path], Backend]


def run_selftest(device: str, folder: Path, *, progress: Callable[[str], None] | None = None) -> Report:
    """Test every installed back end on a device.

    Args:
        device: "cuda" or "cuda:N"; "cpu" runs the same flow with ONNX Runtime's CPU build, to test it.
        folder: scratch folder for the engines that are built.
        progress: called with the name of each part before it starts.

    Returns:
        The report; a part that fails does not stop the others.
    """
    show = progress or (lambda part: None)
    kind = parse_device(device).kind
    show("machine")
    recorder = Recorder("machine")
    facts, gpu = _machine(recorder, device)
    flops = _ceiling(recorder, device, gpu)
    checks = recorder.checks
    for candidate in _candidates(kind, gpu):
        show(candidate.name)
        checks += _backend_checks(candidate, device, folder, gpu, flops)
    return Report(device=device, machine=facts, checks=tuple(checks))


def _machine(recorder: Recorder, device: str) -> tuple[dict[str, Value], Gpu | None]:
    facts: dict[str, Value] = {
        "dim-matting": dim.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        **dict(_versions()),
    }
    gpu = None
    with recorder.checked("gpu", DRIVER_ADVICE) as outcome:
        if parse_device(device).kind == "cpu":
            outcome.skip("the CPU was chosen")
        else:
            gpu = Gpu(import_core("gpu"), device)
            facts |= {"gpu": gpu.name, "compute_capability": gpu.capability, "free_bytes": gpu.free_bytes()}
            free = f"{gpu.free_bytes() / 1e9:.1f} GB free"
            outcome.passed(f"{gpu.name}, compute capability {gpu.capability}, {free}")
    with recorder.checked("references", "install the package again") as outcome:
        same = sha256(default_model()) == read_embedded_sha256()
        outcome.require(
            same,
            "made with the embedded model" if same else "made with another embedded model",
            expected="numbers of the embedded model",
            fix="from a checkout: python tools/gpu/make_references.py",
        )
    return facts, gpu


def _ceiling(recorder: Recorder, device: str, gpu: Gpu | None) -> float | None:
    """Measure the float32 matrix product that the back ends' speed is compared with."""
    flops = None
    with recorder.checked("ceiling", "see the fix of onnxruntime's check 'opens'") as outcome:
        on_cpu = parse_device(device).kind == "cpu"
        if not on_cpu and (gpu is None or not _has_cuda_build()):
            outcome.skip("no GPU that CUDA can reach" if gpu is None else "needs onnxruntime-gpu")
        else:
            flops = _cpu_flops() if on_cpu else _cuda_flops(device)
            outcome.passed(f"{flops / 1e12:.2f} TFLOP/s in a float32 matrix product", flops=flops)
    return flops


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _candidates(kind: str, gpu: Gpu | None) -> list[Candidate]:
    missing = "no GPU that CUDA can reach" if kind == "cuda" and gpu is None else None
    no_engine = "engines run on NVIDIA GPUs only" if kind == "cpu" else missing
    rtx = no_engine
    if gpu is not None and gpu.capability not in RTX_BUILDABLE:
        rtx = f"supports compute capability {', '.join(RTX_BUILDABLE)}; this GPU has {gpu.capability}"
    return [
        Candidate("onnxruntime", "onnxruntime", "cpu" if kind == "cpu" else "gpu", missing),
        Candidate("tensorrt", "tensorrt", "tensorrt", no_engine),
        Candidate("tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx", rtx),
    ]


def _backend_checks(
    candidate: Candidate, device: str, folder: Path, gpu: Gpu | None, flops: float | None
) -> list[Check]:
    reason = "; ".join(filter(None, (candidate.unsupported, _missing(candidate, device))))
    if reason:
        return [
            Check(part=candidate.name, name=name, verdict=Verdict.SKIPPED, found=reason) for name in CHECKS
        ]
    prepare: Prepare = model_path
    if candidate.name != "onnxruntime":
        prepare = partial(build_engine, builder=candidate.name, gpu=gpu, folder=folder)
    opener: Open = partial(open_backend, backend=candidate.name, device=device)
    return check_backend(candidate.name, prepare, opener, _device(gpu, flops))


def _missing(candidate: Candidate, device: str) -> str | None:
    install = install_command(candidate.extra)
    if find_spec(candidate.module) is None:
        return f"not installed: {install}"
    if candidate.name == "onnxruntime" and parse_device(device).kind == "cuda" and not _has_cuda_build():
        return f"the CPU build is installed: pip uninstall onnxruntime, then {install}"
    return None


def build_engine(network: Network, *, builder: str, gpu: Gpu | None, folder: Path) -> Path:
    """Build the engine of a network with ``dim-export trt`` in its own process.

    Raises:
        BackendError: the builder failed; its last line is the reason.
    """
    source, target = model_path(network), folder / f"{network}-{builder}.engine"
    options = [] if network == "plain" else ["--tile", "512"]
    if builder == "tensorrt-rtx" and gpu is not None:
        options += ["--compute-capability", gpu.capability]
    arguments = ["trt", str(source), "-o", str(target), "--builder", builder, *options]
    done = subprocess.run(
        [sys.executable, "-c", BUILD, *arguments], capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    if done.returncode != 0:
        raise BackendError(
            f"cannot build the {network} network for {builder}",
            why=" ".join(done.stderr.split())[-600:],
            fix=f"dim-export {' '.join(arguments)}",
        )
    return target


def _device(gpu: Gpu | None, flops: float | None) -> Device:
    if gpu is None:
        return Device(None, None, _exhaust_host, _free_host, flops)
    stream = gpu.new_stream()

    def exhaust(size: int) -> object:
        gpu.use()
        return gpu.allocate(size, stream)

    return Device(partial(_put, gpu, stream), partial(_get, gpu, stream), exhaust, gpu.free_bytes, flops)


def _put(gpu: Gpu, stream: Any, array: UInt8) -> Any:
    gpu.use()
    host, target = gpu.allocate_host(array.nbytes), gpu.allocate(array.nbytes, stream)
    np.copyto(np.from_dlpack(host).view(np.uint8), array.reshape(-1))
    host.copy_to(target, stream=stream)
    stream.sync()
    return gpu.as_array(target, array.shape, np.dtype(np.uint8))


def _get(gpu: Gpu, stream: Any, array: Any) -> Any:
    gpu.use()
    size = 4 * int(np.prod(array.shape))
    host = gpu.allocate_host(size)
    gpu.borrow(array.ptr, size, array).copy_to(host, stream=stream)
    stream.sync()
    return np.from_dlpack(host).view(np.uint8).view(np.float32).reshape(array.shape).copy()


def _exhaust_host(size: int) -> object:
    return np.empty(size, np.uint8)


def _free_host() -> int:
    # There is no free memory of a process: what is left of a budget falls by as much as the process grows.
    # Blocks that the C library keeps after they were freed are no growth.
    release_free_memory()
    return BUDGET - resident_bytes()


def _cpu_flops() -> float:
    draw = np.random.default_rng(0)
    a, b = (draw.random((PRODUCT_SIDE_CPU, PRODUCT_SIDE_CPU), np.float32) for _ in range(2))
    return _product_flops(PRODUCT_SIDE_CPU, lambda: a @ b)


def _has_cuda_build() -> bool:
    silence_onnxruntime()
    try:
        import onnxruntime
    except ImportError:
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _cuda_flops(device: str) -> float:
    """Return the speed of a float32 matrix product in ONNX Runtime on the GPU, TF32 off."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    number = parse_device(device).number
    options = {"device_id": str(number), "use_tf32": "0"}
    providers = [("CUDAExecutionProvider", options)]
    session = onnxruntime.InferenceSession(str(DATA / PRODUCT), providers=providers, enable_fallback=0)
    matrix = np.random.default_rng(0).random((PRODUCT_SIDE, PRODUCT_SIDE), np.float32)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(matrix, "cuda", number) for _ in range(3)]
    binding = session.io_binding()
    binding.bind_ortvalue_input("a", values[0])
    binding.bind_ortvalue_input("b", values[1])
    binding.bind_ortvalue_output("c", values[2])
    return _product_flops(PRODUCT_SIDE, lambda: session.run_with_iobinding(binding))


def _product_flops(side: int, multiply: Callable[[], object]) -> float:
    times = []
    for _ in range(PRODUCT_RUNS):
        started = perf_counter()
        multiply()
        times.append(perf_counter() - started)
    return 2.0 * side**3 / median(times[2:])
