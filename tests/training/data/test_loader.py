"""Errors of loader processes arrive as they were raised."""

from __future__ import annotations

import pytest
from torch._utils import ExceptionWrapper

from dim.errors import InputError
from dim_training.data.loader import as_raised


def test_an_error_of_a_loader_process_has_no_traceback() -> None:
    original = InputError("cannot read fg.jpg", got="not an image, or damaged", fix="save it again")
    try:
        raise original
    except InputError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(InputError, match="Traceback") as caught:
        wrapped.reraise()
    assert str(as_raised(caught.value)) == str(original)
    assert as_raised(original) is original
