"""Which tensors of an artefact are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper


def not_finite(path: Path) -> tuple[str, ...]:
    """Names of the initialisers of an ``.onnx`` file that hold a NaN or an infinity.

    bfloat16 and float8 tensors are looked at as float32.
    """
    model = onnx.load(path)
    return tuple(tensor.name for tensor in model.graph.initializer if not _finite(tensor))


def _finite(tensor: Any) -> bool:
    values = numpy_helper.to_array(tensor)
    if np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_:
        return True
    return bool(np.isfinite(values.astype(np.float32)).all())
