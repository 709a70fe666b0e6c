"""From what people have to a trimap: a mask, scribbles, a box, or a model that makes masks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dim.trimap
from dim.arrays import Image, UInt8
from dim.errors import InputError
from dim.images.decoding import MAX_PIXELS
from dim.images.files import read_image, read_mask
from dim.images.headers import HeaderError, read_header
from dim.trimap import unknown
from dim_runtime.errors import NothingKnownWarning, TrimapWarning
from dim_runtime.images.pairs import Pair, require_one_size
from dim_runtime.matting import Matting
from dim_runtime.progress import Progress
from dim_runtime.trimaps.bands import from_soft_mask, narrowed, resized_band
from dim_runtime.trimaps.mask_model import Layout, MaskModel, rembg_mask
from dim_runtime.trimaps.strokes import Box, Strokes, propose, read_strokes, require_inside

NAMES: Mapping[str, str] = {
    "trimap": "trimap",
    "mask": "mask",
    "strokes": "scribbles",
    "box": "box",
    "mask_model": "mask model",
    "rembg": "model of rembg",
}
"""Names of the sources in errors, by attribute of :class:`TrimapSources`."""

WITH_BOX = ("strokes", "mask_model", "rembg")
"""Sources that a box may come with: it selects the object."""
BOX_MARGIN = 0.15
"""Share of a box's sides that a network sees around it, so that the object ends before the border."""
BANDED = ("mask", "mask_model", "rembg")
"""Sources that become a trimap by a band of unknown pixels around a mask."""


