"""Colour cues: the projection of a known composite, means at borders, precision and gradient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dim.network.colour_cues import (
    BEYOND,
    MIDDLE_CONTRAST,
    SMALLEST_CONTRAST,
    SMALLEST_SHARE,
    box_mean,
    colour_cues,
)

FOREGROUND, BACKGROUND = np.array([1.5, -0.5, 0.25]), np.array([-1.0, 0.5, 1.0])


def _composite(
    alpha: npt.NDArray[np.float64], trimap: npt.NDArray[np.float64], contrast: float = 1
) -> torch.Tensor:
    foreground = BACKGROUND + (FOREGROUND - BACKGROUND) * contrast
    colours = alpha * foreground[:, None, None] + (1 - alpha) * BACKGROUND[:, None, None]
    return torch.from_numpy(np.concatenate([colours, trimap[None]]))[None]


def _scene() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Background on the left, foreground on the right, and strands of every alpha in between."""
    alpha = np.random.default_rng(0).uniform(0, 1, (48, 64))
    alpha[:, :27], alpha[:, 37:] = 0, 1
    trimap = np.full((48, 64), 128 / 255)
    trimap[:, :27], trimap[:, 37:] = 0, 1
    return alpha, trimap


def _undecided() -> torch.Tensor:
    """Return the alpha of a decoder that saw no strands: the known pixels give their colours."""
    return torch.full((1, 1, 48, 64), 0.5, dtype=torch.float64)


@pytest.mark.parametrize("radius", [16, 64])
def test_colours_of_a_composite_give_its_alpha(radius: int) -> None:
    alpha, trimap = _scene()
    projection = colour_cues(_composite(alpha, trimap), _undecided(), [radius])[0, 0].numpy()
    unknown = trimap == 128 / 255
    assert np.corrcoef(projection[unknown], alpha[unknown])[0, 1] > 0.97
    assert np.abs(_undecided()[0, 0].numpy() - alpha)[unknown].mean() > 0.2
    assert np.abs(projection - alpha)[unknown].mean() < 0.1


Window = tuple[slice, slice]


def _local_projection(
    x: npt.NDArray[np.float64], alpha: npt.NDArray[np.float64], window: Window
) -> list[float]:
    """Slope, constant and contrast of one square, by the formula."""
    square, weight = x[(slice(0, 3), *window)], alpha[window]
    few = SMALLEST_SHARE * square.mean((1, 2))
    foreground = ((square * weight).mean((1, 2)) + few) / (weight.mean() + SMALLEST_SHARE)
    background = ((square * (1 - weight)).mean((1, 2)) + few) / (1 - weight.mean() + SMALLEST_SHARE)
    line = foreground - background
    contrast = line @ line
    slope = line / (contrast + SMALLEST_CONTRAST)
    return [*slope, -slope @ background, contrast / (contrast + MIDDLE_CONTRAST)]


def test_the_projection_is_the_formula_s() -> None:
    """Radius 1, whose cells are pixels, at one pixel."""
    x, alpha = _noise(5)
    *slope, constant, contrast = _local_projection(x, alpha, np.s_[1:4, 1:4])
    expected = np.clip(x[:3, 2, 2] @ np.array(slope) + constant, -BEYOND, 1 + BEYOND)
    found = colour_cues(torch.from_numpy(x)[None], torch.from_numpy(alpha)[None, None], [1])[0, :, 2, 2]
    assert found.numpy() == pytest.approx([expected, contrast], abs=1e-12)


def test_between_cells_it_is_interpolated_and_meets_the_pixel_s_own_colour() -> None:
    """Radius 4: squares of 5 × 5 cells of 2 × 2 pixels; pixels lie ¼ of a cell beside the centres."""
    x, alpha = _noise(24)
    by_cell = [
        np.array(
            _local_projection(x, alpha, np.s_[2 * row - 4 : 2 * row + 6, 2 * column - 4 : 2 * column + 6])
        )
        for row in (5, 6)
        for column in (5, 6)
    ]
    *slope, constant, contrast = np.average(by_cell, axis=0, weights=[9, 3, 3, 1])
    expected = np.clip(x[:3, 11, 11] @ np.array(slope) + constant, -BEYOND, 1 + BEYOND)
    found = colour_cues(torch.from_numpy(x)[None], torch.from_numpy(alpha)[None, None], [4])[0, :, 11, 11]
    assert found.numpy() == pytest.approx([expected, contrast], abs=1e-12)


def _noise(side: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return a network's input without known pixels, and an alpha."""
    draw = np.random.default_rng(1)
    x = draw.uniform(-1, 1, (4, side, side))
    x[3] = 128 / 255
    return x, draw.uniform(0.1, 0.9, (side, side))


def test_known_pixels_count_for_what_they_are() -> None:
    alpha, trimap = _scene()
    x = _composite(alpha, trimap)
    one, other = (colour_cues(x, torch.where(x[:, 3:] % 1 == 0, wrong, 0.5), [4]) for wrong in (0.1, 0.9))
    assert torch.equal(one, other)


def test_one_colour_everywhere_is_no_evidence() -> None:
    alpha, trimap = _scene()
    x = _composite(alpha, trimap, contrast=0)
    projection, contrast = colour_cues(x, torch.from_numpy(alpha)[None, None], [4])[0]
    assert contrast.max() < 1e-12
    assert torch.isfinite(projection).all()


def test_nor_is_a_square_without_foreground() -> None:
    alpha, trimap = _scene()
    _, near, _, far = colour_cues(_composite(alpha, trimap), _undecided(), (4, 16))[0]
    assert near[:, :16].max() < 1e-12
    assert far[:, 27:37].min() > 0.5


@pytest.mark.parametrize("shape", [(32, 32), (7, 64), (1, 1)])
@pytest.mark.parametrize("radius", [1, 4, 15])
def test_means_are_of_what_lies_inside(shape: tuple[int, int], radius: int) -> None:
    maps = np.random.default_rng(2).normal(size=(1, 2, *shape))
    found = box_mean(torch.from_numpy(maps), radius).numpy()
    for y, x in ((0, 0), (shape[0] // 2, shape[1] // 3), (shape[0] - 1, shape[1] - 1)):
        inside = maps[..., max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        np.testing.assert_allclose(found[..., y, x], inside.mean((2, 3)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(dtype: torch.dtype) -> None:
    alpha, trimap = _scene()
    x, decoded = _composite(alpha, trimap).to(dtype), _undecided().to(dtype)
    found = colour_cues(x, decoded, [4])
    assert found.dtype == torch.float32
    assert torch.equal(found, colour_cues(x.float(), decoded.float(), [4]))


def test_a_gradient_reaches_the_decoder() -> None:
    alpha, trimap = _scene()
    decoded = _undecided().float().requires_grad_()
    colour_cues(_composite(alpha, trimap).float(), decoded, [4])[:, 0].sum().backward()
    assert decoded.grad is not None
    unknown = torch.from_numpy(trimap == 128 / 255)
    assert decoded.grad[0, 0][unknown].abs().max() > 1e-3
    assert decoded.grad[0, 0][~unknown].abs().max() == 0
