"""Turn a surveyed trimap into a plan: the windows that the network runs on, and the memory they take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal, NamedTuple, TypeGuard, cast

import numpy as np

from dim.contract import STRIDE
from dim.contract.cropping import LEAST_STEP, margin_step, output_margin
from dim.contract.layers import Work, layer_work, network_context, propagation_context
from dim.errors import InputError
from dim_runtime.backends.base import Backend
from dim_runtime.errors import MemoryLimitError, TileError
from dim_runtime.memory import RESERVE_BYTES, available_bytes, format_bytes
from dim_runtime.planning.geometry import Plan, Rectangle, Window, round_up
from dim_runtime.planning.partition import Blocks, Limits, Piece, partition
from dim_runtime.planning.survey import TrimapSurvey

Context = int | Literal["exact"]
Tile = int | Literal["auto"]

DEFAULT_TILE = 1536
"""Largest window side where a fixed one is needed: the profile of an engine, cases of parity; pixels."""
AUTO_TILES = (768, 1024, 1280, 1536, 2048)
"""Tiles that "auto" chooses from, pixels; smaller ones only where memory requires it. Larger ones save little
work on photographs. The smallest ones serve small contexts."""
CHEAP_BYTES = 25 * 10**8
""""auto" takes the plan of least cost × (memory of its windows + this), bytes: with 1 GB it may cost 29 %
more than with 2 GB; far below, memory counts for little. What the process holds anyway is left out: the
choice must not depend on it."""
AVAILABLE_SHARE = 0.5
"""Share of the memory available to the process that "auto" may use without a memory limit."""
RAMP_SHARE = 0.5
"""Windows with less than exact context are blended over this share of what a graph that drops margins
computes around the core. The outer half is wrong more often, because it has little context."""
PROPAGATION_TILE = 1024
"""Largest side of a window of propagation, pixels: a small part of the work is worth little memory."""
WORKING_BYTES = 40
"""Bytes per window pixel that the tiler holds at most: the padded window, its 16-bit source, the blend."""
WEIGHT_BYTES = 4
"""Bytes of a weight in memory."""
BLOCK_BYTES = 2 * 4 * STRIDE * STRIDE
"""Bytes that are held for each unknown block until alpha is propagated: alpha and trust, float32."""
STRIP_BYTES = 8 << 20
"""Bytes that are held while a trimap is surveyed and the known pixels are written."""


@dataclass(frozen=True)
class PlanOptions:
    """The user's limits of a plan.

    Attributes:
        tile: largest window side, context included; a multiple of 32 pixels, or "auto" for one that fits in
            memory, with little work and memory.
        context: pixels around each core, a multiple of 32, or "exact" for the artefact's own context.
        memory_limit: peak resident memory of the process, bytes; None for no limit.

    Raises:
        InputError: a value outside of these.
    """

    tile: Tile = "auto"
    context: Context = "exact"
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.tile != "auto" and (not _is_whole(self.tile) or self.tile < STRIDE or self.tile % STRIDE):
            raise InputError(
                "cannot use this tile",
                got=repr(self.tile),
                expected=f'"auto", or a positive multiple of {STRIDE}, pixels',
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


class _Way(NamedTuple):
    """A way to compute windows.

    Attributes:
        phases: propagation has its own windows.
        crops: layers drop the margins that they do not need.
        context: pixels around each core.
        exact: whether that is enough for the alpha of the whole image.
        layers: the work of a window.
        ramp: pixels around a core whose alpha is used too, because windows are blended.
    """

    phases: bool
    crops: bool
    context: int
    exact: bool
    layers: tuple[Work, ...]
    ramp: int

    @property
    def shares(self) -> tuple[tuple[float, float], ...] | None:
        """Reach, blocks, and share of the work of the layers; None if all compute whole windows.

        Two groups are enough to choose cuts: the encoder, and all others with their mean reach.
        """
        if not self.crops:
            return None
        total = sum(layer.multiply_adds for layer in self.layers)
        inner = [layer for layer in self.layers if layer.margin is not None]
        share = sum(layer.multiply_adds for layer in inner) / total
        reach = sum((layer.margin or 0) * layer.multiply_adds for layer in inner) / (share * total)
        around = min(reach, self.context) / STRIDE
        return (self.context / STRIDE, 1 - share), (around, share)


def _way(backend: Backend, context: Context, *, phases: bool) -> _Way:
    metadata = backend.metadata
    # A network that propagates drops margins only where propagation follows in separate windows.
    crops = backend.crops and phases == backend.phases
    sufficient = network_context(metadata.network) if phases else metadata.context
    wanted = sufficient if context == "exact" else context
    exact = wanted >= sufficient
    total = metadata.multiply_adds_per_pixel
    layers = layer_work(metadata.network) if crops else (Work(None, total),)
    ramp = min(wanted, round(RAMP_SHARE * output_margin(metadata.network))) if crops else wanted
    return _Way(phases, crops, wanted, exact, layers, 0 if exact else ramp)


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
        self.way = _way(backend, options.context, phases=backend.phases)
        self.at_once = _way(backend, options.context, phases=False) if backend.phases else None
        """The way of a window that holds the whole image, if that is less work."""
        self.context = self.way.context
        self._propagations: dict[int, tuple[Window, ...]] = {}
        """Windows of propagation by their largest side, which several tiles share."""

    def plan(self) -> Plan:
        """Return the plan at the requested tile, or at the largest one that keeps the memory limit.

        Raises:
            TileError: the tile cannot hold the context.
            MemoryLimitError: no tile keeps the limit.
        """
        if self.options.tile == "auto" and not self.frozen:
            return self._automatic()
        tile = max(self.frozen) if self.frozen else cast("int", self.options.tile)
        self._require_tile(tile)
        wanted = self._at(tile)
        limit = self.options.memory_limit
        if limit is None or wanted.peak_bytes <= limit:
            return wanted
        if self.frozen:
            raise self._too_little(limit, wanted, wanted)
        return self._within(limit, wanted)

    def _automatic(self) -> Plan:
        """Return the plan that fits with the least work, unless a little more saves much memory."""
        limit = self.options.memory_limit
        allowed = limit or self.held_bytes + round(AVAILABLE_SHARE * available_bytes())
        plans = [self._at(tile) for tile in self._tiles()]
        fitting = [plan for plan in plans if plan.peak_bytes <= allowed]
        memory = "the memory limit" if limit is not None else f"{AVAILABLE_SHARE:.0%} of the available memory"
        if not fitting:
            chosen = self._lowered(allowed, min(plans, key=lambda plan: plan.cost))
            return replace(chosen, reason=f"larger tiles do not fit in {format_bytes(allowed)}, {memory}")
        added = CHEAP_BYTES - self.held_bytes
        chosen = min(fitting, key=lambda plan: plan.cost * (plan.peak_bytes + added))
        tried = ", ".join(str(plan.tile) for plan in plans)
        reason = f"little work and memory, of tiles of {tried} px within {format_bytes(allowed)}, {memory}"
        return replace(chosen, reason=reason)

    def _lowered(self, allowed: int, wanted: Plan) -> Plan:
        """Return the plan at the largest tile that fits; if none fits and none must, at the smallest."""
        try:
            return self._within(allowed, wanted)
        except MemoryLimitError:
            if self.options.memory_limit is not None:
                raise
            # The system may swap.
            return self._at(self._smallest_tile())

    def _tiles(self) -> list[int]:
        """Return the tiles that "auto" compares, smallest first; pixels."""
        smallest = self._smallest_tile()
        engine = self.backend.metadata.engine
        largest = max(AUTO_TILES)
        if engine is not None and engine.profile is not None:
            largest = min(engine.profile.max[1:])
            self._require_tile(largest)
        # Beyond the image's larger side all tiles are the same.
        needed = next((tile for tile in AUTO_TILES if tile >= max(self.padded)), largest)
        # In smaller tiles more than half of each side would be context.
        worthwhile = 4 * self.context
        found = [tile for tile in AUTO_TILES if worthwhile < tile <= min(needed, largest)]
        return found or [max(smallest, min(largest, needed))]

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
        plan = self._in_one_way(self.way, tile, note)
        if self.at_once is None or tile < max(self.padded):
            return plan
        return min(plan, self._in_one_way(self.at_once, tile, note), key=lambda found: found.cost)

    def _in_one_way(self, way: _Way, tile: int, note: str | None) -> Plan:
        limits = self._limits(way, tile)
        windows = self._windows(way, limits)
        propagation = self._propagation(way, tile) if way.phases else ()
        shapes = {(window.height, window.width) for window in (*windows, *propagation)}
        return Plan(
            height=self.height,
            width=self.width,
            padded_height=self.padded[0],
            padded_width=self.padded[1],
            windows=windows,
            tile=tile,
            context=way.context,
            exact=way.exact,
            unknown_pixels=self.found.unknown,
            peak_bytes=self._peak(shapes) + self._stored(way),
            note=note or self._frozen_note(),
            layers=way.layers,
            propagation=propagation,
            unknown_blocks=self._occupied(way),
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

    def _stored(self, way: _Way) -> int:
        """Return the bytes that are held between the two phases."""
        return BLOCK_BYTES * int(np.count_nonzero(self._occupied(way))) if way.phases else 0

    def _occupied(self, way: _Way) -> Blocks:
        """Return the blocks whose estimate is needed: propagation reads that of unknown padding, too."""
        return self.found.reflected if way.phases else self.found.occupied

    def _windows(self, way: _Way, limits: Limits) -> tuple[Window, ...]:
        occupied = self._occupied(way)
        missing = [(0, grid - side) for grid, side in zip(limits.grid, occupied.shape, strict=True)]
        pieces = partition(np.pad(occupied, missing), limits)
        windows = [self._window(piece, limits, way) for piece in pieces]
        # Largest first, equal shapes together: an engine allocates least often.
        return tuple(sorted(windows, key=lambda w: (-w.area, w.height, w.y, w.x)))

    def _propagation(self, way: _Way, tile: int) -> tuple[Window, ...]:
        """Return the windows of propagation: with its whole context, but no more than the network's if that
        is not exact."""
        context = propagation_context(self.backend.metadata.network)
        if not way.exact:
            context = min(context, way.context)
        alone = way._replace(phases=False, crops=False, context=context, exact=True, ramp=0)
        side = max(min(tile, PROPAGATION_TILE), 2 * context + STRIDE)
        if side not in self._propagations:
            self._propagations[side] = self._windows(alone, self._limits(alone, side))
        return self._propagations[side]

    def _limits(self, way: _Way, tile: int) -> Limits:
        height, width = self.frozen or (tile, tile)
        return Limits(
            grid=(self.padded[0] // STRIDE, self.padded[1] // STRIDE),
            tile=(height // STRIDE, width // STRIDE),
            context=way.context // STRIDE,
            fixed=self.frozen is not None,
            layers=way.shares,
        )

    def _window(self, piece: Piece, limits: Limits, way: _Way) -> Window:
        top, bottom = _span(piece.top, piece.bottom, 0, limits)
        left, right = _span(piece.left, piece.right, 1, limits)
        core = _pixels(piece.top, piece.bottom, piece.left, piece.right)
        if way.crops and not self.frozen:
            core = self._unknown_part(core)
        outer = _pixels(top, bottom, left, right)
        kept = core.grown(way.ramp, outer)
        covered = core if way.crops else kept
        if self.frozen and not way.exact:
            # A frozen window may hold more than the context around the core.
            covered = kept = outer
        return Window(outer.y, outer.x, outer.height, outer.width, core, covered, kept)

    def _unknown_part(self, core: Rectangle) -> Rectangle:
        """Return the least part that holds the core's unknown pixels, in steps that margins may have."""
        side = margin_step(self.backend.metadata.network)
        rows, columns = (
            slice(start // LEAST_STEP, stop // LEAST_STEP)
            for start, stop in ((core.y, core.bottom), (core.x, core.right))
        )
        squares = np.nonzero(self.found.squares[rows, columns])
        (top, bottom), (left, right) = (
            (
                int(found.min()) * LEAST_STEP // side * side,
                round_up((int(found.max()) + 1) * LEAST_STEP, side),
            )
            for found in squares
        )
        return Rectangle(core.y + top, core.x + left, bottom - top, right - left)


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
