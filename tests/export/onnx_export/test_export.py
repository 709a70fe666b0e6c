"""From a checkpoint file to an artefact file."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

import dim
from dim.contract import METADATA_KEY, ArtefactMetadata, NetworkConfig
from dim.errors import CheckpointError, DimError
from dim.files import atomic_path, sha256
from dim_export.inspection import inspect
from dim_export.onnx_export.export import export
from dim_runtime.errors import ArtefactError


def test_metadata_round_trip(live_checkpoint: Path, live_artefact: Path) -> None:
    properties = onnxruntime.InferenceSession(str(live_artefact)).get_modelmeta().custom_metadata_map
    assert set(properties) == {METADATA_KEY}
    found = ArtefactMetadata.from_json(properties[METADATA_KEY], source="artefact")
    assert found.network == NetworkConfig(stage=3, width=0.125, batch_norm=True)
    assert (found.precision, found.context, found.stride, found.static_shape) == ("fp32", 192, 32, None)
    assert found.checkpoint_sha256 == sha256(live_checkpoint)
    assert found.provenance == {"data": "random"}
    assert found.versions["dim-matting"] == dim.__version__
    assert set(found.oldest_readers) == {"onnxruntime", "tensorrt"}
    assert found.command == "a test"


def test_export_is_reproducible_and_one_file(
    live_checkpoint: Path, live_artefact: Path, tmp_path: Path
) -> None:
    export(live_checkpoint, tmp_path / "deep" / "again.onnx", command="a test")
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["again.onnx"]
    assert (tmp_path / "deep" / "again.onnx").read_bytes() == live_artefact.read_bytes()


def test_an_unreadable_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "dim.pth").write_bytes(b"hello")
    with pytest.raises(CheckpointError):
        export(tmp_path / "dim.pth", tmp_path / "dim.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["dim.pth"]


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "dim.onnx"
    target.write_text("old")

    def fill() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            assert temporary.suffix == target.suffix
            raise DimError("no")

    with pytest.raises(DimError, match="no"):
        fill()
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["dim.onnx"]


def test_inspection(live_artefact: Path) -> None:
    found = inspect(live_artefact)
    assert found.opset == 18
    assert found.ir_version == 8
    assert found.nodes == sum(found.operators.values()) <= 215
    assert [str(tensor) for tensor in found.inputs] == ["image: uint8 N, H, W, 3", "trimap: uint8 N, H, W"]
    assert [str(tensor) for tensor in found.outputs] == ["alpha: float N, H, W"]
    assert found.bytes == live_artefact.stat().st_size


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_inspection_of_a_truncated_file(live_artefact: Path, tmp_path: Path, share: float) -> None:
    whole = live_artefact.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ArtefactError):
        inspect(tmp_path / "cut.onnx")
