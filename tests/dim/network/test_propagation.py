"""Propagation along colour lines: what it minimises and leaves alone, precision and gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dim.arrays import Float64
from dim.network import normalise
from dim.network.propagation import FLATTEST, LIGHT_SCALE, harden, light, propagate

UNKNOWN = 128 / 255
FOREGROUND, BACKGROUND = np.array([1.5, -0.5, 0.25]), np.array([-1.0, 0.5, 1.0])


def _noise(side: int) -> tuple[Float64, Float64, Float64]:
    """Return a network's input with a few known pixels, alpha, and trust."""
    draw = np.random.default_rng(1)
    x = draw.uniform(-1, 1, (4, side, side))
    x[3] = draw.choice([0, UNKNOWN, UNKNOWN, UNKNOWN, 1], (side, side))
    return x, draw.uniform(0, 1, (side, side)), draw.uniform(0.05, 0.3, (side, side))


def _propagate(
    x: Float64, alpha: Float64, trust: Float64, steps: tuple[int, ...], **options: bool
) -> Float64:
    x_, alpha_, trust_ = (torch.from_numpy(value) for value in (x, alpha, trust))
    found = propagate(x_[None], alpha_[None, None], trust_[None, None], steps, **options)
    values: Float64 = found[0, 0].numpy()
    return values


