"""What the colours around a pixel say about its alpha: two planes for a refiner, beside its own inputs.

Within a square around each pixel the mean colours of foreground and background, F and B, are estimated, with
the decoder's alpha as weight. The pixel's colour I, projected on the line from B to F, gives an alpha,

    (I - B) · (F - B) / |F - B|²,

as in matting from colour samples (Chuang et al. 2001 and its successors). How far apart F and B are tells how
much that is worth. Not part of the published network: convolutions as narrow as the compact network's do not
find such products.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dim.contract import CUES

SMALLEST_SHARE = 0.01
"""How much of all colours is mixed into foreground and background, so that both exist without any."""
SMALLEST_CONTRAST = 0.05
"""Added to |F - B|², in normalised units: less is noise. About 13 levels of 255."""
MIDDLE_CONTRAST = 0.3
"""The |F - B|² whose contrast cue is ½."""


def colour_cues(network_input: Tensor, alpha: Tensor, radii: Sequence[int]) -> Tensor:
    """Alpha by colour, and contrast, of squares of 2 · radius + 1 pixels; halves are computed in float32.

    Args:
        network_input: N, 4, H, W: normalised colours, and the trimap, 0 and 1 where it is known.
        alpha: N, 1, H, W in [0, 1]; counts where the trimap is unknown.
        radii: of the squares, in pixels; they end at the image's border.

    Returns:
        N, 2 · radii, H, W in [0, 1]: for each radius the projection, and the contrast
        |F - B|² / (|F - B|² + MIDDLE_CONTRAST).
    """
    x, alpha = (value.to(torch.promote_types(value.dtype, torch.float32)) for value in (network_input, alpha))
    colours, weight = x[:, :3], _with_known(alpha, x[:, 3:])
    maps = torch.cat([colours, weight, colours * weight], 1)
    cues = torch.cat([cue for radius in radii for cue in _cues(colours, box_mean(maps, radius))], 1)
    assert cues.shape[1] == CUES * len(radii)
    return cues


def _cues(colours: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Projection and contrast, from the means of colours, alpha, and colours weighted with alpha."""
    mean, share, weighted = torch.split(means, [3, 1, 3], 1)
    # Without any foreground its colour is the mean of all, and so is the background's: no contrast.
    foreground = (weighted + SMALLEST_SHARE * mean) / (share + SMALLEST_SHARE)
    background = ((1 + SMALLEST_SHARE) * mean - weighted) / ((1 + SMALLEST_SHARE) - share)
    line = foreground - background
    contrast = (line * line).sum(1, keepdim=True)
    along = ((colours - background) * line).sum(1, keepdim=True)
    projection = (along / (contrast + SMALLEST_CONTRAST)).clamp(0, 1)
    return projection, contrast / (contrast + MIDDLE_CONTRAST)


def box_mean(maps: Tensor, radius: int) -> Tensor:
    """Mean over the part of a square of 2 · radius + 1 pixels that lies inside; rows first, then columns."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(maps, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)


def _with_known(alpha: Tensor, trimap: Tensor) -> Tensor:
    alpha = torch.where(trimap == 0, torch.zeros(()), alpha)
    return torch.where(trimap == 1, torch.ones(()), alpha)
