"""The models of this package, by name: an artefact each, and beside it the weights that it was made of."""

from __future__ import annotations

import os
from pathlib import Path

from dim.errors import InputError

SHIPPED_MODELS = ("dim-clean", "dim-compact")
"""Their names; the first is the embedded model, which is used without a name."""


def default_model() -> Path:
    """Return the path of the embedded artefact."""
    return _shipped(SHIPPED_MODELS[0])


def model_path(model: object) -> Path:
    """Return an artefact's path: of the embedded one for None, of a shipped one for its name, or of a file.

    A file need not exist, so that whoever opens it reports it; but a name without folder and suffix, which
    no artefact has, is most likely a shipped model's with an error.

    Raises:
        InputError: neither a text nor a path, or a name of no model.
    """
    if model is None:
        return default_model()
    named = os.fspath(model) if isinstance(model, str | os.PathLike) else model
    if not isinstance(named, str):
        raise InputError(
            "cannot use this model",
            got=f"{named!r:.80} of type {type(named).__name__}",
            expected=f"a path, or one of {', '.join(SHIPPED_MODELS)}; None for the embedded model",
        )
    if named in SHIPPED_MODELS:
        return _shipped(named)
    path = Path(named)
    if path.name == named and not path.suffix and not path.exists():
        raise InputError(
            "cannot find this model",
            got=named,
            expected=f"an .onnx or .engine file, or one of {', '.join(SHIPPED_MODELS)}",
        )
    return path


def _shipped(name: str) -> Path:
    return Path(__file__).parent / f"{name}.onnx"
