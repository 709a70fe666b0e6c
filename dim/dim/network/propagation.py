"""From alpha where the network is sure to alpha everywhere: propagation along colour lines.

Within a small window alpha is nearly linear in colour, a·I + b (Levin, Lischinski and Weiss 2008). With p for
alpha as it is and w for how far each pixel's is trusted, closed-form matting asks for the least of

    Σ windows k, pixels i in k ((x_i - a_k·I_i - b_k)² + ε |a_k|²) + Σ pixels i w_i (x_i - p_i)².

Two things are simple, and done by turns: given x, each window's line (a, b) is a linear regression; and given
the lines, with t = w / (w + number of windows around i) for trust,

    x_i = t_i p_i + (1 - t_i) (a·I_i + b),   a and b averaged over the windows around i.

Pixels come in only as sums over those that share their windows. So windows are made of 3 × 3 square cells,
and a step takes lines to lines on the grid of cells, whatever their side; pixels are seen twice: when their
sums are taken, and at the end, where lines are interpolated. Large cells cover long ways, then smaller ones
go on. Chebyshev's semi-iteration (Golub and Varga 1961) makes each step count: it needs no sums over the
image, as conjugate gradients do, so that a tile computes what the whole image does.

Not part of the published network, which leaves alpha to its refiner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dim.network.colour_cues import with_known

FLATTEST = 2e-5
"""ε for each pixel of a window, in normalised colours: a quarter of a gray level, squared."""
SLOWEST = 0.97
"""Chebyshev's steps are best for errors of which a plain step leaves at most this share."""


class Level(NamedTuple):
    """One size of cells; float N, …, rows and columns of cells.

    Attributes:
        mean: N, 3: of the colours of each window.
        inverse: N, 3, 3: of the covariance of its colours, ε added.
        free: N, 4, 4: from (a, b) to the part of a cell's mean of (x I, x) that follows the lines.
        held: N, 4: the part of it that alpha holds.
    """

    mean: Tensor
    inverse: Tensor
    free: Tensor
    held: Tensor


def propagate(network_input: Tensor, alpha: Tensor, trust: Tensor, steps: Sequence[int]) -> Tensor:
    """Alpha where it is trusted, and along colour lines from there; halves are computed in float32.

    Args:
        network_input: N, 4, H, W: normalised colours, and the trimap, 0 and 1 where it is known. H and W are
            multiples of the largest cells.
        alpha: N, 1, H, W in [0, 1]; counts where the trimap is unknown.
        trust: N, 1, H, W in [0, 1]: how much of alpha is kept, of an unknown pixel.
        steps: with the cells of each size (:func:`dim.contract.propagation_cells`), coarsest first.

    Returns:
        N, 1, H, W in [0, 1]; the trimap's 0 and 1 where it is known.
    """
    x, alpha, trust = (
        value.to(torch.promote_types(value.dtype, torch.float32)) for value in (network_input, alpha, trust)
    )
    colours, trimap = x[:, :3], x[:, 3:]
    alpha = with_known(alpha, trimap)
    trust = torch.where((trimap == 0) | (trimap == 1), torch.ones(()), trust)
    lines = _lines(colours, alpha, trust, steps)
    along_lines = (lines[:, :3] * colours).sum(1, keepdim=True) + lines[:, 3:]
    return (trust * alpha + (1 - trust) * along_lines).clamp(0, 1)


def _lines(colours: Tensor, alpha: Tensor, trust: Tensor, steps: Sequence[int]) -> Tensor:
    """The lines (a, b) that each pixel's alpha is read from; N, 4, H, W."""
    moments = torch.cat([_products(colours), colours], 1)
    free, known = 1 - trust, torch.cat([alpha * colours, alpha], 1)
    weighted = torch.cat([free * moments, free, trust * known, known], 1)
    pyramid = []
    for _ in steps:
        moments, weighted = F.avg_pool2d(moments, 2), F.avg_pool2d(weighted, 2)
        pyramid.append((moments, weighted))
    lines = None
    for (moments, weighted), count in zip(reversed(pyramid), steps, strict=True):
        level = _level(moments, weighted[:, :-4])
        lines = _regression(level, weighted[:, -4:]) if lines is None else _enlarged(lines)
        lines = _stepped(level, lines, count)
    assert lines is not None
    return _enlarged(lines)


