"""Verify that an artefact computes the function of its checkpoint.

Every case runs through the runtime, the code that ships, and is compared with PyTorch on the whole image.
:mod:`dim_export.parity.gates` has the limits and their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dim.arrays import Floating, WindowShape
from dim_export.measure.opened import OpenedArtefact, open_artefact
from dim_export.parity.cases import LARGE_TILE, Case, Picture, cases, pictures
from dim_export.parity.comparison import Difference, against_truth, compare
from dim_export.parity.gates import Gate, gates_for
from dim_export.parity.other_tools import ToolResult, after_other_tools, most_outputs
from dim_export.parity.pooling_choices import SwitchProbe, count_different
from dim_export.parity.reference import Expected, Reference, padded
from dim_export.parity.result import CaseResult, ParityReport, PoolingCount
from dim_runtime.errors import AlphaError, TileError
from dim_runtime.matting import Matting
from dim_runtime.planning.geometry import Plan

if TYPE_CHECKING:
    import onnx

Observer = Callable[[Case, Floating, Floating], object]
"""Called after each case with the case, the reference's alpha and the artefact's, both floating H, W."""


class Examination:
    """Collects the results of one artefact, picture by picture.

    Args:
        artefact: the opened artefact; the caller closes it.
        reference: the checkpoint's side, which several examinations may share.
        observer: called after each case.
    """

    def __init__(
        self, artefact: OpenedArtefact, reference: Reference, observer: Observer = lambda *_: None
    ) -> None:
        self.artefact, self._reference, self._observer = artefact, reference, observer
        self._probe = _probe(artefact)
        self._results: list[CaseResult] = []
        self._left_out: list[str] = []
        self._tools: tuple[ToolResult, ...] = ()

    def look_at(self, picture: Picture) -> None:
        """Run and compare every case of a picture; cases that a frozen shape does not admit are left out."""
        for case in cases(picture, self.artefact.backend.metadata):
            try:
                plan = Matting.from_backend(self.artefact.backend, tile=case.tile).plan(case.sample.trimap)
            except TileError:
                self._left_out.append(case.sample.name)
                continue
            assert not case.tiled or len(plan.windows) > 1, f"the case {case.sample.name} is one window"
            self._measure(case, plan)

    def rewrite(self) -> None:
        """Compare the artefact with itself after other tools have rewritten it."""
        self._tools = after_other_tools(self.artefact)

    def report(self, checkpoint: Path, gates: tuple[Gate, ...] | None = None) -> ParityReport:
        """Return the results so far.

        Args:
            checkpoint: the file of the reference.
            gates: None takes the gates of the precision that the artefact computes in.
        """
        artefact = self.artefact
        model = _model(artefact.path)
        return ParityReport(
            checkpoint=checkpoint.name,
            artefact=artefact.path.name,
            precision=artefact.precision,
            engine=artefact.description,
            device=artefact.device,
            checkpoint_sha256=self._reference.sha256,
            recorded_sha256=artefact.backend.metadata.checkpoint_sha256,
            not_finite=(
                *_not_finite(checkpoint, self._reference.tensors()),
                *_not_finite(artefact.path, _initialisers(model)),
            ),
            gates=gates or gates_for(artefact.precision),
            cases=tuple(self._results),
            left_out=tuple(self._left_out),
            node_outputs=None if model is None else most_outputs(model),
            tools=self._tools,
        )

    def _measure(self, case: Case, plan: Plan) -> None:
        _, trimap, truth, name = case.sample
        expected = self._reference.expected(case, plan)
        found = self._alpha(case)
        static_shape = self.artefact.backend.metadata.static_shape
        self._results.append(
            CaseResult(
                name=name,
                height=trimap.shape[0],
                width=trimap.shape[1],
                tile=case.tile,
                windows=len(plan.windows),
                ties=case.ties,
                pooling=_pooling_count(self._probe, expected, case, plan, static_shape),
                against_float64=_against_float64(expected, found, case),
                truth=None if truth is None else against_truth(expected.alpha, found, truth, trimap),
                **compare(expected.alpha, found, trimap).model_dump(),
            )
        )
        self._observer(case, expected.alpha, found)

    def _alpha(self, case: Case) -> Floating:
        """Return the artefact's alpha; NaN everywhere if the runtime refuses it as no alpha."""
        image, trimap = case.sample.image, case.sample.trimap
        try:
            return Matting.from_backend(self.artefact.backend, tile=case.tile)(image, trimap)
        except AlphaError:
            return np.full(trimap.shape, np.nan, np.float32)


def verify(
    checkpoint_path: Path,
    artefact: Path,
    *,
    gates: tuple[Gate, ...] | None = None,
    threads: int | None = None,
) -> ParityReport:
    """Compare an artefact with a checkpoint on the shipped photograph and the tie image.

    Args:
        checkpoint_path: a checkpoint of any kind that :func:`dim.checkpoint.load` reads.
        artefact: a file that the runtime can run here.
        gates: None takes the gates of the artefact's precision.
        threads: threads of the engine; None leaves the choice to the engine.

    Raises:
        CheckpointError, ArtefactError, BackendError, MissingExtraError: either side cannot be loaded.
    """
    reference = Reference(checkpoint_path)
    opened = open_artefact(artefact, threads=threads)
    try:
        examination = Examination(opened, reference)
        for picture in pictures():
            examination.look_at(picture)
        return examination.report(checkpoint_path, gates)
    finally:
        opened.backend.close()


def _not_finite(file: Path, tensors: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield ``FILE: NAME`` for each tensor that holds a NaN or an infinity."""
    for name, values in tensors:
        # bfloat16 and float8 are no types of numpy; float32 holds their values, and all integers are finite.
        if not np.isfinite(values.astype(np.float32)).all():
            yield f"{file.name}: {name}"


def _model(artefact: Path) -> onnx.ModelProto | None:
    """Return the graph of an ``.onnx`` file; None for an engine, which cannot be read."""
    if artefact.suffix != ".onnx":
        return None
    import onnx

    return onnx.load(artefact)


def _initialisers(model: onnx.ModelProto | None) -> Iterator[tuple[str, Any]]:
    """Yield name and values of the tensors of a graph."""
    if model is None:
        return
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)


def _probe(artefact: OpenedArtefact) -> SwitchProbe | None:
    if artefact.name != "onnxruntime" or artefact.device != "cpu":
        return None
    probe = SwitchProbe(artefact.path, threads=artefact.threads)
    return probe if probe.works else None


def _pooling_count(
    probe: SwitchProbe | None, expected: Expected, case: Case, plan: Plan, frozen: WindowShape | None
) -> PoolingCount | None:
    """Compare the pooling choices of the whole image in one pass, as the reference ran it.

    Cases that cut the same image into tiles are not counted, because they would repeat it.
    """
    if probe is None or expected.choices is None or case.tile != LARGE_TILE:
        return None
    if frozen is not None and frozen[1:] != (plan.padded_height, plan.padded_width):
        return None
    image, trimap = padded(case.sample.image, case.sample.trimap, plan)
    found = probe.choices(image[None], trimap[None])
    return PoolingCount(
        windows=sum(level.size for level in found), different=count_different(expected.choices, found)
    )


def _against_float64(expected: Expected, found: Floating, case: Case) -> Difference | None:
    return None if expected.float64 is None else compare(expected.float64, found, case.sample.trimap)
