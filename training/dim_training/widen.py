"""A wider network that computes what a narrow one does, as a start for its training.

Each channel is copied, and what reads it gets shares of its weight that add up to the whole. The shares
differ at random: with equal ones all copies of a channel would have the same gradient without end.

Source: Chen, Goodfellow, Shlens, "Net2Net: accelerating learning via knowledge transfer", ICLR 2016.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dim import checkpoint
from dim.contract import NetworkConfig
from dim.errors import InputError
from dim.files import require_no_input, sha256
from dim.network import DIM
from dim_training.run_folder import PROVENANCE

SPREAD = 0.5
"""How far a copy's share may be from the mean of all, relative to it."""


def widen(path: Path, output: Path, width: float, *, seed: int = 0, command: str) -> int:
    """Write a checkpoint of a wider network that computes the same alpha, up to rounding.

    Args:
        path: the narrow checkpoint.
        output: ``.safetensors`` to write; its provenance has the command, the checkpoint's SHA-256 and what
            that states about its runs.
        width: of the wider network, see :class:`~dim.contract.NetworkConfig`.
        seed: of the shares.
        command: text for the provenance.

    Returns:
        The number of parameters.

    Raises:
        InputError: a width that is not larger or not possible, another suffix, an output that is the input.
    """
    if output.suffix != ".safetensors":
        raise InputError(f"cannot write {output}", expected="a name with .safetensors at its end")
    require_no_input([output], [path])
    narrow = checkpoint.load(path)
    wide = DIM(_wider(narrow.config, width, path))
    given, shapes = narrow.state_dict(), wide.state_dict()
    generator = torch.Generator().manual_seed(seed)
    wide.load_state_dict({key: _grown(given[key], shapes[key].shape, generator) for key in shapes})
    origin = {"widened": sha256(path), "widened_from": f"width {narrow.config.width:g}, seed {seed}"}
    stated = checkpoint.read(path).provenance
    runs = {key: stated[key] for key in PROVENANCE if key in stated}
    checkpoint.save(wide, output, provenance={"command": command, **runs, **origin})
    return sum(parameter.numel() for parameter in wide.parameters())


def _wider(config: NetworkConfig, width: float, path: Path) -> NetworkConfig:
    refused = InputError(
        f"cannot widen {path}",
        got=f"a width of {width:g}",
        expected=f"a whole number of 64ths, more than its own {config.width:g}, at most 2",
    )
    if not width > config.width:
        raise refused
    try:
        return NetworkConfig.model_validate({**config.model_dump(), "width": width})
    except ValueError as error:
        raise refused from error


def _grown(value: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return a weight, bias or statistic of the narrow network as that of the wide one."""
    if value.dim() and len(value) != shape[0]:
        value = value[torch.arange(shape[0]) % len(value)]
    if value.dim() < 2 or value.shape[1] == shape[1]:
        return value
    inputs = value.shape[1]
    return value[:, torch.arange(shape[1]) % inputs] * _shares(shape, inputs, generator)


def _shares(shape: torch.Size, inputs: int, generator: torch.Generator) -> Tensor:
    """Return each copy's share of its input channel, (outputs, channels, 1, 1); a channel's add up to 1."""
    drawn = 1 + SPREAD * (2 * torch.rand(shape[:2], generator=generator) - 1)
    totals = torch.zeros(shape[0], inputs)
    copied = torch.arange(shape[1]) % inputs
    totals.index_add_(1, copied, drawn)
    return (drawn / totals[:, copied])[..., None, None]
