"""Configurations of networks."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dim.contract import NetworkConfig, cue_cell, propagation_cells


def test_propagation_cells_end_with_two_pixels() -> None:
    assert propagation_cells((4, 3, 2)) == (8, 4, 2)
    assert propagation_cells(()) == ()


def test_additions_are_listed_as_text() -> None:
    config = NetworkConfig(stage=3, cue_radii=(4, 16), propagation_steps=(4, 3, 2))
    assert config.additions == ", cues of radii 4, 16, propagation in 4, 3, 2 steps"
    along_light = config.model_copy(update={"propagates_light": True})
    assert along_light.additions == f"{config.additions} along light"
    hardened = config.model_copy(update={"hardens_ends": True})
    assert hardened.additions == f"{config.additions}, hard ends"
    assert NetworkConfig(lifts_shadows=True).additions == ", lifted shadows"
    assert NetworkConfig(lifts_shadows=True, sharpens=True).additions == ", lifted shadows, sharpened"
    assert NetworkConfig(stage=3).additions == ""


@pytest.mark.parametrize(
    ("radius", "cell"), [(1, 1), (3, 1), (4, 2), (7, 2), (8, 4), (16, 8), (32, 16), (64, 16), (128, 16)]
)
def test_cells_are_about_half_a_radius_wide(radius: int, cell: int) -> None:
    assert cue_cell(radius) == cell


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"width": 0.3},
        {"width": 3},
        {"stage": 4},
        {"depth": 2},
        {"stage": 1, "cue_radii": (4,)},
        {"stage": 3, "cue_radii": (0,)},
        {"stage": 3, "cue_radii": (4, 129)},
        {"stage": 3, "cue_radii": (4, 15)},
        {"stage": 1, "propagation_steps": (2,)},
        {"stage": 3, "propagation_steps": (2, 0)},
        {"stage": 3, "propagation_steps": (65,)},
        {"stage": 3, "propagation_steps": (1, 1, 1, 1, 1)},
        {"stage": 3, "propagates_light": True},
        {"stage": 3, "hardens_ends": True},
    ],
)
def test_impossible_networks(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NetworkConfig(**wrong)
