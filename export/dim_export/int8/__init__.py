"""int8: calibrate, equalise, quantise, correct. Choices of the command line are here: they need no torch."""

from __future__ import annotations

from typing import Literal

Method = Literal["minmax", "percentile", "mse"]
"""Method that chooses the range of an activation.

* minmax: the largest magnitude.
* percentile: the magnitude that only 1 of 10 000 values other than 0 exceeds.
* mse: the magnitude with the least mean squared error of rounding and clipping.
"""

Mode = Literal["alone", "spared"]
"""Layers that are in int8 when a sensitivity is measured. alone: one convolution. spared: all but one."""
