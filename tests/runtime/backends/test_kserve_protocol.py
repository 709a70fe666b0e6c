"""What a server sends is never trusted: damaged responses raise ProtocolError and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dim_runtime.backends.kserve_protocol import (
    JSON_LENGTH,
    ProtocolError,
    read_alpha,
    read_description,
    read_document,
    request_body,
    to_alpha,
)

from .kserve_servers import http_answer

SHAPE = (1, 32, 32)
ALPHA = np.linspace(0, 1, 1024, dtype=np.float32).reshape(SHAPE)


@pytest.mark.parametrize("binary", [True, False])
def test_what_was_sent_is_read(binary: bool) -> None:
    body, headers = http_answer(ALPHA, binary=binary)
    np.testing.assert_array_equal(read_alpha(body, headers.get(JSON_LENGTH), SHAPE), ALPHA)


def test_nested_numbers_are_read() -> None:
    output = {"name": "alpha", "datatype": "FP32", "shape": SHAPE, "data": ALPHA.tolist()}
    found = read_alpha(json.dumps({"outputs": [output]}).encode(), None, SHAPE)
    np.testing.assert_array_equal(found, ALPHA)


@given(st.data())
def test_a_response_damaged_anywhere(data: st.DataObject) -> None:
    body, headers = http_answer(ALPHA, binary=data.draw(st.booleans()))
    json_part = int(headers.get(JSON_LENGTH, len(body)))
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, json_part - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    length = data.draw(
        st.sampled_from([headers.get(JSON_LENGTH), None, "-1", "x", "1" * 5000, str(len(body) + 1)])
    )
    for content in (bytes(damaged), bytes(damaged[:cut]), body[:cut]):
        try:
            found = read_alpha(content, length, SHAPE)
        except ProtocolError:
            continue
        assert found.shape == SHAPE
        assert found.dtype == np.float32


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["name", "datatype", "shape", "parameters", "data"]))
def test_any_value_in_the_place_of_another(value: Any, key: str) -> None:
    output: dict[str, Any] = {"name": "alpha", "datatype": "FP32", "shape": [1, 32, 32], "data": [0.0] * 1024}
    output[key] = value
    for document in ({"outputs": [output]}, {"outputs": value}, value):
        content = json.dumps(document).encode()
        with suppress(ProtocolError):
            assert read_alpha(content, None, SHAPE).shape == SHAPE
        for read in (read_description, read_document):
            with suppress(ProtocolError):
                read(content)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 10**6,
        b'{"outputs":' * 10**5,
        b"\xff\xfe",
        b"",
        b"1" * 10**4,
    ],
)
def test_documents_that_break_parsers(content: bytes) -> None:
    for read in (lambda body: read_alpha(body, None, SHAPE), read_description, read_document):
        with pytest.raises(ProtocolError):
            read(content)


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "words"),
    [
        ("FP16", SHAPE, b"", "datatype"),
        ("FP32", (1, 32, 31), ALPHA.tobytes(), "shape"),
        ("FP32", SHAPE, ALPHA.tobytes()[:-1], "multiple of element size"),
        ("FP32", SHAPE, ALPHA.tobytes()[:-4], "1023 values"),
        ("FP32", SHAPE, [1.0] * 1025, "1025 values"),
        ("FP32", SHAPE, [[1.0], [1.0, 2.0]], "inhomogeneous"),
        ("FP32", SHAPE, [10**400] * 1024, "too large"),
        ("FP32", SHAPE, [{}] * 1024, "dict"),
        ("FP32", SHAPE, None, "1 values"),
    ],
)
def test_tensors_that_are_no_alpha(datatype: str, shape: tuple[int, ...], values: object, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        to_alpha(datatype, shape, values, SHAPE)


def test_the_request_is_the_windows_and_no_copy_of_them() -> None:
    image, trimap = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(1, 32, 32, 3), np.zeros(SHAPE, np.uint8)
    head, tensors = request_body(image, trimap, binary=True)
    assert [bytes(tensor) for tensor in tensors] == [image.tobytes(), trimap.tobytes()]
    assert np.shares_memory(np.frombuffer(tensors[0], np.uint8), image)
    sizes = [entry["parameters"]["binary_data_size"] for entry in json.loads(head)["inputs"]]
    assert sizes == [3072, 1024]
    head, tensors = request_body(image, trimap, binary=False)
    assert not tensors
    assert json.loads(head)["inputs"][0]["data"] == image.ravel().tolist()
