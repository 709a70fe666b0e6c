"""Materials of a scene as Blender's shader nodes.

Each material is a closure and, where it lets light through, the share of light that the closure stops. The
pass for alpha keeps that share and replaces the closure by an emission: both passes cover the same pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dim.arrays import UInt8
from dim_training.data.render.scene import Hair, Material, Strands, Surface, ThinGlass

Node = Any
"""bpy has no types that mypy can read."""


class Tree:
    """A node tree that is built from the end of the light's way to its beginning."""

    def __init__(self, owner: Any) -> None:
        owner.use_nodes = True
        self.tree = owner.node_tree
        self.tree.nodes.clear()

    def add(self, kind: str, inputs: dict[str | int, Any] | None = None, **properties: Any) -> Node:
        """Add a node; an input is a number, a colour of three numbers, or the output of another node."""
        import bpy

        node = self.tree.nodes.new(kind)
        for name, value in properties.items():
            setattr(node, name, value)
        for key, value in (inputs or {}).items():
            socket = node.inputs[key]
            if isinstance(value, bpy.types.NodeSocket):
                self.tree.links.new(value, socket)
            elif socket.type == "RGBA":
                socket.default_value = (*map(float, value), 1.0)
            else:
                socket.default_value = value
        return node

    def attribute(self, name: str, output: str) -> Node:
        """Return an output, "Color", "Fac" or "Vector", of an attribute of the mesh or the strands."""
        return self.add("ShaderNodeAttribute", attribute_name=name).outputs[output]

    def mix(self, share: Any, first: Node, second: Node) -> Node:
        """Return a closure: ``first`` where ``share`` is 0, ``second`` where it is 1."""
        return self.add("ShaderNodeMixShader", {0: share, 1: first, 2: second}).outputs[0]


def material(part: Strands | Surface, *, coverage: bool) -> Any:
    """Return the material of a part, or with ``coverage`` one that stops the same share of light."""
    import bpy

    made = bpy.data.materials.new("material")
    tree = Tree(made)
    tint = _tint(tree, part)
    closure = tree.add("ShaderNodeEmission").outputs[0] if coverage else _closure(tree, part.material, tint)
    share = _share(tree, part)
    if share is not None:
        closure = tree.mix(share, tree.add("ShaderNodeBsdfTransparent").outputs[0], closure)
    tree.add("ShaderNodeOutputMaterial", {"Surface": closure})
    return made


def _tint(tree: Tree, part: Strands | Surface) -> Node:
    if isinstance(part, Strands) or part.picture is None:
        return tree.attribute("tint", "Color")
    place = tree.attribute("place", "Vector")
    return tree.add("ShaderNodeTexImage", {"Vector": place}, image=_image(part.picture)).outputs["Color"]


def _image(picture: UInt8) -> Any:
    """Return a picture, uint8 H × W × 3, as one of Blender's, whose rows begin at the bottom."""
    import bpy

    height, width = picture.shape[:2]
    made = bpy.data.images.new("picture", width, height)
    rgba = np.ones((height, width, 4), np.float32)
    rgba[..., :3] = picture[::-1].astype(np.float32) / 255
    made.pixels.foreach_set(rgba.ravel())
    return made


def _share(tree: Tree, part: Strands | Surface) -> Node | None:
    """Return the share of light that a part stops, or None where that is all of it."""
    if isinstance(part.material, ThinGlass):
        # Schlick's approximation of Fresnel's reflection, the same from both sides of the wall.
        grazing = tree.add("ShaderNodeLayerWeight", {"Blend": 0.5}).outputs["Facing"]
        rim = tree.add("ShaderNodeMath", {0: grazing, 1: part.material.falloff}, operation="POWER").outputs[0]
        return tree.add(
            "ShaderNodeMapRange", {"Value": rim, "To Min": part.material.density, "To Max": 1.0}
        ).outputs[0]
    if isinstance(part, Surface) and part.opacity is not None:
        return tree.attribute("opacity", "Fac")
    return None


def _closure(tree: Tree, material: Material, tint: Node) -> Node:
    if isinstance(material, Hair):
        inputs: dict[str | int, Any] = {
            "Color": tint,
            "Roughness": material.roughness,
            "Radial Roughness": 0.4,
            "Coat": material.coat,
        }
        return tree.add(
            "ShaderNodeBsdfHairPrincipled", inputs, parametrization="COLOR", model="CHIANG"
        ).outputs[0]
    if isinstance(material, ThinGlass):
        gloss = tree.add(
            "ShaderNodeBsdfGlossy", {"Color": (0.9, 0.9, 0.9), "Roughness": material.roughness}
        ).outputs[0]
        return tree.mix(
            material.body, gloss, tree.add("ShaderNodeBsdfTranslucent", {"Color": tint}).outputs[0]
        )
    solid = tree.add(
        "ShaderNodeBsdfPrincipled",
        {
            "Base Color": tint,
            "Roughness": material.roughness,
            "Metallic": material.metallic,
            "Specular IOR Level": material.gloss,
        },
    ).outputs[0]
    if not material.translucent:
        return solid
    return tree.mix(
        material.translucent, solid, tree.add("ShaderNodeBsdfTranslucent", {"Color": tint}).outputs[0]
    )
