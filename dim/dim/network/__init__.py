"""The network and its parts. Importing this package imports torch."""

from dim.contract.layers import DECODER_STEPS, ENCODER_STAGES, multiply_adds_per_pixel
from dim.network.dim import (
    DIM,
    FIRST_TRUST,
    SQUARINGS,
    Backbone,
    Decoder,
    Encoder,
    Estimate,
    Matte,
    Refiner,
    adjusted,
    initialise,
    lift_shadows,
    normalise,
    sharpen,
)

__all__ = [
    "DECODER_STEPS",
    "DIM",
    "ENCODER_STAGES",
    "FIRST_TRUST",
    "SQUARINGS",
    "Backbone",
    "Decoder",
    "Encoder",
    "Estimate",
    "Matte",
    "Refiner",
    "adjusted",
    "initialise",
    "lift_shadows",
    "multiply_adds_per_pixel",
    "normalise",
    "sharpen",
]
