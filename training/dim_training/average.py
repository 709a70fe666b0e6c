"""The mean of several checkpoints: runs that start from one another often have a better mean than each alone.

Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time", ICML 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dim import checkpoint
from dim.errors import InputError
from dim.files import require_no_input, sha256
from dim.network import DIM
from dim_training.run_folder import PROVENANCE

WITHOUT_WEIGHTS = ("propagates_light", "hardens_ends", "lifts_shadows", "sharpens")
"""Attributes of a network that may differ between networks with the same weights."""


def average(
    paths: Sequence[Path],
    output: Path,
    *,
    command: str,
    hardens_ends: bool = False,
    lifts_shadows: bool = False,
    sharpens: bool = False,
) -> None:
    """Write the mean of all weights and statistics, each checkpoint with the same share.

    Args:
        paths: checkpoints of one network, at least two. They may differ in WITHOUT_WEIGHTS: the mean is of
            the first one's network.
        output: ``.safetensors`` to write; its provenance has the command, the checkpoints' SHA-256 and what
            they state about their runs.
        command: text for the provenance.
        hardens_ends: the mean's alpha close to 0 and 1 is moved closer
            (:func:`dim.network.propagation.harden`), also if the checkpoints' networks do not do so.
        lifts_shadows: the mean reads lifted shadows (:func:`dim.network.lift_shadows`), also if the
            checkpoints' networks do not.
        sharpens: the mean reads sharpened colours (:func:`dim.network.sharpen`), also if they do not.

    Raises:
        InputError: fewer than two, another suffix, an output that is one of them, networks that differ,
            numbers that are not finite, or ends to harden of alpha that is not propagated.
    """
    if len(paths) < 2:
        raise InputError("cannot average checkpoints", got=f"{len(paths)}", expected="at least two")
    if output.suffix != ".safetensors":
        raise InputError(f"cannot write {output}", expected="a name with .safetensors at its end")
    require_no_input([output], paths)
    first, *others = (checkpoint.load(path) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        without_weights = {name: getattr(first.config, name) for name in WITHOUT_WEIGHTS}
        if other.config.model_copy(update=without_weights) != first.config:
            raise InputError(
                f"cannot average {path} with {paths[0]}",
                got=str(other.config),
                expected=str(first.config),
                why="only weights of one network have a mean",
            )
    if hardens_ends and not first.config.propagation_steps:
        raise InputError(
            "cannot harden the ends of this network's alpha",
            got="no network.propagation_steps",
            expected="a network that propagates alpha",
        )
    states = [model.state_dict() for model in (first, *others)]
    for path, state in zip(paths, states, strict=True):
        if broken := [key for key, value in state.items() if not value.isfinite().all()]:
            raise InputError(
                f"cannot average {path}",
                got=f"NaN or infinite numbers in {broken[0]}",
                expected="finite weights and statistics",
            )
    asked = {"hardens_ends": hardens_ends, "lifts_shadows": lifts_shadows, "sharpens": sharpens}
    config = first.config.model_copy(update={name: True for name, wanted in asked.items() if wanted})
    mean = DIM(config)
    mean.load_state_dict({key: _mean([state[key] for state in states]) for key in states[0]})
    checkpoint.save(mean.eval(), output, provenance={"command": command, **_origin(paths)})


def _origin(paths: Sequence[Path]) -> dict[str, str]:
    stated = [checkpoint.read(path).provenance for path in paths]
    runs = {
        key: ", ".join(each[key] for each in stated)
        for key in PROVENANCE
        if all(key in each for each in stated)
    }
    return runs | {f"averaged {number}": sha256(path) for number, path in enumerate(paths, start=1)}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Return the mean in the tensors' type; counts, which are whole numbers, are those of the first."""
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack([tensor.double() for tensor in tensors]).mean(0).to(tensors[0].dtype)
