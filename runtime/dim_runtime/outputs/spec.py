"""Specification of a result: matte, cut-out or composite, and its options."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dim import bit_depth
from dim.errors import InputError
from dim.files import problem_of
from dim.images.decoding import MAX_PIXELS, require_pixels
from dim.images.files import is_lossy, require_writable
from dim_runtime.outputs import foreground


class Output(StrEnum):
    """Kind of result: the matte, the foreground with alpha, or the foreground over a background."""

    ALPHA = "alpha"
    CUTOUT = "cutout"
    COMPOSITE = "composite"


class Foreground(StrEnum):
    """Source of the foreground's colours."""

    ESTIMATED = "estimated"
    IMAGE = "image"


class AlphaKind(StrEnum):
    """Storage of a cut-out's colours: as they are, or times alpha."""

    STRAIGHT = "straight"
    PREMULTIPLIED = "premultiplied"


WHITE = "#FFFFFF"
"""The usual background of composites."""


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """Options of a result.

    Attributes:
        output: what is written.
        foreground: colours of cut-outs and composites.
        background: of composites: ``#RRGGBB`` or an image file, scaled to cover.
        depth: bits of the output, 8 or 16; None for the input's.
        max_pixels: larger images are refused.
        alpha: how a cut-out's colours are stored.
        linear_light: composites blend light instead of stored values, with the curve of sRGB.
    """

    output: Output = Output.ALPHA
    foreground: Foreground = Foreground.ESTIMATED
    background: str = WHITE
    depth: bit_depth.Depth | None = None
    max_pixels: int = MAX_PIXELS
    alpha: AlphaKind = AlphaKind.STRAIGHT
    linear_light: bool = False

    def check(self) -> None:
        """Raise what can be known to be wrong before any work is done."""
        self._refuse_what_does_not_apply()
        if self.estimates:
            foreground.require_estimator()
        if self.output is Output.COMPOSITE and self.background_file is None:
            foreground.parse_colour(self.background)
        elif self.output is Output.COMPOSITE:
            self._require_background()

    def _require_background(self) -> None:
        if problem_of(Path(self.background)) == "no such file":
            raise InputError(
                "cannot use this background",
                got=f"{self.background!r}, which is no file",
                expected="a colour #RRGGBB, or an image file",
            )
        require_pixels(Path(self.background), self.max_pixels)

    def _refuse_what_does_not_apply(self) -> None:
        if self.alpha is AlphaKind.PREMULTIPLIED and self.output is not Output.CUTOUT:
            raise InputError(
                "cannot premultiply",
                got=f"--out {self.output}",
                expected="--out cutout",
                fix="leave --alpha out",
            )
        if self.linear_light and self.output is not Output.COMPOSITE:
            raise InputError(
                "cannot blend in linear light",
                got=f"--out {self.output}",
                expected="--out composite",
                why="nothing is blended",
                fix="leave --linear-light out",
            )

    def require_writable(self, path: Path) -> None:
        """Raise InputError if no such result can be written under this name.

        A composite may be lossy (:data:`dim.images.files.LOSSY`), unless 16 bits are requested.
        """
        require_writable(path, lossy=self.output is Output.COMPOSITE)
        if self.depth == 16 and is_lossy(path):
            raise InputError(
                f"cannot write 16 bits to {path}", expected=".png, .tif or .tiff", fix="leave --depth out"
            )

    @property
    def estimates(self) -> bool:
        """Whether foreground colours are estimated."""
        return self.output is not Output.ALPHA and self.foreground is Foreground.ESTIMATED

    @property
    def background_file(self) -> Path | None:
        """The background's image; None if it is a colour, or if there is none."""
        if self.output is not Output.COMPOSITE or self.background.startswith("#"):
            return None
        return Path(self.background)

    @property
    def inputs(self) -> list[Path]:
        """Files that are read beside images and trimaps, and must not be written."""
        return [] if self.background_file is None else [self.background_file]

    @property
    def premultiplied(self) -> bool:
        """Whether a cut-out stores its colours times alpha."""
        return self.alpha is AlphaKind.PREMULTIPLIED


def require_used(output: Output, *, foreground: Foreground | None, background: str | None) -> None:
    """Raise InputError for an option that the output has no use for; None is an option that was not given."""
    if background is not None and output is not Output.COMPOSITE:
        raise InputError(
            f"cannot use the background {background}",
            got=f"--out {output}",
            expected="--out composite",
            fix="leave --background out",
        )
    if foreground is not None and output is Output.ALPHA:
        raise InputError(
            f"cannot use the foreground {foreground}",
            got=f"--out {output}",
            expected="--out cutout or --out composite",
            why="an alpha has no colours",
            fix="leave --foreground out",
        )
