"""Rounding to int8 changes how steep alpha is; here that is measured and taken out again.

Integers make more ties than numbers do, and what unpooling then puts into the wrong places makes logits
larger. On average over images it is a factor, which the last convolutions can carry.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from onnxscript import ir

from dim.network import DIM
from dim_export.graph.onnx_file import describe, write
from dim_export.int8.calibration import Answer, calibration_windows
from dim_export.parity.comparison import gain
from dim_runtime.backends.open import open_backend
from dim_runtime.images.pairs import MattingSample

SANE = (0.5, 2.0)
"""Slopes that rounding may cause. Beyond them something else is wrong, and the gates are to see it."""


def rounding_gain(
    graph: ir.Model, model: DIM, pairs: Iterable[MattingSample], answers: Sequence[Answer]
) -> float:
    """Slope of a quantised graph's logits over the float network's, as the parity report measures it.

    Args:
        graph: runs in ONNX Runtime on the CPU, in any shape.
        model: the network it was made from.
        pairs: those that were calibrated on; as many as there are answers are run.
        answers: the float network's.

    Returns:
        1 where too few pixels could tell, or where it is no matter of rounding.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        write(graph, describe(model, checkpoint_sha256="", precision="int8"), path)
        found = _measured(path, pairs, answers)
    return found if found is not None and SANE[0] < found < SANE[1] else 1.0


def _measured(path: Path, pairs: Iterable[MattingSample], answers: Sequence[Answer]) -> float | None:
    seen = []
    with closing(open_backend(path)) as backend:
        matting = calibration_windows(backend)
        for answer, pair in zip(answers, pairs, strict=False):
            seen.append(matting(pair.image, pair.trimap).ravel()[answer.pixels])
    return gain(np.concatenate([answer.alpha for answer in answers]), np.concatenate(seen))
