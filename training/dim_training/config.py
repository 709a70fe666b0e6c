"""The configuration of a training run: frozen pydantic models, read from TOML, overridden with key=value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from dim.contract import STRIDE, NetworkConfig
from dim.documents import parse_toml
from dim.errors import InputError
from dim.frozen_model import FrozenModel
from dim_training import recipes


class _Section(FrozenModel, extra="forbid", allow_inf_nan=False):
    """A section of a recipe; unknown keys and numbers that are not finite are errors."""


def _as_name(value: object) -> object:
    """Return a whole number or a date as text: ``data.root=2024`` names a folder, and so does 2024-05-01."""
    is_name = isinstance(value, (int, date)) and not isinstance(value, (bool, datetime))
    return str(value) if is_name else value


FilePath = Annotated[Path, BeforeValidator(_as_name)]
MOST_STEPS, MOST_SAMPLES, MOST_WORKERS = 10**9, 4096, 256
"""Upper limits of a run's steps, of a batch, and of loader processes."""
LARGEST_CROP, LARGEST_SIZE, LARGEST_ELEMENT = 8192, 4096, 1023
"""Upper limits, pixels, of a crop, of what the network sees, and of a trimap's elements."""
LARGEST_EXPONENT = 3
"""Upper limit of the power in which colours are mixed."""
LARGEST_NOISE = 3.0
"""σ of the strongest noise of samples, unless a recipe sets another one, gray levels."""
LARGEST_SEED = 2**63 - 1
"""The generators of numpy and torch take any seed from 0 to this one."""

CropSide = Annotated[int, Field(gt=0, le=LARGEST_CROP)]
Exponent = Annotated[float, Field(ge=1, le=LARGEST_EXPONENT)]
ElementSide = Annotated[int, Field(gt=0, le=LARGEST_ELEMENT)]


class DataConfig(_Section):
    """Sources of samples, and their crops.

    Attributes:
        kind: "procedural" draws foregrounds and backgrounds; "rgba" reads them from ``root``; "comp1k"
            reads an annotation list of MMEditing's form.
        root: for "rgba": a folder with ``foregrounds/`` (RGBA files, or sub-folders of them) and
            ``backgrounds/`` (photographs, any depth); for "comp1k": what the paths in the list start from.
        annotations: "comp1k": the list; ``training_list.json`` in ``root`` by default.
        online: "comp1k": compose on line and leave the merged files alone.
        weights: "rgba": how often each sub-folder of ``foregrounds/`` is drawn from, relative to the
            others; a sub-folder that is not named has weight 1.
        tinted: "rgba": sub-folders whose cut-outs are white and get a random colour.
        procedural: "rgba": share of samples whose foreground is drawn procedurally.
        layered: "rgba": share of samples whose background shows further foregrounds, one to three.
        crop_sides: side of the square around an unknown pixel, pixels; one is chosen uniformly.
            At most 8192.
        size: side that the crop is resized to: what the network sees. At most 4096.
        trimap_sizes: smallest and largest side of the elements that make the trimap. At most 1023.
        patched: share of samples whose foreground gets parts of another colour, as animals and petals have
            them. An error with "comp1k".
        pierced: share of samples whose foreground gets small holes and creases, as between leaves. An error
            with "comp1k".
        crowded: share of samples whose foreground is several copies of one, one before the other: gaps deep
            inside of an object. An error with "comp1k".
        softened: share of samples whose foreground gets a softer border, as photographs of hair have it. An
            error with "comp1k".
        photometric: jitter colours, defocus, noise and JPEG artefacts; the published recipes do not.
        noise: σ of the strongest noise of ``photometric``, gray levels, 0 to 20.
        exponents: smallest and largest power of colours in which ``photometric`` mixes foreground and
            background; uniform. Cameras mix light, a power of about 2.2. [1, 1] as published.
        compose: "loader" finishes samples in the loader processes; "device" leaves colours, composition,
            noise, trimap and normalisation to the training device, so that loaders don't starve it.
        workers: loader processes, at most 256.
    """

    kind: Literal["procedural", "rgba", "comp1k"] = "procedural"
    root: FilePath | None = None
    annotations: FilePath | None = None
    online: bool = False
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    tinted: tuple[str, ...] = ()
    procedural: float = Field(default=0.0, ge=0, le=1)
    layered: float = Field(default=0.0, ge=0, le=1)
    crop_sides: tuple[CropSide, ...] = Field(default=(320, 480, 640), min_length=1)
    size: int = Field(default=320, multiple_of=32, gt=0, le=LARGEST_SIZE)
    trimap_sizes: tuple[ElementSide, ElementSide] = (1, 29)
    patched: float = Field(default=0.0, ge=0, le=1)
    pierced: float = Field(default=0.0, ge=0, le=1)
    crowded: float = Field(default=0.0, ge=0, le=1)
    softened: float = Field(default=0.0, ge=0, le=1)
    photometric: bool = False
    noise: float = Field(default=LARGEST_NOISE, ge=0, le=20)
    exponents: tuple[Exponent, Exponent] = (1.0, 1.0)
    compose: Literal["loader", "device"] = "loader"
    workers: int = Field(default=1, ge=0, le=MOST_WORKERS)

    @model_validator(mode="after")
    def _ordered_sizes(self) -> Self:
        smallest, largest = self.trimap_sizes
        if smallest > largest:
            raise ValueError(f"trimap_sizes [{smallest}, {largest}]: the smaller size comes first")
        return self

    @model_validator(mode="after")
    def _mixable(self) -> Self:
        smallest, largest = self.exponents
        if smallest > largest:
            raise ValueError(f"exponents [{smallest}, {largest}]: the smaller one comes first")
        if largest > 1 and (self.kind == "comp1k" or not self.photometric):
            raise ValueError("exponents above 1 are for photometric=true, and not for an annotation list")
        return self

    @model_validator(mode="after")
    def _composable(self) -> Self:
        if self.compose == "device" and self.kind == "comp1k" and not self.online:
            raise ValueError('compose="device" needs online=true: merged images are read from files')
        return self

    @model_validator(mode="after")
    def _changeable(self) -> Self:
        changes = {
            "patched": self.patched,
            "pierced": self.pierced,
            "crowded": self.crowded,
            "softened": self.softened,
        }
        names = ", ".join(name for name, share in changes.items() if share)
        if names and self.kind == "comp1k":
            raise ValueError(f"{names}: images of an annotation list are composed as they are; set it to 0")
        return self


