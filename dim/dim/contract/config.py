"""The contract between checkpoint, artefact and runtime: a network's configuration, an artefact's metadata.

An exported graph carries one JSON document under the metadata key :data:`METADATA_KEY`; the runtime reads
everything it must know from there. The tensors of an artefact:

======  ========  =======  ============  ====================================================
 way     name      dtype    shape         meaning
======  ========  =======  ============  ====================================================
 in      image     uint8    N, H, W, 3    RGB, 0-255
 in      trimap    uint8    N, H, W       0 background, 255 foreground, anything else unknown
 out     alpha     float32  N, H, W       0-1; exactly 0 / 1 where the trimap says so
======  ========  =======  ============  ====================================================

H and W are multiples of :data:`STRIDE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from dim.contract.engine_info import EngineInfo
from dim.errors import DimError
from dim.frozen_model import FrozenModel

METADATA_KEY = "dim"
SCHEMA_VERSION = 1

STRIDE = 32
"""Five 2×2 pools: image sides, window corners and window sides are multiples of this."""

ENCODER_DEPTHS = (2, 2, 3, 3, 3)
"""3×3 convolutions before each pool."""
DECODER_RADIUS = 2
"""Of the decoder's convolutions, 5×5 pixels: one after each unpooling, and one more at the end."""
REFINER_RADIUS = 4
"""Of its four convolutions, 3×3 pixels."""

INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA = "image", "trimap", "alpha"

IMAGE_MEAN = (123.675, 116.28, 103.53)
"""Mean of the ImageNet training set, RGB, on the scale 0-255."""
IMAGE_STD = (58.395, 57.12, 57.375)
"""Standard deviation of the ImageNet training set, RGB, on the scale 0-255."""

CUES = 2
"""Planes that each radius of ``NetworkConfig.cue_radii`` adds to the refiner's inputs."""
LARGEST_CUE_CELL = 16
"""Pixels; has to divide STRIDE, so that the cells of a window are the image's."""
LARGEST_CUE_RADIUS = 128
MOST_LEVELS, MOST_STEPS = 4, 64
"""Of propagation. The largest of four sizes of cells is 16 pixels, which divides STRIDE."""

Stage = Literal[1, 2, 3]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


class ContractError(DimError):
    """A metadata document that is missing, unreadable or of another generation."""


class NetworkConfig(FrozenModel, extra="forbid"):
    """One member of the DIM family.

    Attributes:
        stage: training stage that made the weights; from stage 2 on there is a refiner.
        width: multiplier of every channel count; 1 is the published network, 26.2 M parameters.
        batch_norm: normalisation after each encoder and decoder convolution; export folds it away.
        cue_radii: radii, in pixels, of the squares whose colours the refiner is told about
            (:mod:`dim.network.colour_cues`); none in the published network. Multiples of :func:`cue_cell`.
        propagation_steps: of alpha along colour lines after the refiner (:mod:`dim.network.propagation`),
        for each
            size of cells, coarsest first; none in the published network.
    """

    stage: Stage = 1
    width: float = Field(default=1.0, gt=0, le=2)
    batch_norm: bool = False
    cue_radii: tuple[Annotated[int, Field(ge=1, le=LARGEST_CUE_RADIUS)], ...] = ()
    propagation_steps: Annotated[
        tuple[Annotated[int, Field(ge=1, le=MOST_STEPS)], ...], Field(max_length=MOST_LEVELS)
    ] = ()

    @model_validator(mode="after")
    def _refined_where_it_is_asked_for(self) -> Self:
        for name in ("cue_radii", "propagation_steps"):
            values = getattr(self, name)
            if values and not self.has_refiner:
                raise ValueError(f"{name} {list(values)} are for a refiner, and stage 1 has none")
        return self

    @model_validator(mode="after")
    def _whole_cells(self) -> Self:
        for radius in self.cue_radii:
            if radius % cue_cell(radius):
                raise ValueError(
                    f"cue radius {radius} is not a multiple of its cells' {cue_cell(radius)} pixels"
                )
        return self

    @model_validator(mode="after")
    def _whole_channels(self) -> Self:
        if (64 * self.width) % 1:
            raise ValueError(f"64 × width must be a whole number of channels, got width {self.width}")
        return self

    @property
    def has_refiner(self) -> bool:
        return self.stage > 1

    @property
    def refiner_inputs(self) -> int:
        """Channels that the refiner reads: R, G, B, alpha, and the cues."""
        return 4 + CUES * len(self.cue_radii)

    @property
    def refiner_outputs(self) -> int:
        """Channels that the refiner answers with: what is added to the logits, and trust for propagation."""
        return 2 if self.propagation_steps else 1

    @property
    def additions(self) -> str:
        """What the published network does not have, in words: ", cues of radii 4, 16"; empty if nothing."""
        cues = f", cues of radii {_listed(self.cue_radii)}" if self.cue_radii else ""
        steps = f", propagation in {_listed(self.propagation_steps)} steps" if self.propagation_steps else ""
        return cues + steps

    def channels(self, published: int) -> int:
        """Channel count of a layer that has ``published`` channels in the published network."""
        return round(published * self.width)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def cue_cell(radius: int) -> int:
    """Side of the cells that a cue's means are taken of, pixels.

    The largest power of two that is at most radius / 2, and at most 16.
    """
    return min(LARGEST_CUE_CELL, 1 << max(0, radius.bit_length() - 2))


