"""Render the report as one self-contained HTML file: pictures are embedded, nothing is fetched."""

from __future__ import annotations

import base64
import math
from typing import Any, NamedTuple

import cv2
import jinja2
import numpy as np

from dim.arrays import UInt8
from dim_export.parity.heat_map import Snapshot, gray_picture, heat_map
from dim_export.parity.report import ArtefactReport, Release

ENLARGED = 2
"""Screen pixels per pixel of the worst window."""


class Shot(NamedTuple):
    """One picture of the worst window: caption, ``data:`` URI, and size on screen in pixels."""

    caption: str
    uri: str
    width: int
    height: int


class Section(NamedTuple):
    """One artefact, in the form that the template expects."""

    artefact: ArtefactReport
    shots: list[Shot]


def render(release: Release) -> str:
    """Return the HTML document of a release."""
    loader = jinja2.PackageLoader("dim_export.parity")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "small": small, "signed": signed}
    sections = [
        Section(artefact, [] if snapshot is None else shots(snapshot))
        for artefact, snapshot in zip(release.report.artefacts, release.snapshots, strict=True)
    ]
    return environment.get_template("report.html.j2").render(report=release.report, sections=sections)


def shots(snapshot: Snapshot) -> list[Shot]:
    """Return image, trimap, both alphas and the heat map of a worst window."""
    heat, top = heat_map(snapshot.difference)
    pictures: list[tuple[str, UInt8]] = [
        ("image", snapshot.image),
        ("trimap", gray_picture(snapshot.trimap / np.float64(255))),
        ("PyTorch", gray_picture(snapshot.reference)),
        ("artefact", gray_picture(snapshot.found)),
        (f"difference: black 0, white {top:.4f}", heat),
    ]
    return [_shot(caption, picture) for caption, picture in pictures]


def percent(value: float | None) -> str:
    """Format a share with three decimals; None, which was not measured, as "-"."""
    if value is None:
        return "-"
    return "NaN" if math.isnan(value) else f"{value:.3%}"


def signed(value: float | None) -> str:
    """Format a relative change with its sign."""
    if value is None:
        return "-"
    return "NaN" if math.isnan(value) else f"{value:+.2%}"


def small(value: float | None) -> str:
    """Format a number that is probably far below one."""
    if value is None:
        return "-"
    return "NaN" if math.isnan(value) else f"{value:.2e}"


def _shot(caption: str, picture: UInt8) -> Shot:
    height, width = (ENLARGED * side for side in picture.shape[:2])
    return Shot(caption, data_uri(picture), width, height)


def data_uri(picture: UInt8) -> str:
    """Encode a picture, uint8 H, W, 3 RGB, as a ``data:`` URI of a PNG file."""
    done, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert done, "OpenCV encodes PNG"
    content: Any = np.asarray(encoded)
    return "data:image/png;base64," + base64.b64encode(content.tobytes()).decode()
