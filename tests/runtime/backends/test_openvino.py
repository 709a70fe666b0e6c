"""OpenVINO: it computes in the requested precision, and reports what it cannot do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dim.images.files import write_image
from dim_runtime.backends import openvino_precision
from dim_runtime.backends.base import WindowCall
from dim_runtime.backends.onnxruntime import OnnxRuntimeBackend
from dim_runtime.backends.open import default_model
from dim_runtime.backends.openvino import KEPT_GRAPHS, OpenVinoBackend
from dim_runtime.errors import ArtefactError, BackendError, InputError, MissingExtraError
from dim_runtime.images.samples import lemur

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def backend() -> OpenVinoBackend:
    return OpenVinoBackend(default_model(), threads=1)


@pytest.fixture(scope="module")
def window() -> tuple[Any, Any]:
    """Part of a photograph, most of it unknown; 1, 96, 128."""
    image, trimap = lemur()
    y, x = (int(v) for v in np.argwhere(trimap == 128).mean(0))
    rows, columns = slice(y - 48, y + 48), slice(x - 64, x + 64)
    hints = np.array(trimap[rows, columns])
    hints[20:70, 20:100] = 128
    return np.ascontiguousarray(image[rows, columns])[None], hints[None]


def has_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def arithmetic(backend: OpenVinoBackend) -> set[str]:
    """Return the types that the convolutions of the compiled graph read."""
    return set(openvino_precision._convolution_types(backend._graph(WindowCall((1, 64, 64)))))


def test_it_agrees_with_onnx_runtime(backend: OpenVinoBackend, window: tuple[Any, Any]) -> None:
    pytest.importorskip("onnxruntime")
    expected = OnnxRuntimeBackend(default_model(), threads=1).run(*window)
    alpha = backend.run(*window)
    assert alpha.dtype == np.float32
    # Not allclose: a near-tie of a pool may go the other way.
    assert (np.abs(alpha - expected) > 1 / 255).mean() < 0.01
    assert (alpha[window[1] == 0] == 0).all()
    assert (alpha[window[1] == 255] == 1).all()


SIGNAL_AFTER_TWO = """
import faulthandler, gc, signal, sys
from pathlib import Path
from dim_runtime.backends.openvino import OpenVinoBackend

