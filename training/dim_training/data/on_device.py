"""Colours, composition, noise, trimap and normalisation of whole batches, on the training device.

A loader that leaves these to the device ships 8-bit layers and a few numbers (:class:`PackedParts`), a tenth
of the bytes and a fraction of the work. The result is the loader's own up to rounding (one gray level after a
change of tone or a defocus; trimaps are equal to the bit), but for two things: noise comes from the device's
generator, and there are no JPEG artefacts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dim import trimap as trimaps
from dim.arrays import Random, UInt8
from dim.network import normalise
from dim_training.config import DataConfig
from dim_training.data.augmentation import LARGEST_BLUR, Look
from dim_training.data.dataset import Sample, SceneDataset, build_scenes, power
from dim_training.data.scenes import Parts

BLUR_RADIUS = round(3 * LARGEST_BLUR)
"""Of the largest kernel, pixels: OpenCV's 8-bit blur reaches 3 σ."""
GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


class PackedParts(NamedTuple):
    """One sample to compose, or a batch of them with N in front.

    Attributes:
        foreground, background: uint8 H, W, 3 RGB.
        alpha: uint8 H, W.
        elements: uint8 2, K, K: the eroding and the dilating element, anchors in the middle.
        tables: uint8 2, 256, 3: tones of foreground and background.
        saturations: float32 2.
        blur: float32, σ in pixels.
        noise: float32, σ in gray levels.
        noise_seed: int64.
        exponent: float32: the power of values in which both are mixed.
    """

    foreground: Tensor
    background: Tensor
    alpha: Tensor
    elements: Tensor
    tables: Tensor
    saturations: Tensor
    blur: Tensor
    noise: Tensor
    noise_seed: Tensor
    exponent: Tensor


class PartsDataset(SceneDataset[PackedParts]):
    """The parts of the samples that :class:`~dim_training.data.dataset.MattingDataset` composes."""

    def draw(self, index: int, rng: Random) -> PackedParts:
        parts = self.scenes.parts(index, rng)
        return pack(parts, _elements(self.trimap_sizes, rng))


def build_parts(config: DataConfig, *, seed: int, length: int) -> PartsDataset:
    """Build the data set of a configuration, to be composed on a device."""
    return PartsDataset(build_scenes(config, seed), config.trimap_sizes, seed=seed, length=length)


def pack(parts: Parts, elements: UInt8) -> PackedParts:
    """Return the tensors of parts; a missing look becomes one that changes nothing."""
    layers, look = parts
    return PackedParts(
        foreground=_tensor(layers.foreground),
        background=_tensor(layers.background),
        alpha=_tensor(layers.alpha),
        elements=_tensor(elements),
        tables=_tensor(_tables(look)),
        saturations=torch.tensor(
            [look.foreground.saturation, look.background.saturation] if look else [1.0, 1.0]
        ),
        blur=torch.tensor(look.blur if look else 0.0),
        noise=torch.tensor(look.noise if look else 0.0),
        noise_seed=torch.tensor(look.noise_seed if look else 0),
        exponent=torch.tensor(look.exponent if look else 1.0),
    )


def _tensor(array: UInt8) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _tables(look: Look | None) -> UInt8:
    if look is None:
        return np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (2, 256, 3)).copy()
    return np.stack([look.foreground.table, look.background.table])


def _elements(sizes: tuple[int, int], rng: Random) -> UInt8:
    """Draw the elements of a random trimap, in the order of :func:`~.transforms.random_trimap`."""
    smallest, largest = sizes
    middle = largest // 2
    placed = np.zeros((2, 2 * middle + 1, 2 * middle + 1), np.uint8)
    for element in placed:
        side = int(rng.integers(smallest, largest + 1))
        corner = middle - side // 2
        element[corner : corner + side, corner : corner + side] = trimaps.ellipse(side)
    return placed


