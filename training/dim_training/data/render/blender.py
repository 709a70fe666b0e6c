"""A scene in Blender: its parts, camera and light, and the passes for colours and alpha."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from dim import extras
from dim_training.data.render.blender_materials import Node, Tree, material
from dim_training.data.render.scene import Camera, Lamp, Light, Scene, Strands, Surface
from dim_training.data.render.staging import Staged
from dim_training.data.render.vectors import Floats

SHARP_LENS = 50.0
"""Focal length in millimetres; only its product with the f-number matters."""

CONVERGED = 1e-4
"""Difference between two halves of a pixel's paths below which Cycles stops: only equal halves."""

NOISY, CLEAN = "Noisy Image", "Image"
"""Blender's names of a rendered image before and after its denoiser."""


class Passes(NamedTuple):
    """A rendered scene, linear.

    Attributes:
        noisy: premultiplied RGB and the alpha of the same light paths, H × W × 4.
        clean: premultiplied RGB after the denoiser, which blurs fine borders, H × W × 3.
        alpha: alpha of many paths, H × W, 0-1.
    """

    noisy: Floats
    clean: Floats
    alpha: Floats


def render(staged: Staged, *, size: int, samples: int, alpha_samples: int, threads: int) -> Passes:
    """Render a scene.

    Args:
        staged: the scene, its camera and its light.
        size: side of the image, pixels.
        samples: light paths for each pixel of the colours.
        alpha_samples: of alpha, without light.
        threads: that Blender may use; the result does not depend on it.

    Raises:
        MissingExtraError: bpy is not installed.
    """
    extras.require("render foregrounds", "bpy", extra="render")
    with _quiet():
        placed = _build(staged, size, threads)
        noisy, clean = _shoot((NOISY, CLEAN), samples)
        _prepare_alpha(staged.scene, placed, alpha_samples)
        (covered,) = _shoot((CLEAN,), alpha_samples)
    return Passes(noisy, clean[..., :3], covered[..., 3])


def render_background(staged: Staged, *, size: int, samples: int, threads: int) -> Floats:
    """Render a background, and return its linear RGB after the denoiser, size × size × 3.

    The arguments and errors are those of :func:`render`.
    """
    extras.require("render backgrounds", "bpy", extra="render")
    with _quiet():
        _build(staged, size, threads)
        (clean,) = _shoot((CLEAN,), samples)
    return clean[..., :3]


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard what Blender's own code prints to file descriptor 1."""
    saved, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nothing)


