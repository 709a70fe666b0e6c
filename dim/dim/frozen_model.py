"""The base of the pydantic models: their fields cannot be assigned to."""

from __future__ import annotations

from pydantic import BaseModel


class FrozenModel(BaseModel, frozen=True):
    """Immutable and hashable; models of what users write add ``extra="forbid"``."""
