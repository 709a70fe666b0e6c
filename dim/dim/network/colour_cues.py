"""Colour cues: two planes of alpha estimated from the colours around a pixel, extra inputs of a refiner.

Within a square around each pixel the mean colours of foreground and background, F and B, are estimated, with
the decoder's alpha as weight. The pixel's colour I, projected on the line from B to F, gives an alpha,

    (I - B) · (F - B) / |F - B|²,

as in matting from colour samples (Chuang et al. 2001 and its successors). The distance of F and B shows how
reliable it is. Not part of the published network: convolutions as narrow as the compact network's cannot
compute such products.

Means are smooth, so they are taken over cells of several pixels. The projection is linear in the pixel's
colour; its coefficients are interpolated between cells and applied to each pixel's colour, as in the fast
guided filter (He and Sun 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dim.contract import CUES_PER_RADIUS, cue_cell

SMALLEST_SHARE = 0.01
"""Share of the mean of all colours that is mixed into F and B, so that both exist where alpha is 0 or 1."""
SMALLEST_CONTRAST = 0.02
"""Added to |F - B|², in normalised units, because smaller distances are noise. About 8 levels of 255."""
MIDDLE_CONTRAST = 0.3
"""The |F - B|² whose contrast cue is ½."""
BEYOND = 0.5
"""Distance by which the projection may leave 0-1: colours beyond the means are the purest."""


HALF_LEVEL = 0.5 / 255
"""Half a gray level of the trimap plane."""


class Known(NamedTuple):
    """Masks of the known pixels; booleans N, 1, H, W."""

    background: Tensor
    foreground: Tensor


def known_pixels(network_input: Tensor) -> Known:
    """Return where the trimap plane of N, 4, H, W, which is level / 255, stands for the levels 0 and 255.

    Levels are rounded, not compared for equality: tools that store 1/255 in half precision move the plane.
    """
    trimap = network_input[:, 3:]
    return Known(trimap < HALF_LEVEL, trimap > 1 - HALF_LEVEL)


def colour_cues(
    network_input: Tensor, alpha: Tensor, radii: Sequence[int], known: Known | None = None
) -> Tensor:
    """Compute the cues of squares of about 2 · radius pixels; half precision is computed in float32.

    Args:
        network_input: N, 4, H, W: normalised colours, and the trimap, 0 and 1 where it is known. H and W are
            multiples of the cells' sides (:func:`dim.contract.cue_cell`).
        alpha: N, 1, H, W in [0, 1]; used where the trimap is unknown.
        radii: half sides of the squares, in pixels; squares end at the image's border.
        known: known pixels; None takes those of the network input.

    Returns:
        N, 2 · radii, H, W: for each radius the projection, in [-BEYOND, 1 + BEYOND], and the contrast
        |F - B|² / (|F - B|² + MIDDLE_CONTRAST).
    """
    x, alpha = (value.to(torch.promote_types(value.dtype, torch.float32)) for value in (network_input, alpha))
    colours, weight = x[:, :3], with_known(alpha, known or known_pixels(x))
    maps = torch.cat([colours, weight, colours * weight], 1)
    cues = torch.cat([cue for radius in radii for cue in _cues(colours, maps, radius)], 1)
    assert cues.shape[1] == CUES_PER_RADIUS * len(radii)
    return cues


def _cues(colours: Tensor, maps: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Compute projection and contrast.

    Args:
        colours: N, 3, H, W.
        maps: N, 7, H, W: colours, alpha, and colours times alpha.
        radius: half side of the squares, pixels.
    """
    cell = cue_cell(radius)
    means = box_mean(F.avg_pool2d(maps, cell) if cell > 1 else maps, radius // cell)
    by_cell = torch.cat(_projection(*torch.split(means, [3, 1, 3], 1)), 1)
    if cell > 1:
        by_cell = F.interpolate(by_cell, scale_factor=cell, mode="bilinear", align_corners=False)
    slope, constant, contrast = torch.split(by_cell, [3, 1, 1], 1)
    projection = (colours * slope).sum(1, keepdim=True) + constant
    return projection.clamp(-BEYOND, 1 + BEYOND), contrast


def _projection(mean: Tensor, share: Tensor, weighted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute slope (N, 3), constant and contrast (N, 1) of the projection from means over squares."""
    # Without any foreground its colour is the mean of all, and so is the background's: no contrast.
    foreground = (weighted + SMALLEST_SHARE * mean) / (share + SMALLEST_SHARE)
    background = ((1 + SMALLEST_SHARE) * mean - weighted) / ((1 + SMALLEST_SHARE) - share)
    line = foreground - background
    contrast = (line * line).sum(1, keepdim=True)
    slope = line / (contrast + SMALLEST_CONTRAST)
    return slope, -(background * slope).sum(1, keepdim=True), contrast / (contrast + MIDDLE_CONTRAST)


def box_mean(maps: Tensor, radius: int) -> Tensor:
    """Return the means over squares of 2 · radius + 1 pixels, without pixels outside the image."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(maps, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)


def with_known(alpha: Tensor, known: Known) -> Tensor:
    """Return alpha, N, 1, H, W, with 0 and 1 at known pixels."""
    alpha = torch.where(known.background, torch.zeros(()), alpha)
    return torch.where(known.foreground, torch.ones(()), alpha)