@dataclass(frozen=True, kw_only=True)
class TrimapSources:
    """Sources of the trimap of one photograph.

    Attributes:
        image: the photograph; needed for scribbles, boxes and models.
        trimap: a finished trimap.
        mask: a mask, or a cut-out with transparency.
        strokes: scribbles; see :func:`~dim_runtime.trimaps.strokes.read_strokes`.
        box: around the object; may come together with strokes, or with a network.
        mask_model: an ONNX file that makes masks; see :class:`~dim_runtime.trimaps.mask_model.MaskModel`.
        mask_layout: what that network takes; None finds it by the file's name.
        rembg: the name of a model of the package rembg.
        inside, outside: band on the object's and on the background's side of a mask, pixels; None chooses
            both. With either, the mask of a network is taken as it is, and GrabCut does not correct it.
        band: widens the unknown region, or narrows it if negative; pixels.
        max_pixels: larger images are refused.
    """

    image: Path | None = None
    trimap: Path | None = None
    mask: Path | None = None
    strokes: Path | None = None
    box: Box | None = None
    mask_model: Path | None = None
    mask_layout: Layout | None = None
    rembg: str | None = None
    inside: int | None = None
    outside: int | None = None
    band: int = 0
    max_pixels: int = MAX_PIXELS

    def require_one(self, names: Mapping[str, str] = NAMES, *, fix: str | None = None) -> None:
        """Raise InputError unless there is exactly one source, with what it needs and no more.

        Args:
            names: the sources that can be given, as the errors name them, by attribute.
            fix: of the errors.
        """
        given = [name for name in names if getattr(self, name) is not None]
        pair = len(given) == 2 and "box" in given and not {*given}.isdisjoint(WITH_BOX)
        if len(given) != 1 and not pair:
            others = " or ".join(names[other] for other in WITH_BOX if other in names)
            raise InputError(
                "cannot make a trimap",
                got=" and ".join(names[name] for name in given)
                or "nothing that separates the object from the background",
                expected=f"one of: {', '.join(names.values())}; {names['box']} may come with {others}",
                fix=fix,
            )
        if (self.inside, self.outside) != (None, None) and not set(given) <= set(BANDED):
            raise InputError(
                f"cannot use a width inside or outside with {' and '.join(names[name] for name in given)}",
                expected=f"one of: {', '.join(names[name] for name in BANDED if name in names)}",
                fix="leave the widths out",
            )
        if self.mask_layout is not None and self.mask_model is None:
            raise InputError(
                f"cannot use the layout {self.mask_layout} of a mask model",
                got=" and ".join(names[name] for name in given),
                expected=names.get("mask_model", NAMES["mask_model"]),
                fix="leave the layout out",
            )
        if self.image is None and given[0] not in ("trimap", "mask"):
            raise InputError(
                f"cannot make a trimap of {names[given[0]]} without the image", expected="the image", fix=fix
            )

    @property
    def inputs(self) -> list[Path]:
        """The files that are read."""
        files = (self.image, self.trimap, self.mask, self.strokes, self.mask_model)
        return [file for file in files if file is not None]

    def make(
        self,
        *,
        check: Callable[[], object] | None = None,
        warn: Callable[[Warning], object] = warnings.warn,
    ) -> UInt8:
        """Return the canonical trimap, uint8 H, W: 0 background, 128 unknown, 255 foreground.

        Args:
            check: called while GrabCut runs, in a child process; its error ends the work at once.
            warn: called with what is probably a mistake: other levels in a trimap, no known pixel.

        Raises:
            InputError: no source or several, a file that cannot be used, marks that do not fit, or a
                trimap or mask of another size than the photograph's.
        """
        self.require_one()
        made = self._made(check, warn)
        drawn = self.trimap or self.mask
        if self.image is not None and drawn is not None:
            self._require_fitting(self.image, drawn, made)
        made = resized_band(made, self.band) if self.band else made
        if unknown(made).all():
            warn(NothingKnownWarning())
        return made

    def refined(self, trimap: UInt8, matting: Matting, *, progress: Progress | None = None) -> UInt8:
        """Return a trimap of :meth:`make`, narrowed where the network is sure, which takes one pass of it.

        Only trimaps of scribbles change: a mask shows the border itself, and a box alone gains nothing.
        ``band`` also leaves the trimap as it is, because the user has chosen the width.

        Args:
            trimap: canonical, uint8 H, W.
            matting: the network.
            progress: called with windows done and in all; None for the network's own.

        Returns:
            uint8 H, W; the scribbles are kept.
        """
        if self.strokes is None or self.band or not unknown(trimap).any():
            return trimap
        alpha = np.empty(trimap.shape, np.float32)
        matting.into(self._read_image(), trimap, alpha, progress=progress)
        return narrowed(trimap, alpha, self._read_strokes(*trimap.shape).marked)

    def _made(self, check: Callable[[], object] | None, warn: Callable[[Warning], object]) -> UInt8:
        if self.trimap is not None:
            reading = dim.trimap.read(self.trimap, max_pixels=self.max_pixels)
            if reading.mapped:
                warn(TrimapWarning(reading.mapped))
            return reading.trimap
        if self.mask is not None:
            return self._banded(read_mask(self.mask, max_pixels=self.max_pixels))
        image = self._read_image()
        mask = self._networks_mask(image)
        if mask is not None and (self.inside, self.outside) != (None, None):
            return self._banded(mask)
        return propose(image, self._read_strokes(*image.shape[:2]), self.box, mask, check=check)

    def _networks_mask(self, image: Image) -> UInt8 | None:
        """Return the mask of a network, which sees the box and its surroundings; None without a network."""
        if self.mask_model is None and self.rembg is None:
            return None
        seen = np.s_[:, :] if self.box is None else _around(self.box, *image.shape[:2])
        part = np.ascontiguousarray(image[seen])
        mask = np.zeros(image.shape[:2], np.uint8)
        if self.mask_model is not None:
            mask[seen] = MaskModel(self.mask_model, self.mask_layout).mask(part)
        elif self.rembg is not None:
            mask[seen] = rembg_mask(part, self.rembg)
        return mask

    def _require_fitting(self, photo: Path, drawn: Path, trimap: UInt8) -> None:
        try:
            header = read_header(photo)
        except (HeaderError, OSError):
            header = None
        # The header is enough in most cases: a large photograph would be decoded twice.
        if header is None or (header.height, header.width) != trimap.shape:
            noun = "mask" if self.trimap is None else "trimap"
            require_one_size(Pair(photo.stem, photo, drawn), self._read_image(), trimap, noun=noun)

    def _read_image(self) -> Image:
        assert self.image is not None, "require_one checks it"
        return read_image(self.image, max_pixels=self.max_pixels)

    def _read_strokes(self, height: int, width: int) -> Strokes:
        if self.strokes is None:
            return Strokes.none(height, width)
        return read_strokes(self.strokes, max_pixels=self.max_pixels)

    def _banded(self, mask: UInt8) -> UInt8:
        return from_soft_mask(mask, inside=self.inside, outside=self.outside)


def _around(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns of a valid box and its surroundings."""
    require_inside(box, height, width)
    beside, above = round(BOX_MARGIN * box.width), round(BOX_MARGIN * box.height)
    rows = slice(max(0, box.y - above), box.y + box.height + above)
    return rows, slice(max(0, box.x - beside), box.x + box.width + beside)


def parse_box(text: str | None) -> Box | None:
    """Parse ``"x,y,width,height"``; None for None or an empty text.

    Raises:
        InputError: another form.
    """
    if not text:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isascii() and part.isdecimal() and len(part) <= 9 for part in parts):
        raise InputError(
            "cannot read the box",
            got=repr(text[:80]),
            expected="x,y,width,height: four whole numbers, pixels",
            fix="for example 120,80,400,500: the upper left corner at 120, 80, then 400 wide and 500 high",
        )
    return Box(*map(int, parts))
