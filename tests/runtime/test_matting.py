"""The front door: validation, warnings, and exactness with the embedded model."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dim.arrays import Floating, UInt8
from dim.contract import ArtefactMetadata
from dim.errors import InputError
from dim_runtime import Matting
from dim_runtime.backends.base import Backend
from dim_runtime.backends.fake import FakeBackend
from dim_runtime.errors import (
    BackendError,
    DimError,
    FrozenShapeWarning,
    MemoryLimitError,
    NothingUnknownWarning,
    TileError,
    TrimapWarning,
)
from dim_runtime.images.samples import lemur
from dim_runtime.inference.stream import Job
from dim_runtime.planning.planner import STRIP_BYTES

PATIENCE = 60.0
"""Seconds after which a thread that waits for another fails."""


@pytest.fixture
def matting(identity: Any) -> Matting:
    return Matting.from_backend(identity)


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (200, 300)])
def test_alpha_is_float32_of_the_images_size(
    matting: Matting, pair: Any, whole: Any, identity: Any, size: Any
) -> None:
    image, trimap = pair(*size)
    alpha = matting(image, trimap)
    assert alpha.dtype == np.float32
    np.testing.assert_array_equal(alpha, whole(identity, image, trimap).astype(np.float32))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        [[1]],
    ],
    ids=["gray", "four channels", "float", "empty", "list"],
)
def test_wrong_images(matting: Matting, image: Any) -> None:
    with pytest.raises(InputError, match="image"):
        matting(image, np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    "trimap",
    [np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8), np.float32), np.zeros((8, 8), np.bool_), None],
    ids=["three axes", "float", "bool", "none"],
)
def test_wrong_trimaps(matting: Matting, trimap: Any) -> None:
    with pytest.raises(InputError, match="trimap"):
        matting(np.zeros((8, 8, 3), np.uint8), trimap)


def test_a_size_mismatch_names_both(matting: Matting) -> None:
    with pytest.raises(InputError, match=r"(?s)image of 9×8 px.*trimap of 8×9 px"):
        matting(np.zeros((8, 9, 3), np.uint8), np.zeros((9, 8), np.uint8))


def test_mapped_trimap_pixels_are_counted_in_a_warning(matting: Matting, image: Any) -> None:
    trimap = np.zeros((4, 4), np.uint8)
    trimap[0, :3] = 3, 100, 250
    with pytest.warns(TrimapWarning, match="3 pixels") as caught:
        alpha = matting(image(4, 4), trimap)
    assert caught[0].filename == __file__
    assert (alpha[0, 0], alpha[0, 2]) == (0, 1)


def test_a_canonical_trimap_warns_of_nothing(matting: Matting, pair: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matting(*pair(20, 30))


def test_map_keeps_the_order(matting: Matting, pair: Any) -> None:
    pairs = [pair(10, 10 + n, seed=n) for n in range(3)]
    results = list(matting.map(iter(pairs)))
    assert [alpha.shape for alpha in results] == [(10, 10), (10, 11), (10, 12)]


class Batching(Backend):
    """Prefers several windows at a time; alpha is the red channel. A black corner makes it fail."""

    def __init__(self, metadata: ArtefactMetadata, size: int = 2) -> None:
        self._metadata, self._size = metadata, size
        self.shapes: list[tuple[int, ...]] = []

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    @property
    def preferred_batch(self) -> int:
        return self._size

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        self.shapes.append(trimap.shape)
        if (image[:, 0, 0] == 0).all(-1).any():
            raise RuntimeError("out of memory")
        return image[..., 0] / np.float64(255)


def boxes(height: int, width: int) -> tuple[UInt8, UInt8]:
    """Unknown everywhere: all windows of a small tile have one of few shapes."""
    return np.full((height, width, 3), 51, np.uint8), np.full((height, width), 128, np.uint8)


def test_map_batches_windows_of_one_image_and_of_several(metadata: Any) -> None:
    backend = Batching(metadata())
    matting = Matting.from_backend(backend)
    results = list(matting.map([boxes(64, 64)] * 9))
    assert all((alpha == np.float32(0.2)).all() for alpha in results)
    assert sum(shape[0] for shape in backend.shapes) == 9
    assert {shape[0] for shape in backend.shapes} <= {1, 2}
    backend.shapes.clear()
    image, trimap = boxes(64, 1200)
    alone = Matting.from_backend(Batching(metadata(), 1), tile=448)
    tiled = Matting.from_backend(backend, tile=448)
    np.testing.assert_array_equal(tiled(image, trimap), alone(image, trimap))
    assert max(shape[0] for shape in backend.shapes) == 2
    one, two = alone.plan(trimap), tiled.plan(trimap)
    assert two.peak_bytes - one.peak_bytes > 0.5 * backend.window_bytes(64, 448)


def test_a_memory_limit_runs_one_window_at_a_time(metadata: Any) -> None:
    backend = Batching(metadata())
    Matting.from_backend(backend, tile=448, memory_limit=10**12)(*boxes(64, 1200))
    assert {shape[0] for shape in backend.shapes} == {1}


@pytest.mark.parametrize("limit", [None, 10**12])
def test_an_error_surfaces_at_its_place_and_ends_the_map(identity: Any, pair: Any, limit: int | None) -> None:
    good = pair(8, 8)
    results = Matting.from_backend(identity, memory_limit=limit).map(
        [good, good, (good[0], good[1][1:]), good]
    )
    assert [next(results).shape, next(results).shape] == [(8, 8), (8, 8)]
    with pytest.raises(InputError, match="differ in size"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("limit", [None, 10**12])
def test_an_error_of_the_source_surfaces_after_the_results_before_it(
    identity: Any, pair: Any, limit: int | None
) -> None:
    def source() -> Iterator[Any]:
        yield pair(8, 8)
        yield pair(9, 9)
        raise OSError("the disk is gone")

    results = Matting.from_backend(identity, memory_limit=limit).map(source())
    assert [next(results).shape, next(results).shape] == [(8, 8), (9, 9)]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


def test_an_error_of_the_engine_is_the_images_own(metadata: Any) -> None:
    bad = boxes(64, 64)
    bad[0][0, 0] = 0
    matting = Matting.from_backend(Batching(metadata()))
    jobs = [Job(lambda pair=pair: pair) for pair in (boxes(32, 32), bad, boxes(96, 32))]
    errors = [job.error for job in matting.stream(jobs)]
    assert [type(error) for error in errors] == [type(None), RuntimeError, type(None)]


def test_map_is_lazy_bounded_and_stops_when_closed(identity: Any, pair: Any) -> None:
    pulled: list[int] = []

    def source() -> Iterator[Any]:
        for number in range(1000):
            pulled.append(number)
            yield pair(8, 8)

    before = set(threading.enumerate())
    results = Matting.from_backend(identity).map(source())
    assert pulled == []
    for number in range(20):
        next(results)
        assert len(pulled) <= number + 1 + 5
    results.close()
    assert len(pulled) < 30
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_reading_inference_and_finishing_overlap(identity: Any, pair: Any) -> None:
    """The third image is read while the second is computed and the first finished: the three steps meet."""
    meeting = threading.Barrier(3)

    def meets(function: Any, turn: int) -> Any:
        calls = itertools.count()

        def call(*arguments: Any) -> Any:
            if next(calls) == turn:
                meeting.wait(PATIENCE)
            return function(*arguments)

        return call

    made = pair(8, 8)
    load = meets(lambda: made, 2)
    identity.alpha = meets(identity.alpha, 1)
    done = list(
        Matting.from_backend(identity).stream(
            [Job(load) for _ in range(5)], finish=meets(lambda job: None, 0)
        )
    )
    assert [job.error for job in done] == [None] * 5


def test_map_waits_for_no_later_pair(metadata: Any, pair: Any) -> None:
    """A source may make its next pair of the last result, also where windows are batched."""
    results = threading.Semaphore(1)

    def source() -> Iterator[Any]:
        for _ in range(3):
            assert results.acquire(timeout=PATIENCE)
            yield pair(8, 8)

    found = 0
    for _ in Matting.from_backend(Batching(metadata(), 4)).map(source()):
        found += 1
        results.release()
    assert found == 3


def test_under_a_memory_limit_one_pair_is_alive(identity: Any, pair: Any) -> None:
    alive: list[weakref.ref[Any]] = []

    def source() -> Iterator[Any]:
        for _ in range(4):
            assert not any(made() is not None for made in alive)
            made = pair(40, 40)
            alive.append(weakref.ref(made[0]))
            yield made
            del made

    results = Matting.from_backend(identity, memory_limit=10**12).map(source())
    assert sum(1 for _ in results) == 4


def test_map_of_many_sizes_is_the_call_on_each(local_filter: Any, pair: Any) -> None:
    rng = np.random.default_rng(5)
    pairs = [pair(*map(int, rng.integers(1, 150, 2)), seed=n) for n in range(12)]
    pairs.append(boxes(20, 30))
    pairs.append((pairs[-1][0], np.zeros((20, 30), np.uint8)))
    matting = Matting.from_backend(local_filter)
    for alpha, (image, trimap) in zip(matting.map(pairs), pairs, strict=True):
        np.testing.assert_array_equal(alpha, matting(image, trimap))


def test_map_warns_of_mapped_pixels_where_the_result_is_asked_for(matting: Matting, image: Any) -> None:
    trimap = np.full((4, 4), 100, np.uint8)
    with pytest.warns(TrimapWarning, match="16 pixels") as caught:
        list(matting.map([(image(4, 4), trimap)]))
    assert caught[0].filename == __file__


def test_closing(identity: Any, pair: Any) -> None:
    with Matting.from_backend(identity) as matting:
        matting(*pair(8, 8))
    assert identity.closed
    matting.close()
    with pytest.raises(InputError, match="closed"):
        matting(*pair(8, 8))


def test_the_callback_sees_every_window(identity: Any, pair: Any) -> None:
    calls: list[tuple[int, int]] = []
    matting = Matting.from_backend(identity, tile=448, progress=lambda *call: calls.append(call))
    image, trimap = pair(900, 700)
    matting(image, trimap)
    count = len(matting.plan(trimap).windows)
    assert calls[-1] == (count, count)


def test_the_bar_is_written_to_standard_error(
    identity: Any, pair: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Matting.from_backend(identity, progress=True)(*pair(8, 8))
    assert capsys.readouterr().out == ""


def test_plan_and_call_raise_the_same(identity: Any, pair: Any) -> None:
    image, trimap = pair(600, 700)
    small = Matting.from_backend(identity, tile=64)
    with pytest.raises(TileError):
        small.plan(trimap)
    with pytest.raises(TileError):
        small(image, trimap)
    poor = Matting.from_backend(identity, memory_limit=10**6)
    with pytest.raises(MemoryLimitError, match="at least"):
        poor(image, trimap)


def test_options_are_checked_before_the_model_is_loaded() -> None:
    with pytest.raises(InputError, match="tile"):
        Matting("no-such-model.onnx", tile=100)


def test_the_embedded_model_tiled_is_the_whole_image() -> None:
    pytest.importorskip("onnxruntime")
    image, trimap = lemur()
    with Matting() as whole, Matting(tile=672) as tiled:
        assert len(whole.plan(trimap).windows) == 1
        assert len(tiled.plan(trimap).windows) > 1
        difference = np.abs(whole(image, trimap) - tiled(image, trimap))
    assert (difference > 1 / 255).mean() <= 1e-4


def test_the_lemur_is_canonical() -> None:
    image, trimap = lemur()
    assert image.shape == (*trimap.shape, 3) == (440, 680, 3)
    assert set(np.unique(trimap)) == {0, 128, 255}


def test_device_arrays_go_to_the_back_end_as_they_are(identity: Any) -> None:
    seen: list[Any] = []
    identity.run_on_device = lambda image, trimap: seen.extend([image, trimap]) or "alpha"
    image, trimap = object(), object()
    assert Matting.from_backend(identity).on_device(image, trimap) == "alpha"
    assert seen[0] is image
    assert seen[1] is trimap


def test_device_arrays_are_refused_by_back_ends_without_a_device(identity: Any) -> None:
    with pytest.raises(BackendError, match="GPU"):
        Matting.from_backend(identity).on_device(object(), object())


def test_a_job_is_planned_as_a_call_is(metadata: Any, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One place computes the memory that is held: 4 bytes a pixel of output are part of it."""
    monkeypatch.setattr("dim_runtime.matting.resident_bytes", lambda: 10**8)
    image, trimap = pair(200, 300)
    for size in (1, 2):
        matting = Matting.from_backend(Batching(metadata(), size))
        planned = matting.plan(trimap).peak_bytes
        (job,) = matting.stream([Job(lambda: (image, trimap))])
        assert job.plan is not None
        assert job.plan.peak_bytes == planned
        assert matting.into(image, trimap, np.empty(trimap.shape, np.float32)).peak_bytes == planned
        assert matting.into(image, trimap, np.empty(trimap.shape)).peak_bytes == planned + 4 * trimap.size
        empty = [matting.plan(np.zeros((side, 300), np.uint8)).peak_bytes for side in (200, 201)]
        assert empty == [10**8 + STRIP_BYTES + 4 * 300 * side for side in (200, 201)]


