"""Does an artefact compute what its checkpoint computes?

Every case runs through the runtime, the code that ships, and is compared with PyTorch on the whole image.
What is judged, and where the limits come from, stands in :mod:`dim_export.parity.gates`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dim.arrays import Floating, WindowShape
from dim_export.measure.opened import OpenedArtefact, open_engine
from dim_export.parity.cases import LARGE_TILE, Case, Picture, cases, pictures
from dim_export.parity.comparison import Difference, against_truth, compare
from dim_export.parity.gates import Gate, gates_for
from dim_export.parity.heat_map import Snapshot, worst_window
from dim_export.parity.pooling_choices import SwitchProbe, count_different
from dim_export.parity.reference import Expected, Reference, padded
from dim_export.parity.result import CaseResult, ParityReport, PoolingCount
from dim_runtime.errors import AlphaError, TileError
from dim_runtime.matting import Matting
from dim_runtime.planning.geometry import Plan


class Examination:
    """Collects the results of one artefact, picture by picture."""

    def __init__(self, engine: OpenedArtefact, reference: Reference) -> None:
        self.engine, self._reference = engine, reference
        self._probe = _probe(engine)
        self._results: list[CaseResult] = []
        self._left_out: list[str] = []
        self.worst: Snapshot | None = None
        """The window with the largest sum of differences, the tie image aside; None before the first case."""

    def look_at(self, picture: Picture) -> None:
        """Run every case of a picture."""
        for case in cases(picture, self.engine.backend.metadata):
            try:
                plan = Matting.from_backend(self.engine.backend, tile=case.tile).plan(case.trimap)
            except TileError:
                self._left_out.append(case.name)
                continue
            assert not case.tiled or len(plan.windows) > 1, f"the case {case.name} is one window"
            self._measure(case, plan)

    def report(self, checkpoint: Path, gates: tuple[Gate, ...] | None = None) -> ParityReport:
        """Everything found so far.

        Args:
            gates: None takes those of the precision that the engine computes in.
        """
        engine = self.engine
        return ParityReport(
            checkpoint=checkpoint.name,
            artefact=engine.path.name,
            precision=engine.precision,
            engine=engine.description,
            device=engine.device,
            checkpoint_sha256=self._reference.sha256,
            recorded_sha256=engine.backend.metadata.checkpoint_sha256,
            not_finite=self._not_finite(checkpoint),
            gates=gates or gates_for(engine.precision),
            cases=tuple(self._results),
            left_out=tuple(self._left_out),
        )

    def _measure(self, case: Case, plan: Plan) -> None:
        metadata = self.engine.backend.metadata
        expected = self._reference.expected(case, plan)
        found = self._alpha(case)
        self._results.append(
            CaseResult(
                name=case.name,
                height=case.trimap.shape[0],
                width=case.trimap.shape[1],
                tile=case.tile,
                windows=len(plan.windows),
                ties=case.ties,
                pooling=_pooling_count(self._probe, expected, case, plan, metadata.static_shape),
                against_float64=_against_float64(expected, found, case),
                truth=None
                if case.truth is None
                else against_truth(expected.alpha, found, case.truth, case.trimap),
                **compare(expected.alpha, found, case.trimap).model_dump(),
            )
        )
        if not case.ties:
            self._keep_worse(worst_window(case, expected.alpha, found))

    def _alpha(self, case: Case) -> Floating:
        """Return the artefact's alpha; NaN everywhere if the runtime refuses it as no alpha."""
        try:
            return Matting.from_backend(self.engine.backend, tile=case.tile)(case.image, case.trimap)
        except AlphaError:
            return np.full(case.trimap.shape, np.nan, np.float32)

    def _keep_worse(self, snapshot: Snapshot) -> None:
        if self.worst is None or snapshot.total > self.worst.total:
            self.worst = snapshot

    def _not_finite(self, checkpoint: Path) -> tuple[str, ...]:
        found = [f"{checkpoint.name}: {name}" for name in self._reference.not_finite]
        if self.engine.path.suffix == ".onnx":
            from dim_export.parity.finiteness import not_finite

            found += [f"{self.engine.path.name}: {name}" for name in not_finite(self.engine.path)]
        return tuple(found)


def verify(
    checkpoint_path: Path,
    artefact: Path,
    *,
    gates: tuple[Gate, ...] | None = None,
    threads: int | None = None,
) -> ParityReport:
    """Measure an artefact against a checkpoint on the shipped photograph and the tie image.

    Args:
        artefact: a file that the runtime can run here.
        gates: None takes those of the artefact's precision.
        threads: of the engine; None leaves the choice to it.

    Raises:
        CheckpointError, ArtefactError, BackendError, MissingExtraError: either side cannot be loaded.
    """
    reference = Reference(checkpoint_path)
    engine = open_engine(artefact, threads=threads)
    try:
        examination = Examination(engine, reference)
        for picture in pictures():
            examination.look_at(picture)
        return examination.report(checkpoint_path, gates)
    finally:
        engine.backend.close()


def _probe(engine: OpenedArtefact) -> SwitchProbe | None:
    if engine.name != "onnxruntime" or engine.device != "cpu":
        return None
    probe = SwitchProbe(engine.path, threads=engine.threads)
    return probe if probe.works else None


def _pooling_count(
    probe: SwitchProbe | None, expected: Expected, case: Case, plan: Plan, frozen: WindowShape | None
) -> PoolingCount | None:
    """Of the whole image in one pass, as the reference ran it: a tiled case would only repeat it."""
    if probe is None or expected.choices is None or case.tile != LARGE_TILE:
        return None
    if frozen is not None and frozen[1:] != (plan.padded_height, plan.padded_width):
        return None
    image, trimap = padded(case.image, case.trimap, plan)
    found = probe.choices(image[None], trimap[None])
    return PoolingCount(
        windows=sum(level.size for level in found), different=count_different(expected.choices, found)
    )


def _against_float64(expected: Expected, found: Floating, case: Case) -> Difference | None:
    return None if expected.float64 is None else compare(expected.float64, found, case.trimap)
