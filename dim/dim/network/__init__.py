"""The network and its parts. Importing this package imports torch."""

from dim.network.dim import (
    DECODER_STEPS,
    DIM,
    ENCODER_STAGES,
    FIRST_TRUST,
    SQUARINGS,
    Backbone,
    Decoder,
    Encoder,
    Matte,
    Refiner,
    initialise,
    multiply_adds_per_pixel,
    normalise,
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
    "Matte",
    "Refiner",
    "initialise",
    "multiply_adds_per_pixel",
    "normalise",
]
