"""Engine files: what is written is read back; cut-off, foreign and damaged files are distinguished."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from dim.contract import ArtefactMetadata, ContractError, EngineInfo, ShapeProfile
from dim_runtime.artefacts.engine_compatibility import Place, require_compatible, this_platform
from dim_runtime.artefacts.engine_file import MAGIC, read_header, read_plan, write_engine
from dim_runtime.errors import ArtefactError, BackendError

PLAN = bytes(range(256)) * 8
PATH = Path("dim.engine")


def engine_info(**changes: object) -> EngineInfo:
    made = EngineInfo(
        builder="tensorrt-rtx",
        version="1.7.1.116",
        compute_capabilities=("8.6", "12.0"),
        platform="Linux x86_64",
        profile=ShapeProfile(min=(1, 32, 32), opt=(1, 64, 64), max=(2, 64, 96)),
        convolutions={"fp32": 21},
        precision_read_from="engine",
        source_sha256="0" * 64,
        plan_bytes=0,
        plan_sha256="",
    )
    return made.model_copy(update=changes)


@pytest.fixture
def document(metadata: Callable[..., ArtefactMetadata]) -> ArtefactMetadata:
    return metadata().model_copy(update={"engine": engine_info()})


@pytest.fixture
def path(document: ArtefactMetadata, tmp_path: Path) -> Path:
    write_engine(tmp_path / PATH, document, PLAN)
    return tmp_path / PATH


def test_layout(path: Path) -> None:
    """Byte by byte, as a reader in another language would go about it."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 8)
    assert (content[:8], len(MAGIC)) == (MAGIC, 8)
    found = ArtefactMetadata.from_json(content[12 : 12 + length].decode("utf-8"), source="it")
    assert found.engine is not None
    assert found.engine.compute_capabilities == ("8.6", "12.0")
    assert content[12 + length :] == PLAN


def test_round_trip(path: Path, document: ArtefactMetadata) -> None:
    header = read_header(path)
    assert header.engine.plan_bytes == len(PLAN)
    measured = header.engine.model_copy(update={"plan_bytes": 0, "plan_sha256": ""})
    assert header.metadata.model_copy(update={"engine": measured}) == document
    assert read_plan(path, header) == PLAN


def test_an_engine_section_is_needed(metadata: Callable[..., ArtefactMetadata], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="engine section"):
        write_engine(tmp_path / PATH, metadata(), PLAN)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no such file"):
        read_header(tmp_path / PATH)


def test_every_cut_is_noticed(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 8)
    cut = tmp_path / "cut.engine"
    for kept in (9, 11, 12, 12 + length // 2, 12 + length, len(content) - 1):
        cut.write_bytes(content[:kept])
        with pytest.raises(ArtefactError, match="cut off"):
            read_header(cut)


@pytest.mark.parametrize("content", [b"", b"DIM", b"vtrt\0\0\0\0" * 9, b"\x08\x07\x12\x05torch" * 9])
def test_foreign_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / PATH).write_bytes(content)
    with pytest.raises(ArtefactError, match="not an engine file of this toolkit") as caught:
        read_header(tmp_path / PATH)
    assert "dim-export trt" in str(caught.value.fix)


def test_damage_in_the_plan(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    header = read_header(path)
    with pytest.raises(ArtefactError, match="damaged"):
        read_plan(path, header)


def test_bytes_after_the_plan(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ArtefactError, match="damaged"):
        read_header(path)


def test_damage_in_the_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:8] + b"\xff\xff\xff\xff" + content[12:])
    with pytest.raises(ArtefactError, match="a document of 4294967295 bytes"):
        read_header(path)
    path.write_bytes(content[:12] + b"\xff" + content[13:])
    with pytest.raises(ArtefactError, match="damaged"):
        read_header(path)
    path.write_bytes(content[:12] + b"[" + content[13:])
    with pytest.raises(ContractError, match="cannot read the metadata"):
        read_header(path)


def test_a_document_without_an_engine_section(
    metadata: Callable[..., ArtefactMetadata], tmp_path: Path
) -> None:
    text = metadata().to_json().encode()
    (tmp_path / PATH).write_bytes(MAGIC + struct.pack("<I", len(text)) + text + PLAN)
    with pytest.raises(ArtefactError, match="without an engine section"):
        read_header(tmp_path / PATH)


RTX = Place("tensorrt-rtx", "1.7.1.200", "12.0", "Windows x86_64")
TRT = Place("tensorrt", "10.14.1", "8.9", "Linux x86_64")
BUILT_BY_TRT = {"builder": "tensorrt", "version": "10.13.0", "compute_capabilities": ("8.9",)}


def test_a_build_of_the_same_release_and_a_listed_gpu_fit() -> None:
    require_compatible(PATH, engine_info(), RTX)
    require_compatible(PATH, engine_info(compute_capabilities=()), RTX._replace(capability="8.9"))


@pytest.mark.parametrize(
    ("changes", "here", "both"),
    [
        ({}, TRT, ("TensorRT-RTX 1.7.1.116", "an engine of TensorRT", "--builder tensorrt")),
        ({}, RTX._replace(version="1.7.0.116"), ("1.7.0.116", "1.7.1.116", "dim-export trt")),
        ({}, RTX._replace(version="1.6.0.1"), ("1.6.0.1", "1.7.1.116", "dim-export trt")),
        ({}, RTX._replace(capability="8.9"), ("8.9", "8.6 or 12.0", "--compute-capability 8.6,12.0,8.9")),
        (
            {"compute_capabilities": ()},
            RTX._replace(capability="7.5"),
            ("7.5", "8.6 or 8.9 or 12.0", "--compute-capability 7.5"),
        ),
        (
            {"compute_capabilities": ()},
            RTX._replace(capability="9.0"),
            ("9.0", "RTX GPUs only", "--builder tensorrt)"),
        ),
        (BUILT_BY_TRT, TRT, ("10.14.1", "10.13.0", "dim-export trt")),
        (BUILT_BY_TRT | {"version": "10.14.0"}, TRT, ("10.14.1", "10.14.0", "dim-export trt")),
        (
            BUILT_BY_TRT | {"version": "10.14.1", "platform": "Windows x86_64"},
            TRT,
            ("Linux", "Windows", "dim-export trt"),
        ),
        (
            BUILT_BY_TRT | {"version": "11.0.0", "version_compatible": True},
            TRT,
            ("10.14.1", "11.0.0 or later", "dim-export trt"),
        ),
        (
            BUILT_BY_TRT | {"version": "10.14.1", "compute_capabilities": ("8.6",)},
            TRT,
            ("8.9", "8.6", "dim-export trt"),
        ),
    ],
)
def test_a_mismatch_names_both_sides_and_a_command(
    changes: dict[str, object], here: Place, both: tuple[str, ...]
) -> None:
    with pytest.raises(BackendError) as caught:
        require_compatible(PATH, engine_info(**changes), here)
    for part in both:
        assert part in str(caught.value)


def test_compatible_builds_run_in_more_places() -> None:
    later = engine_info(**BUILT_BY_TRT, version_compatible=True)
    require_compatible(PATH, later, TRT)
    portable = engine_info(**BUILT_BY_TRT | {"version": "10.14.1"}, hardware_compatible=True)
    require_compatible(PATH, portable, TRT._replace(capability="12.0"))


def test_this_platform_is_a_system_and_a_machine() -> None:
    assert len(this_platform().split()) == 2
