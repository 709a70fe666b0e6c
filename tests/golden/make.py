"""Write the golden vectors of a small network: image and trimap in, alpha out, by PyTorch in float64.

    python tests/golden/make.py

The weights are drawn from a seed with ``RandomState``, whose streams NumPy keeps; only inputs and outputs are
stored. Run it after a change that is meant to change alphas, and compare the printed difference.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dim.arrays import UInt8
from dim.contract import NetworkConfig
from dim.network import DIM, normalise

VECTORS = Path(__file__).with_name("small_network.npz")
CONFIG = NetworkConfig(stage=3, width=1 / 16, cue_radii=(4,), propagation_steps=(4, 3, 2))
HEIGHT, WIDTH = 64, 96
GAIN = 1.7
"""Factor on Xavier's bound, with which the logits of random weights span several units."""


def network() -> DIM:
    """Build the network: every parameter uniform within Xavier's bound times GAIN, biases within 0.1."""
    model, draw = DIM(CONFIG), np.random.RandomState(7)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            shape = tuple(parameter.shape)
            area = int(np.prod(shape[2:]))
            bound = GAIN * np.sqrt(6 / ((shape[0] + shape[1]) * area)) if len(shape) == 4 else 0.1
            parameter.copy_(torch.from_numpy(draw.uniform(-bound, bound, shape)).float())
    return model.eval()


def picture() -> tuple[UInt8, UInt8]:
    """Draw an image, uint8 H, W, 3 RGB, without symmetries, and a trimap with all three kinds of pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    red, green, blue = 90 + 80 * np.sin(x / 7), 2.2 * y + 40 * np.cos(x / 5), 250 - 2 * x + 30 * np.sin(y / 3)
    texture = np.random.RandomState(1).uniform(-25, 25, (HEIGHT, WIDTH, 3))
    image = (np.stack([red, green, blue], -1) + texture).clip(0, 255).astype(np.uint8)
    distance = np.hypot(y - 30, x - 40)
    trimap = np.select([distance < 12, distance < 30], [255, 128], 0).astype(np.uint8)
    return image, trimap


def network_input(image: UInt8, trimap: UInt8, dtype: torch.dtype) -> torch.Tensor:
    """Return the network's input, 1, 4, H, W."""
    colours = torch.from_numpy(image).permute(2, 0, 1)[None].to(dtype)
    return normalise(colours, torch.from_numpy(trimap)[None, None])


@torch.inference_mode()
def alpha_of(model: DIM, image: UInt8, trimap: UInt8, dtype: torch.dtype) -> np.ndarray:
    """Compute the final alpha, H, W."""
    return model.to(dtype)(network_input(image, trimap, dtype))[0, 0].numpy()


def main() -> None:
    """Write the vectors."""
    image, trimap = picture()
    model = network()
    precise = alpha_of(model, image, trimap, torch.float64)
    single = alpha_of(model, image, trimap, torch.float32)
    unknown = precise[trimap == 128]
    # A network of constants, or one that amplifies rounding, would be no test.
    assert unknown.std() > 0.1, unknown.std()
    assert np.abs(single - precise).max() < 1e-4, np.abs(single - precise).max()
    if VECTORS.is_file():
        print(f"largest change: {np.abs(np.load(VECTORS)['alpha'] - precise).max():.2g}")
    np.savez_compressed(VECTORS, image=image, trimap=trimap, alpha=precise.astype(np.float32))
    print(f"{VECTORS}: {VECTORS.stat().st_size} bytes, alpha {unknown.mean():.3f} ± {unknown.std():.3f}")


if __name__ == "__main__":
    main()
