"""Colour cues: the projection of a known composite, means at borders, precision and gradient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dim.colour_cues import MIDDLE_CONTRAST, SMALLEST_CONTRAST, box_mean, colour_cues

FOREGROUND, BACKGROUND = np.array([1.5, -0.5, 0.25]), np.array([-1.0, 0.5, 1.0])


def _composite(
    alpha: npt.NDArray[np.float64], trimap: npt.NDArray[np.float64], contrast: float = 1
) -> torch.Tensor:
    foreground = BACKGROUND + (FOREGROUND - BACKGROUND) * contrast
    colours = alpha * foreground[:, None, None] + (1 - alpha) * BACKGROUND[:, None, None]
    return torch.from_numpy(np.concatenate([colours, trimap[None]]))[None]


def _scene() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Background on the left, foreground on the right, and strands of every alpha in between."""
    alpha = np.random.default_rng(0).uniform(0, 1, (40, 60))
    alpha[:, :25], alpha[:, 35:] = 0, 1
    trimap = np.full((40, 60), 128 / 255)
    trimap[:, :25], trimap[:, 35:] = 0, 1
    return alpha, trimap


def test_colours_of_a_composite_give_its_alpha() -> None:
    alpha, trimap = _scene()
    # A decoder that saw no strands: known pixels speak for themselves.
    blurred = torch.full((1, 1, 40, 60), 0.5, dtype=torch.float64)
    projection = colour_cues(_composite(alpha, trimap), blurred, [15])[0, 0].numpy()
    unknown = trimap == 128 / 255
    assert np.corrcoef(projection[unknown], alpha[unknown])[0, 1] > 0.97
    assert np.abs(blurred[0, 0].numpy() - alpha)[unknown].mean() > 0.2
    assert np.abs(projection - alpha)[unknown].mean() < 0.1


def test_the_projection_is_the_formula_s() -> None:
    """Radius 1 at one pixel, by hand."""
    draw = np.random.default_rng(1)
    x = draw.uniform(-1, 1, (1, 4, 5, 5))
    x[0, 3] = 128 / 255
    alpha = draw.uniform(0.1, 0.9, (1, 1, 5, 5))
    square, weight = x[0, :3, 1:4, 1:4], alpha[0, 0, 1:4, 1:4]
    few = 0.01 * square.mean((1, 2))
    foreground = ((square * weight).mean((1, 2)) + few) / (weight.mean() + 0.01)
    background = ((square * (1 - weight)).mean((1, 2)) + few) / (1 - weight.mean() + 0.01)
    line = foreground - background
    contrast = line @ line
    expected = np.clip((x[0, :3, 2, 2] - background) @ line / (contrast + SMALLEST_CONTRAST), 0, 1)
    found = colour_cues(torch.from_numpy(x), torch.from_numpy(alpha), [1])[0, :, 2, 2].numpy()
    assert found == pytest.approx([expected, contrast / (contrast + MIDDLE_CONTRAST)], abs=1e-12)


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
    decoded = torch.full((1, 1, 40, 60), 0.5, dtype=torch.float64)
    _, near, _, far = colour_cues(_composite(alpha, trimap), decoded, (4, 15))[0]
    assert near[:, :20].max() < 1e-12
    assert far[:, 25:35].min() > 0.5


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
    x, decoded = _composite(alpha, trimap).to(dtype), torch.full((1, 1, 40, 60), 0.5, dtype=dtype)
    found = colour_cues(x, decoded, [4])
    assert found.dtype == torch.float32
    assert torch.equal(found, colour_cues(x.float(), decoded.float(), [4]))


def test_a_gradient_reaches_the_decoder() -> None:
    alpha, trimap = _scene()
    decoded = torch.full((1, 1, 40, 60), 0.5, requires_grad=True)
    colour_cues(_composite(alpha, trimap).float(), decoded, [4])[:, 0].sum().backward()
    assert decoded.grad is not None
    unknown = torch.from_numpy(trimap == 128 / 255)
    assert decoded.grad[0, 0][unknown].abs().max() > 1e-3
    assert decoded.grad[0, 0][~unknown].abs().max() == 0
