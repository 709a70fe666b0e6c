"""Names of array types. They state what an array holds; docstrings state its axes, such as H, W, 3."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

Floating = npt.NDArray[np.floating[Any]]
"""Floating point of any width; alphas are in [0, 1]."""
Image = npt.NDArray[np.uint8 | np.uint16]
"""Whole numbers of 8 or 16 bits: images, and planes that are written as images."""
Array = npt.NDArray[Any]

Shape = tuple[int, ...]
"""Shape of any array."""
WindowShape = tuple[int, int, int]
"""N, H, W of a batch of windows."""

Random = np.random.Generator
"""Source of random numbers; functions that draw take one, so that a seed fixes their results."""