class ValidationConfig(_Section):
    """Scoring while training, every so many steps.

    Attributes:
        root: folder of ``images/``, ``trimaps/`` and ``alphas/`` (scored over unknown pixels), or an
            annotation list of MMEditing's form (scored over all pixels, as published).
        data_root: what the paths in a list start from; the list's own folder by default.
    """

    root: FilePath | None = None
    data_root: FilePath | None = None
    every: int = Field(default=1000, gt=0)


class TrainConfig(_Section):
    """One run of ``dim-train fit``.

    Attributes:
        network: member of the family; its stage decides what is trained and which losses count.
        vgg: ImageNet weights for the encoder: "torchvision", or a file (.npz or .pth).
        soften: factor on the logits of the checkpoint that the run starts from. Trained without
            cross-entropy they grow until neither losses on alpha nor a refiner move them; 1/4 brings them
            back. 1 as published.
        steps: optimiser steps, at most 1e9.
        batch: samples for each process in each step, at most 4096. Batch norm needs two values of each
            channel in its last layer: two samples in each part of a batch, or ``data.size`` above 32.
        accumulate: parts that a process's batch is split into, one after the other, to save memory; the
            gradient stays that of the whole batch.
        seed: start of all chance, from 0 to 2**63 - 1.
        tf32: allow TF32, with 10 bits of mantissa, in float32 convolutions on NVIDIA GPUs; PyTorch's
            default allows it, ours does not.
        decay_steps: length of the cosine at the end of the run that takes the learning rate to zero; 0
            keeps it constant, as the published recipes do.
        laplacian: weight of a loss between Laplacian pyramids beside DIM's own; 0 as published.
        cross_entropy: weight of a cross-entropy of the decoder's logits beside DIM's own; 0 as published.
        clip: largest norm of the gradient; None leaves it alone.
        ema: decay of the averaged weights that are scored and shipped; None ships the last ones.
        checkpoint_every: steps between two states that a run can be resumed from.
        checkpoint_seconds: save a state as well when the last one is this old; None counts steps alone.
        keep_every: steps between two checkpoints that are kept for good; None keeps none but best and final.
        tensorboard: write event files with image panels beside the CSV.
    """

    network: NetworkConfig = NetworkConfig()
    vgg: str | None = None
    soften: float = Field(default=1.0, gt=0)
    data: DataConfig = DataConfig()
    validation: ValidationConfig = ValidationConfig()
    steps: int = Field(default=1_000_000, gt=0, le=MOST_STEPS)
    batch: int = Field(default=1, gt=0, le=MOST_SAMPLES)
    accumulate: int = Field(default=1, gt=0)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    tf32: bool = False
    learning_rate: float = Field(default=1e-5, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    decay_steps: int = Field(default=0, ge=0)
    laplacian: float = Field(default=0.0, ge=0)
    cross_entropy: float = Field(default=0.0, ge=0)
    clip: float | None = Field(default=None, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    checkpoint_every: int = Field(default=1000, gt=0)
    checkpoint_seconds: float | None = Field(default=None, gt=0)
    keep_every: int | None = Field(default=None, gt=0)
    tensorboard: bool = False
    log_every: int = Field(default=100, gt=0)

    @model_validator(mode="after")
    def _whole_parts(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} cannot be split into {self.accumulate} equal parts")
        return self

    @model_validator(mode="after")
    def _values_to_normalise(self) -> Self:
        part = self.batch // self.accumulate
        # Stage 2 trains the refiner alone, which has no batch norm.
        is_normalised = self.network.batch_norm and self.network.stage != 2
        if is_normalised and part * (self.data.size // STRIDE) ** 2 < 2:
            raise ValueError(
                f"batch norm has one value of each channel in its last layer: data.size {self.data.size} and "
                f"{part} sample in each part of a batch; set data.size={2 * STRIDE}, or "
                f"batch={2 * self.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _room_for_the_learning_rate(self) -> Self:
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and decay_steps {self.decay_steps} do not fit into "
                f"steps {self.steps}: the learning rate would never reach {self.learning_rate:g}; "
                f"set all three, such as steps={self.steps} warmup_steps={self.steps // 10} "
                f"decay_steps={self.steps // 2}"
            )
        return self


def read_config(recipe: str | Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read a TOML recipe and apply ``key=value`` overrides; nested keys are joined with dots.

    ``key=none`` takes a key out of the recipe, so that its default counts.

    Args:
        recipe: a file, or the name of a recipe that is shipped.

    Raises:
        InputError: no such recipe, not TOML, an unknown key (the nearest match is named) or a bad value.
    """
    path = recipes.locate(recipe)
    try:
        document = parse_toml(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}", why=error.strerror) from error
    except ValueError as error:
        raise InputError(
            f"cannot read the recipe {path}", got="a file that is not TOML", why=str(error)
        ) from error
    for override in overrides:
        _override(document, override)
    try:
        return TrainConfig.model_validate(document)
    except ValidationError as error:
        raise InputError(f"cannot use the recipe {path}", why="\n    ".join(_explain(error))) from error


def changed_settings(before: Mapping[str, Any] | None, config: TrainConfig) -> list[str]:
    """Return ``key: before → after`` for every setting that differs.

    Args:
        before: the content of a run's ``config.json``; None gives no lines.
        config: the settings to compare with it.
    """
    if before is None:
        return []
    old, new = _flat(before), _flat(config.model_dump(mode="json"))
    return [f"{key}: {old[key]} → {new[key]}" for key in new if key in old and old[key] != new[key]]


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join nested keys with dots; the values of ``data.weights`` stay one setting."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping) and key != "weights":
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _override(document: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InputError("cannot apply an override", got=repr(text), expected="key=value, such as steps=200")
    *sections, last = key.split(".")
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise InputError("cannot apply an override", got=repr(text), why=f"{section} is no section")
    if value == "none":
        document.pop(last, None)
    else:
        document[last] = _toml_value(value)


def _toml_value(text: str) -> Any:
    """Return the value that TOML reads; a bare word is a string."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def _explain(error: ValidationError) -> list[str]:
    return [_explain_one(item["type"], tuple(map(str, item["loc"])), item["msg"]) for item in error.errors()]


def _explain_one(kind: str, location: tuple[str, ...], message: str) -> str:
    key = ".".join(location)
    if kind != "extra_forbidden":
        words = message.removeprefix("Value error, ")
        return f"{key}: {words}" if key else words
    matches = difflib.get_close_matches(location[-1], _known_keys(location[:-1]), n=1, cutoff=0.5)
    return f"{key}: unknown key" + (
        f"; did you mean {'.'.join((*location[:-1], matches[0]))}?" if matches else ""
    )


def _known_keys(sections: tuple[str, ...]) -> list[str]:
    model: type[BaseModel] = TrainConfig
    for section in sections:
        annotation = model.model_fields[section].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)
