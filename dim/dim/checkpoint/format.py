"""Checkpoints: reading OpenMMLab's, bare state dicts, other people's and our own; writing our own.

Our format is safetensors whose header holds, under the key ``dim``, one JSON document with the network's
configuration and the provenance of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from dim.checkpoint import foreign_layouts, pickle_reader
from dim.checkpoint.restricted_pickle import Placeholder
from dim.contract import METADATA_KEY, NetworkConfig, Stage
from dim.errors import CheckpointError
from dim.files import write_bytes
from dim.network import DIM

StateDict = dict[str, Tensor]

_FIRST_CONVOLUTION = "backbone.encoder.layer1.0.weight"
_SHOWN = 8


class Contents(NamedTuple):
    """A checkpoint file taken apart."""

    state_dict: StateDict
    config: NetworkConfig
    provenance: dict[str, str]


def load(path: str | Path, *, stage: Stage | None = None) -> DIM:
    """The network of a checkpoint, on the CPU, in eval mode.

    Args:
        path: safetensors, or an OpenMMLab / PyTorch file (``meta`` and ``state_dict``, or a bare state
            dict, with or without ``module.`` in front of the keys), or one of the layouts that
            :mod:`dim.checkpoint.foreign_layouts` knows. Nothing in a pickle is ever run.
        stage: wanted stage; None takes the checkpoint's own. A stage-1 checkpoint wanted as stage 2 gets
            a refiner with fresh weights: that is how stage 2 begins.

    Raises:
        CheckpointError: unreadable, or keys and shapes are not those of the network.
        dim.checkpoint.foreign_layouts.OtherNetworkError: a known layout of another network.
    """
    contents = read(path)
    config = contents.config if stage is None else contents.config.model_copy(update={"stage": stage})
    model = DIM(config)
    load_into(model, contents.state_dict, source=str(path), fresh_refiner=not contents.config.has_refiner)
    return model.eval()


def load_into(
    model: DIM, state_dict: Mapping[str, Tensor], *, source: str, fresh_refiner: bool = False
) -> None:
    """Copy the weights into the model, strictly.

    Args:
        fresh_refiner: leave the model's refiner as it is where the checkpoint has none.
    """
    expected = model.state_dict()
    if fresh_refiner and not any(key.startswith("refiner.") for key in state_dict):
        expected = {key: value for key, value in expected.items() if not key.startswith("refiner.")}
    problems = _differences(state_dict, expected)
    if problems:
        raise CheckpointError(
            f"cannot load {source}: its tensors are not those of {_describe(model.config)}\n"
            + "\n".join(problems),
            got=f"{len(state_dict)} tensors",
            expected=f"{len(expected)} tensors",
        )
    model.load_state_dict(dict(state_dict), strict=False)


def read(path: str | Path) -> Contents:
    """State dict, configuration and provenance of a checkpoint file, without building the network."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"cannot read the checkpoint {path}", got="no such file")
    if _is_safetensors(path):
        return _read_safetensors(path)
    return _contents_of(_state_dict_of(pickle_reader.load(path), path), path)


def save(
    model: DIM, path: str | Path, *, provenance: Mapping[str, str] | None = None, half: bool = False
) -> None:
    """Write our format, atomically.

    Args:
        provenance: what the weights come from: data, command, seed, scores, licence.
        half: store floating tensors as float16; they are read back as float32.
    """
    document = {"network": model.config.model_dump(), "provenance": dict(provenance or {})}
    tensors = {
        key: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    # Not save_file: that leaves a file which only its owner can read.
    write_bytes(path, to_bytes(tensors, metadata={METADATA_KEY: json.dumps(document, sort_keys=True)}))


def infer_config(state_dict: Mapping[str, Tensor], *, source: str) -> NetworkConfig:
    """Configuration of a state dict that does not name one: width, batch norm and refiner show in its keys.

    Stages 2 and 3 have the same tensors; such a checkpoint counts as stage 3.
    """
    first = state_dict.get(_FIRST_CONVOLUTION)
    if first is None or first.ndim != 4:
        raise CheckpointError(
            f"cannot use {source}: it is no Deep Image Matting network",
            got=f"keys such as {', '.join(sorted(state_dict)[:3]) or '(none)'}",
            expected=f"the keys of OpenMMLab's DIM, among them {_FIRST_CONVOLUTION}",
        )
    try:
        return NetworkConfig(
            stage=3 if any(key.startswith("refiner.") for key in state_dict) else 1,
            width=first.shape[0] / 64,
            batch_norm=any(key.endswith("running_mean") for key in state_dict),
        )
    except ValidationError as error:
        raise CheckpointError(
            f"cannot use {source}: no member of the DIM family has its width",
            got=f"{first.shape[0]} channels after the first convolution",
            expected="1 to 128; 64 in the published network",
        ) from error


def _is_safetensors(path: Path) -> bool:
    """By content: an 8-byte little-endian header length, then JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state_dict = {key: _as_float32(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"cannot read {path}", got="a damaged safetensors file", why=str(error)
        ) from error
    if METADATA_KEY not in header:
        return _contents_of(state_dict, path)
    try:
        document = json.loads(header[METADATA_KEY])
        config = NetworkConfig.model_validate(document["network"])
        provenance = {str(key): str(value) for key, value in document.get("provenance", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise CheckpointError(f"cannot read the header of {path}", why=str(error)) from error
    return Contents(state_dict, config, provenance)


def _contents_of(state_dict: StateDict, path: Path) -> Contents:
    """Contents of a file that says nothing of itself."""
    ours, origin = foreign_layouts.translate(state_dict, source=str(path))
    provenance = {} if origin is None else {"layout": origin}
    return Contents(ours, infer_config(ours, source=str(path)), provenance)


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _state_dict_of(loaded: object, path: Path) -> StateDict:
    candidate = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if isinstance(candidate, dict) and isinstance(candidate.get("model"), Placeholder):
        foreign_layouts.refuse_whole_model(candidate, source=str(path))
    if not isinstance(candidate, dict) or not candidate:
        raise CheckpointError(
            f"cannot use {path}: there is no state dict in it",
            got=type(candidate).__name__,
            expected='a dictionary of tensors, or one under "state_dict"',
        )
    strangers = [str(key) for key, value in candidate.items() if not isinstance(value, Tensor)]
    if strangers:
        raise CheckpointError(
            f"cannot use {path}: its state dict holds things that are no tensors",
            got=", ".join(strangers[:_SHOWN]),
            expected="tensors only",
        )
    return {str(key).removeprefix("module."): _as_float32(value.detach()) for key, value in candidate.items()}


def _differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{key}  {tuple(expected[key].shape)}" for key in expected if key not in found]
    unexpected = [f"{key}  {tuple(found[key].shape)}" for key in found if key not in expected]
    misshaped = [
        f"{key}  got {tuple(found[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    rows = (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshaped))
    return [_section(title, keys) for title, keys in rows if keys]


def _section(title: str, keys: list[str]) -> str:
    rest = [f"    … and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else []
    return "\n".join([f"  {title} ({len(keys)}):", *(f"    {key}" for key in keys[:_SHOWN]), *rest])


def _describe(config: NetworkConfig) -> str:
    norm = ", batch norm" if config.batch_norm else ""
    return f"DIM stage {config.stage}, width {config.width:g}{norm}{config.additions}"
