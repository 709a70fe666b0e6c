"""Trace the exported graph: pre-processing, the network with index-free pooling, post-processing.

The network is wrapped, never edited: :class:`MattingGraph` is a torch module with the artefact's inputs and
output, and :func:`trace` turns it into an ONNX model.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from onnxscript import ir
from torch import Tensor, nn

from dim.arrays import WindowShape
from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, OUTPUT_ALPHA, REFINED, STRIDE, TRUST
from dim.contract.cropping import REFINER_CROP, crop_names
from dim.errors import InputError
from dim.network import DIM, Estimate, Refiner, adjusted, normalise
from dim.network.colour_cues import Known, with_known
from dim.network.folding import fold_batch_norm
from dim_export.graph.clean import tidy
from dim_export.graph.marks import IMAGE, REFINER, crop, name, resolve
from dim_export.graph.pooling import SlicingPooling, SymbolicPooling, bounded
from dim_runtime.planning.geometry import round_up

OPSET = 18
IR_VERSION = 8
"""The file format of opset 18. Older engines cannot read the exporter's newer default."""
EXAMPLE = (2, 2 * STRIDE, 3 * STRIDE)
"""N, H, W with which graphs of free shape are traced. No side is 1 at any level: broadcasts treat 1 apart."""


class MattingGraph(nn.Module):
    """The artefact as a torch module.

    Args:
        model: any DIM; it is copied, its batch norm folded, its pooling replaced.
        dtype: type of the convolutions and of all operators between them. Normalisation, colour cues and the
            operators after the last convolution are in float32.
        slicing: pool with :class:`SlicingPooling`.
    """

    def __init__(self, model: DIM, dtype: torch.dtype = torch.float32, *, slicing: bool = False) -> None:
        super().__init__()
        folded = fold_batch_norm(model)
        self.network = DIM(folded.config, pooling=SlicingPooling() if slicing else SymbolicPooling())
        self.network.load_state_dict(folded.state_dict())
        self.network.to(dtype)
        self.dtype, self.slicing = dtype, slicing
        self.crops_refiner = REFINER_CROP in crop_names(folded.config)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, trimap: Tensor) -> Tensor:
        """Return alpha float32 N, H, W in [0, 1] of image uint8 N, H, W, 3 RGB and trimap uint8 N, H, W.

        H and W are multiples of 32. Exactly 0 and 1 where the trimap is 0 and 255.
        """
        # Cast before anything else: engines take uint8 as an input, but TensorRT computes nothing with it.
        colours, levels = image.float().permute(0, 3, 1, 2), trimap.float().unsqueeze(1)
        x = normalise(colours, levels)
        seen = adjusted(x, self.network.config)
        encoded = seen.to(self.dtype)
        logits: Tensor = self.network.backbone(encoded if self.slicing else bounded(encoded))
        # What follows may see less of the window than the encoder.
        own = seen is x
        x, levels = crop(x, IMAGE), crop(levels, IMAGE)
        # Known pixels come from the input's levels, with half a level to spare and before any division. After
        # it, an equality with 1 fails as soon as a tool stores 1/255 in half precision.
        known = Known(levels < 0.5, levels > 254.5)
        if self.network.refiner is None:
            return with_known(torch.sigmoid(logits.float()), known).squeeze(1)
        seen = x if own else crop(seen, IMAGE)
        read = self.network.refiner.read(seen, torch.sigmoid(logits), known)
        if self.crops_refiner:
            # The refiner's convolutions need less than its cues.
            read, logits, x = (crop(value, REFINER) for value in (read, logits, x))
            known = Known(*(crop(value, REFINER) for value in known))
        return with_known(self._refined(self.network.refiner, read, logits, x, known), known).squeeze(1)

    def _refined(self, refiner: Refiner, read: Tensor, logits: Tensor, x: Tensor, known: Known) -> Tensor:
        """Return the refiner's alpha, propagated where the network does so; float32 N, 1, H, W."""
        refined, trust = refiner.estimate(read, logits)
        if trust is None:
            return refined
        estimate = Estimate(name(refined, REFINED), name(trust, TRUST))
        return refiner.propagate(x, estimate, known)


def trace(
    model: DIM,
    *,
    static_shape: WindowShape | None = None,
    dtype: torch.dtype = torch.float32,
    slicing: bool = False,
    opset: int = OPSET,
    ir_version: int = IR_VERSION,
) -> ir.Model:
    """Return the ONNX model of a network with its weights, without metadata.

    Args:
        model: any network; it is not changed.
        static_shape: N, H, W to freeze; None leaves all three free (H and W multiples of 32).
        dtype: float32, float16 or bfloat16, as in :class:`MattingGraph`; inputs and output stay the same.
        slicing: pool with :class:`SlicingPooling`, for graphs that become int8.
        opset: version of the operator set that the file declares.
        ir_version: version of the file format that the file declares.

    Raises:
        InputError: a side that is no positive multiple of 32.
    """
    # No operator of the network takes a size as a number, so the graph is the same for every shape. A trace
    # with symbols in place of sizes has the same nodes (a test compares them), but takes four times as long.
    n, h, w = _checked(static_shape) if static_shape else EXAMPLE
    example = (torch.zeros(n, h, w, 3, dtype=torch.uint8), torch.zeros(n, h, w, dtype=torch.uint8))
    with _quiet_exporter():
        program = torch.onnx.export(
            MattingGraph(model, dtype, slicing=slicing),
            example,
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT_IMAGE, INPUT_TRIMAP],
            output_names=[OUTPUT_ALPHA],
            verbose=False,
        )
    assert program is not None
    onnx_model = program.model
    onnx_model.ir_version = ir_version
    # A frozen window has one core and one set of margins.
    return resolve(tidy(onnx_model, frozen=static_shape is not None), cropping=static_shape is None)


def _checked(shape: WindowShape) -> WindowShape:
    n, h, w = shape
    if n < 1 or min(h, w) < STRIDE or h % STRIDE or w % STRIDE:
        raise InputError(
            "cannot freeze this shape",
            got=f"N, H, W = {n}, {h}, {w}",
            expected=f"N of 1 or more, H and W positive multiples of {STRIDE} pixels",
            fix=f"--shape {max(n, 1)},{_up(h)},{_up(w)}",
        )
    return shape


def _up(side: int) -> int:
    return max(STRIDE, round_up(side))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence messages of the exporter that do not concern users, such as the shared names of equal axes."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
