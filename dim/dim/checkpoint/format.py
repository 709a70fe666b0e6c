"""Checkpoint files: reading OpenMMLab's, state dicts, foreign layouts and our format; writing our format.

Our format is safetensors. Its header holds, under the key ``dim``, one JSON document with the network's
configuration and the provenance of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from dim.checkpoint import foreign_layouts, pickle_reader
from dim.checkpoint.restricted_pickle import Placeholder
from dim.contract import IMAGE_MEAN, IMAGE_STD, METADATA_KEY, NetworkConfig, Stage
from dim.documents import parse_json
from dim.errors import CheckpointError
from dim.files import problem_of, write_bytes
from dim.network import DIM

StateDict = dict[str, Tensor]

_FIRST_CONVOLUTION = "backbone.encoder.layer1.0.weight"
_PUBLISHED_PARAMETERS = 26_200_001
_SHOWN = 8
"""Number of keys that an error lists."""
_EXPORTED = (".onnx", ".engine")
"""Suffixes of artefacts, which users give in place of a checkpoint."""
_READABLE_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64)
"""Types of weights, and int64 for the counters of batch norm."""
_DAMAGED_SAFETENSORS = (
    SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, MemoryError,
)  # fmt: skip


class Contents(NamedTuple):
    """The parts of a checkpoint file.

    Attributes:
        state_dict: tensors by our keys, on the CPU; floating ones in float32.
        config: stored in our files, otherwise inferred from the tensors.
        provenance: origin of the weights, where the file states it.
    """

    state_dict: StateDict
    config: NetworkConfig
    provenance: dict[str, str]


def load(path: str | Path, *, stage: Stage | None = None) -> DIM:
    """Load the network of a checkpoint, on the CPU, in eval mode.

    Args:
        path: safetensors, or an OpenMMLab / PyTorch file (a dictionary with ``state_dict``, or a bare state
            dict, with or without ``module.`` in front of the keys), or a layout that
            :mod:`dim.checkpoint.foreign_layouts` translates. Nothing in a pickle is ever run.
        stage: stage of the network; None takes the checkpoint's. A stage-1 checkpoint loaded as stage 2
            gets a refiner with initial weights, as stage 2 of the training begins.

    Raises:
        CheckpointError: unreadable, or keys and shapes are not those of the network.
        dim.checkpoint.foreign_layouts.OtherNetworkError: a known layout of another network.
    """
    contents = read(path)
    config = contents.config if stage is None else contents.config.model_copy(update={"stage": stage})
    _require_enough_numbers(contents, str(path))
    model = DIM(config)
    load_into(model, contents.state_dict, source=str(path), fresh_refiner=not contents.config.has_refiner)
    return model.eval()


def _require_enough_numbers(contents: Contents, source: str) -> None:
    """Refuse a file with far fewer numbers than its network, before memory for that network is allocated."""
    config, found = contents.config, sum(value.numel() for value in contents.state_dict.values())
    expected = round(_PUBLISHED_PARAMETERS * config.width**2)
    if found >= expected / 8:
        return
    # The keys do not depend on the width.
    keys = DIM(config.model_copy(update={"width": 1 / 64})).state_dict()
    missing = [key for key in keys if key not in contents.state_dict]
    raise CheckpointError(
        f"cannot load {source}: its tensors are not those of {_describe(config)}\n"
        + (_section("missing", missing) if missing else "  all tensors are too small"),
        got=f"{len(contents.state_dict)} tensors with {found} numbers",
        expected=f"{len(keys)} tensors with about {expected} numbers",
    )


def load_into(
    model: DIM, state_dict: Mapping[str, Tensor], *, source: str, fresh_refiner: bool = False
) -> None:
    """Copy the weights into the model, strictly.

    Args:
        model: changed in place.
        state_dict: tensors by the model's keys.
        source: name of the file in errors.
        fresh_refiner: leave the model's refiner as it is where the checkpoint has none.

    Raises:
        CheckpointError: keys or shapes are not those of the model.
    """
    _require_same_tensors(model, state_dict, source, fresh_refiner)
    model.load_state_dict(dict(state_dict), strict=False)


def _require_same_tensors(
    model: DIM, state_dict: Mapping[str, Tensor], source: str, fresh_refiner: bool
) -> None:
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


def read(path: str | Path) -> Contents:
    """Read the state dict, configuration and provenance of a checkpoint file, without building the network.

    Raises:
        CheckpointError: no such file, unreadable, or not a network of the DIM family.
    """
    path = Path(path)
    problem = problem_of(path)
    if problem is not None:
        raise CheckpointError(f"cannot read the checkpoint {path}", got=problem)
    if path.suffix.lower() in _EXPORTED:
        raise CheckpointError(
            f"cannot read the checkpoint {path}",
            got="an exported artefact",
            expected="the checkpoint that it was made from",
            why="an artefact has other weights: batch norm is folded, and int8 is rounded",
            fix=f"dim-export inspect {path} prints the SHA-256 of that checkpoint",
        )
    try:
        is_safetensors = _is_safetensors(path)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}", why=error.strerror) from error
    if is_safetensors:
        return _read_safetensors(path)
    return _contents_of(_state_dict_of(pickle_reader.load(path), path), path)


def save(
    model: DIM, path: str | Path, *, provenance: Mapping[str, str] | None = None, half: bool = False
) -> None:
    """Write our format: the whole file or none.

    Args:
        model: its weights are saved from any device.
        path: the file; its folder is made.
        provenance: origin of the weights: data, command, seed, scores, licence.
        half: store floating tensors as float16; reading converts them to float32.

    Raises:
        InputError: the file cannot be written.
    """
    document = {"network": model.config.model_dump(), "provenance": dict(provenance or {})}
    tensors = {
        key: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    # Not save_file: that leaves a file which only its owner can read.
    write_bytes(path, to_bytes(tensors, metadata={METADATA_KEY: json.dumps(document, sort_keys=True)}))


def infer_config(state_dict: Mapping[str, Tensor], *, source: str) -> NetworkConfig:
    """Infer width, batch norm and refiner from the keys and shapes of a state dict.

    Stages 2 and 3 have the same tensors; such a checkpoint counts as stage 3.

    Raises:
        CheckpointError: not a network of the DIM family.
    """
    first = state_dict.get(_FIRST_CONVOLUTION)
    if first is None or first.ndim != 4:
        raise CheckpointError(
            f"cannot use {source}: it is no Deep Image Matting network",
            got=f"keys such as {', '.join(key[:80] for key in sorted(state_dict)[:3]) or '(none)'}",
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
    """Recognise safetensors by content: an 8-byte little-endian header length, then JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except _DAMAGED_SAFETENSORS as error:
        raise CheckpointError(
            f"cannot read {path}", got="a damaged safetensors file", why=str(error)[:200]
        ) from error
    state_dict = _cleaned(tensors, path)
    if METADATA_KEY not in header:
        return _contents_of(state_dict, path)
    try:
        document = parse_json(header[METADATA_KEY])
        config = NetworkConfig.model_validate(document["network"])
        provenance = {str(key): str(value) for key, value in document.get("provenance", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read the header of {path}", why=str(error)[:500]) from error
    return Contents(state_dict, config, provenance)


def _contents_of(state_dict: StateDict, path: Path) -> Contents:
    """Return the contents of a file that holds no configuration."""
    ours, origin = foreign_layouts.translate(state_dict, source=str(path))
    provenance = {} if origin is None else {"layout": origin}
    return Contents(ours, infer_config(ours, source=str(path)), provenance)


def _state_dict_of(loaded: object, path: Path) -> StateDict:
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), Placeholder):
        foreign_layouts.refuse_whole_model(loaded, source=str(path))
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(
            f"cannot use {path}: there is no state dict in it",
            got=type(loaded).__name__,
            expected='a dictionary of tensors, or one under "state_dict"',
        )
    others = [str(key)[:80] for key, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"cannot use {path}: its state dict holds values that are no tensors",
            got=", ".join(others[:_SHOWN]),
            expected="tensors only",
        )
    return _cleaned(loaded, path)


