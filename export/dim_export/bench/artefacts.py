"""Time one window in several artefacts and engines, in alternation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from pydantic import computed_field

from dim.contract import STRIDE, Precision
from dim.errors import InputError
from dim.frozen_model import FrozenModel
from dim_export.measure.opened import OpenedArtefact, open_artefact
from dim_export.measure.timing import alternate, is_side, random_window, times_faster
from dim_runtime.backends.open import BackendName


class TimedEngine(FrozenModel):
    """Times of one artefact in one engine, in the order of the rounds."""

    artefact: str
    engine: str
    precision: Precision
    gflop: float
    """Floating-point operations of one window, in 10⁹."""
    seconds: tuple[float, ...]
    speedup: float
    """The first artefact's time over this one's, median over the rounds."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p50_s(self) -> float:
        """Median of the runs, seconds."""
        return median(self.seconds)


class ArtefactBench(FrozenModel):
    """The result of one run; the first artefact is the baseline of the others."""

    size: int
    """Side of the square window, pixels."""
    threads: int | None
    """Threads of the engines; None for the engines' choice."""
    engines: tuple[TimedEngine, ...]


def bench_artefacts(
    paths: Sequence[Path],
    backends: Sequence[BackendName | None] = (None,),
    *,
    lowered: Precision | None = None,
    size: int,
    rounds: int,
    device: str = "cpu",
    threads: int | None = None,
) -> ArtefactBench:
    """Time each artefact in each back end on one random window.

    Args:
        paths: artefacts.
        backends: back ends; None takes the default by suffix.
        lowered: OpenVINO runs each artefact a second time with its floating-point part in this precision.
        size: side of the square window, a multiple of 32 pixels.
        rounds: timed runs of each; one round before them is not timed.
        device: "cpu", "cuda" or "cuda:N".
        threads: threads of every engine; None for the engines' choice.

    Raises:
        InputError: a size that is no positive multiple of 32.
        ArtefactError, BackendError, DeviceError, MissingExtraError: an artefact cannot be opened.
    """
    if not is_side(size):
        raise InputError(
            "cannot measure a window of this size",
            got=f"{size} px",
            expected=f"a positive multiple of {STRIDE} px",
        )
    with ExitStack() as opened:
        artefacts = []
        for backend, path, precision in _combinations(paths, backends, lowered):
            found = open_artefact(path, backend=backend, device=device, precision=precision, threads=threads)
            opened.callback(found.backend.close)
            artefacts.append(found)
        window = random_window(size, size)
        times = alternate([each.backend for each in artefacts], [window] * len(artefacts), rounds)
    timed = [_timed(each, size, own, times[0]) for each, own in zip(artefacts, times, strict=True)]
    return ArtefactBench(size=size, threads=threads, engines=tuple(timed))


def _combinations(
    paths: Sequence[Path], backends: Sequence[BackendName | None], lowered: Precision | None
) -> Iterator[tuple[BackendName | None, Path, Precision | None]]:
    for backend in backends:
        for path in paths:
            yield backend, path, None
            if lowered is not None and backend == "openvino":
                yield backend, path, lowered


def _timed(artefact: OpenedArtefact, size: int, seconds: list[float], first: list[float]) -> TimedEngine:
    return TimedEngine(
        artefact=artefact.path.name,
        engine=artefact.description,
        precision=artefact.precision,
        gflop=2e-9 * artefact.backend.metadata.multiply_adds_per_pixel * size * size,
        seconds=tuple(seconds),
        speedup=times_faster(first, seconds),
    )
