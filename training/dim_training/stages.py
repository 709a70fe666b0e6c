"""The three stages of DIM: their first weights, their trained part and their frozen part."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dim import checkpoint
from dim.contract import NetworkConfig
from dim.errors import InputError
from dim.network import DIM
from dim_training.config import TrainConfig
from dim_training.vgg import initialise_encoder, load_vgg16


def build_network(config: TrainConfig, init: Path | None) -> DIM:
    """Build the network at the start of a run.

    Args:
        init: checkpoint to start from: needed from stage 2 on, whose decoder would be random without it. Its
            refiner, if it has one of another kind, is replaced by a fresh one in stage 2.

    Raises:
        InputError: stage 2 or 3 without a checkpoint, or nothing to soften.
        CheckpointError: the checkpoint is of another network.
    """
    if init is None and config.soften != 1:
        raise InputError(
            "cannot soften logits: the run starts from no checkpoint",
            got=f"soften={config.soften}",
            fix="--init CHECKPOINT, or soften=1",
        )
    model = DIM(config.network)
    if init is not None:
        contents = checkpoint.read(init)
        fresh = config.network.stage == 2 and not _same_refiner(contents.config, config.network)
        weights = contents.state_dict
        if fresh:
            weights = {key: value for key, value in weights.items() if not key.startswith("refiner.")}
        checkpoint.load_into(model, weights, source=str(init), fresh_refiner=fresh)
        _soften(model, config.soften)
    elif config.network.stage > 1:
        raise InputError(
            f"cannot start stage {config.network.stage}: it begins with the weights of the stage before",
            got="no checkpoint",
            fix=f"--init CHECKPOINT, the best of stage {config.network.stage - 1}",
        )
    elif config.vgg is not None:
        initialise_encoder(model, load_vgg16(config.vgg))
    return model


def _soften(model: DIM, factor: float) -> None:
    """Multiply the decoder's logits: its last layer is linear in its weight and its bias."""
    with torch.no_grad():
        for parameter in model.backbone.decoder.deconv1.parameters():
            parameter.mul_(factor)


def _same_refiner(one: NetworkConfig, other: NetworkConfig) -> bool:
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("has_refiner", "cue_radii", "propagation_steps", "propagates_light")
    )


def trained_part(model: DIM) -> nn.Module:
    """Return the module whose parameters the stage trains; all others are frozen (``requires_grad`` off)."""
    if model.config.stage != 2:
        return model
    assert model.refiner is not None
    model.backbone.requires_grad_(False)
    return model.refiner


def training_mode(model: DIM) -> None:
    """Set training mode, except for a frozen backbone, whose batch norm must not drift either."""
    model.train()
    if model.config.stage == 2:
        model.backbone.eval()
