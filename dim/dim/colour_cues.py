"""What the colours around a pixel say about its alpha: two planes for a refiner, beside its own inputs.

Within a square around each pixel the mean colours of foreground and background, F and B, are estimated, with
the decoder's alpha as weight. The pixel's colour I, projected on the line from B to F, gives an alpha,

    (I - B) · (F - B) / |F - B|²,

as in matting from colour samples (Chuang et al. 2001 and its successors). How far apart F and B are tells how
much that is worth. Not part of the published network: convolutions as narrow as the compact network's do not
find such products.
"""

from __future__ import annotations

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


def colour_cues(x: Tensor, alpha: Tensor, radius: int) -> Tensor:
    """Alpha by colour, and contrast, of squares of 2 · radius + 1 pixels; halves are computed in float32.

    Args:
        x: the network's input N, 4, H, W: normalised colours, and the trimap, 0 and 1 where it is known.
        alpha: N, 1, H, W in [0, 1]; counts where the trimap is unknown.
        radius: of the squares, in pixels; they end at the image's border.

    Returns:
        N, 2, H, W in [0, 1]: the projection, and |F - B|² / (|F - B|² + MIDDLE_CONTRAST).
    """
    x, alpha = (value.to(torch.promote_types(value.dtype, torch.float32)) for value in (x, alpha))
    colours, weight = x[:, :3], _with_known(alpha, x[:, 3:])
    means = box_mean(torch.cat([colours, weight, colours * weight], 1), radius)
    mean, share, weighted = means[:, :3], means[:, 3:4], means[:, 4:]
    # Without any foreground its colour is the mean of all, and so is the background's: no contrast.
    prior = SMALLEST_SHARE * mean
    foreground = (weighted + prior) / (share + SMALLEST_SHARE)
    background = (mean - weighted + prior) / (1 - share + SMALLEST_SHARE)
    line = foreground - background
    contrast = (line * line).sum(1, keepdim=True)
    along = ((colours - background) * line).sum(1, keepdim=True)
    projection = (along / (contrast + SMALLEST_CONTRAST)).clamp(0, 1)
    cues = torch.cat([projection, contrast / (contrast + MIDDLE_CONTRAST)], 1)
    assert cues.shape[1] == CUES
    return cues


def box_mean(maps: Tensor, radius: int) -> Tensor:
    """Mean over the part of a square of 2 · radius + 1 pixels that lies inside; rows first, then columns."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(maps, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)


def _with_known(alpha: Tensor, trimap: Tensor) -> Tensor:
    alpha = torch.where(trimap <= 0, torch.zeros(()), alpha)
    return torch.where(trimap >= 1, torch.ones(()), alpha)