@pytest.mark.parametrize("limit", [None, 10**12])
def test_a_progress_callback_may_call_the_matting(identity: Any, pair: Any, limit: int | None) -> None:
    inner, image_and_trimap = [], pair(20, 30)

    def progress(done: int, total: int) -> None:
        if done == total and not inner:
            inner.append(None)
            inner[0] = matting(*image_and_trimap)

    matting = Matting.from_backend(identity, memory_limit=limit, progress=progress)
    np.testing.assert_array_equal(matting(*image_and_trimap), inner[0])


def test_a_frozen_window_larger_than_the_image_is_a_warning(metadata: Any, pair: Any) -> None:
    matting = Matting.from_backend(FakeBackend(metadata(static_shape=(1, 512, 512))))
    with pytest.warns(FrozenShapeWarning, match="512×512 px, not 160×128 px") as caught:
        matting(*pair(120, 160))
    assert caught[0].filename == __file__
    with pytest.warns(FrozenShapeWarning):
        list(matting.map([pair(120, 160)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matting(*pair(500, 512))


def test_a_mask_in_place_of_a_trimap_is_a_warning(identity: Any, image: Any) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9] = 255
    with pytest.warns(NothingUnknownWarning, match="from_soft_mask"):
        alpha = Matting.from_backend(identity)(image(20, 30), mask)
    np.testing.assert_array_equal(alpha, mask / 255)


@pytest.mark.parametrize(
    ("limit", "bytes_"), [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), (7, 7), (None, None)]
)
def test_a_memory_limit_may_be_a_text(identity: Any, limit: Any, bytes_: int | None) -> None:
    assert Matting.from_backend(identity, memory_limit=limit).memory_limit == bytes_


@pytest.mark.parametrize(
    "options", [{"memory_limit": "lots"}, {"memory_limit": 1.5}, {"tile": "512"}, {"tile": 1e3}]
)
def test_options_of_another_type_are_typed_errors(identity: Any, options: Any) -> None:
    with pytest.raises(InputError, match="cannot"):
        Matting.from_backend(identity, **options)


def test_an_open_back_end_excludes_the_arguments_that_open_one(identity: Any) -> None:
    with pytest.raises(InputError, match="threads"):
        Matting(backend=identity, threads=2)


@pytest.mark.parametrize(
    ("image", "advice"),
    [
        (np.zeros((3, 8, 8), np.uint8), "moveaxis"),
        (np.zeros((8, 8, 3), np.int64), r"levels from 0 to 255: image.astype"),
        (np.zeros((8, 8, 3), np.bool_), "astype"),
        (np.zeros((8, 8, 3), np.float32), "255"),
        (np.zeros((8, 8, 3), ">u2"), "byte order"),
        ("photo.png", "read_image"),
        ([[1]], "asarray"),
    ],
)
def test_errors_of_arrays_name_what_to_do(matting: Matting, image: Any, advice: str) -> None:
    with pytest.raises(InputError, match=f"fix: .*{advice}"):
        matting(image, np.zeros((8, 8), np.uint8))


def test_swapped_arguments_and_lone_images_are_explained(matting: Matting, pair: Any) -> None:
    image, trimap = pair(8, 8)
    with pytest.raises(InputError, match="the image first"):
        matting(trimap, image)
    with pytest.raises(InputError, match="a tuple of image and trimap"):
        list(matting.map([image]))
    with pytest.raises(InputError, match="cannot pickle"):
        pickle.dumps(matting)


EXIT_WHILE_MAPPING = """
from dim_runtime import Matting
from dim_runtime.images.samples import lemur
image, trimap = lemur()
results = Matting(threads=2).map((image[:200], trimap[:200]) for _ in range(10**6))
next(results)
"""


def test_the_interpreter_may_exit_while_an_iterator_is_alive() -> None:
    pytest.importorskip("onnxruntime")
    command = [sys.executable, "-c", EXIT_WHILE_MAPPING]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": 5}, "a path"),
        ({"model": b"x"}, "a path"),
        ({"device": None}, '"cpu", "cuda"'),
        ({"device": 0}, '"cpu", "cuda"'),
        ({"threads": "2"}, "a whole number"),
        ({"threads": 1.5}, "a whole number"),
        ({"threads": True}, "a whole number"),
        ({"threads": 99_999_999}, "a whole number"),
        ({"threads": 0}, "a whole number"),
    ],
    ids=str,
)
def test_engine_options_of_another_type_or_range_are_errors_of_ours(options: Any, expected: str) -> None:
    with pytest.raises(DimError, match=rf"(?s)cannot use this.*expected: {expected}"):
        Matting(**options)