def _closed_form(x: Float64, alpha: Float64, trust: Float64, cell: int = 2) -> Float64:
    """Minimise the module's function by one dense system, and read alpha as propagation does."""
    side = len(alpha)
    places = np.arange(side * side).reshape(side, side)
    known = (x[3] == 0) | (x[3] == 1)
    laplacian, around = np.zeros((side * side, side * side)), np.zeros((side, side))
    windows = {
        (row, column): np.s_[
            max(0, row - 1) * cell : (row + 2) * cell, max(0, column - 1) * cell : (column + 2) * cell
        ]
        for row in range(side // cell)
        for column in range(side // cell)
    }
    fits = {}
    for key, window in windows.items():
        colours = np.concatenate([x[(slice(0, 3), *window)], np.ones((1, *places[window].shape))])
        colours = colours.reshape(4, -1)
        ridge = np.diag([FLATTEST, FLATTEST, FLATTEST, 0]) * colours.shape[1]
        fits[key] = np.linalg.solve(colours @ colours.T + ridge, colours)
        inside = places[window].ravel()
        laplacian[np.ix_(inside, inside)] += np.eye(len(inside)) - colours.T @ fits[key]
        around[window] += 1
    held = np.where(known, x[3], alpha)
    weight = np.where(known, 1e9, trust / (1 - trust) * around).ravel()
    solved = np.linalg.solve(laplacian + np.diag(weight), weight * held.ravel()).reshape(side, side)
    lines = np.zeros((4, side // cell, side // cell))
    for key, window in windows.items():
        lines[(slice(None), *key)] = fits[key] @ solved[window].ravel()
    means = F.avg_pool2d(torch.from_numpy(lines)[None], 3, 1, 1, count_include_pad=False)
    slope = F.interpolate(means, scale_factor=cell, mode="bilinear", align_corners=False)[0].numpy()
    kept = np.where(known, 1, trust)
    read: Float64 = kept * held + (1 - kept) * ((slope[:3] * x[:3]).sum(0) + slope[3])
    return read.clip(0, 1)


def test_it_goes_where_closed_form_matting_goes() -> None:
    x, alpha, trust = _noise(16)
    expected = _closed_form(x, alpha, trust)
    one, eight, many = (
        np.abs(_propagate(x, alpha, trust, (steps,)) - expected).max() for steps in (1, 8, 64)
    )
    assert one > 0.05
    assert eight < one / 2
    assert many < 1e-6


def test_larger_cells_first_end_at_the_same_place() -> None:
    x, alpha, trust = _noise(32)
    assert np.abs(_propagate(x, alpha, trust, (3, 3, 64)) - _closed_form(x, alpha, trust)).max() < 1e-6


def _scene(side: int = 64) -> tuple[Float64, Float64, Float64]:
    """Strands of every alpha between known background and foreground; nothing is trusted."""
    alpha = np.random.default_rng(0).uniform(0, 1, (side, side))
    third = side // 3
    alpha[:, :third], alpha[:, -third:] = 0, 1
    colours = alpha * FOREGROUND[:, None, None] + (1 - alpha) * BACKGROUND[:, None, None]
    trimap = np.full((side, side), UNKNOWN)
    trimap[:, :third], trimap[:, -third:] = 0, 1
    return np.concatenate([colours, trimap[None]]), alpha, np.zeros((side, side))


def test_known_pixels_say_what_the_colours_between_them_are() -> None:
    x, truth, trust = _scene()
    blind = np.full_like(truth, 0.5)
    unknown = x[3] == UNKNOWN
    assert np.abs(blind - truth)[unknown].mean() > 0.2
    assert np.abs(_propagate(x, blind, trust, (4, 3, 2)) - truth)[unknown].mean() < 0.01


def test_light_is_a_power_of_the_values_of_a_file() -> None:
    values = np.arange(0, 256, 15, dtype=np.float64)
    image = torch.from_numpy(np.broadcast_to(values, (1, 3, 4, len(values))).copy())
    colours = normalise(image, torch.zeros(1, 1, 4, len(values)))[:, :3]
    np.testing.assert_allclose(light(colours)[0, 2, 3], LIGHT_SCALE * (values / 255) ** 1.5, atol=1e-12)


def test_alpha_that_was_mixed_in_light_is_found_along_light() -> None:
    x, truth, _ = _scene()
    dark, bright = np.array([0.1, 0.3, 0.2]), np.array([0.9, 0.7, 0.8])
    mixed = (truth * dark[:, None, None] ** 1.5 + (1 - truth) * bright[:, None, None] ** 1.5) ** (2 / 3)
    trimap = torch.from_numpy(np.round(255 * x[3]))[None, None]
    given = normalise(torch.from_numpy(255 * mixed)[None], trimap)
    blind, nothing = torch.full_like(trimap, 0.5), torch.zeros_like(trimap)
    errors = [
        np.abs(propagate(given, blind, nothing, (4, 3, 2), in_light=in_light)[0, 0].numpy() - truth)
        for in_light in (True, False)
    ]
    unknown = x[3] == UNKNOWN
    assert errors[0][unknown].mean() < 0.01 < 0.05 < errors[1][unknown].mean()


def test_the_ends_of_alpha_are_hardened_on_straight_lines() -> None:
    alpha = torch.linspace(-0.1, 1.1, 1201, dtype=torch.float64)
    found = harden(alpha).clamp(0, 1).numpy()
    np.testing.assert_allclose(
        found, np.interp(alpha, [0.015, 0.1, 0.9, 0.985], [0, 0.1, 0.9, 1]), atol=1e-12
    )


def test_propagated_alpha_is_hardened() -> None:
    x, _, trust = _scene()
    alpha = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    plain, hardened = (_propagate(x, alpha, trust, (4, 3, 2), hardened=value) for value in (False, True))
    ends = np.abs(plain - 0.5) > 0.4
    assert 0.1 < ends[x[3] == UNKNOWN].mean() < 0.9
    np.testing.assert_allclose(hardened, harden(torch.from_numpy(plain)).clamp(0, 1), atol=1e-12)
    assert np.array_equal(hardened[~ends], plain[~ends])
    assert not np.array_equal(hardened[ends], plain[ends])


def test_what_is_trusted_stays() -> None:
    x, truth, _ = _scene()
    wrong = 1 - truth
    found = _propagate(x, wrong, np.ones_like(truth), (4, 3, 2))
    np.testing.assert_allclose(found, np.where(x[3] == UNKNOWN, wrong, truth), rtol=0, atol=1e-12)


def test_known_pixels_stay_whatever_alpha_and_trust_say() -> None:
    x, alpha, trust = _noise(32)
    found = _propagate(x, alpha, trust, (2, 2))
    known = x[3] != UNKNOWN
    assert np.array_equal(found[known], x[3][known])


def test_a_few_steps_in_numbers() -> None:
    """The iteration before it converges: ε, each of Chebyshev's weights and the interpolation show."""
    y, x = np.mgrid[:16, :16] / 16
    colours = np.stack([np.sin(9 * x + 2 * y), np.cos(7 * y - 3 * x), np.sin(5 * x * y + 1)])
    trimap = np.full((16, 16), UNKNOWN)
    trimap[:, 0], trimap[:, -1] = 0, 1
    alpha, trust = 0.5 + 0.4 * np.sin(11 * x + 6 * y), 0.1 + 0.1 * np.cos(8 * x) ** 2
    found = _propagate(np.concatenate([colours, trimap[None]]), alpha, trust, (4, 3, 2))[8]
    expected = [
        *(0.0, 0.156738, 0.169036, 0.246023, 0.388627, 0.590285, 0.762697, 0.821857),
        *(0.737602, 0.572633, 0.401748, 0.240224, 0.190863, 0.321309, 0.586621, 1.0),
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [8, 32])
def test_one_colour_everywhere_leaves_means(side: int) -> None:
    """Pixels are not distinguishable, and covariances are only rounding."""
    x, alpha, trust = _noise(side)
    x[:3] = np.array([0.3, -1.2, 2.1])[:, None, None]
    x[3] = UNKNOWN
    found = _propagate(x.astype(np.float32), alpha.astype(np.float32), trust.astype(np.float32), (4, 3, 2))
    assert np.isfinite(found).all()
    assert found.std() < alpha.std() / 2


@pytest.mark.parametrize("in_light", [False, True])
def test_float32_is_enough_where_colours_lie_on_a_line(in_light: bool) -> None:
    """Shades of gray at full contrast: a covariance with two eigenvalues of nothing but rounding."""
    draw = np.random.default_rng(2)
    x, alpha, trust = _noise(64)
    x[:3] = draw.uniform(-2, 2.6, (64, 64)) + draw.normal(0, 1e-3, (3, 64, 64))
    precise = _propagate(x, alpha, trust * 0.01, (4, 3, 2), in_light=in_light)
    single = _propagate(
        *(value.astype(np.float32) for value in (x, alpha, trust * 0.01)), (4, 3, 2), in_light=in_light
    )
    assert np.abs(single - precise).max() < 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(dtype: torch.dtype) -> None:
    x, alpha, trust = (torch.from_numpy(value).to(dtype) for value in _noise(32))
    given: Any = (x[None], alpha[None, None], trust[None, None])
    found = propagate(*given, (2, 1))
    assert found.dtype == torch.float32
    assert torch.equal(found, propagate(*(value.float() for value in given), (2, 1)))


def test_a_gradient_reaches_alpha_and_trust() -> None:
    x, alpha, trust = (torch.from_numpy(value) for value in _noise(8))
    alpha, trust = alpha[None, None].requires_grad_(), trust[None, None].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, t: propagate(x[None], a, t, (2, 2)), (alpha, trust), atol=1e-5, fast_mode=True
    )
