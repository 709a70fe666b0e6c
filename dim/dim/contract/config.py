"""The configuration of a network: which member of the DIM family it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dim.frozen_model import FrozenModel

STRIDE = 32
"""Pixels. Image sides, window corners and window sides are multiples of it: there are five 2×2 pools."""

IMAGE_MEAN = (123.675, 116.28, 103.53)
"""Mean of the ImageNet training set, RGB, on the scale 0-255."""
IMAGE_STD = (58.395, 57.12, 57.375)
"""Standard deviation of the ImageNet training set, RGB, on the scale 0-255."""

CUES_PER_RADIUS = 2
"""Planes that each radius of ``NetworkConfig.cue_radii`` adds to the refiner's input."""
MAX_CUE_CELL = 16
"""Largest side of a cue's cells, pixels. It divides STRIDE: the cells of a window are cells of the image."""
MAX_CUE_RADIUS = 128
"""Largest radius of a colour cue, pixels."""
MAX_PROPAGATION_LEVELS = 4
"""Largest number of cell sizes in propagation; the largest of four is 16 pixels, which divides STRIDE."""
MAX_PROPAGATION_STEPS = 64
"""Largest number of propagation steps with cells of one size."""

Stage = Literal[1, 2, 3]


class NetworkConfig(FrozenModel, extra="forbid"):
    """One member of the DIM family.

    Attributes:
        stage: training stage that made the weights; from stage 2 on there is a refiner.
        width: multiplier of every channel count; 1 is the published network, 26.2 M parameters.
        batch_norm: normalisation after each encoder and decoder convolution; export folds it away.
        cue_radii: radii, in pixels, of the squares whose colours are summarised for the refiner
            (:mod:`dim.network.colour_cues`); none in the published network. Multiples of :func:`cue_cell`.
        propagation_steps: number of propagation steps (:mod:`dim.network.propagation`) after the refiner, for
            each size of cells, coarsest first; none in the published network.
        propagates_light: propagation follows lines of light, not of colours
            (:func:`dim.network.propagation.light`).
        hardens_ends: propagated alpha close to 0 and 1 is moved closer
            (:func:`dim.network.propagation.harden`).
        lifts_shadows: encoder, cues and refiner read colours in which dark ones have more contrast
            (:func:`dim.network.lift_shadows`); propagation reads the image's own.
        sharpens: encoder, cues and refiner read sharpened and more saturated colours
            (:func:`dim.network.sharpen`); propagation reads the image's own.
    """

    stage: Stage = 1
    width: float = Field(default=1.0, gt=0, le=2)
    batch_norm: bool = False
    cue_radii: tuple[Annotated[int, Field(ge=1, le=MAX_CUE_RADIUS)], ...] = ()
    propagation_steps: Annotated[
        tuple[Annotated[int, Field(ge=1, le=MAX_PROPAGATION_STEPS)], ...],
        Field(max_length=MAX_PROPAGATION_LEVELS),
    ] = ()
    propagates_light: bool = False
    hardens_ends: bool = False
    lifts_shadows: bool = False
    sharpens: bool = False

    @model_validator(mode="after")
    def _require_propagation(self) -> Self:
        for name in ("propagates_light", "hardens_ends"):
            if getattr(self, name) and not self.propagation_steps:
                raise ValueError(f"{name} is for a network with propagation_steps")
        return self

    @model_validator(mode="after")
    def _require_refiner(self) -> Self:
        for name in ("cue_radii", "propagation_steps"):
            values = getattr(self, name)
            if values and not self.has_refiner:
                raise ValueError(f"{name} {list(values)} are for a refiner, and stage 1 has none")
        return self

    @model_validator(mode="after")
    def _require_whole_cells(self) -> Self:
        for radius in self.cue_radii:
            if radius % cue_cell(radius):
                raise ValueError(
                    f"cue radius {radius} is not a multiple of its cells' {cue_cell(radius)} pixels"
                )
        return self

    @model_validator(mode="after")
    def _require_whole_channels(self) -> Self:
        if (64 * self.width) % 1:
            raise ValueError(f"64 × width must be a whole number of channels, got width {self.width}")
        return self

    @property
    def has_refiner(self) -> bool:
        """Whether the network has a refiner: stages 2 and 3."""
        return self.stage > 1

    @property
    def refiner_inputs(self) -> int:
        """Number of channels that the refiner reads: R, G, B, alpha, and the cues."""
        return 4 + CUES_PER_RADIUS * len(self.cue_radii)

    @property
    def refiner_outputs(self) -> int:
        """Number of channels that the refiner writes: the change of the logits, and trust for propagation."""
        return 2 if self.propagation_steps else 1

    @property
    def additions(self) -> str:
        """Text of what the published network lacks, such as ", cues of radii 4, 16"; empty if nothing."""
        cues = f", cues of radii {_listed(self.cue_radii)}" if self.cue_radii else ""
        steps = f", propagation in {_listed(self.propagation_steps)} steps" if self.propagation_steps else ""
        light = " along light" if self.propagates_light else ""
        ends = ", hard ends" if self.hardens_ends else ""
        shadows = ", lifted shadows" if self.lifts_shadows else ""
        return cues + steps + light + ends + shadows + (", sharpened" if self.sharpens else "")

    def channels(self, published: int) -> int:
        """Return the channel count of a layer that has ``published`` channels in the published network."""
        return round(published * self.width)


def cue_cell(radius: int) -> int:
    """Return the side, in pixels, of the cells over which the means of a colour cue are taken.

    The largest power of two that is at most radius / 2, and at most MAX_CUE_CELL.
    """
    return min(MAX_CUE_CELL, 1 << max(0, radius.bit_length() - 2))


def propagation_cells(steps: Sequence[int]) -> tuple[int, ...]:
    """Return the sides, in pixels, of propagation's cells: one for each number of steps, the last is 2."""
    return tuple(2 << level for level in reversed(range(len(steps))))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
