"""Propagation along colour lines: from alpha where the network is certain to alpha everywhere.

Within a small window alpha is nearly linear in colour, a·I + b (Levin, Lischinski and Weiss 2008). With p for
the given alpha and w for the weight of each pixel's alpha, closed-form matting minimises

    Σ windows k, pixels i in k ((x_i - a_k·I_i - b_k)² + ε |a_k|²) + Σ pixels i w_i (x_i - p_i)².

Two alternating steps decrease it. Given x, each window's line (a, b) is a linear regression. Given the lines,
with the trust t = w / (w + number of windows around i),

    x_i = t_i p_i + (1 - t_i) (a·I_i + b),   a and b averaged over the windows around i.

Both need only sums over pixels that share their windows. Therefore windows consist of 3 × 3 square cells, and
a step maps lines to lines on the grid of cells. Pixels are read twice: for the sums, and at the end, where
lines are interpolated. Large cells cover long distances first, and smaller cells continue from their lines.
Chebyshev's semi-iteration (Golub and Varga 1961) accelerates the steps. Unlike conjugate gradients it needs
no sums over the image, so that a tile computes the same as the whole image.

Not part of the published network, whose final alpha is the refiner's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dim.contract import IMAGE_MEAN, IMAGE_STD
from dim.network.colour_cues import Known, known_pixels, with_known

FLATTEST = 2e-5
"""ε for each pixel of a window, in normalised colours: a quarter of a gray level, squared."""
SLOWEST = 0.97
"""Largest factor by which a plain step shrinks an error for which Chebyshev's weights are optimal."""

LIGHT_SCALE = 4.4
"""Brings light to the spread of normalised colours, for which FLATTEST is chosen."""
MIDDLE_LIGHT, DARKEST = 1.32, 0.05
"""Along light ε is FLATTEST · (mean light / MIDDLE_LIGHT + DARKEST): a gray level is a smaller difference
where it is dark, and so is the rounding of a variance, which is a difference of means."""
HARD_END, ENDS = 0.015, 0.1
"""Alpha that :func:`harden` makes 0, as far as which it changes alpha, and the same below 1."""


class Level(NamedTuple):
    """The constants of one size of cells; float N, …, rows of cells, columns of cells.

    Attributes:
        mean: N, 3: mean colour of each window.
        inverse: N, 3, 3: inverse of the covariance of its colours, ε added.
        free: N, 4, 4: maps lines (a, b) to the part of a cell's mean of (x I, x) that follows the lines.
        held: N, 4: the part of that mean that the trusted alpha fixes.
    """

    mean: Tensor
    inverse: Tensor
    free: Tensor
    held: Tensor