def propagation_cells(steps: Sequence[int]) -> tuple[int, ...]:
    """Sides in pixels of propagation's cells, for as many sizes as there are numbers of steps; 2 the last."""
    return tuple(2 << level for level in reversed(range(len(steps))))


def _propagation_reach(config: NetworkConfig) -> int:
    """How far beyond a block's border propagation sees the refiner's alpha; a multiple of its cells."""
    reach = 0
    steps = config.propagation_steps
    for place, (cell, count) in reversed(list(enumerate(zip(propagation_cells(steps), steps, strict=True)))):
        # Interpolation sees one cell more, a step two: windows around a cell, and cells around a window. The
        # first lines of all come from a step.
        reach = cell * (-(-reach // cell) + 1 + 2 * (count + (place == 0)))
    return reach


def receptive_radius(config: NetworkConfig) -> int:
    """How far, in pixels, an input pixel can be from an output pixel that it influences.

    Convolution radii are summed over the levels of the pyramid, in full-resolution pixels; the grid of the
    deepest pool adds at most STRIDE - 1. 189 for the network with refiner, 185 without; the largest square of
    the refiner's cues adds its radius, and the cells between which they are interpolated; propagation adds
    two cells for each step, and those between which it interpolates.
    """
    encoder = 2 * 1 + 2 * 2 + 3 * 4 + 3 * 8 + 3 * 16
    decoder = 2 * (16 + 8 + 4 + 2 + 1 + 1)
    squares = max((radius + 3 * cue_cell(radius) // 2 - 1 for radius in config.cue_radii), default=0)
    propagation = _propagation_reach(config) + max([0, *propagation_cells(config.propagation_steps)])
    refiner = REFINER_RADIUS * config.has_refiner + squares + propagation
    return encoder + decoder + refiner + STRIDE - 1


def exact_context(config: NetworkConfig) -> int:
    """Context that makes a tile bit-equal to the whole image, up to rounding: a multiple of STRIDE.

    Less than :func:`receptive_radius`: a core's border is a multiple of STRIDE, where the grids of all levels
    have a border too, so that what its pixels see is followed from there. 192 with refiner, also with cues of
    radius 16; 160 without; 256 with cues of radius 64; 320 with cues of radius 16 and propagation in 4, 3 and
    2 steps.
    """
    reach = _refiner_reach(config) + 2 * DECODER_RADIUS
    for _ in ENCODER_DEPTHS[1:]:
        reach = -(-reach // 2) + DECODER_RADIUS
    reach = -(-reach // 2)
    for depth in reversed(ENCODER_DEPTHS):
        reach = 2 * reach + depth
    return -(-reach // STRIDE) * STRIDE


def _refiner_reach(config: NetworkConfig) -> int:
    """How far beyond a block's border the refiner sees the decoder's alpha."""
    if not config.has_refiner:
        return 0
    # A pixel of the convolutions' margin lies in a cell; it is interpolated from the next one, too.
    border = _propagation_reach(config) + REFINER_RADIUS
    squares = (
        radius + cue_cell(radius) * (-(-border // cue_cell(radius)) + 1) for radius in config.cue_radii
    )
    return max([border, *squares])


class QuantisationInfo(FrozenModel):
    """How an int8 artefact was made.

    Attributes:
        method: how the ranges of the activations were chosen.
        calibration: name of the folder of pairs, or "built-in".
        windows: how many windows the network saw.
        keep_float: convolutions that stayed in float32.
    """

    method: str
    calibration: str
    windows: int
    keep_float: tuple[str, ...]


class ArtefactMetadata(FrozenModel):
    """The JSON document inside every exported model."""

    schema_version: int = SCHEMA_VERSION
    network: NetworkConfig
    precision: Precision
    stride: int = STRIDE
    context: int = Field(ge=0)
    colour_order: Literal["RGB"] = "RGB"
    trimap_encoding: str = "0 background, 255 foreground, anything else unknown"
    static_shape: tuple[int, int, int] | None = None
    """(N, H, W) of a graph with a frozen shape; None where all three are dynamic."""
    multiply_adds_per_pixel: int
    parameters: int
    checkpoint_sha256: str
    provenance: dict[str, str] = Field(default_factory=dict)
    """What the checkpoint says of itself: data, seed, scores, licence."""
    versions: dict[str, str]
    oldest_readers: dict[str, str]
    """Oldest releases of the engines that read this opset, e.g. {"onnxruntime": "1.14"}."""
    command: str
    """The command that made the file."""
    quantisation: QuantisationInfo | None = None
    """Only in int8 artefacts."""
    engine: EngineInfo | None = None
    """None in ONNX files."""

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str, *, source: str) -> ArtefactMetadata:
        """Read the document; ``source`` names the file in errors."""
        try:
            found = cls.model_validate_json(text)
        except ValidationError as error:
            raise ContractError(
                f"cannot read the metadata of {source}",
                why="; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()),
                fix="export the checkpoint again: dim-export onnx CHECKPOINT -o MODEL.onnx",
            ) from error
        if found.schema_version > SCHEMA_VERSION:
            raise ContractError(
                f"cannot use {source}: it was made by a newer release",
                got=f"metadata schema {found.schema_version}",
                expected=f"at most {SCHEMA_VERSION}",
                fix="pip install -U dim-matting",
            )
        return found