faulthandler.enable()  # it has a stack for signals, as pytest and servers have
engines = [OpenVinoBackend(Path(sys.argv[1]), threads=1) for _ in range(2)]
while engines:
    engines.pop(0).close()
    gc.collect()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_after_two_engines_were_closed() -> None:
    """In the order of their creation: with a core each, OpenVINO leaves an unmapped signal stack."""
    command = [sys.executable, "-c", SIGNAL_AFTER_TWO, str(default_model())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_fp32_stays_fp32(backend: OpenVinoBackend) -> None:
    assert arithmetic(backend) == {"f32"}


def test_bf16_lowers_an_fp32_artefact(backend: OpenVinoBackend, window: tuple[Any, Any]) -> None:
    if not has_bf16():
        pytest.skip("this processor has no bf16")
    lowered = OpenVinoBackend(default_model(), precision="bf16", threads=1)
    assert arithmetic(lowered) == {"bf16"}
    assert lowered.window_bytes(512, 512) < backend.window_bytes(512, 512)
    difference = np.abs(lowered.run(*window) - backend.run(*window))
    assert 0 < difference.mean() < 0.02


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_are_not_made_up(precision: Any) -> None:
    with pytest.raises(BackendError, match=f"--precision {precision}"):
        OpenVinoBackend(default_model(), precision=precision)


@pytest.mark.parametrize("found", [["bf16"], ["f32", "bf16"], []])
def test_an_arithmetic_that_nobody_asked_for_is_an_error(
    monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    monkeypatch.setattr(openvino_precision, "_convolution_types", lambda _: found)
    with pytest.raises(BackendError, match=r"(?s)in fp32 with OpenVINO.*expected: f32"):
        OpenVinoBackend(default_model(), threads=1)


@pytest.mark.parametrize("compiled", [False, True], ids=["free shapes", "compiled for each shape"])
def test_several_shapes_and_batches(window: tuple[Any, Any], compiled: bool) -> None:
    backend = OpenVinoBackend(default_model(), threads=1, free_pixels=0 if compiled else None)
    image, trimap = window
    first = backend.run(image, trimap)
    both = backend.run(np.concatenate([image, image[:, ::-1]]), np.concatenate([trimap, trimap[:, ::-1]]))
    for height in (32, 64):
        assert backend.run(image[:, :height], trimap[:, :height]).shape == (1, height, 128)
    np.testing.assert_array_equal(both[:1], first)
    np.testing.assert_array_equal(backend.run(image, trimap), first)
    if compiled:
        assert backend.compiled_shapes == ((1, 64, 128), (1, 96, 128))
    else:
        assert not backend.compiled_shapes
    assert len(backend.compiled_shapes) <= KEPT_GRAPHS


def test_both_graphs_agree(window: tuple[Any, Any]) -> None:
    free = OpenVinoBackend(default_model(), threads=1).run(*window)
    compiled = OpenVinoBackend(default_model(), threads=1, free_pixels=0).run(*window)
    assert (np.abs(free - compiled) > 1 / 255).mean() < 0.01


def test_what_follows_is_compiled_together_and_only_what_is_kept(window: tuple[Any, Any]) -> None:
    backend = OpenVinoBackend(default_model(), threads=1, free_pixels=64 * 64)
    shapes = [(1, 96, 128), (1, 64, 64), (1, 96, 96), (1, 64, 128)]
    backend.expect([WindowCall(shape) for shape in shapes])
    compiled = []
    for _, height, width in shapes:
        backend.run(*(array[:, :height, :width] for array in window))
        compiled.append(backend.compiled_shapes)
    # The second is small: it runs in the graph with free shapes.
    both = [(1, 96, 128), (1, 96, 96)]
    assert [sorted(held) for held in compiled] == [sorted(both)] * 3 + [[(1, 64, 128), (1, 96, 96)]]


def test_a_failed_hint_does_no_harm(window: tuple[Any, Any]) -> None:
    backend = OpenVinoBackend(default_model(), threads=1, free_pixels=0)
    backend.expect([WindowCall((1, 4096, 4096))])
    assert backend.run(*window).shape == window[1].shape
    backend.expect([])
    assert backend.run(*window).shape == window[1].shape


def test_memory_is_stated_for_windows_that_run_one_after_the_other() -> None:
    backend = OpenVinoBackend(default_model(), threads=1, free_pixels=512 * 512)
    small, larger, large = (512, 512), (544, 512), (1024, 1024)
    assert backend.window_bytes(256, 256) < backend.window_bytes(*small)
    assert backend.window_bytes(*larger) < backend.window_bytes(*large)
    # The graph with free shapes keeps its tensors; those of the others are released.
    assert backend.peak_bytes([small, large]) == backend.window_bytes(*small) + backend.window_bytes(*large)
    assert backend.peak_bytes([larger, large]) == backend.window_bytes(*large)
    before = backend.window_bytes(*small)
    backend.run(np.zeros((1, 256, 256, 3), np.uint8), np.zeros((1, 256, 256), np.uint8))
    assert backend.window_bytes(*small) < before


def test_windows_of_wrong_sizes_are_errors(backend: OpenVinoBackend) -> None:
    with pytest.raises(InputError, match="multiples of 32"):
        backend.run(np.zeros((1, 33, 32, 3), np.uint8), np.zeros((1, 33, 32), np.uint8))


def test_a_failing_run_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("bad allocation\nstack")

    backend = OpenVinoBackend(default_model(), threads=1)
    monkeypatch.setattr(backend, "_run", fail)
    with pytest.raises(
        BackendError, match=r"(?s)failed while running.*1 windows of 32×64 px.*bad allocation"
    ):
        backend.run(np.zeros((1, 64, 32, 3), np.uint8), np.zeros((1, 64, 32), np.uint8))


def test_without_openvino_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"dim-matting\[openvino\]"):
        OpenVinoBackend(default_model())


def test_damage_inside_the_graph_is_a_typed_error(tmp_path: Path) -> None:
    # An operator that does not exist: the document can be read, the graph cannot be run.
    content = default_model().read_bytes().replace(b'"\x04Conv', b'"\x04Xonv')
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="OpenVINO"):
        OpenVinoBackend(path)