def light(colours: Tensor) -> Tensor:
    """Return the power 1.5 of the 0-1 values of normalised colours, N, 3, H, W, times LIGHT_SCALE.

    A camera mixes the light of foreground and background, and its tone curve follows: alpha is linear in
    light, not in the values of a file. sRGB's power of 2.2 would leave dark colours too little contrast.
    Propagation is the same for any scale but for ε.
    """
    mean, std = (colours.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    scale = math.pow(LIGHT_SCALE, 1 / 1.5) / 255
    values = (colours * (std * scale) + mean * scale).clamp(min=0)
    return values * values.sqrt()


def propagate(
    network_input: Tensor,
    alpha: Tensor,
    trust: Tensor,
    steps: Sequence[int],
    known: Known | None = None,
    *,
    in_light: bool = False,
    hardened: bool = False,
) -> Tensor:
    """Propagate trusted alpha along colour lines to pixels that are not trusted.

    Half-precision inputs are computed in float32.

    Args:
        network_input: N, 4, H, W: normalised colours, and the trimap, 0 and 1 where it is known. H and W are
            multiples of the largest cells.
        alpha: N, 1, H, W in [0, 1]; used where the trimap is unknown.
        trust: N, 1, H, W in [0, 1]: share of alpha that an unknown pixel keeps.
        steps: number of steps with the cells of each size (:func:`dim.contract.propagation_cells`), coarsest
            first.
        known: known pixels; None takes those of the network input.
        in_light: follow lines of light (:func:`light`), not of the colours themselves.
        hardened: bring the ends to 0 and 1 (:func:`harden`).

    Returns:
        N, 1, H, W in [0, 1]; the trimap's 0 and 1 where it is known.
    """
    x, alpha, trust = (
        value.to(torch.promote_types(value.dtype, torch.float32)) for value in (network_input, alpha, trust)
    )
    colours, known = light(x[:, :3]) if in_light else x[:, :3], known or known_pixels(x)
    alpha = with_known(alpha, known)
    trust = torch.where(known.background | known.foreground, torch.ones(()), trust)
    lines = _lines(colours, alpha, trust, steps, in_light)
    along_lines = (lines[:, :3] * colours).sum(1, keepdim=True) + lines[:, 3:]
    found = trust * alpha + (1 - trust) * along_lines
    return (harden(found) if hardened else found).clamp(0, 1)


def harden(alpha: Tensor) -> Tensor:
    """Return alpha whose ends reach 0 and 1 by HARD_END sooner, on straight lines from ENDS and 1 - ENDS.

    Means over windows, and the ridge ε, leave some hundredths where nothing, or all, is covered. Not cut to
    0-1.
    """
    slope = ENDS / (ENDS - HARD_END)
    low, high = slope * (alpha - HARD_END), 1 + slope * (alpha - (1 - HARD_END))
    return torch.maximum(torch.minimum(alpha, low), high)


def _lines(colours: Tensor, alpha: Tensor, trust: Tensor, steps: Sequence[int], in_light: bool) -> Tensor:
    """Compute the line (a, b) of each pixel; N, 4, H, W."""
    # The sums of a window in a and b: moments of the colours, and the same weighted with 1 - t and t p.
    moments = torch.cat([_products(colours), colours], 1)
    free, known = 1 - trust, torch.cat([alpha * colours, alpha], 1)
    weighted = torch.cat([free * moments, free, trust * known, known], 1)
    # Means over cells of 2, 4, 8 … pixels.
    pyramid = []
    for _ in steps:
        moments, weighted = F.avg_pool2d(moments, 2), F.avg_pool2d(weighted, 2)
        pyramid.append((moments, weighted))
    # From the largest cells to the smallest: each level starts with the lines of the level before.
    lines = None
    for (moments, weighted), count in zip(reversed(pyramid), steps, strict=True):
        level = _level(moments, weighted[:, :-4], in_light)
        lines = _regression(level, weighted[:, -4:]) if lines is None else _enlarged(lines)
        lines = _stepped(level, lines, count)
    assert lines is not None
    return _enlarged(lines)


def _level(moments: Tensor, weighted: Tensor, in_light: bool) -> Level:
    """Compute a level's constants from means over cells.

    Args:
        moments: N, 9: products of the colours (:func:`_products`), then the colours.
        weighted: N, 14: the moments and 1, times 1 - t; then t p (I, 1).
        in_light: the colours are light.
    """
    means = _window_mean(moments)
    products, mean = means[:, :6], means[:, 6:]
    rr, rg, rb, gg, gb, bb, r, g, b, one, *held = _planes(weighted)
    rows = ((rr, rg, rb, r), (rg, gg, gb, g), (rb, gb, bb, b), (r, g, b, one))
    return Level(
        mean,
        _inverse(products - _products(mean), _ridge(mean, in_light)),
        torch.stack([torch.cat(row, 1) for row in rows], 1),
        torch.cat(held, 1),
    )


def _ridge(mean: Tensor, in_light: bool) -> Sequence[Tensor | float]:
    """Return ε of each of a window's three colours, whose means are N, 3."""
    if in_light:
        return _planes(mean * (FLATTEST / MIDDLE_LIGHT) + FLATTEST * DARKEST)
    return (FLATTEST,) * 3


def _stepped(level: Level, lines: Tensor, count: int) -> Tensor:
    """Improve the lines by Chebyshev's semi-iteration.

    A plain step multiplies each component of the error by a factor in [0, SLOWEST]. Relaxation with
    ``stride`` centres these factors: they lie in [-share, share]. The weights combine each step
    with the two iterates before it: the error's polynomial in these factors is then Chebyshev's, the smallest
    on that interval.
    """
    share, stride = SLOWEST / (2 - SLOWEST), 2 / (2 - SLOWEST)
    weight, previous = 1.0, lines
    for step in range(count):
        # A plain step: the cells' sums of x from the lines, then the regression on these sums.
        plain = _regression(level, (level.free * lines.unsqueeze(1)).sum(2) + level.held)
        if step == 0:
            previous, lines = lines, stride * plain + (1 - stride) * lines
            continue
        # The recurrence of the weights; the first differs because T_1(z) = z, and later T_n has 2z.
        weight = 1 / (1 - share**2 / (2 if step == 1 else 4) * weight)
        following = weight * stride * plain + weight * (1 - stride) * lines + (1 - weight) * previous
        previous, lines = lines, following
    return lines


def _regression(level: Level, sums: Tensor) -> Tensor:
    """Fit each window's line to cells' means of x (I, 1); average the lines of the windows around a cell."""
    means = _window_mean(sums)
    alpha = means[:, 3:]
    covariance = means[:, :3] - level.mean * alpha
    slope = (level.inverse * covariance.unsqueeze(1)).sum(2)
    constant = alpha - (slope * level.mean).sum(1, keepdim=True)
    return _window_mean(torch.cat([slope, constant], 1))


def _window_mean(planes: Tensor) -> Tensor:
    """Return the mean over the 3 × 3 cells around each cell, without those outside the image."""
    return F.avg_pool2d(planes, 3, 1, 1, count_include_pad=False)


def _enlarged(lines: Tensor) -> Tensor:
    """Interpolate to twice the side, linearly between the centres of cells.

    The same as ``F.interpolate``. But with bfloat16, OpenVINO computes in bfloat16 the interpolations and the
    layers before them, while it keeps all others after the last convolution in float32.
    """
    four_times = torch.tensor(
        [plane for plane in range(lines.shape[1]) for _ in range(4)], device=lines.device
    )
    repeated = F.pixel_shuffle(lines.index_select(1, four_times), 2)
    # Two means of two neighbours weight 1, 2, 1; at a border the first one counts only values inside.
    return F.avg_pool2d(F.avg_pool2d(repeated, 2, 1, 1, count_include_pad=False), 2, 1)


def _planes(maps: Tensor) -> Sequence[Tensor]:
    """Return each plane of N, C, H, W as N, 1, H, W.

    An exported graph cuts each out by itself. A Split would have one output a plane, and WebGPU binds at
    most 8 buffers to a kernel: with more outputs ONNX Runtime Web computes wrong alphas without an error.
    """
    if not torch.compiler.is_exporting():
        return torch.split(maps, 1, 1)
    return [maps[:, plane : plane + 1] for plane in range(maps.shape[1])]


def _products(colours: Tensor) -> Tensor:
    """Return the products RR, RG, RB, GG, GB, BB of N, 3 planes."""
    red, green, blue = torch.split(colours, 1, 1)
    return torch.cat([colours * red, colours[:, 1:] * green, blue * blue], 1)


def _inverse(covariance: Tensor, ridge: Sequence[Tensor | float]) -> Tensor:
    """Invert symmetric 3 × 3 matrices, given as their 6 values, to N, 3, 3; ε is added to each pivot.

    By elimination. A formula with the determinant loses all digits where colours lie on a line, such as
    shades of one colour, because there it is a difference of numbers that are larger by 1/ε².
    """
    # Covariance = L D Lᵀ with a unit lower triangle L. Eliminate red: u and v are the column of L below it.
    rr, rg, rb, gg, gb, bb = _planes(covariance)
    red, green, blue = ridge
    first = (rr.clamp(min=0) + red).reciprocal()
    u, v = rg * first, rb * first
    # Eliminate green from the remaining 2 × 2 block; w is the last entry of L.
    second = ((gg - u * rg).clamp(min=0) + green).reciprocal()
    rest = gb - u * rb
    w = rest * second
    third = ((bb - v * rb - w * rest).clamp(min=0) + blue).reciprocal()
    # D⁻¹ is first, second, third, and L⁻¹ has the rows (1, 0, 0), (-u, 1, 0), (s, -w, 1). The product
    # L⁻ᵀ D⁻¹ L⁻¹ is the inverse of the covariance.
    s = u * w - v
    corner, side = s * third, -w * third
    edge = s * side - u * second
    rows = (
        (first + u * u * second + s * corner, edge, corner),
        (edge, second - w * side, side),
        (corner, side, third),
    )
    return torch.stack([torch.cat(row, 1) for row in rows], 1)
