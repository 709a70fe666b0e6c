"""The limit that MemoryLimitError states is kept at the first attempt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dim_runtime import Matting
from dim_runtime.errors import MemoryLimitError


@pytest.mark.slow
def test_the_stated_limit_runs_at_the_first_attempt() -> None:
    """With the embedded model, for 20 random sizes; the refused matting is still open."""
    pytest.importorskip("onnxruntime")
    draw = np.random.default_rng(11)
    for _ in range(20):
        height, width = (int(side) for side in draw.integers(60, 700, 2))
        image = draw.integers(0, 256, (height, width, 3), np.uint8)
        trimap = np.zeros((height, width), np.uint8)
        trimap[height // 3 : height // 3 + 20, width // 3 : width // 3 + 20] = 128
        refused: Any = Matting(memory_limit="1MB")
        with pytest.raises(MemoryLimitError) as caught:
            refused(image, trimap)
        with Matting(memory_limit=caught.value.minimum) as matting:
            assert matting(image, trimap).shape == (height, width)
        refused.close()
