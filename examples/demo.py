"""Matte a photograph with the embedded network, cut it out, and lay the results side by side.

``make demo`` runs it, with the extras `cpu` and `cutout` only; everything it writes goes into ``out/demo/``.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from dim.arrays import UInt8
from dim_runtime import Matting
from dim_runtime.images.samples import lemur, sample_paths
from dim_runtime.outputs import foreground

OUTPUT = Path("out/demo")
TILE = 672
"""Small on purpose: the photograph then takes several windows."""


def main() -> None:
    """Matte twice (alpha, cut-out), compare tiled with whole, lay the pictures side by side."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    pair = [*map(str, sample_paths()), "--tile", str(TILE)]

    _run("dim-matte", "run", *pair, "-o", str(OUTPUT / "alpha.png"))
    _run("dim-matte", "run", *pair, "-o", str(OUTPUT / "cutout.png"), "--out", "cutout")
    _compare_tiled_with_whole()
    _side_by_side()
    print(f"\nLook at {OUTPUT / 'side_by_side.png'}")


def _run(script: str, *arguments: str) -> None:
    print(f"\n$ {shlex.join([script, *arguments])}", flush=True)
    done = subprocess.run([str(Path(sys.executable).with_name(script)), *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _compare_tiled_with_whole() -> None:
    image, trimap = lemur()
    with Matting(tile=TILE) as tiled, Matting() as whole:
        plan = tiled.plan(trimap)
        difference = np.abs(tiled(image, trimap) - whole(image, trimap))
    print(
        f"\ntiled ({len(plan.windows)} windows) against whole, ONNX Runtime: "
        f"{(difference > 1 / 255).mean():.4%} of pixels beyond 1/255, largest {difference.max():.1e}"
    )


def _side_by_side() -> None:
    """Join photograph, trimap, alpha, and the cut-out over a plain colour in two rows."""
    image, trimap = lemur()
    alpha = _read("alpha.png", cv2.IMREAD_GRAYSCALE)
    rgba = cv2.cvtColor(_read("cutout.png", cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    green = np.full_like(image, (64, 160, 96))
    over_green = foreground.composite(rgba[..., :3], rgba[..., 3].astype(np.float32) / 255, green)
    gray = [cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB) for plane in (trimap, alpha)]
    sheet = np.vstack([np.hstack([image, gray[0]]), np.hstack([gray[1], over_green])])
    cv2.imwrite(str(OUTPUT / "side_by_side.png"), cv2.cvtColor(sheet.astype(np.uint8), cv2.COLOR_RGB2BGR))


def _read(name: str, mode: int) -> UInt8:
    found = cv2.imread(str(OUTPUT / name), mode)
    assert found is not None, name
    return found.astype(np.uint8, copy=False)


if __name__ == "__main__":
    main()
