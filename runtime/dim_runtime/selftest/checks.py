"""The checks of one back end: parity, threads, CUDA graphs, DLPack, memory and speed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from dim.arrays import UInt8
from dim_runtime.backends.base import Backend
from dim_runtime.errors import BackendError
from dim_runtime.selftest.references import (
    FP32_MEAN_DIFFERENCE,
    FP32_SHARE_BEYOND,
    NETWORKS,
    Network,
    compare,
    read_reference,
)
from dim_runtime.selftest.report import Check, Recorder, Verdict

CHECKS = ("opens", "parity", "repeats", "threads", "graphs", "dlpack", "recovers", "leaks", "speed")
"""Names of a back end's checks, in order."""
REPORT_IT = "send this report (docs/gpu.md shows where); until then use --device cpu"
THREADS, RUNS_A_THREAD = 4, 3
LEAK_ROUNDS, LEAK_LIMIT = 6, 64 * 10**6
"""Rounds of opening and closing, and bytes that may stay after the first round."""
SPEED_SIDE, SPEED_RUNS = 512, 11
TOO_MANY_BYTES = 1 << 50
FREE, FROZEN = NETWORKS


class Device(NamedTuple):
    """Access to the device under test.

    Attributes:
        put: copies a uint8 array to the GPU; None where there is no GPU.
        get: copies an array of the GPU back.
        exhaust: allocates more memory than there is; it must raise BackendError.
        free_bytes: free memory of the device.
        flops: multiply-adds per second of a large matrix product times two; None if it cannot be measured.
    """

    put: Callable[[UInt8], Any] | None
    get: Callable[[Any], Any] | None
    exhaust: Callable[[int], object]
    free_bytes: Callable[[], int]
    flops: float | None


def check_backend(
    part: str, prepare: Callable[[Network], Path], open_model: Callable[[Path], Backend], device: Device
) -> list[Check]:
    """Run every check of one back end; one that fails does not stop the others, unless nothing opens.

    Args:
        part: name of the back end.
        prepare: returns the file of a network, built for this machine where the back end needs that.
        open_model: opens it.
        device: the device that the back end runs on.
    """
    recorder = Recorder(part)
    opened: dict[Network, tuple[Path, Backend]] = {}
    try:
        _opens(recorder, prepare, open_model, opened)
        if len(opened) < len(NETWORKS):
            return recorder.checks + [
                Check(part=part, name=name, verdict=Verdict.SKIPPED, found="does not open")
                for name in CHECKS[1:]
            ]
        _runs(recorder, {name: backend for name, (_, backend) in opened.items()}, device)
    finally:
        for _, backend in opened.values():
            backend.close()
    _leaks(recorder, opened[FREE][0], open_model, device)
    order = {name: place for place, name in enumerate(CHECKS)}
    return sorted(recorder.checks, key=lambda check: order[check.name])


def _opens(
    recorder: Recorder,
    prepare: Callable[[Network], Path],
    open_model: Callable[[Path], Backend],
    opened: dict[Network, tuple[Path, Backend]],
) -> None:
    with recorder.checked("opens", REPORT_IT) as outcome:
        times: dict[str, float] = {}
        for name in NETWORKS:
            started = perf_counter()
            path = prepare(name)
            built = perf_counter()
            opened[name] = path, open_model(path)
            times |= {f"{name}_build_s": built - started, f"{name}_open_s": perf_counter() - built}
        text = ", ".join(f"{name.replace('_', ' ')[:-2]} {value:.1f} s" for name, value in times.items())
        outcome.passed(text, **{name: round(value, 3) for name, value in times.items()})


def _runs(recorder: Recorder, backends: dict[Network, Backend], device: Device) -> None:
    _parity(recorder, backends)
    _repeats(recorder, backends[FREE])
    _threads(recorder, backends[FREE])
    _graphs(recorder, backends[FROZEN], device)
    _dlpack(recorder, backends[FREE], device)
    _recovers(recorder, backends[FREE], device)
    _speed(recorder, backends[FREE], device)


def _parity(recorder: Recorder, backends: dict[Network, Backend]) -> None:
    with recorder.checked("parity", REPORT_IT) as outcome:
        found = {}
        for name, backend in backends.items():
            reference = read_reference(name)
            found[name] = compare(reference, backend.run(reference.image, reference.trimap))
        outcome.require(
            all(difference.passed for difference in found.values()),
            ", ".join(
                f"{name}: {value.share_beyond:.3%} beyond 1/255, mean {value.mean:.2e}"
                for name, value in found.items()
            ),
            expected=f"at most {FP32_SHARE_BEYOND:.1%} beyond 1/255 and a mean of {FP32_MEAN_DIFFERENCE}; "
            "known pixels exact",
            fix=REPORT_IT,
            **{f"{name}_share_beyond": value.share_beyond for name, value in found.items()},
            **{f"{name}_mean": value.mean for name, value in found.items()},
        )


def _repeats(recorder: Recorder, backend: Backend) -> None:
    with recorder.checked("repeats", REPORT_IT) as outcome:
        first, second = _window(FREE), _window(FREE, turned=True)
        alphas = [backend.run(*first), backend.run(*second), backend.run(*first)]
        outcome.require(
            np.array_equal(alphas[0], alphas[2]),
            "equal bits before and after another window",
            expected="one window gives one alpha",
            fix=REPORT_IT,
        )


