"""Checkpoints of two community repositories: translated if they are this network, refused otherwise.

==============================================  ==========================================================
 keys                                            written by
==============================================  ==========================================================
``conv1_1.weight`` … ``deconv1.weight``         huochaitiantang/pytorch-deep-image-matting
``down1.conv1.cbr_unit.0.weight`` …             foamliu/Deep-Image-Matting-PyTorch
==============================================  ==========================================================

The first repository has had several networks with the same keys. The network of 22 April to 8 September 2019
(its releases v1.1 to v1.3) is the same function as ours on the same input: RGB normalised with ImageNet's
mean and standard deviation, trimap divided by 255. The others differ, and so does the second repository's;
they are refused with the differences that their tensors show.

Two differences do not show in a state dict. Release v1.0 (2018) was trained on BGR, 0-255, without a mean.
Zero padding then has another colour, so that the input cannot be folded exactly into the first convolution.
And the code of early 2019 fed the refiner alpha times 256; here, as in the later code, alpha is in 0-1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, NoReturn

from torch import Tensor

from dim.errors import CheckpointError
from dim.network import DECODER_STEPS, ENCODER_STAGES

HUOCHAITIANTANG = "huochaitiantang/pytorch-deep-image-matting"
FOAMLIU = "foamliu/Deep-Image-Matting-PyTorch"

_ONE_THAT_IS = (
    f"a checkpoint of OpenMMLab's, or one of {HUOCHAITIANTANG} with a 1×1 conv6_1 (its releases v1.1 to v1.3)"
)
_REFINER = ("refine_conv1", "refine_conv2", "refine_conv3", "refine_pred")


class OtherNetworkError(CheckpointError):
    """The checkpoint is of a different network than DIM as OpenMMLab implements it.

    Attributes:
        differences: the differences, one sentence each.
    """

    def __init__(self, source: str, origin: str, differences: tuple[str, ...], *, fix: str) -> None:
        self.differences = differences
        super().__init__(
            f"cannot use {source}: its network is not the same function",
            got=f"the layout of {origin}",
            expected=_ONE_THAT_IS,
            why="\n    ".join(differences),
            fix=fix,
        )


class Translated(NamedTuple):
    """A state dict with our keys; ``origin`` is the repository that wrote it, None if the keys were ours."""

    state_dict: dict[str, Tensor]
    origin: str | None


def translate(state_dict: Mapping[str, Tensor], *, source: str) -> Translated:
    """Translate a state dict of a known layout to our keys; any other is returned unchanged.

    Keys of a known layout that have no counterpart stay, so that a strict load reports them.

    Raises:
        OtherNetworkError: a known layout of another network.
    """
    if "conv1_1.weight" in state_dict and "deconv6_1.weight" in state_dict:
        return Translated(_from_huochaitiantang(state_dict, source), HUOCHAITIANTANG)
    if any(".cbr_unit." in key for key in state_dict):
        _refuse_foamliu(state_dict, source)
    return Translated(dict(state_dict), None)


def refuse_whole_model(names: object, *, source: str) -> NoReturn:
    """Raise CheckpointError for a file that holds the model object: its class is code, which is never run."""
    origin = f" {FOAMLIU} does so; its network is another one in any case." if _is_foamliu(names) else ""
    raise CheckpointError(
        f"cannot use {source}: it holds a whole pickled model, not its state dict",
        got='an object of an unknown class under "model"',
        expected="a dictionary of tensors",
        why=f"reading such an object would run the code of its class.{origin}",
        fix="where it was made: torch.save(model.state_dict(), FILE)",
    )


def _is_foamliu(names: object) -> bool:
    return isinstance(names, Mapping) and "epochs_since_improvement" in names


def _from_huochaitiantang(state_dict: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    differences = tuple(_differences_of_huochaitiantang(state_dict))
    if differences:
        raise OtherNetworkError(
            source, HUOCHAITIANTANG, differences, fix="take one of the releases v1.1 to v1.3, or OpenMMLab's"
        )
    names = dict(_huochaitiantang_names())
    return {_renamed(key, names): value for key, value in state_dict.items()}


def _renamed(key: str, names: Mapping[str, str]) -> str:
    module, _, kind = key.rpartition(".")
    return f"{names[module]}.{kind}" if module in names else key


def _huochaitiantang_names() -> Iterator[tuple[str, str]]:
    """Yield pairs of their module names and ours."""
    for level, (_, depth) in enumerate(ENCODER_STAGES, start=1):
        for index in range(depth):
            yield f"conv{level}_{index + 1}", f"backbone.encoder.layer{level}.{2 * index}"
    yield "conv6_1", "backbone.encoder.conv6"
    for name in (*(name for name, _, _ in DECODER_STEPS), "deconv1"):
        yield name, f"backbone.decoder.{name}"
    for name in _REFINER:
        yield name, f"refiner.{name}"


def _differences_of_huochaitiantang(state_dict: Mapping[str, Tensor]) -> Iterator[str]:
    if any(key.startswith("bn") and key.endswith("running_mean") for key in state_dict):
        yield (
            "batch norm (the code of 2018): its input is BGR on the scale 0-255 without mean and standard "
            "deviation, and whether conv6_1 is used at all changed without a trace in the tensors"
        )
    first = state_dict["conv1_1.weight"]
    channels = first.shape[1] if first.ndim == 4 else 0
    if first.ndim != 4:
        yield f"conv1_1 has {first.ndim} axes; here 4"
    elif channels != 4:
        kind = {3: "colours without a trimap", 5: "colours, trimap and image gradient"}.get(
            channels, "others"
        )
        yield f"{channels} input channels ({kind}); here 4: colours and trimap"
    conv6 = state_dict.get("conv6_1.weight")
    if conv6 is not None and conv6.shape[2:] != (1, 1):
        side = "×".join(map(str, conv6.shape[2:]))
        yield (
            f"conv6_1 is {side} (their releases from v1.4 on); here 1×1. Their release v1.5 also adds the "
            "encoder's maps to the unpooled ones, which does not show in the tensors"
        )


def _refuse_foamliu(state_dict: Mapping[str, Tensor], source: str) -> NoReturn:
    differences = (
        "no 1×1 convolutions between encoder and decoder; here conv6 and deconv6_1",
        "the decoder unpools, convolves, normalises, and has no ReLU; here convolution, ReLU, unpool",
        "the decoder ends with 64 → 1 and batch norm at full resolution; here deconv1_1, ReLU, deconv1",
    )
    raise OtherNetworkError(
        source, FOAMLIU, differences, fix="take a checkpoint of OpenMMLab's, or train one: dim-train fit"
    )
