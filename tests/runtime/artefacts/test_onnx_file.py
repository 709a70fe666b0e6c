"""The walk over an ONNX file's top level: metadata, and what is wrong with a wrong file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dim.contract import METADATA_KEY
from dim_runtime.artefacts.onnx_file import MOST_FIELDS, read_metadata, read_properties
from dim_runtime.backends.open import default_model
from dim_runtime.errors import ArtefactError
from dim_runtime.matting import Matting


def varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


GRAPH = field(2, b"name")
"""A GraphProto with its name alone."""


def model(properties: dict[str, str], graph: bytes = GRAPH) -> bytes:
    """Return a ModelProto: ir_version, graph, metadata_props."""
    entries = (field(1, key.encode()) + field(2, value.encode()) for key, value in properties.items())
    return varint(1 << 3) + varint(8) + field(7, graph) + b"".join(field(14, entry) for entry in entries)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def test_properties_are_read(path: Path) -> None:
    path.write_bytes(model({"a": "1", "long": "x" * 1000}, graph=field(10, b"g" * 70000)))
    assert read_properties(path) == {"a": "1", "long": "x" * 1000}


def test_the_embedded_model_is_ours() -> None:
    metadata = read_metadata(default_model())
    assert metadata.context == 320
    assert metadata.precision == "fp32"


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(ArtefactError, match="no such file"):
        read_metadata(path)
    with pytest.raises(ArtefactError, match="File name too long"):
        Matting("n" * 300 + ".onnx")
    with pytest.raises(ArtefactError, match="a folder"):
        read_metadata(path.parent)


def test_an_onnx_file_of_another_origin_names_the_command(path: Path) -> None:
    path.write_bytes(model({"author": "a person"}))
    with pytest.raises(ArtefactError, match=r"dim-export onnx CHECKPOINT -o MODEL\.onnx"):
        read_metadata(path)


def test_unreadable_metadata(path: Path) -> None:
    from dim.contract import ContractError

    path.write_bytes(model({METADATA_KEY: "{}"}))
    with pytest.raises(ContractError, match=str(path)):
        read_metadata(path)


@pytest.mark.parametrize("kept", [0.001, 0.3, 0.5, 0.999])
def test_a_file_that_was_cut_off(path: Path, kept: float) -> None:
    content = default_model().read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ArtefactError, match=r"cut off|not an artefact"):
        read_metadata(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a model at all", b"\x89PNG\r\n\x1a\n" * 9, b"\xff" * 40, b"\0" * 64]
)
def test_other_files_are_no_onnx(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"not an ONNX file|cut off"):
        read_metadata(path)


def test_a_file_cut_off_at_any_length(path: Path) -> None:
    """Also by one byte, and between two fields: then the metadata, which is the last one, is missing."""
    content = model({METADATA_KEY: read_metadata(default_model()).to_json()})
    path.write_bytes(content)
    assert read_metadata(path).context == 320
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ArtefactError, match=r"cut off|not an ONNX file|not an artefact"):
            read_metadata(path)


EXTERNAL = field(13, field(1, b"location") + field(2, b"/etc/passwd"))


@pytest.mark.parametrize(
    "graph",
    [
        field(5, EXTERNAL),
        field(1, field(5, field(5, EXTERNAL))),
        field(1, field(5, field(10, EXTERNAL))),
        field(1, field(5, field(6, field(5, EXTERNAL)))),
        field(15, field(1, EXTERNAL)),
        GRAPH + field(5, field(8, b"weight")) + field(5, EXTERNAL),
    ],
    ids=["initializer", "constant", "constants", "sub-graph", "sparse", "second"],
)
def test_weights_in_other_files_are_refused(path: Path, graph: bytes) -> None:
    path.write_bytes(model({METADATA_KEY: "{}"}, graph))
    with pytest.raises(ArtefactError, match="external data"):
        read_metadata(path)


def test_graphs_nested_without_end_are_refused(path: Path) -> None:
    graph = GRAPH
    for _ in range(2000):
        graph = field(1, field(5, field(6, graph)))
    path.write_bytes(model({METADATA_KEY: "{}"}, graph))
    with pytest.raises(ArtefactError, match="nested"):
        read_metadata(path)


def test_a_file_of_many_tiny_fields_is_refused_early(path: Path) -> None:
    """Two bytes a field: without a limit 100 MB of them took minutes."""
    path.write_bytes(model({}, graph=b"\x0a\x00" * (MOST_FIELDS + 1)))
    with pytest.raises(ArtefactError, match=f"more than {MOST_FIELDS} fields"):
        read_metadata(path)
    path.write_bytes(model({"author": "x"}, graph=b"\x0a\x00" * (MOST_FIELDS // 10)))
    assert read_properties(path) == {"author": "x"}