def _build(staged: Staged, size: int, threads: int) -> list[Any]:
    """Build the scene in Blender, and return the objects of its parts."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    carrier = bpy.data.objects.new("subject", None)
    bpy.context.scene.collection.objects.link(carrier)
    objects = []
    for part in staged.scene.parts:
        made = _strands(part) if isinstance(part, Strands) else _mesh(part)
        made.materials.append(material(part, coverage=False))
        placed = bpy.data.objects.new("part", made)
        placed.parent = carrier
        bpy.context.scene.collection.objects.link(placed)
        objects.append(placed)
    _set_camera(staged.camera, carrier)
    _set_light(staged.light)
    _set_engine(staged, size, threads)
    return objects


def _strands(part: Strands) -> Any:
    import bpy

    count, points = part.points.shape[:2]
    data = bpy.data.hair_curves.new("strands")
    data.add_curves([points] * count)
    data.attributes["position"].data.foreach_set("vector", part.points.astype(np.float32).ravel())
    radius = np.broadcast_to(part.radius, (count, points)).astype(np.float32)
    data.attributes.new("radius", "FLOAT", "POINT").data.foreach_set("value", radius.ravel())
    _set_tint(data, np.broadcast_to(part.tint, (count, points, 3)).reshape(-1, 3))
    return data


def _mesh(part: Surface) -> Any:
    import bpy

    data, sides = bpy.data.meshes.new("surface"), part.faces.shape[1]
    data.vertices.add(len(part.vertices))
    data.vertices.foreach_set("co", part.vertices.astype(np.float32).ravel())
    data.loops.add(part.faces.size)
    data.loops.foreach_set("vertex_index", part.faces.astype(np.int32).ravel())
    data.polygons.add(len(part.faces))
    data.polygons.foreach_set("loop_start", np.arange(0, part.faces.size, sides, dtype=np.int32))
    data.polygons.foreach_set("use_smooth", np.full(len(part.faces), part.smooth))
    _set_tint(data, np.broadcast_to(part.tint, (len(part.vertices), 3)))
    if part.opacity is not None:
        layer = data.attributes.new("opacity", "FLOAT", "POINT")
        layer.data.foreach_set("value", part.opacity.astype(np.float32).ravel())
    if part.places is not None:
        layer = data.attributes.new("place", "FLOAT_VECTOR", "POINT")
        layer.data.foreach_set("vector", np.pad(part.places, ((0, 0), (0, 1))).astype(np.float32).ravel())
    data.update()
    data.validate()
    return data


def _set_tint(data: Any, tint: Floats) -> None:
    rgba = np.ones((len(tint), 4), np.float32)
    rgba[:, :3] = np.clip(tint, 0.002, 0.97)
    data.attributes.new("tint", "FLOAT_COLOR", "POINT").data.foreach_set("color", rgba.ravel())


def _set_camera(camera: Camera, carrier: Any) -> None:
    import bpy

    data = bpy.data.cameras.new("camera")
    data.lens = SHARP_LENS
    data.angle = camera.angle
    if camera.aperture:
        data.dof.use_dof = True
        data.dof.focus_distance = camera.focus
        # Blender's lens is in millimetres, its scene in metres: aperture = lens / f-number.
        data.dof.aperture_fstop = data.lens / 1000 / camera.aperture
    placed = bpy.data.objects.new("camera", data)
    placed.location = camera.position
    placed.rotation_euler = _facing(camera.position, camera.target)
    scene = bpy.context.scene
    scene.collection.objects.link(placed)
    scene.camera = placed
    if camera.moves:
        _move(carrier, camera)


def _move(carrier: Any, camera: Camera) -> None:
    """Let the subject pass through its place, from frame 0 to frame 2; the shutter is open around frame 1."""
    import bpy

    scene = bpy.context.scene
    scene.render.use_motion_blur = True
    scene.render.motion_blur_shutter = 1.0
    carrier.rotation_mode = "AXIS_ANGLE"
    axis = camera.target - camera.position
    for frame, sign in ((0, -1.0), (2, 1.0)):
        carrier.location = sign * camera.shift
        carrier.rotation_axis_angle = (sign * camera.turn, *axis)
        carrier.keyframe_insert("location", frame=frame)
        carrier.keyframe_insert("rotation_axis_angle", frame=frame)
    scene.frame_set(1)


def _facing(position: Floats, target: Floats) -> Any:
    from mathutils import Vector

    return Vector(target - position).to_track_quat("-Z", "Y").to_euler()


def _set_light(light: Light) -> None:
    import bpy

    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    tree = Tree(world)
    where = tree.add("ShaderNodeTexCoord").outputs["Generated"]
    colour = _sky(tree, light, where) if light.environment is None else _panorama(tree, light, where)
    background = tree.add("ShaderNodeBackground", {"Color": colour, "Strength": light.strength}).outputs[0]
    tree.add("ShaderNodeOutputWorld", {"Surface": background})
    for lamp in light.lamps:
        _add_lamp(lamp)


def _panorama(tree: Tree, light: Light, where: Node) -> Node:
    import bpy

    folder = Path(bpy.utils.resource_path("LOCAL")) / "datafiles" / "studiolights" / "world"
    image = bpy.data.images.load(str(folder / f"{light.environment}.exr"))
    turned = tree.add("ShaderNodeMapping", {"Vector": where, "Rotation": (0.0, 0.0, light.turn)}).outputs[0]
    return tree.add("ShaderNodeTexEnvironment", {"Vector": turned}, image=image).outputs[0]


def _sky(tree: Tree, light: Light, where: Node) -> Node:
    height = tree.add("ShaderNodeSeparateXYZ", {0: where}).outputs["Z"]
    ramp = tree.add("ShaderNodeMapRange", {"Value": height, "From Min": -0.3, "From Max": 0.6}).outputs[0]
    return tree.add(
        "ShaderNodeMix", {"Factor": ramp, 6: light.ground, 7: light.sky}, data_type="RGBA"
    ).outputs[2]


def _add_lamp(lamp: Lamp) -> None:
    import bpy

    data = bpy.data.lights.new("lamp", "AREA")
    data.energy, data.size, data.color = lamp.power, lamp.size, tuple(map(float, lamp.colour))
    placed = bpy.data.objects.new("lamp", data)
    placed.location = lamp.position
    placed.rotation_euler = _facing(lamp.position, np.zeros(3))
    bpy.context.scene.collection.objects.link(placed)


def _set_engine(staged: Staged, size: int, threads: int) -> None:
    import bpy

    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.render.resolution_percentage = 100
    scene.render.film_transparent = not staged.is_background
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    bpy.context.view_layer.cycles.denoising_store_passes = True
    cycles = scene.cycles
    cycles.seed = 0
    cycles.use_adaptive_sampling = False
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.denoising_input_passes, cycles.denoising_prefilter = "RGB_ALBEDO_NORMAL", "FAST"
    cycles.max_bounces = staged.scene.bounces
    cycles.transparent_max_bounces = 48
    cycles.sample_clamp_direct, cycles.sample_clamp_indirect = 6.0, 2.0
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", staged.filter_width
    scene.cycles_curves.shape = "THICK" if staged.scene.round_strands else "RIBBONS"
    scene.cycles_curves.subdivisions = 1


def _prepare_alpha(described: Scene, objects: list[Any], alpha_samples: int) -> None:
    """Take away the light and the denoiser, and let every part emit: what is left is coverage."""
    import bpy

    scene = bpy.context.scene
    scene.cycles.use_denoising = False
    scene.cycles.max_bounces = 0
    # Pixels that are all clear or all opaque after a quarter of the paths stop, unless a neighbour does not.
    scene.cycles.use_adaptive_sampling = True
    scene.cycles.adaptive_threshold = CONVERGED
    scene.cycles.adaptive_min_samples = max(1, alpha_samples // 4)
    scene.world = None
    for lamp in bpy.data.lights:
        lamp.energy = 0
    for placed, part in zip(objects, described.parts, strict=True):
        placed.data.materials[0] = material(part, coverage=True)


def _shoot(names: tuple[str, ...], samples: int) -> list[Floats]:
    """Render, and return the named images: premultiplied linear RGBA, size × size × 4, top row first."""
    import bpy

    scene = bpy.context.scene
    scene.cycles.samples = samples
    with tempfile.TemporaryDirectory() as folder:
        _write_images(names, folder)
        bpy.ops.render.render()
        return [_read(f"{folder}/{name}.exr") for name in names]


def _write_images(names: tuple[str, ...], folder: str) -> None:
    """Let Blender's compositor write images of the next render to ``folder/NAME.exr``."""
    import bpy

    tree = bpy.data.node_groups.new("files", "CompositorNodeTree")
    bpy.context.scene.compositing_node_group = tree
    layers, writer = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("CompositorNodeOutputFile")
    writer.directory, writer.file_name = folder, ""
    writer.format.media_type = "IMAGE"
    writer.format.file_format, writer.format.color_mode, writer.format.color_depth = "OPEN_EXR", "RGBA", "32"
    for name in names:
        writer.file_output_items.new("RGBA", name)
        tree.links.new(layers.outputs[name], writer.inputs[name])


def _read(path: str) -> Floats:
    import bpy

    image = bpy.data.images.load(path)
    # Neither mode changes the numbers in the file.
    image.colorspace_settings.name, image.alpha_mode = "Non-Color", "CHANNEL_PACKED"
    width, height = image.size
    values = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(values)
    bpy.data.images.remove(image)
    return cast(Floats, values.reshape(height, width, 4)[::-1].astype(np.float64))
