"""The context of exact tiles."""

from __future__ import annotations

import pytest

from dim.contract import STRIDE, NetworkConfig, exact_context


def test_exact_context() -> None:
    assert exact_context(NetworkConfig(stage=1)) == 160
    assert exact_context(NetworkConfig(stage=3)) == 192
    near, far = (NetworkConfig(stage=3, cue_radii=radii) for radii in ((4, 16), (4, 16, 64)))
    assert exact_context(near) == 192
    assert exact_context(far) == 256
    assert exact_context(near.model_copy(update={"propagation_steps": (4, 3, 2)})) == 320


def test_sharpening_fits_in_the_last_block_of_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder leaves six pixels of the last block, whatever reads its logits."""
    for config in (NetworkConfig(stage=1), NetworkConfig(stage=3, cue_radii=(4, 16))):
        sharpened = config.model_copy(update={"sharpens": True})
        assert exact_context(sharpened) == exact_context(config)
        with monkeypatch.context() as patch:
            patch.setattr("dim.contract.layers.SHARPENING_RADIUS", 6)
            assert exact_context(sharpened) == exact_context(config)
            patch.setattr("dim.contract.layers.SHARPENING_RADIUS", 7)
            assert exact_context(sharpened) == exact_context(config) + STRIDE
