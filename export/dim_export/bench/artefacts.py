"""One window through several artefacts and engines, in alternation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from pydantic import computed_field

from dim.contract import STRIDE, Precision
from dim.errors import InputError
from dim.frozen_model import FrozenModel
from dim_export.measure.opened import OpenedArtefact, open_engine
from dim_export.measure.timing import alternate, is_side, random_window, times_faster
from dim_runtime.backends.open import BackendName


class TimedEngine(FrozenModel):
    """Seconds of every run of one artefact in one engine, in the order of the rounds."""

    artefact: str
    engine: str
    precision: Precision
    gflop: float
    seconds: tuple[float, ...]
    speedup: float
    """Median over the rounds of the first one's time over this one's."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p50_s(self) -> float:
        return median(self.seconds)


class ArtefactBench(FrozenModel):
    """All of one run; the first is what the others are compared with."""

    size: int
    """Side of the square window, pixels."""
    threads: int | None
    """None for the engines' own choice."""
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
        backends: None takes the runtime's own choice.
        lowered: OpenVINO runs each artefact a second time with its floating-point part in this precision.
        size: side of the square window, a multiple of 32 pixels.
        rounds: timed runs of each; one round before them is not counted.

    Raises:
        InputError: an impossible size.
        ArtefactError, BackendError, DeviceError, MissingExtraError: one of them cannot be opened.
    """
    if not is_side(size):
        raise InputError(
            "cannot measure this",
            got=f"a window of {size} px",
            expected=f"a positive multiple of {STRIDE} px",
        )
    with ExitStack() as opened:
        engines = []
        for backend, path, precision in _ways(paths, backends, lowered):
            engine = open_engine(path, backend=backend, device=device, precision=precision, threads=threads)
            opened.callback(engine.backend.close)
            engines.append(engine)
        window = random_window(size, size)
        times = alternate([engine.backend for engine in engines], [window] * len(engines), rounds)
    timed = [_timed(engine, size, own, times[0]) for engine, own in zip(engines, times, strict=True)]
    return ArtefactBench(size=size, threads=threads, engines=tuple(timed))


def _ways(
    paths: Sequence[Path], backends: Sequence[BackendName | None], lowered: Precision | None
) -> Iterator[tuple[BackendName | None, Path, Precision | None]]:
    for backend in backends:
        for path in paths:
            yield backend, path, None
            if lowered is not None and backend == "openvino":
                yield backend, path, lowered


def _timed(engine: OpenedArtefact, size: int, seconds: list[float], first: list[float]) -> TimedEngine:
    return TimedEngine(
        artefact=engine.path.name,
        engine=engine.description,
        precision=engine.precision,
        gflop=2e-9 * engine.backend.metadata.multiply_adds_per_pixel * size * size,
        seconds=tuple(seconds),
        speedup=times_faster(first, seconds),
    )