def test_pairs_that_cannot_be_iterated_are_an_input_error(matting: Matting) -> None:
    nothing: Any = None
    with pytest.raises(InputError, match=r"(?s)got: NoneType.*expected: an iterable"):
        next(matting.map(nothing))


def interleaved(height: int, width: int) -> tuple[UInt8, UInt8, Any]:
    """Return image, trimap and output, without common bytes but within one range of memory."""
    records = np.zeros((height, width), [("image", np.uint8, 3), ("trimap", np.uint8), ("alpha", np.float32)])
    return records["image"], records["trimap"], records["alpha"]


def test_an_output_over_its_inputs_is_refused(matting: Matting, pair: Any) -> None:
    image, trimap = pair(16, 24)
    memory = np.zeros(4 * trimap.size, np.uint8)
    out = memory.view(np.float32).reshape(trimap.shape)
    over = memory[: image.size].reshape(image.shape)
    over[...] = image
    with pytest.raises(InputError, match="shares with the image"):
        matting.into(over, trimap, out)
    np.testing.assert_array_equal(over, image)
    below = memory[-trimap.size :].reshape(trimap.shape)
    with pytest.raises(InputError, match="shares with the trimap"):
        matting.into(image, below, out)


def test_an_output_between_its_inputs_in_memory_is_taken(matting: Matting, pair: Any) -> None:
    image, trimap, alpha = interleaved(16, 24)
    image[...], trimap[...] = pair(16, 24)
    matting.into(image, trimap, alpha)
    np.testing.assert_array_equal(alpha, matting(*pair(16, 24)))


@pytest.mark.parametrize("values", [(0, 1, 2), (1,), (0, 10)], ids=str)
def test_labels_in_an_array_are_refused_as_from_a_file(
    matting: Matting, image: Any, values: tuple[int, ...]
) -> None:
    trimap = np.resize(np.array(values, np.uint8), (16, 24))
    refused = pytest.raises(InputError, match=rf"(?s)only {', '.join(map(str, values))}:.*labels")
    with refused:
        matting(image(16, 24), trimap)
    with refused:
        matting.into(image(16, 24), trimap, np.empty(trimap.shape, np.float32))
    with refused:
        matting.plan(trimap)
    with refused:
        list(matting.map([(image(16, 24), trimap)]))


def test_an_empty_trimap_and_dark_noise_beside_foreground_are_no_labels(matting: Matting, image: Any) -> None:
    trimap = np.zeros((16, 24), np.uint8)
    with pytest.warns(NothingUnknownWarning):
        assert not matting(image(16, 24), trimap).any()
    trimap[0, :2] = 2, 255
    with pytest.warns(TrimapWarning, match="1 pixels"):
        assert matting(image(16, 24), trimap).sum() == 1
