"""Render scenes whose alpha is known into the folder named by the first argument; 32 pixels a side."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dim_training.data.render import blender
from dim_training.data.render.data_set import write_image
from dim_training.data.render.develop import develop, develop_background
from dim_training.data.render.scene import Camera, Light, Plain, Scene, Strands, Surface
from dim_training.data.render.staging import Staged
from dim_training.data.render.surfaces import Ellipsoid

SIDE = 32
DISTANCE = 50.0
"""So far that perspective does not matter: one scene unit is one pixel."""
TINT = np.array([0.6, 0.2, 0.1])


def _square(side: float, opacity: float | None = None) -> Surface:
    corners = np.array([(-1, 0, -1), (1, 0, -1), (1, 0, 1), (-1, 0, 1)]) * side / 2
    values = None if opacity is None else np.full(4, opacity)
    return Surface(corners, np.array([[0, 1, 2, 3]]), TINT, Plain(1.0), values, smooth=False)


def _disc() -> Surface:
    return Ellipsoid(np.zeros(3), np.array([8.0, 0.01, 8.0])).surface(TINT, Plain(1.0))


def _hair() -> Strands:
    return Strands(np.linspace((-12, 0, 0.5), (12, 0, 0.5), 12)[None], np.array(0.1), TINT, Plain(1.0))


def _camera(*, aperture: float = 0.0, focus: float = DISTANCE, shift: float = 0.0) -> Camera:
    angle = 2 * float(np.arctan(SIDE / 2 / DISTANCE))
    position = np.array([0, -DISTANCE, 0])
    return Camera(position, np.zeros(3), angle, focus, aperture, np.array([shift, 0, 0]))


def _render(part: Strands | Surface, camera: Camera, path: Path) -> None:
    scene = Scene(parts=[part])
    light = Light(None, 0.0, 1.0, np.ones(3), np.ones(3))
    staged = Staged(0, "known", scene, camera, light, exposure=0.5, filter_width=1.5, record={})
    passes = blender.render(staged, size=SIDE, samples=16, alpha_samples=256, threads=1)
    write_image(path, develop(passes.noisy, passes.clean, passes.alpha, exposure=staged.exposure))


def _sheet() -> Surface:
    """Return a square larger than the image; its picture is red, green (top), blue and white (bottom)."""
    picture = np.array([[(200, 20, 20), (20, 200, 20)], [(20, 20, 200), (200, 200, 200)]], np.uint8)
    corners = np.array([(-1, 0, -1), (1, 0, -1), (1, 0, 1), (-1, 0, 1)]) * SIDE
    places = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)
    large = picture.repeat(32, 0).repeat(32, 1)
    faces = np.array([[0, 1, 2, 3]])
    return Surface(corners, faces, TINT, Plain(1.0), smooth=False, picture=large, places=places)


def _render_background(part: Surface, path: Path) -> None:
    light = Light(None, 0.0, 1.0, np.ones(3), np.ones(3))
    scene = Scene(parts=[part])
    staged = Staged(
        0, "known", scene, _camera(), light, exposure=0.5, filter_width=1.5, record={}, is_background=True
    )
    linear = blender.render_background(staged, size=SIDE, samples=16, threads=1)
    write_image(path, develop_background(linear, exposure=staged.exposure))


def main(folder: Path) -> None:
    """Render every scene."""
    _render(_square(16.5), _camera(), folder / "square.png")
    _render(_square(24, opacity=0.4), _camera(), folder / "half opaque.png")
    _render(_disc(), _camera(), folder / "disc.png")
    _render(_disc(), _camera(aperture=8.0, focus=0.5 * DISTANCE), folder / "blurred disc.png")
    _render(_disc(), _camera(shift=5.0), folder / "moved disc.png")
    _render(_hair(), _camera(), folder / "hair.png")
    _render_background(_sheet(), folder / "picture.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
