"""What can go wrong between an image and its alpha. All are :class:`dim.errors.DimError`: four parts."""

from __future__ import annotations

from dim.errors import DimError, InputError, MissingExtraError

__all__ = [
    "ArtefactError",
    "BackendError",
    "DeviceError",
    "DimError",
    "InputError",
    "MemoryLimitError",
    "MissingExtraError",
    "ProfileWarning",
    "TileError",
    "TrimapWarning",
]


class ArtefactError(DimError):
    """A model file that is missing, damaged, not of this toolkit, or frozen to an unusable shape."""


class BackendError(DimError):
    """An engine that this release lacks, that cannot run this artefact, or that failed while running it."""


class DeviceError(BackendError):
    """A device that is unknown or not there. The runtime never moves to another one by itself."""


class TileError(InputError):
    """A tile that cannot hold the context on both sides of a core.

    Attributes:
        minimum: the smallest tile that can, pixels.
    """

    def __init__(
        self, problem: str, *, minimum: int, got: object, expected: object, why: str, fix: str
    ) -> None:
        super().__init__(problem, got=got, expected=expected, why=why, fix=fix)
        self.minimum = minimum


class MemoryLimitError(InputError):
    """A memory limit that cannot be kept.

    Attributes:
        minimum: the smallest limit that can be kept for this image, bytes.
    """

    def __init__(
        self, problem: str, *, minimum: int, got: object, expected: object, why: str, fix: str
    ) -> None:
        super().__init__(problem, got=got, expected=expected, why=why, fix=fix)
        self.minimum = minimum


class TrimapWarning(UserWarning):
    """Pixels of a trimap had values other than 0, 128 and 255 and were read as one of them.

    Attributes:
        mapped: how many.
    """

    def __init__(self, mapped: int, source: str = "the trimap") -> None:
        self.mapped = mapped
        super().__init__(
            f"{mapped} pixels of {source} are not 0, 128 or 255: at most 10 was read as background, "
            "at least 245 as foreground, the rest as unknown"
        )


class ProfileWarning(UserWarning):
    """An ICC profile that a result does not carry, or that does not fit the other picture of a composite."""