def _cleaned(tensors: Mapping[Any, Tensor], path: Path) -> StateDict:
    """Convert to float32; drop ``module.`` from the keys, and the buffers of MMagic's data preprocessor."""
    found = {str(key).removeprefix("module."): value.detach() for key, value in tensors.items()}
    if len(found) < len(tensors):
        raise CheckpointError(f"cannot use {path}: several tensors have one key, but for 'module.'")
    unreadable = [key for key, value in found.items() if value.dtype not in _READABLE_TYPES]
    if unreadable:
        raise CheckpointError(
            f"cannot use {path}: a tensor of a type that networks of this family do not have",
            got=f"{unreadable[0][:80]} of type {found[unreadable[0]].dtype}",
            expected=", ".join(str(kind).removeprefix("torch.") for kind in _READABLE_TYPES),
        )
    for name, expected in (("mean", IMAGE_MEAN), ("std", IMAGE_STD)):
        _require_normalisation(found.get(f"data_preprocessor.{name}"), expected, name, path)
    return {
        key: value.float() if value.is_floating_point() else value
        for key, value in found.items()
        if not key.startswith("data_preprocessor.")
    }


def _require_normalisation(stored: Tensor | None, expected: tuple[float, ...], name: str, path: Path) -> None:
    if stored is None:
        return
    values = stored.flatten()[:4].tolist()
    if len(values) != len(expected) or any(abs(a - b) > 0.01 for a, b in zip(values, expected, strict=True)):
        raise CheckpointError(
            f"cannot use {path}: its input is normalised in another way",
            got=f"{name} {values}",
            expected=f"{name} {list(expected)}",
            why="the alphas would be wrong",
        )


def _differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{key}  {tuple(expected[key].shape)}" for key in expected if key not in found]
    unexpected = [f"{key[:80]}  {tuple(found[key].shape)}" for key in found if key not in expected]
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
