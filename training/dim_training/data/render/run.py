"""Render many seeds in several processes, and keep what is finished."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dim.errors import MissingExtraError
from dim_training.data.render import blender
from dim_training.data.render.backgrounds import stage_background
from dim_training.data.render.data_set import DataSet, Entry, Settings, file_name, soft_share, write_image
from dim_training.data.render.develop import develop, develop_background
from dim_training.data.render.staging import stage
from dim_training.processes import worker_processes


@dataclass(frozen=True)
class Failure:
    """A seed that could not be rendered; ``text`` is the traceback."""

    seed: int
    text: str


def render_all(
    folder: Path, seeds: Sequence[int], settings: Settings, *, processes: int, subject: str | None = None
) -> Iterator[Entry | Failure]:
    """Render the seeds that the folder lacks, and yield each when it is finished or has failed.

    Args:
        processes: Blender processes; each uses one core.
        subject: render this subject for every seed instead of the seed's own.

    Raises:
        MissingExtraError: bpy is not installed.
        InputError: the folder holds images with other settings.
        DimError: a process was killed. What is finished stays; start again to render the rest.
    """
    # Importing bpy here would put its private folders on the search path of the worker processes.
    if find_spec("bpy") is None:
        raise MissingExtraError("render foregrounds", package="bpy", extra="render")
    data_set = DataSet(folder, settings)
    finished = data_set.finished()
    todo = [seed for seed in seeds if seed not in finished]
    if not todo:
        return
    fix = "fewer --processes; run again: images that were rendered are kept"
    with worker_processes(min(processes, len(todo)), fix=fix) as pool:
        jobs = [pool.submit(_try_to_render, seed, folder, settings, subject) for seed in todo]
        for job in as_completed(jobs):
            result = job.result()
            if isinstance(result, Entry):
                data_set.add(result)
            yield result


def render_image(seed: int, folder: Path, settings: Settings, subject: str | None = None) -> Entry:
    """Render one seed into a folder, and return its entry for the index."""
    if settings.kind == "backgrounds":
        return _render_background(seed, folder, settings)
    staged = stage(seed, subject)
    passes = blender.render(
        staged, size=settings.size, samples=settings.samples, alpha_samples=settings.alpha_samples, threads=1
    )
    rgba = develop(passes.noisy, passes.clean, passes.alpha, exposure=staged.exposure)
    name = file_name(seed, staged.subject)
    write_image(folder / name, rgba)
    return Entry(
        file=name, seed=seed, subject=staged.subject, soft=soft_share(rgba), parameters=staged.record
    )


def _render_background(seed: int, folder: Path, settings: Settings) -> Entry:
    staged = stage_background(seed)
    linear = blender.render_background(staged, size=settings.size, samples=settings.samples, threads=1)
    name = file_name(seed, staged.subject)
    write_image(folder / name, develop_background(linear, exposure=staged.exposure))
    return Entry(file=name, seed=seed, subject=staged.subject, soft=0.0, parameters=staged.record)


def _try_to_render(seed: int, folder: Path, settings: Settings, subject: str | None) -> Entry | Failure:
    # Not every exception survives the way between processes; its text does.
    try:
        return render_image(seed, folder, settings, subject)
    except Exception:
        return Failure(seed, traceback.format_exc())