def compose(parts: PackedParts, device: torch.device) -> Sample:
    """Compose the samples of a batch on ``device``.

    Args:
        parts: in the CPU's memory, pinned or not.
    """
    seeds = parts.noise_seed.tolist()
    moved = PackedParts(*(tensor.to(device, non_blocking=True) for tensor in parts))
    foreground = toned(moved.foreground, moved.tables[:, 0], moved.saturations[:, 0])
    background = toned(moved.background, moved.tables[:, 1], moved.saturations[:, 1])
    background = defocused(background, moved.blur)
    alpha = moved.alpha[:, None].float() / 255
    exponent = moved.exponent.view(-1, 1, 1, 1)
    foreground, background = (power(layer / 255, exponent) for layer in (foreground, background))
    mixed = foreground * alpha + background * (1 - alpha)
    image = noisy(255 * power(mixed, 1 / exponent), moved.noise, seeds)
    trimap = random_trimaps(moved.alpha, moved.elements)
    return Sample(
        network_input=normalise(image, trimap[:, None]),
        alpha=alpha,
        foreground=foreground,
        background=background,
        image=power(image / 255, exponent),
        unknown=(trimap == trimaps.UNKNOWN).float()[:, None],
    )


def toned(images: Tensor, tables: Tensor, saturations: Tensor) -> Tensor:
    """Map images uint8 N, H, W, 3 through tables uint8 N, 256, 3 -> float32 N, 3, H, W, integers 0-255."""
    n, h, w, _ = images.shape
    values = images.permute(0, 3, 1, 2).reshape(n, 3, h * w).long()
    colours = tables.transpose(1, 2).gather(2, values).float().view(n, 3, h, w)
    weights = colours.new_tensor(GRAY).view(1, 3, 1, 1)
    gray = (colours * weights).sum(1, keepdim=True).round()
    saturation = saturations.view(n, 1, 1, 1)
    return (colours * saturation + gray * (1 - saturation)).round().clamp(0, 255)


def defocused(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur float N, C, H, W by Gaussians, one σ (pixels, N) for each image; round to whole numbers."""
    n, c, h, w = images.shape
    kernels = _gaussians(sigmas).repeat_interleave(c, 0)[:, None]
    planes = F.pad(images.reshape(1, n * c, h, w), [BLUR_RADIUS] * 4, mode="reflect")
    planes = F.conv2d(F.conv2d(planes, kernels[..., None], groups=n * c), kernels[..., None, :], groups=n * c)
    return planes.view(n, c, h, w).round()


def _gaussians(sigmas: Tensor) -> Tensor:
    """Return kernels N, 2·radius + 1, cut off at 3 σ as OpenCV does; a single 1 where σ is 0."""
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=sigmas.device, dtype=torch.float32)
    sigma = sigmas.clamp(min=1e-3)[:, None]
    reach = ((6 * sigmas + 1).round()[:, None] / 2).floor()
    kernels = torch.exp(-0.5 * (offsets / sigma) ** 2) * (offsets.abs() <= reach)
    return kernels / kernels.sum(1, keepdim=True)


def noisy(images: Tensor, sigmas: Tensor, seeds: list[int]) -> Tensor:
    """Add Gaussian noise to float N, C, H, W in 0-255, each image from its own seed."""
    drawn = torch.empty_like(images)
    for image, seed in zip(drawn, seeds, strict=True):
        image.normal_(generator=torch.Generator(images.device).manual_seed(seed))
    return (images + drawn * sigmas.view(-1, 1, 1, 1)).clamp(0, 255)


def random_trimaps(alphas: Tensor, elements: Tensor) -> Tensor:
    """Make trimaps of alphas uint8 N, H, W by morphology with elements uint8 N, 2, K, K -> uint8 N, H, W.

    A pixel is known foreground if no pixel under the eroding element is below 255, known background if no
    pixel under the dilating one is above 0: a convolution counts those pixels, exactly (K² < 2^24).
    """
    gaps = _counted(alphas < 255, elements[:, 0])
    parts = _counted(alphas > 0, elements[:, 1])
    found = torch.full_like(alphas, trimaps.UNKNOWN)
    found[gaps == 0] = trimaps.FOREGROUND
    found[parts == 0] = trimaps.BACKGROUND
    return found


def _counted(where: Tensor, elements: Tensor) -> Tensor:
    """Return the number of set pixels of a boolean N, H, W under the element around each pixel."""
    n, k, _ = elements.shape
    counts = F.conv2d(where[None].float(), elements[:, None].float(), padding=k // 2, groups=n)
    return counts[0].round()
