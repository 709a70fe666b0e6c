"""Models of documents: fields are fixed, equal models are equal."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dim.frozen_model import FrozenModel


class Size(FrozenModel):
    width: int
    height: int = 1


def test_fields_cannot_be_assigned_to() -> None:
    size = Size(width=3)
    with pytest.raises(ValidationError, match="frozen"):
        size.width = 4
    assert size.width == 3


def test_equal_models_are_one_key() -> None:
    assert {Size(width=3), Size(width=3, height=1)} == {Size(width=3)}
