"""Choosing and placing integers. The choices that the command line offers need no torch, so they are here."""

from __future__ import annotations

from typing import Literal

Method = Literal["minmax", "percentile", "mse"]
"""How the range of an activation is chosen.

* minmax: the largest magnitude seen.
* percentile: the magnitude that only 1 of 10 000 values other than 0 exceeds.
* mse: the magnitude with the least mean squared error of rounding and clipping.
"""

Mode = Literal["alone", "spared"]
"""What a sensitivity is measured of. alone: only one convolution in int8. spared: all but one in int8."""
