"""The Deep Image Matting network (Xu et al., CVPR 2017) as OpenMMLab implements it.

Input of every forward: float32 N, 4, H, W; channels R, G, B normalised with ImageNet's mean and standard
deviation, then the trimap divided by 255. H and W are multiples of 32. Attribute names give exactly the
checkpoint keys of MMEditing and MMagic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim.contract import IMAGE_MEAN, IMAGE_STD, STRIDE, NetworkConfig
from dim.contract.layers import DECODER_STEPS, ENCODER_STAGES, SHARPENING_RADIUS
from dim.errors import InputError
from dim.network.colour_cues import Known, colour_cues
from dim.network.pooling import IndexPooling, Pooling, PoolState
from dim.network.propagation import propagate


class Matte(NamedTuple):
    """Everything a forward pass computes, float32 N, 1, H, W.

    Attributes:
        logits: output of the decoder, before the sigmoid (``raw_alpha`` in OpenMMLab's code).
        alpha: ``sigmoid(logits)``, 0-1.
        refined: the refiner's alpha, propagated where the network does so, 0-1; None without a refiner.
    """

    logits: Tensor
    alpha: Tensor
    refined: Tensor | None

    @property
    def final(self) -> Tensor:
        """The refined alpha, or the decoder's without a refiner."""
        return self.alpha if self.refined is None else self.refined


def _convolution(inputs: int, outputs: int, side: int, batch_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, side, padding=side // 2)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    return layers


class Encoder(nn.Module):
    """VGG-16's thirteen 3×3 convolutions over four channels, and a 1×1 convolution in place of fc6.

    It maps N, 4, H, W to N, C, H/32, W/32, and returns the state of each pool, the first at the full size.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        inputs = 4
        for level, (published, depth) in enumerate(ENCODER_STAGES, start=1):
            outputs = config.channels(published)
            layers: list[nn.Module] = []
            for _ in range(depth):
                layers += [*_convolution(inputs, outputs, 3, config.batch_norm), nn.ReLU()]
                inputs = outputs
            setattr(self, f"layer{level}", nn.Sequential(*layers))
        self.conv6, *norm = _convolution(inputs, inputs, 1, config.batch_norm)
        self.conv6_bn = norm[0] if norm else nn.Identity()

    def forward(self, x: Tensor, pooling: Pooling) -> tuple[Tensor, list[PoolState]]:
        states = []
        for level in range(1, len(ENCODER_STAGES) + 1):
            x, state = pooling.pool(getattr(self, f"layer{level}")(x))
            states.append(state)
        return F.relu(self.conv6_bn(self.conv6(x))), states


class Decoder(nn.Module):
    """Convolution, ReLU, unpool, five times; then two 5×5 convolutions down to one logit per pixel.

    It maps N, C, H/32, W/32 and the encoder's states to N, 1, H, W.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        inputs = config.channels(512)
        for name, published, side in DECODER_STEPS:
            outputs = config.channels(published)
            convolution, *norm = _convolution(inputs, outputs, side, config.batch_norm)
            setattr(self, name, convolution)
            setattr(self, f"{name}_bn", norm[0] if norm else nn.Identity())
            inputs = outputs
        self.deconv1 = nn.Conv2d(inputs, 1, 5, padding=2)

    def forward(self, x: Tensor, states: list[PoolState], pooling: Pooling) -> Tensor:
        remaining = list(states)
        for name, _, _ in DECODER_STEPS:
            x = F.relu(getattr(self, f"{name}_bn")(getattr(self, name)(x)))
            if remaining:
                x = pooling.unpool(x, remaining.pop())
        logits: Tensor = self.deconv1(x)
        return logits


class Backbone(nn.Module):
    """Encoder and decoder: normalised RGB and trimap, N, 4, H, W -> logits, N, 1, H, W."""

    def __init__(self, config: NetworkConfig, pooling: Pooling) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.pooling = pooling

    def forward(self, x: Tensor) -> Tensor:
        features, states = self.encoder(x, self.pooling)
        logits: Tensor = self.decoder(features, states, self.pooling)
        return logits


SQUARINGS = 3
"""Trust is scaled by (2α − 1)^(2^SQUARINGS): near zero where α is ambiguous."""
FIRST_TRUST = -2.3
"""Initial bias of trust, before its sigmoid: trust begins at 0.09."""


class Estimate(NamedTuple):
    """The refiner's output, N, 1, H, W in [0, 1].

    Attributes:
        refined: alpha.
        trust: share of this alpha that propagation keeps; None without propagation.
    """

    refined: Tensor
    trust: Tensor | None


class Refiner(nn.Module):
    """Four 3×3 convolutions over normalised RGB, alpha and, where configured, colour cues.

    Their output is added to the logits. With propagation, a second output is the trust in the refined alpha,
    which :func:`dim.network.propagation.propagate` then propagates. Its three steps are called one after the
    other: :meth:`read`, :meth:`estimate`, :meth:`propagate`.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = config.channels(64)
        self.cue_radii = config.cue_radii
        self.refine_conv1 = nn.Conv2d(config.refiner_inputs, channels, 3, padding=1)
        self.refine_conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.refine_conv3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.propagation_steps, self.propagates_light = config.propagation_steps, config.propagates_light
        self.hardens_ends = config.hardens_ends
        self.refine_pred = nn.Conv2d(channels, config.refiner_outputs, 3, padding=1)

    def read(self, network_input: Tensor, alpha: Tensor, known: Known | None = None) -> Tensor:
        """Join what the convolutions read: normalised RGB, alpha and the cues; N, C, H, W.

        Args:
            network_input: N, 4, H, W from :func:`normalise`, or from :func:`adjusted`.
            alpha: the decoder's, N, 1, H, W in [0, 1].
            known: known pixels; None takes those of the network input.
        """
        inputs = [network_input[:, :3].to(alpha.dtype), alpha]
        if self.cue_radii:
            inputs.append(colour_cues(network_input, alpha, self.cue_radii, known).to(alpha.dtype))
        return torch.cat(inputs, 1)

    def convolve(self, x: Tensor) -> Tensor:
        """Compute the change of the logits and, with propagation, the logits of trust; N, 1 or 2, H, W.

        Args:
            x: from :meth:`read`.
        """
        for layer in (self.refine_conv1, self.refine_conv2, self.refine_conv3):
            x = F.relu(layer(x))
        output: Tensor = self.refine_pred(x)
        return output

    def estimate(self, x: Tensor, logits: Tensor) -> Estimate:
        """Compute the refined alpha before its propagation; at least float32 from the addition on.

        Args:
            x: from :meth:`read`.
            logits: the decoder's output, N, 1, H, W.
        """
        precise = torch.promote_types(logits.dtype, torch.float32)
        output = self.convolve(x).to(precise)
        refined = torch.sigmoid(logits.to(precise) + output[:, :1])
        if not self.propagation_steps:
            return Estimate(refined, None)
        sure = 2 * refined - 1
        for _ in range(SQUARINGS):
            sure = sure * sure
        return Estimate(refined, torch.sigmoid(output[:, 1:]) * sure)

    def propagate(self, network_input: Tensor, estimate: Estimate, known: Known | None = None) -> Tensor:
        """Propagate the refined alpha where the network does so; N, 1, H, W in [0, 1]."""
        if estimate.trust is None:
            return estimate.refined
        return propagate(
            network_input,
            estimate.refined,
            estimate.trust,
            self.propagation_steps,
            known,
            in_light=self.propagates_light,
            hardened=self.hardens_ends,
        )


class DIM(nn.Module):
    """Deep Image Matting: ``DIM(config)(x)`` maps float32 N, 4, H, W to alpha N, 1, H, W in [0, 1].

    Args:
        config: which member of the family.
        pooling: form of pool and unpool, of which all compute the same bits; None for :class:`IndexPooling`.
    """

    def __init__(self, config: NetworkConfig | None = None, *, pooling: Pooling | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        self.backbone = Backbone(self.config, pooling or IndexPooling())
        self.refiner = Refiner(self.config) if self.config.has_refiner else None
        initialise(self)

    def matte(self, x: Tensor) -> Matte:
        """Run the network and return the intermediate results that the losses need.

        Args:
            x: N, 4, H, W from :func:`normalise`; H and W multiples of 32.

        Raises:
            InputError: another shape.
        """
        _require_network_input(x)
        read = adjusted(x, self.config)
        logits = self.backbone(read)
        alpha = torch.sigmoid(logits)
        if self.refiner is None:
            return Matte(logits, alpha, None)
        estimate = self.refiner.estimate(self.refiner.read(read, alpha), logits)
        return Matte(logits, alpha, self.refiner.propagate(x, estimate))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the final alpha, N, 1, H, W in [0, 1], of a network input N, 4, H, W."""
        return self.matte(x).final


def _require_network_input(x: Tensor) -> None:
    # The symbolic sizes of an export trace are multiples by construction: comparing them would add guards.
    if torch.compiler.is_exporting():
        return
    if x.ndim != 4 or x.shape[1] != 4 or x.shape[2] % STRIDE or x.shape[3] % STRIDE:
        raise InputError(
            "cannot run the network on this tensor",
            got=f"shape {tuple(x.shape)}",
            expected=f"N, 4, H, W with H and W multiples of {STRIDE}",
            fix="pad bottom and right (dim_runtime.Matting does), or call normalise() to make the 4 channels",
        )


def initialise(model: DIM) -> None:
    """Set Xavier-normal weights (gain 1) and zero biases in every convolution, as the published recipe."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    if model.refiner is not None and model.config.propagation_steps:
        bias = model.refiner.refine_pred.bias
        assert bias is not None
        nn.init.constant_(bias[1:], FIRST_TRUST)


SHARPENING = 0.5
"""Share of the difference from the mean around a pixel that :func:`sharpen` adds."""
SATURATION = 1.4
"""Factor of a colour's difference from its grey in :func:`sharpen`."""


def lift_shadows(values: Tensor) -> Tensor:
    """Return colours, N, 3, H, W in [0, 1], in the power 0.625.

    Parts of photographs that are hard to tell apart are often dark, as gaps between leaves are, where
    differences of a few levels count. Not part of the published network.
    """
    values = values.clamp(min=0)
    # Three square roots: a power would be slower in every engine.
    return (values * values.sqrt().sqrt()).sqrt()


def sharpen(values: Tensor) -> Tensor:
    """Return colours, N, 3, H, W, that differ more from grey and from those around them.

    The difference from the mean of the three channels is multiplied by SATURATION. Then the share SHARPENING
    of the difference from the mean of the square of SHARPENING_RADIUS is added (unsharp mask). The image's
    border is repeated outside. Not part of the published network.
    """
    saturated = SATURATION * values + (1 - SATURATION) * values.mean(1, keepdim=True)
    # Means of fewer pixels at the border would round apart from those inside, where colours are equal.
    padded = F.pad(saturated, [SHARPENING_RADIUS] * 4, mode="replicate")
    around = F.avg_pool2d(padded, 2 * SHARPENING_RADIUS + 1, stride=1)
    return saturated + SHARPENING * (saturated - around)


def adjusted(network_input: Tensor, config: NetworkConfig) -> Tensor:
    """Return what encoder, cues and refiner read of a network input, N, 4, H, W."""
    if not (config.lifts_shadows or config.sharpens):
        return network_input
    colours = network_input[:, :3]
    mean, std = (colours.new_tensor(numbers).view(1, 3, 1, 1) for numbers in (IMAGE_MEAN, IMAGE_STD))
    values = colours * (std / 255) + mean / 255
    if config.lifts_shadows:
        values = lift_shadows(values)
    if config.sharpens:
        values = sharpen(values)
    return torch.cat([values * (255 / std) - mean / std, network_input[:, 3:]], 1)


def normalise(image: Tensor, trimap: Tensor) -> Tensor:
    """Build the network's input.

    Args:
        image: N, 3, H, W, RGB on the scale 0-255, any dtype.
        trimap: N, 1, H, W on the scale 0-255.

    Returns:
        float N, 4, H, W in the image's floating dtype (float32 for integers).
    """
    dtype = image.dtype if image.is_floating_point() else torch.float32
    mean = torch.tensor(IMAGE_MEAN, dtype=dtype, device=image.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD, dtype=dtype, device=image.device).view(1, 3, 1, 1)
    return torch.cat([(image.to(dtype) - mean) / std, trimap.to(dtype) / 255], 1)
