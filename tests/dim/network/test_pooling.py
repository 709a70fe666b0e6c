"""Both forms of pooling hold the same bits, ties included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from dim.network.pooling import IndexPooling, PhasePooling


@st.composite
def maps(draw: st.DrawFn) -> Tensor:
    """N, C, H, W with even sides and few distinct values, so that most windows hold ties."""
    n, c = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    h, w = 2 * draw(st.integers(1, 5)), 2 * draw(st.integers(1, 5))
    few = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0])
    return torch.from_numpy(draw(arrays(np.float32, (n, c, h, w), elements=few, fill=st.nothing())))


def _bits(x: Tensor) -> bytes:
    return x.contiguous().numpy().tobytes()


@pytest.mark.parametrize("pooling", [IndexPooling(), PhasePooling()])
@given(x=maps())
@settings(max_examples=150, deadline=None)
def test_unpool_puts_values_where_torch_puts_them(pooling: IndexPooling | PhasePooling, x: Tensor) -> None:
    x = F.relu(x)  # as in the network: many windows are all zero
    pooled, memory = pooling.pool(x)
    # Something else than the maxima goes up in the decoder: distinct values show every position.
    values = torch.arange(1, pooled.numel() + 1, dtype=x.dtype).view_as(pooled)
    expected_pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(pooled, expected_pooled)  # not bits: of +0 and -0 either is a maximum
    assert _bits(pooling.unpool(values, memory)) == _bits(F.max_unpool2d(values, indices, 2))


@given(x=maps())
@settings(max_examples=150, deadline=None)
def test_both_forms_agree_without_relu(x: Tensor) -> None:
    index, phase = IndexPooling(), PhasePooling()
    pooled, indices = index.pool(x)
    phase_pooled, switches = phase.pool(x)
    assert torch.equal(pooled, phase_pooled)
    values = torch.randn_like(pooled)
    assert _bits(index.unpool(values, indices)) == _bits(phase.unpool(values, switches))


@given(x=maps())
@settings(max_examples=50, deadline=None)
def test_depth_to_space_inverts_space_to_depth(x: Tensor) -> None:
    pooling = PhasePooling()
    assert torch.equal(pooling.depth_to_space(pooling.space_to_depth(x)), x)


def test_a_window_of_equals_goes_to_its_top_left() -> None:
    pooling = PhasePooling()
    _, memory = pooling.pool(torch.zeros(1, 1, 4, 4))
    up = pooling.unpool(torch.ones(1, 1, 2, 2), memory)
    assert up[0, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    x = torch.randint(0, 3, (2, 4, 8, 8)).to(dtype)
    phase = PhasePooling()
    pooled, memory = phase.pool(x)
    expected, indices = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(pooled, expected)
    assert torch.equal(phase.unpool(pooled, memory), F.max_unpool2d(expected, indices, 2))