Exporter = Callable[[Any], Path]


@pytest.fixture(scope="module")
def exported(live_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """Return a function that makes artefacts of the small live network."""
    pytest.importorskip("onnxscript")
    from dim_export.int8.convert import Quantisation
    from dim_export.onnx_export.export import export

    folder = tmp_path_factory.mktemp("precisions")

    def make(precision: Any) -> Path:
        quantisation = Quantisation(_calibration(folder)) if precision == "int8" else None
        path = folder / f"{precision}.onnx"
        export(live_checkpoint, path, precision=precision, quantisation=quantisation)
        return path

    return make


def _calibration(folder: Path) -> Path:
    """One small pair, all of it unknown."""
    image, trimap = lemur()[0][:128, :128], np.full((128, 128), 128, np.uint8)
    for name, array in (("images", image), ("trimaps", trimap)):
        (folder / name).mkdir(exist_ok=True)
        write_image(folder / name / "a.png", np.ascontiguousarray(array))
    return folder


def check_alpha(backend: OpenVinoBackend) -> None:
    alpha = backend.run(np.full((1, 64, 64, 3), 90, np.uint8), np.full((1, 64, 64), 128, np.uint8))
    assert ((alpha >= 0) & (alpha <= 1)).all()


def hint(backend: OpenVinoBackend) -> str:
    """Return the precision in which OpenVINO reports that it computes float32."""
    return str(backend._graph(WindowCall((1, 64, 64))).get_property("INFERENCE_PRECISION_HINT"))


def test_a_bf16_artefact_runs_in_bf16_and_its_float32_part_in_float32(exported: Exporter) -> None:
    if not has_bf16():
        pytest.skip("this processor has no bf16")
    opened = OpenVinoBackend(exported("bf16"), threads=1)
    assert arithmetic(opened) == {"bf16"}
    assert "float32" in hint(opened)
    check_alpha(opened)


def test_propagation_stays_in_float32(live_model: Any, tmp_path: Path, window: tuple[Any, Any]) -> None:
    """Its covariances are differences that bfloat16 does not hold: alpha would be noise."""
    if not has_bf16():
        pytest.skip("this processor has no bf16")
    from dim import checkpoint
    from dim_export.onnx_export.export import export

    model = live_model(propagation_steps=(2, 2))
    checkpoint.save(model, tmp_path / "network.safetensors")
    export(tmp_path / "network.safetensors", tmp_path / "fp32.onnx")
    export(tmp_path / "network.safetensors", tmp_path / "bf16.onnx", precision="bf16")
    expected = OpenVinoBackend(tmp_path / "fp32.onnx", threads=1).run(*window)
    lowered = OpenVinoBackend(tmp_path / "fp32.onnx", precision="bf16", threads=1)
    stored = OpenVinoBackend(tmp_path / "bf16.onnx", threads=1)
    assert arithmetic(lowered) == arithmetic(stored) == {"bf16"}
    assert expected[window[1] == 128].std() > 0.02
    for backend in (lowered, stored):
        difference = np.abs(backend.run(*window) - expected)
        assert 0 < difference.mean() < 0.01


def test_an_int8_artefact_runs_in_int8_and_its_float_part_as_asked(exported: Exporter) -> None:
    path = exported("int8")
    opened = OpenVinoBackend(path, threads=1)
    assert arithmetic(opened) <= {"u8", "i8", "f32"}
    assert arithmetic(opened) & {"u8", "i8"}
    assert "float32" in hint(opened)
    check_alpha(opened)
    if has_bf16():
        lowered = OpenVinoBackend(path, precision="bf16", threads=1)
        assert arithmetic(lowered) <= {"u8", "i8", "bf16"}
        assert "bfloat16" in hint(lowered)
        check_alpha(lowered)
