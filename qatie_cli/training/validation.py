"""Validation: PSNR of the averaged weights' outputs to the targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qatie_cli import metrics
from qatie_cli.data import degradation
from qatie_cli.data.source import PairPixels, Source
from qatie_cli.model import tone
from qatie_cli.model.config import THUMBNAIL_PX
from qatie_cli.model.network import Rounding
from qatie_cli.model.whole import Model


@dataclass(frozen=True)
class Score:
    """Mean PSNR in dB over the validation photos (NaN without photos), and the outputs (H, W, 3) uint8."""

    psnr_db: float
    outputs: tuple[np.ndarray, ...]


@torch.no_grad()
def toned(model: Model, photo_u8: np.ndarray) -> Tensor:
    """A photo (H, W, 3) as the network sees it, (1, 3, H, W) in 0..1."""
    device = next(model.parameters()).device
    photo = torch.from_numpy(degradation.from_u8(photo_u8)).permute(2, 0, 1)[None].to(device)
    side = model.tone.config.view_px if model.tone is not None else THUMBNAIL_PX
    return model.toned(photo, tone.view(photo_u8, side).to(device))


def calibration_photos(model: Model, source: Source) -> list[Tensor]:
    """The photos that int8 ranges are calibrated on, as the network sees them."""
    return [toned(model, photo) for photo in source.calibration()]


@torch.no_grad()
def output(model: Model, photo_u8: np.ndarray, rounding: Rounding | None) -> np.ndarray:
    """The enhanced photo (H, W, 3) uint8; `rounding` None applies the tone stage alone."""
    result = toned(model, photo_u8)
    if rounding is not None:
        result = result + model.network(result, rounding)
    return degradation.to_u8(result[0].permute(1, 2, 0).cpu().numpy())


def score(model: Model, pairs: Sequence[PairPixels], rounding: Rounding | None) -> Score:
    """Score a model on pairs; `rounding` None scores the tone stage alone."""
    outputs = tuple(output(model, pair.input, rounding) for pair in pairs)
    if not outputs:
        return Score(math.nan, outputs)
    scores = [metrics.psnr(result, pair.target) for result, pair in zip(outputs, pairs, strict=True)]
    return Score(float(np.mean(np.minimum(scores, metrics.BEST_DB))), outputs)
