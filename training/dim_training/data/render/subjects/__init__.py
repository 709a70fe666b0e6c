"""Subjects to render: functions that add parts to a scene, and the share of images that each gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from dim_training.data.render.draws import Draws
from dim_training.data.render.scene import Scene
from dim_training.data.render.subjects import (
    animals,
    hair,
    leaves,
    objects,
    people,
    plants,
    threads,
    translucent,
)

Subject: TypeAlias = Callable[[Scene, Draws], None]

SUBJECTS: dict[str, tuple[Subject, float]] = {
    "person": (people.person, 6.0),
    "single_hairs": (hair.single_hairs, 2.0),
    "animal": (animals.animal, 2.5),
    "plush": (animals.plush, 1.0),
    "feathers": (animals.feathers, 1.0),
    "twig": (plants.twig, 1.5),
    "large_leaf": (leaves.large_leaf, 1.2),
    "fern": (plants.fern, 0.7),
    "grass": (plants.grass, 0.8),
    "flower": (plants.flower, 0.8),
    "seed_heads": (plants.seed_heads, 0.3),
    "tassel": (threads.tassel, 1.5),
    "skein": (threads.skein, 1.0),
    "frayed_rope": (threads.frayed_rope, 1.0),
    "fibres": (threads.fibres, 0.4),
    "knit": (threads.knit, 0.4),
    "net": (threads.net, 2.0),
    "lace": (threads.lace, 1.2),
    "web": (threads.web, 0.6),
    "sieve": (objects.sieve, 1.0),
    "basket": (objects.basket, 0.8),
    "wheel": (objects.wheel, 0.5),
    "springs": (objects.springs, 0.6),
    "turned": (objects.turned, 1.0),
    "glass": (translucent.glass, 0.7),
    "bubbles": (translucent.bubbles, 0.4),
    "smoke": (translucent.smoke, 0.4),
    "veil": (translucent.veil, 0.4),
    "wings": (translucent.wings, 0.6),
    "film": (translucent.film, 0.5),
}
