"""Print what plans cost: multiply-adds of the planned windows over those of the whole image.

    python tools/plan_costs.py TRIMAPS [--tile N] [--memory-limit 8GB]

Nothing is run. The networks are the embedded one and the published one (full width), with graphs that drop
margins and propagate in separate windows, as ``dim-export onnx`` writes them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import dim.trimap
from dim.arrays import Floating, UInt8
from dim.contract import ArtefactMetadata, NetworkConfig, exact_context
from dim.contract.layers import multiply_adds_per_pixel
from dim.errors import DimError
from dim.images.folders import image_files
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.base import Backend
from dim_runtime.backends.open import default_model
from dim_runtime.memory import format_bytes, parse_bytes
from dim_runtime.planning.geometry import Plan
from dim_runtime.planning.planner import Context, Planner, PlanOptions, Tile
from dim_runtime.planning.survey import TrimapSurvey, survey

CONTEXTS: tuple[Context, ...] = ("exact", 64)


class PlannedNetwork(Backend):
    """A network that is planned for and never run.

    Args:
        config: which network.
        cropping: whether its graph drops margins, and propagates in windows of its own.
    """

    def __init__(self, config: NetworkConfig, *, cropping: bool = True) -> None:
        self._cropping = cropping
        self._metadata = ArtefactMetadata(
            network=config,
            precision="fp32",
            context=exact_context(config),
            multiply_adds_per_pixel=multiply_adds_per_pixel(config),
            parameters=1,
            checkpoint_sha256="",
            versions={},
            oldest_readers={},
            command="",
        )

    @property
    def metadata(self) -> ArtefactMetadata:
        return self._metadata

    @property
    def crops(self) -> bool:
        return self._cropping

    @property
    def phases(self) -> bool:
        return self._cropping and bool(self._metadata.network.propagation_steps)

    def run(self, image: UInt8, trimap: UInt8) -> Floating:
        raise NotImplementedError("planning runs nothing")


class Row(NamedTuple):
    """Means over the trimaps; the largest is of the cost."""

    network: str
    context: Context
    cropping: bool
    cost: float
    largest: float
    windows: float
    peak: int
    milliseconds: float


def row(name: str, backend: PlannedNetwork, options: PlanOptions, surveys: Sequence[TrimapSurvey]) -> Row:
    """Plan for every trimap."""
    started = time.perf_counter()
    plans: list[Plan] = [Planner(found, backend, options).plan() for found in surveys]
    seconds = time.perf_counter() - started
    costs = [plan.cost for plan in plans]
    return Row(
        name,
        options.context,
        backend.crops,
        fmean(costs),
        max(costs),
        fmean(len(plan.windows) for plan in plans),
        max(plan.peak_bytes for plan in plans),
        1000 * seconds / len(plans),
    )


def networks() -> dict[str, NetworkConfig]:
    """Return the networks by name."""
    return {"embedded": read_metadata(default_model()).network, "full width": NetworkConfig(stage=3)}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trimaps", type=Path)
    parser.add_argument("--tile", default="auto")
    parser.add_argument("--memory-limit", type=parse_bytes)
    given = parser.parse_args()
    tile: Tile = "auto" if given.tile == "auto" else int(given.tile)
    surveys = [survey(dim.trimap.read(path).trimap) for path in image_files(given.trimaps)]
    print(f"{len(surveys)} trimaps, tile {tile}\n")
    print("| network | context | graph | mean cost | largest | windows | largest peak | planning |")
    print("|---|---|---|---|---|---|---|---|")
    for name, config in networks().items():
        for context in CONTEXTS:
            for cropping in (False, True):
                backend = PlannedNetwork(config, cropping=cropping)
                found = row(name, backend, PlanOptions(tile, context, given.memory_limit), surveys)
                graph = "drops margins" if cropping else "whole windows"
                print(
                    f"| {found.network} | {found.context} | {graph} "
                    f"| {found.cost:.3f} | {found.largest:.3f} | {found.windows:.1f} "
                    f"| {format_bytes(found.peak)} | {found.milliseconds:.0f} ms |"
                )


if __name__ == "__main__":
    try:
        main()
    except DimError as error:
        sys.exit(f"error: {error}")
