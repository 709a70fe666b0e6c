"""The errors and warnings of the runtime. All errors are :class:`dim.errors.DimError`, in four parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dim.errors import DimError, InputError, MissingExtraError, ProfileWarning

__all__ = [
    "AlphaError",
    "ArtefactError",
    "BackendError",
    "ChangedGraphWarning",
    "DeviceError",
    "DimError",
    "FrozenShapeWarning",
    "InputError",
    "MemoryLimitError",
    "MinimumError",
    "MissingExtraError",
    "NothingKnownWarning",
    "NothingUnknownWarning",
    "ProfileWarning",
    "TileError",
    "TrimapWarning",
    "error_text",
]


def error_text(error: BaseException) -> str:
    """Return the text of an error for a report: with its class, unless it is an error of this toolkit."""
    return str(error) if isinstance(error, DimError) else f"{type(error).__name__}: {error}"


class ArtefactError(DimError):
    """A model file is missing, damaged, not of this toolkit, or frozen to an unusable shape."""


class BackendError(DimError):
    """An engine is missing, cannot run this artefact, or failed while running it."""


class AlphaError(BackendError):
    """A back end computed no alpha: another shape or dtype, NaN, infinity, or values outside of [0, 1]."""


class DeviceError(BackendError):
    """A device is unknown or not there. The runtime never moves to another one by itself."""


class MinimumError(InputError):
    """A value is below the smallest possible one.

    Attributes:
        minimum: the smallest value that is accepted.
    """

    def __init__(
        self, problem: str, *, minimum: int, got: object, expected: object, why: str, fix: str
    ) -> None:
        super().__init__(problem, got=got, expected=expected, why=why, fix=fix)
        self.minimum = minimum


class TileError(MinimumError):
    """A tile cannot hold the context on both sides of a core; ``minimum`` is in pixels."""


class MemoryLimitError(MinimumError):
    """A memory limit cannot be kept; ``minimum`` is a limit in bytes that can be kept for this image."""


class TrimapWarning(UserWarning):
    """Pixels of a trimap had values other than 0, 128 and 255 and were read as one of them.

    Attributes:
        mapped: number of these pixels.
    """

    def __init__(self, mapped: int, source: str = "the trimap") -> None:
        self.mapped = mapped
        super().__init__(
            f"{mapped} pixels of {source} are not 0, 128 or 255: at most 10 was read as background, "
            "at least 245 as foreground, the rest as unknown"
        )


class NothingUnknownWarning(UserWarning):
    """A trimap has no unknown pixels: the alpha is the trimap itself, as for a binary mask."""

    def __init__(self) -> None:
        super().__init__(
            "no pixel of the trimap is unknown (128): the alpha repeats the trimap; dim-matte trimap or "
            "dim_runtime.trimaps.bands.from_soft_mask makes a band of unknown pixels around a mask"
        )


class NothingKnownWarning(UserWarning):
    """A trimap has no known pixels: nothing shows the network the object, and its alpha is a guess."""

    def __init__(self) -> None:
        super().__init__(
            "all pixels of the trimap are unknown (128): the alpha is a guess; mark what is certainly "
            "foreground (255) and background (0), or make the band of unknown pixels narrower"
        )


class ChangedGraphWarning(UserWarning):
    """Another tool has changed an artefact's graph: whole windows are computed, which takes longer."""

    def __init__(self, path: Path, missing: Sequence[str]) -> None:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        super().__init__(
            f"the graph of {path} was changed after its export (no {shown}): whole windows are computed in "
            "one phase, the same alpha with more work; export the checkpoint again to avoid that"
        )


class FrozenShapeWarning(UserWarning):
    """A frozen window is larger than the image: the alpha differs from that of a graph with free shapes."""