def _level(moments: Tensor, weighted: Tensor) -> Level:
    """From means over cells: of products and colours; of these and 1, times 1 - t; and of t p (I, 1)."""
    means = _window_mean(moments)
    products, mean = means[:, :6], means[:, 6:]
    rr, rg, rb, gg, gb, bb, r, g, b, one, *held = torch.split(weighted, 1, 1)
    rows = ((rr, rg, rb, r), (rg, gg, gb, g), (rb, gb, bb, b), (r, g, b, one))
    return Level(
        mean,
        _inverse(products - _products(mean)),
        torch.stack([torch.cat(row, 1) for row in rows], 1),
        torch.cat(held, 1),
    )


def _stepped(level: Level, lines: Tensor, count: int) -> Tensor:
    """Lines after some steps, each a combination of a plain step and what went before."""
    share, stride = SLOWEST / (2 - SLOWEST), 2 / (2 - SLOWEST)
    weight, previous = 1.0, lines
    for step in range(count):
        plain = _regression(level, (level.free * lines.unsqueeze(1)).sum(2) + level.held)
        if step == 0:
            previous, lines = lines, stride * plain + (1 - stride) * lines
            continue
        weight = 1 / (1 - share**2 / (2 if step == 1 else 4) * weight)
        following = weight * stride * plain + weight * (1 - stride) * lines + (1 - weight) * previous
        previous, lines = lines, following
    return lines


def _regression(level: Level, sums: Tensor) -> Tensor:
    """Each window's line from cells' means of alpha times (I, 1), averaged over the windows around a cell."""
    means = _window_mean(sums)
    alpha = means[:, 3:]
    covariance = means[:, :3] - level.mean * alpha
    slope = (level.inverse * covariance.unsqueeze(1)).sum(2)
    constant = alpha - (slope * level.mean).sum(1, keepdim=True)
    return _window_mean(torch.cat([slope, constant], 1))


def _window_mean(planes: Tensor) -> Tensor:
    """Over the 3 × 3 cells around each, as far as they are inside."""
    return F.avg_pool2d(planes, 3, 1, 1, count_include_pad=False)


def _enlarged(lines: Tensor) -> Tensor:
    """To twice the side, linearly between the centres of cells.

    Not ``F.interpolate``, which is the same: OpenVINO, asked for bfloat16, computes what follows the last
    convolution in float32 all the same, but not interpolations nor what leads to them.
    """
    four_times = torch.tensor(
        [plane for plane in range(lines.shape[1]) for _ in range(4)], device=lines.device
    )
    repeated = F.pixel_shuffle(lines.index_select(1, four_times), 2)
    # Twice the mean of two neighbours is 1, 2, 1; beyond a border there is more of what is there.
    return F.avg_pool2d(F.avg_pool2d(repeated, 2, 1, 1, count_include_pad=False), 2, 1)


def _products(colours: Tensor) -> Tensor:
    """RR, RG, RB, GG, GB, BB of N, 3 planes."""
    red, green, blue = torch.split(colours, 1, 1)
    return torch.cat([colours * red, colours[:, 1:] * green, blue * blue], 1)


def _inverse(covariance: Tensor) -> Tensor:
    """Of symmetric matrices, from their 6 values to N, 3, 3, ε added to each pivot.

    By elimination. A formula with the determinant loses everything where colours lie on a line, as shades of
    one colour do: it is a difference of numbers that are larger by 1/ε².
    """
    rr, rg, rb, gg, gb, bb = torch.split(covariance, 1, 1)
    first = (rr.clamp(min=0) + FLATTEST).reciprocal()
    u, v = rg * first, rb * first
    second = ((gg - u * rg).clamp(min=0) + FLATTEST).reciprocal()
    rest = gb - u * rb
    w = rest * second
    third = ((bb - v * rb - w * rest).clamp(min=0) + FLATTEST).reciprocal()
    # covariance = L D Lᵀ, and these are the inverse of D, and of L: rows (1, 0, 0), (-u, 1, 0), (s, -w, 1).
    s = u * w - v
    corner, side = s * third, -w * third
    edge = s * side - u * second
    rows = (
        (first + u * u * second + s * corner, edge, corner),
        (edge, second - w * side, side),
        (corner, side, third),
    )
    return torch.stack([torch.cat(row, 1) for row in rows], 1)
