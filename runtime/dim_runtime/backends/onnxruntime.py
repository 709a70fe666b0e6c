"""ONNX Runtime: the CPU, and CUDA where its GPU build is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA, ArtefactMetadata
from dim_runtime.backends.base import Backend, Floating, UInt8
from dim_runtime.errors import ArtefactError, BackendError, DeviceError, MissingExtraError
from dim_runtime.onnx_file import read_metadata

CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
SHRINK_ARENA = "memory.enable_memory_arena_shrinkage"


class OnnxRuntimeBackend(Backend):
    """An ``.onnx`` artefact in ONNX Runtime.

    Args:
        path: the artefact.
        device: "cpu", "cuda" or "cuda:N".
        threads: threads of one operator; None lets ONNX Runtime take one per physical core.

    Raises:
        ArtefactError: missing, damaged, or not an artefact of this toolkit.
        MissingExtraError: ONNX Runtime is not installed.
        DeviceError: an unknown device, or one that is not there.
        BackendError: the device cannot run this artefact.
    """

    def __init__(self, path: Path, *, device: str = "cpu", threads: int | None = None) -> None:
        self._path = path
        self._metadata = read_metadata(path)
        _require_single_windows(path, self._metadata)
        engine = _engine(path)
        providers = _providers(engine, device)
        _require_runnable(path, self._metadata, device)
        self._session: Any = _session(engine, path, providers, threads)
        _require_provider(self._session, providers, device)
        self._run_options = engine.RunOptions()
        if device == "cpu":
            # Gives back after each window what it took: memory is bounded by one window, not by the sum of
            # what windows of different shapes leave behind.
            self._run_options.add_run_config_entry(SHRINK_ARENA, "cpu:0")

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        inputs = {INPUT_IMAGE: image, INPUT_TRIMAP: trimap}
        try:
            alpha: Floating = self._session.run([OUTPUT_ALPHA], inputs, self._run_options)[0]
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime failed while running {self._path}",
                got=f"a window of {image.shape[2]}×{image.shape[1]} px",
                why=_first_line(error),
                fix="if memory ran out: a smaller tile (--tile), or --memory-limit",
            ) from error
        return alpha

    def close(self) -> None:
        self._session = None


def _engine(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"run {path.name}", package="onnxruntime", extra="cpu") from error
    return onnxruntime


def _session(engine: Any, path: Path, providers: list[Any], threads: int | None) -> Any:
    options = engine.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # A pattern is one block as large as all tensors of a run laid out ahead: it took 1.8 × the memory here.
    options.enable_mem_pattern = False
    try:
        return engine.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise ArtefactError(
            f"ONNX Runtime {engine.__version__} cannot load {path}",
            why=_first_line(error),
            fix="copy or export the file again; if the operator set is newer than this release: "
            "pip install -U onnxruntime",
        ) from error


def _providers(engine: Any, device: str) -> list[Any]:
    if device == "cpu":
        return [CPU_PROVIDER]
    name, _, number = device.partition(":")
    if name != "cuda" or (":" in device and not number.isdigit()):
        raise DeviceError("cannot use this device", got=repr(device), expected='"cpu", "cuda" or "cuda:N"')
    if CUDA_PROVIDER not in engine.get_available_providers():
        raise DeviceError(
            f"cannot use the device {device!r}",
            got=f"ONNX Runtime {engine.__version__} with {', '.join(engine.get_available_providers())}",
            expected=CUDA_PROVIDER,
            why="the package onnxruntime is the CPU build",
            fix='device="cpu" (--device cpu), or: pip uninstall onnxruntime && pip install onnxruntime-gpu',
        )
    # TF32 keeps 10 bits of the mantissa: not what "fp32" promises.
    return [(CUDA_PROVIDER, {"device_id": int(number or 0), "use_tf32": 0}), CPU_PROVIDER]


def _require_provider(session: Any, providers: list[Any], device: str) -> None:
    """ONNX Runtime moves to the CPU by itself when CUDA does not start; the runtime does not."""
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if wanted not in session.get_providers():
        raise DeviceError(
            f"cannot use the device {device!r}",
            got=", ".join(session.get_providers()),
            expected=wanted,
            why="CUDA, cuDNN or the driver did not load",
            fix='device="cpu" (--device cpu), or install the CUDA and cuDNN that onnxruntime-gpu names',
        )


def _require_runnable(path: Path, metadata: ArtefactMetadata, device: str) -> None:
    if metadata.precision == "bf16" and device == "cpu":
        raise BackendError(
            f"cannot run {path} on the CPU with ONNX Runtime",
            got="a bf16 artefact",
            expected="fp32, fp16 or int8",
            why="ONNX Runtime's CPU provider has no bf16 kernels; OpenVINO and TensorRT have them",
            fix="dim-export onnx CHECKPOINT -o MODEL.onnx --precision fp32",
        )


def _require_single_windows(path: Path, metadata: ArtefactMetadata) -> None:
    if metadata.static_shape is None:
        return
    count, height, width = metadata.static_shape
    if count != 1:
        raise ArtefactError(
            f"cannot tile with {path}",
            got=f"a shape frozen to N, H, W = {metadata.static_shape}",
            expected="N = 1, or free shapes",
            why="windows are run one by one",
            fix=f"export again without --shape, or with --shape 1,{height},{width}",
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