def _threads(recorder: Recorder, backend: Backend) -> None:
    with recorder.checked("threads", REPORT_IT) as outcome:
        windows = [_window(FREE), _window(FREE, turned=True)]
        alone = [backend.run(*window) for window in windows]

        def same(number: int) -> bool:
            return np.array_equal(backend.run(*windows[number % 2]), alone[number % 2])

        with ThreadPoolExecutor(THREADS) as pool:
            equal = list(pool.map(same, range(THREADS * RUNS_A_THREAD)))
        outcome.require(
            all(equal),
            f"{sum(equal)} of {len(equal)} windows from {THREADS} threads equal",
            expected="all",
            fix=REPORT_IT,
        )


def _graphs(recorder: Recorder, backend: Backend, device: Device) -> None:
    """Compare the alphas of a replayed launch and a plain one.

    TensorRT records the second window of a frozen shape, and replays it from then on.
    """
    with recorder.checked("graphs", REPORT_IT) as outcome:
        if device.put is None or recorder.part == "onnxruntime":
            outcome.skip("only TensorRT and TensorRT-RTX record CUDA graphs here")
            return
        window, other = _window(FROZEN), _window(FROZEN, turned=True)
        plain, recorded, replayed = backend.run(*window), backend.run(*other), backend.run(*window)
        outcome.require(
            np.array_equal(plain, replayed) and not np.array_equal(plain, recorded),
            "the replayed launch equals the plain one",
            expected="equal bits, and another window's alpha for another window",
            fix=REPORT_IT,
        )


def _dlpack(recorder: Recorder, backend: Backend, device: Device) -> None:
    with recorder.checked("dlpack", REPORT_IT) as outcome:
        if device.put is None or device.get is None:
            outcome.skip("arrays on a GPU need one")
            return
        image, trimap = _window(FREE)
        expected = backend.run(image, trimap)
        kept = backend.run_on_device(device.put(image), device.put(trimap))
        again = backend.run_on_device(device.put(image), device.put(trimap))
        equal = [np.array_equal(device.get(alpha), expected) for alpha in (kept, again, kept)]
        outcome.require(
            all(equal),
            f"{sum(equal)} of {len(equal)} results on the GPU equal those on the host",
            expected="all, also after later windows",
            fix=REPORT_IT,
        )


def _recovers(recorder: Recorder, backend: Backend, device: Device) -> None:
    with recorder.checked("recovers", REPORT_IT) as outcome:
        window = _window(FREE)
        before = backend.run(*window)
        try:
            device.exhaust(TOO_MANY_BYTES)
            refused = False
        except (BackendError, MemoryError):
            refused = True
        outcome.require(
            refused and np.array_equal(backend.run(*window), before),
            "works after a refused allocation" if refused else "an impossible allocation was not refused",
            expected="a typed error for 2^50 bytes, and the same alpha afterwards",
            fix=REPORT_IT,
        )


def _leaks(recorder: Recorder, path: Path, open_model: Callable[[Path], Backend], device: Device) -> None:
    with recorder.checked("leaks", REPORT_IT) as outcome:
        free = []
        for _ in range(LEAK_ROUNDS):
            backend = open_model(path)
            backend.run(*_window(FREE))
            backend.close()
            free.append(device.free_bytes())
        # A leak takes memory in every round; an allocator that grows once, or another process, does not.
        lost = int(median(before - after for before, after in pairwise(free)) * (LEAK_ROUNDS - 1))
        outcome.require(
            lost <= LEAK_LIMIT,
            f"{max(lost, 0) / 1e6:.0f} MB less after {LEAK_ROUNDS - 1} more rounds",
            expected=f"at most {LEAK_LIMIT / 1e6:.0f} MB",
            fix=REPORT_IT,
            lost_bytes=lost,
        )


def _speed(recorder: Recorder, backend: Backend, device: Device) -> None:
    with recorder.checked("speed", REPORT_IT) as outcome:
        side = SPEED_SIDE
        image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
        trimap = np.full((1, side, side), 128, np.uint8)
        times = []
        for _ in range(SPEED_RUNS):
            started = perf_counter()
            backend.run(image, trimap)
            times.append(perf_counter() - started)
        # The first runs allocate and choose kernels.
        seconds = median(times[2:])
        flops = 2 * backend.metadata.multiply_adds_per_pixel * side * side / seconds
        text = f"{side}×{side}: {seconds * 1e3:.1f} ms, {side * side / seconds / 1e6:.2f} MP/s, "
        text += f"{flops / 1e9:.0f} GFLOP/s"
        share = None if device.flops is None else flops / device.flops
        if share is not None:
            text += f", {share:.0%} of a matrix product's"
        outcome.passed(text, milliseconds=seconds * 1e3, gflops=flops / 1e9, share_of_ceiling=share)


def _window(network: Network, *, turned: bool = False) -> tuple[UInt8, UInt8]:
    """Return the reference's window, or the same turned by 180 degrees."""
    reference = read_reference(network)
    step = -1 if turned else 1
    image, trimap = (array[:, ::step, ::step] for array in (reference.image, reference.trimap))
    return np.ascontiguousarray(image), np.ascontiguousarray(trimap)
