"""One operator in place of two, and the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnxscript import ir

from dim.network import DIM
from dim_export.graph.trace import trace
from dim_export.int8.normalisation import normalise_at_once


@pytest.mark.parametrize("stage", [1, 3])
def test_it_computes_what_both_operators_did(live_model: Callable[..., DIM], stage: int) -> None:
    engine = pytest.importorskip("onnxruntime")
    traced = ir.to_proto(trace(live_model(stage=stage, width=0.0625)))
    changed = ir.to_proto(normalise_at_once(ir.from_proto(traced)))
    onnx.checker.check_model(changed, full_check=True)
    assert sum(node.op_type == "BatchNormalization" for node in changed.graph.node) == 1
    assert len(changed.graph.node) == len(traced.graph.node) - 1
    draw = np.random.default_rng(0)
    window = {
        "image": draw.integers(0, 256, (2, 64, 96, 3), np.uint8),
        "trimap": draw.choice(np.array([0, 128, 255], np.uint8), (2, 64, 96)),
    }
    before, after = (
        engine.InferenceSession(model.SerializeToString()).run(None, window)[0] for model in (traced, changed)
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-5)
