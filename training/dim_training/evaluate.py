"""Scoring a network on a folder of photographs: ``images/``, ``trimaps/``, ``alphas/``, equal stems."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from dim import metrics
from dim import trimap as trimaps
from dim.contract import STRIDE
from dim.errors import InputError
from dim.network import DIM, normalise
from dim_training.dataset import image_files
from dim_training.transforms import UInt8


class Photograph(NamedTuple):
    """``image`` uint8 H, W, 3 RGB; ``trimap`` (canonical) and ``alpha`` (truth) uint8 H, W."""

    name: str
    image: UInt8
    trimap: UInt8
    alpha: UInt8


class Score(NamedTuple):
    """Scores of one photograph; SAD is summed over its unknown pixels and divided by 1000."""

    name: str
    sad: float
    mse: float
    seconds: float


def read_photographs(root: Path) -> list[Photograph]:
    """All photographs of a folder; a missing or mis-sized partner is an error."""
    return [_read_photograph(path, root) for path in image_files(root / "images")]


def _read_photograph(path: Path, root: Path) -> Photograph:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    alpha = cv2.imread(str(_partner(path, root / "alphas")), cv2.IMREAD_GRAYSCALE)
    trimap = trimaps.read(_partner(path, root / "trimaps")).trimap
    if image is None or alpha is None or not image.shape[:2] == alpha.shape == trimap.shape:
        raise InputError(f"cannot score {path}", expected="image, trimap and alpha of one size")
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return Photograph(path.stem, rgb, trimap, alpha.astype(np.uint8, copy=False))


def _partner(path: Path, folder: Path) -> Path:
    for candidate in sorted(folder.glob(f"{path.stem}.*")):
        return candidate
    raise InputError(f"cannot score {path}", got=f"no {path.stem}.* in {folder}")


@torch.inference_mode()
def predict(model: DIM, image: UInt8, trimap: UInt8) -> UInt8:
    """Whole-image alpha uint8 H, W as the published test does it.

    Reflected to multiples of 32 at the bottom and the right, cropped back, known pixels forced.
    """
    height, width = trimap.shape
    pad = ((0, -height % STRIDE), (0, -width % STRIDE))
    device = next(model.parameters()).device
    padded = torch.from_numpy(np.pad(image, (*pad, (0, 0)), mode="reflect")).to(device).permute(2, 0, 1)[None]
    padded_trimap = torch.from_numpy(np.pad(trimap, pad, mode="reflect")).to(device)[None, None]
    alpha = model(normalise(padded, padded_trimap))[0, 0, :height, :width].float().cpu().numpy()
    result: UInt8 = np.rint(alpha * 255).astype(np.uint8)
    result[trimap == trimaps.BACKGROUND] = 0
    result[trimap == trimaps.FOREGROUND] = 255
    return result


def score(prediction: UInt8, photograph: Photograph, seconds: float = 0.0) -> Score:
    """SAD and MSE; truth is taken from the trimap where it is known, so that only unknown pixels count."""
    truth = photograph.alpha.copy()
    truth[photograph.trimap == trimaps.BACKGROUND] = 0
    truth[photograph.trimap == trimaps.FOREGROUND] = 255
    sad = metrics.sad(prediction, truth, photograph.trimap)
    return Score(photograph.name, sad, metrics.mse(prediction, truth, photograph.trimap), seconds)


def score_network(model: DIM, photographs: list[Photograph]) -> list[Score]:
    """Scores of a network in eval mode, one photograph after the other."""
    return [score(predict(model, photo.image, photo.trimap), photo) for photo in photographs]


def mean_sad(scores: list[Score]) -> float:
    """Unweighted mean over the photographs."""
    return float(np.mean([item.sad for item in scores]))
