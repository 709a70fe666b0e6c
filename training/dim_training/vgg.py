"""ImageNet weights of VGG-16 for DIM's encoder.

The first convolution gets a fourth input channel of zeros for the trimap, as in the paper; ``conv6`` has no
counterpart and keeps its random weights. A narrower encoder takes, layer by layer, the filters with the
largest L1 norm (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017).

Before batch norm the scale of a filter means nothing to the function but much to the optimiser, and filters
made for the scale 0-255 would drown a trimap channel that starts at zero. There every filter is brought to
the norm of He's initialisation, and the trimap channel starts at random.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dim.checkpoint import pickle_reader
from dim.contract import IMAGE_STD
from dim.errors import CheckpointError, InputError
from dim.network import DIM, ENCODER_STAGES

Convolution = tuple[Tensor, Tensor]
"""Weight (O, I, 3, 3) and bias (O)."""

HE_NORM = 2**0.5
"""Expected norm of a filter whose weights have variance 2 / fan-in."""

_OUTPUTS = tuple(channels for channels, depth in ENCODER_STAGES for _ in range(depth))
"""Channels after each convolution."""
_DAMAGED_ARCHIVE = (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
"""Errors of numpy's reader on damaged bytes; AttributeError for a single array in place of an archive."""

_TORCHVISION_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def load_vgg16(source: str) -> list[Convolution]:
    """Load the thirteen convolutions, for RGB normalised with ImageNet's mean and standard deviation.

    Args:
        source: "torchvision" (downloads its weights), a torchvision state dict (.pth), or an .npz with
            ``block{b}_conv{i}.weight`` and ``.bias`` that expects BGR, 0-255, mean subtracted. Nothing in a
            file is run.

    Raises:
        InputError: no such file, or weights of another network.
        CheckpointError: a damaged file, or one of another kind.
    """
    if source == "torchvision":
        return _from_state_dict(_downloaded())
    path = Path(source)
    if not path.is_file():
        raise InputError(
            f"cannot read VGG-16 weights from {path}", got="no such file", expected='"torchvision" or a file'
        )
    if path.suffix == ".npz":
        return _from_bgr_archive(path)
    loaded = pickle_reader.load(path)
    return _from_state_dict(loaded if isinstance(loaded, dict) else {})


def _downloaded() -> dict[str, Tensor]:
    """Return torchvision's state dict, from its cache or from the network."""
    from torchvision.models import VGG16_Weights, vgg16

    weights = VGG16_Weights.IMAGENET1K_V1
    try:
        state_dict: dict[str, Tensor] = vgg16(weights=weights).state_dict()
    except (OSError, RuntimeError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise InputError(
            f"cannot download torchvision's VGG-16 from {weights.url}",
            why=str(error),
            fix=f"put the file at {cache}, or give a local file: --set vgg=FILE",
        ) from error
    return state_dict


def _from_state_dict(state_dict: dict[str, Any]) -> list[Convolution]:
    try:
        layers = [
            (state_dict[f"features.{i}.weight"], state_dict[f"features.{i}.bias"])
            for i in _TORCHVISION_LAYERS
        ]
    except KeyError as error:
        raise InputError(
            "cannot use these VGG-16 weights", got=f"no key {error}", expected="torchvision's names"
        ) from None
    return _required(layers)


def _required(layers: list[tuple[Any, Any]]) -> list[Convolution]:
    """Return the layers as float32; InputError unless they are those of VGG-16."""
    inputs = 3
    for (weight, bias), outputs in zip(layers, _OUTPUTS, strict=True):
        found = [tuple(getattr(value, "shape", ())) for value in (weight, bias)]
        is_float = all(isinstance(v, Tensor) and v.is_floating_point() for v in (weight, bias))
        if not is_float or found != [(outputs, inputs, 3, 3), (outputs,)]:
            raise InputError(
                "cannot use these VGG-16 weights",
                got=f"a convolution with weight and bias of the shapes {found[0]} and {found[1]}",
                expected=f"floating point, {(outputs, inputs, 3, 3)} and {(outputs,)}",
            )
        inputs = outputs
    return [(weight.float(), bias.float()) for weight, bias in layers]


def _from_bgr_archive(path: Path) -> list[Convolution]:
    names = [f"block{b}_conv{i + 1}" for b, (_, depth) in enumerate(ENCODER_STAGES, 1) for i in range(depth)]
    try:
        with np.load(path) as archive:
            arrays = [(archive[f"{n}.weight"], archive[f"{n}.bias"]) for n in names]
    except KeyError as error:
        raise InputError(f"cannot use {path}", got=str(error), expected="block1_conv1.weight …") from None
    except _DAMAGED_ARCHIVE as error:
        raise CheckpointError(
            f"cannot read VGG-16 weights from {path}",
            got="a file that is not an .npz archive, or a damaged one",
            why=str(error)[:200],
        ) from error
    layers = _required([(_tensor(weight), _tensor(bias)) for weight, bias in arrays])
    weight, bias = layers[0]
    # Ours is RGB divided by std·255: the same function needs the filters multiplied by it.
    scale = torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    layers[0] = (weight.flip(1) * scale, bias)
    return layers


def _tensor(array: object) -> Tensor | None:
    """Return an array of floating-point numbers as a tensor; None for any other entry of an archive."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return None
    return torch.from_numpy(array.astype(np.float32))


@torch.no_grad()
def initialise_encoder(model: DIM, layers: list[Convolution]) -> None:
    """Copy the convolutions into the encoder, keeping the strongest filters where it is narrower."""
    kept_inputs = torch.arange(3)
    for target, (weight, bias) in zip(_encoder_convolutions(model), layers, strict=True):
        norms = weight.abs().sum(dim=(1, 2, 3))
        kept = norms.topk(min(target.out_channels, len(norms))).indices.sort().values
        chosen = weight[kept][:, kept_inputs]
        _fill(target, chosen, bias[kept], normalised=model.config.batch_norm)
        kept_inputs = kept


def _fill(target: nn.Conv2d, weight: Tensor, bias: Tensor, *, normalised: bool) -> None:
    outputs, inputs = weight.shape[:2]
    assert target.bias is not None
    if normalised:
        weight = weight / weight.flatten(1).norm(dim=1).clamp(min=1e-6).view(-1, 1, 1, 1) * HE_NORM
        nn.init.kaiming_normal_(target.weight, nonlinearity="relu")
    else:
        target.weight.zero_()
        target.bias[:outputs] = bias
    target.weight[:outputs, :inputs] = weight


def _encoder_convolutions(model: DIM) -> list[nn.Conv2d]:
    encoder = model.backbone.encoder
    layers = [
        layer for level in range(1, len(ENCODER_STAGES) + 1) for layer in getattr(encoder, f"layer{level}")
    ]
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]
