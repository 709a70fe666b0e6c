"""The context of exact tiles."""

from __future__ import annotations

from dim.contract import NetworkConfig, exact_context


def test_exact_context() -> None:
    assert exact_context(NetworkConfig(stage=1)) == 160
    assert exact_context(NetworkConfig(stage=3)) == 192
    near, far = (NetworkConfig(stage=3, cue_radii=radii) for radii in ((4, 16), (4, 16, 64)))
    assert exact_context(near) == 192
    assert exact_context(far) == 256
    assert exact_context(near.model_copy(update={"propagation_steps": (4, 3, 2)})) == 320
