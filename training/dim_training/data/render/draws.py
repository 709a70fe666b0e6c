"""Random numbers that are recorded under a name: the parameters of a rendered image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

Value: TypeAlias = float | int | str | bool
T = TypeVar("T", bound=str)


class Draws:
    """Random draws of one section of a scene, such as its camera.

    Attributes:
        rng: the generator behind the draws, for arrays that are not recorded.
        record: name to value, for the index of the data set.
    """

    def __init__(self, seed: int, section: int) -> None:
        """Seed the draws; different sections of one seed are independent of each other."""
        self.rng = np.random.default_rng((seed, section))
        self.record: dict[str, Value] = {}

    def uniform(self, name: str, low: float, high: float) -> float:
        """Draw a number from ``low`` to ``high``."""
        return self._float(name, self.rng.uniform(low, high))

    def log_uniform(self, name: str, low: float, high: float) -> float:
        """Draw a number whose logarithm is uniform; both bounds are above 0."""
        return self._float(name, np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def integer(self, name: str, low: int, high: int) -> int:
        """Draw a whole number from ``low`` to ``high``, both included."""
        value = int(self.rng.integers(low, high + 1))
        self.record[name] = value
        return value

    def chance(self, name: str, probability: float) -> bool:
        """Draw True with this probability."""
        value = bool(self.rng.random() < probability)
        self.record[name] = value
        return value

    def choice(self, name: str, options: Sequence[T] | Mapping[T, float]) -> T:
        """Draw one of the options; a mapping gives each one's relative weight."""
        names = list(options)
        weights = (
            np.array([options[key] for key in names]) if isinstance(options, Mapping) else np.ones(len(names))
        )
        chosen = names[int(self.rng.choice(len(names), p=weights / weights.sum()))]
        self.record[name] = chosen
        return chosen

    def _float(self, name: str, value: float) -> float:
        # Rounded first: the value that the scene uses is the one in the index.
        rounded = float(f"{value:.5g}")
        self.record[name] = rounded
        return rounded
