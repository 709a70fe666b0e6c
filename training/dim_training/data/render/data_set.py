"""A folder of rendered foregrounds: RGBA files, an index with their parameters, and their settings.

``render.json`` holds the settings, ``index.jsonl`` one line for each finished image. An image is finished
once its line is there; a run that was stopped renders the others again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import ValidationError

from dim import files
from dim.arrays import UInt8
from dim.errors import InputError
from dim.frozen_model import FrozenModel
from dim_training.data.procedural import shapes
from dim_training.data.render.develop import composite
from dim_training.data.render.draws import Value

VERSION = 1
"""Raised when the same seed gives another image than before."""
SETTINGS, INDEX = "render.json", "index.jsonl"
SHEETS = (".jpg", ".jpeg", ".png")
"""Suffixes of contact sheets."""


class Settings(FrozenModel):
    """Settings that all images of a folder share.

    Attributes:
        size: side of the images, pixels.
        samples: light paths for each pixel of the colours.
        alpha_samples: paths for each pixel of alpha; 0 for backgrounds, which have none.
        kind: foregrounds with alpha, or backgrounds without.
        version: :data:`VERSION` of the generator.
    """

    size: int
    samples: int
    alpha_samples: int
    version: int = VERSION
    kind: Literal["foregrounds", "backgrounds"] = "foregrounds"


class Entry(FrozenModel):
    """One image of the index.

    Attributes:
        file: its name in the folder.
        soft: share of the pixels whose alpha is neither 0 nor 255.
        parameters: by section of the scene and name.
    """

    file: str
    seed: int
    subject: str
    soft: float
    parameters: dict[str, dict[str, Value]]


class DataSet:
    """A folder that images are added to; several processes may add to one folder."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Open or make a folder; InputError if its images were rendered with other settings."""
        self.folder = folder
        path = folder / SETTINGS
        if path.exists():
            _require_same(path, settings)
        else:
            files.write_text(path, settings.model_dump_json() + "\n")

    def finished(self) -> dict[int, Entry]:
        """Return the entries of the images that exist, by seed."""
        return {
            entry.seed: entry for entry in read_index(self.folder) if (self.folder / entry.file).is_file()
        }

    def add(self, entry: Entry) -> None:
        """Append an entry to the index."""
        path = self.folder / INDEX
        with files.os_errors(path), open(path, "ab") as index:
            # A line that a killed process left unfinished is closed first; reading the index skips it.
            torn = index.tell() > 0 and path.read_bytes()[-1:] != b"\n"
            index.write(b"\n" * torn + entry.model_dump_json().encode() + b"\n")
            index.flush()
            os.fsync(index.fileno())


def read_index(folder: Path) -> list[Entry]:
    """Return the entries of a folder's index, sorted by seed; unfinished lines are skipped."""
    path = folder / INDEX
    if not path.exists():
        return []
    found: dict[int, Entry] = {}
    for line in path.read_text("utf-8").splitlines():
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError:
            continue
        found[entry.seed] = entry
    return [found[seed] for seed in sorted(found)]


def file_name(seed: int, subject: str) -> str:
    """Return the name of the image of a seed."""
    return f"{seed:06d}_{subject}.png"


def write_image(path: Path, image: UInt8) -> None:
    """Write an image, RGBA or RGB, as a whole PNG file or none."""
    order = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    encoded = cv2.imencode(".png", cv2.cvtColor(image, order))[1]
    files.write_bytes(path, encoded.tobytes())


def soft_share(rgba: UInt8) -> float:
    """Return the share of pixels whose alpha is neither 0 nor 255."""
    alpha = rgba[..., 3]
    return round(float(np.mean((alpha > 0) & (alpha < 255))), 4)


def contact_sheet(folder: Path, entries: Sequence[Entry], *, columns: int = 8, side: int = 180) -> UInt8:
    """Return small copies of all images, H × W × 3 RGB, in the order of the entries.

    Foregrounds are composed over drawn backgrounds.

    Args:
        side: of each composite, pixels.
    """
    tiles = [_tile(folder / entry.file, entry.seed, side) for entry in entries]
    tiles += [np.zeros((side, side, 3), np.uint8)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[first : first + columns], 1) for first in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def require_sheet(path: Path, folder: Path) -> None:
    """Raise InputError unless a contact sheet of the images in ``folder`` can be written to this path.

    It must not lie among them: the reader of foregrounds takes every image below their folder.
    """
    if path.suffix.lower() not in SHEETS:
        raise InputError(f"cannot write {path}", expected="a name with .jpg or .png at its end")
    if folder.resolve() in path.resolve().parents:
        raise InputError(
            f"cannot write {path}", got="a file in the folder of the images", expected="another folder"
        )
    files.require_writable(path)


def write_contact_sheet(path: Path, folder: Path, entries: Iterable[Entry]) -> None:
    """Write a contact sheet; InputError as in :func:`require_sheet`, or if there is no image."""
    require_sheet(path, folder)
    chosen = list(entries)
    if not chosen:
        raise InputError(f"cannot write {path}", got="no images")
    with files.atomic_path(path) as temporary:
        cv2.imwrite(str(temporary), contact_sheet(folder, chosen)[..., ::-1])


def _tile(path: Path, seed: int, side: int) -> UInt8:
    decoded: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.ndim != 3 or decoded.shape[2] not in (3, 4):
        raise InputError(f"cannot read {path}", got="no image in colours")
    if decoded.shape[2] == 3:
        mixed: UInt8 = decoded[..., ::-1]
    else:
        rgba = cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA).astype(np.uint8, copy=False)
        mixed = composite(rgba, shapes.draw_colours(rgba.shape[0], np.random.default_rng(seed)))
    return cv2.resize(mixed, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _require_same(path: Path, settings: Settings) -> None:
    try:
        there = Settings.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the settings {path}", why=str(error)) from error
    if there != settings:
        raise InputError(
            f"cannot add to {path.parent}",
            got=json.dumps(settings.model_dump()),
            expected=json.dumps(there.model_dump()),
            why="its images were rendered with these settings",
            fix="choose another folder, or the same settings",
        )
