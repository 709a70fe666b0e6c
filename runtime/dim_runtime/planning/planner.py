"""Turn a surveyed trimap into a plan: the windows that the network runs on, and the memory they take."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Literal, TypeGuard

import numpy as np

from dim.contract import STRIDE
from dim.errors import InputError
from dim_runtime.backends.base import Backend
from dim_runtime.errors import MemoryLimitError, TileError
from dim_runtime.memory import RESERVE_BYTES, format_bytes
from dim_runtime.planning.geometry import Plan, Rectangle, Window, round_up
from dim_runtime.planning.partition import Limits, Piece, partition
from dim_runtime.planning.survey import TrimapSurvey

Context = int | Literal["exact"]

DEFAULT_TILE = 1536
"""Largest window side of a plan unless the user sets another, pixels."""
WORKING_BYTES = 40
"""Bytes per window pixel that the tiler holds at most: the padded window, its 16-bit source, the blend."""
WEIGHT_BYTES = 4
"""Bytes of a weight in memory."""
STRIP_BYTES = 8 << 20
"""Bytes that are held while a trimap is surveyed and the known pixels are written."""


@dataclass(frozen=True)
class PlanOptions:
    """The user's limits of a plan.

    Attributes:
        tile: largest window side, context included; a multiple of 32 pixels.
        context: pixels around each core, a multiple of 32, or "exact" for the artefact's own context.
        memory_limit: peak resident memory of the process, bytes; None for no limit.

    Raises:
        InputError: a value outside of these.
    """

    tile: int = DEFAULT_TILE
    context: Context = "exact"
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if not _is_whole(self.tile) or self.tile < STRIDE or self.tile % STRIDE:
            raise InputError(
                "cannot use this tile",
                got=repr(self.tile),
                expected=f"a positive multiple of {STRIDE}, pixels",
            )
        if self.context != "exact" and (
            not _is_whole(self.context) or self.context < 0 or self.context % STRIDE
        ):
            raise InputError(
                "cannot use this context",
                got=repr(self.context),
                expected=f'"exact", or a number of pixels that is a multiple of {STRIDE}',
            )
        limit = self.memory_limit
        if limit is not None and (not _is_whole(limit) or limit <= 0):
            raise InputError(
                "cannot use this memory limit",
                got=repr(limit),
                expected='a number of bytes above 0, or a text such as "2GB"',
            )


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


class Planner:
    """Plans one surveyed trimap.

    Args:
        found: the survey of the trimap.
        backend: has the artefact's context and frozen shape, and the memory of a window.
        options: tile, context and memory limit.
        held_bytes: memory that is held during the whole call, output included; bytes.
    """

    def __init__(
        self, found: TrimapSurvey, backend: Backend, options: PlanOptions, *, held_bytes: int = 0
    ) -> None:
        self.height, self.width = found.height, found.width
        self.found, self.backend, self.options, self.held_bytes = found, backend, options, held_bytes
        metadata = backend.metadata
        self.frozen = metadata.static_shape[1:] if metadata.static_shape else None
        at_least = self.frozen or (STRIDE, STRIDE)
        self.padded = (max(round_up(self.height), at_least[0]), max(round_up(self.width), at_least[1]))
        self.context = metadata.context if options.context == "exact" else options.context
        self.exact = self.context >= metadata.context

    def plan(self) -> Plan:
        """Return the plan at the requested tile, or at the largest one that keeps the memory limit.

        Raises:
            TileError: the tile cannot hold the context.
            MemoryLimitError: no tile keeps the limit.
        """
        self._require_tile(self.options.tile)
        wanted = self._at(max(self.frozen) if self.frozen else self.options.tile)
        limit = self.options.memory_limit
        if limit is None or wanted.peak_bytes <= limit:
            return wanted
        if self.frozen:
            raise self._too_little(limit, wanted, wanted)
        return self._within(limit, wanted)

    def _within(self, limit: int, wanted: Plan) -> Plan:
        """Return the plan at the largest tile whose square and whose windows keep the limit."""
        for tile in range(min(wanted.tile, max(self.padded)), self._smallest_tile() - 1, -STRIDE):
            if self._peak({(min(tile, self.padded[0]), min(tile, self.padded[1]))}) <= limit:
                note = f"tile lowered from {wanted.tile} to {tile} px to stay below {format_bytes(limit)}"
                plan = self._at(tile, note)
                # Windows of several sizes may take more together than one of the largest.
                if plan.peak_bytes <= limit:
                    return plan
        smallest = self._at(self._smallest_tile(), f"tile lowered from {wanted.tile} px")
        if smallest.peak_bytes <= limit:
            return smallest
        raise self._too_little(limit, min(smallest, wanted, key=lambda plan: plan.peak_bytes), wanted)

    def _too_little(self, limit: int, least: Plan, wanted: Plan) -> MemoryLimitError:
        """Return the error that states a limit which is kept at the next attempt, and one without loss."""
        # The next attempt may hold a little more, and the model a second time.
        room = RESERVE_BYTES + WEIGHT_BYTES * self.backend.metadata.parameters
        minimum, ample = least.peak_bytes + room, wanted.peak_bytes + room
        fix = f"memory_limit={minimum} (--memory-limit {format_bytes(minimum)})"
        if ample > minimum:
            fix += f": {_work(least)}; or {format_bytes(ample)}: {_work(wanted)}"
        return MemoryLimitError(
            f"cannot stay below this memory limit with an image of {self.width}×{self.height} px",
            minimum=minimum,
            got=f"{limit} bytes ({format_bytes(limit)})",
            expected=f"at least {minimum} bytes ({format_bytes(minimum)})",
            why=f"{format_bytes(self.held_bytes)} are held by the process, its arrays, the model and the "
            f"output; the rest is for the smallest windows, {least.tile} px",
            fix=f"{fix}; or a smaller context",
        )

    def _smallest_tile(self) -> int:
        if self.frozen:
            return max(self.frozen)
        return min(2 * self.context + STRIDE, max(self.padded))

    def _require_tile(self, tile: int) -> None:
        minimum = 2 * self.context + STRIDE
        sides = self.frozen or (tile, tile)
        if all(padded <= side or side >= minimum for padded, side in zip(self.padded, sides, strict=True)):
            return
        raise self._tile_error(sides, min(minimum, max(self.padded)))

    def _tile_error(self, sides: tuple[int, int], minimum: int) -> TileError:
        if self.frozen:
            fix = "export without --shape: dim-export onnx CHECKPOINT -o MODEL.onnx"
        else:
            fix = f"tile={minimum} (--tile {minimum}), or a smaller context= (--context), which is not exact"
        return TileError(
            "cannot cut the image into windows this small",
            minimum=minimum,
            got=f"windows of {sides[1]}×{sides[0]} px{', the frozen shape' if self.frozen else ''}; "
            f"the padded image has {self.padded[1]}×{self.padded[0]} px",
            expected=f"at least {minimum} px on each side",
            why=f"a window carries {self.context} px of context on every side of {STRIDE} px or more",
            fix=fix,
        )

    def _at(self, tile: int, note: str | None = None) -> Plan:
        windows = self._windows(tile)
        return Plan(
            height=self.height,
            width=self.width,
            padded_height=self.padded[0],
            padded_width=self.padded[1],
            windows=windows,
            tile=tile,
            context=self.context,
            exact=self.exact,
            unknown_pixels=self.found.unknown,
            peak_bytes=self._peak({(window.height, window.width) for window in windows}),
            note=note or self._frozen_note(),
        )

    def _frozen_note(self) -> str | None:
        """Return why the alpha is not that of the whole image: a frozen window is larger than the image."""
        usual = (round_up(self.height), round_up(self.width))
        if self.padded == usual:
            return None
        return (
            f"the frozen window makes the network see {self.padded[1]}×{self.padded[0]} px, "
            f"not {usual[1]}×{usual[0]} px: alpha differs near the bottom and right border"
        )

    def _peak(self, shapes: set[tuple[int, int]]) -> int:
        working = WORKING_BYTES * max((height * width for height, width in shapes), default=0)
        return self.held_bytes + STRIP_BYTES + working + self.backend.peak_bytes(shapes)

    def _windows(self, tile: int) -> tuple[Window, ...]:
        limits = self._limits(tile)
        occupied = self.found.occupied
        missing = [(0, grid - side) for grid, side in zip(limits.grid, occupied.shape, strict=True)]
        pieces = partition(np.pad(occupied, missing), limits)
        windows = [self._window(piece, limits) for piece in pieces]
        # Largest first, equal shapes together: an engine allocates least often.
        return tuple(sorted(windows, key=lambda w: (-w.area, w.height, w.y, w.x)))

    def _limits(self, tile: int) -> Limits:
        height, width = self.frozen or (tile, tile)
        return Limits(
            grid=(self.padded[0] // STRIDE, self.padded[1] // STRIDE),
            tile=(height // STRIDE, width // STRIDE),
            context=self.context // STRIDE,
            fixed=self.frozen is not None,
        )

    def _window(self, piece: Piece, limits: Limits) -> Window:
        top, bottom = _span(piece.top, piece.bottom, 0, limits)
        left, right = _span(piece.left, piece.right, 1, limits)
        core = _pixels(piece.top, piece.bottom, piece.left, piece.right)
        outer = _pixels(top, bottom, left, right)
        return Window(outer.y, outer.x, outer.height, outer.width, core)


def _work(plan: Plan) -> str:
    count = len(plan.windows)
    return f"{count} window{'' if count == 1 else 's'}, {plan.cost:.1f} × the work of the whole image"


def _span(start: int, stop: int, axis: int, limits: Limits) -> tuple[int, int]:
    """Return a window's range of blocks along one axis: context on both sides, cut at the padded image."""
    first = max(start - limits.context, 0)
    last = min(stop + limits.context, limits.grid[axis])
    if limits.fixed:
        first = min(first, limits.grid[axis] - limits.tile[axis])
        last = first + limits.tile[axis]
    return first, last


def _pixels(top: int, bottom: int, left: int, right: int) -> Rectangle:
    return Rectangle(top * STRIDE, left * STRIDE, (bottom - top) * STRIDE, (right - left) * STRIDE)
