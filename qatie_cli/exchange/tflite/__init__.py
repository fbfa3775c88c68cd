"""Weights as a TFLite (LiteRT) model, in float or with the integers of the int8 engines.

Scales are those of the weights file, so nothing is calibrated again. Tensors are NHWC and hold one photo.
"""

from __future__ import annotations

import json

import numpy as np

from qatie_cli.exchange.record import HEADER, TENSORS, Record
from qatie_cli.exchange.tflite.operators import TfliteOperators
from qatie_cli.graphs import graph
from qatie_cli.graphs.kernels import Arithmetic
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.quantization.scheme import PHOTO

# The photo's sides that a file of any size names; whoever runs it sets others first.
NOMINAL_SIDES = (256, 256)


def build(weights: Weights, *, int8: bool, size: tuple[int, int] | None = None, whole: bool = True) -> bytes:
    """Write `weights` as a TFLite model.

    Args:
        weights: calibrated ones if `int8`.
        int8: the network in 8-bit integers; else everything is float32.
        size: height and width of the photo, multiples of 8. None leaves them to whoever runs the model, who resizes the
            input `photo` before allocating tensors: to multiples of 8, too, or the run fails.
        whole: from photo to enhanced photo; else the refinement network alone.

    Returns:
        The file's content. Whole: inputs `photo` (1, H, W, 3) and, where the weights have a tone stage, `thumbnail`
        (1, side, side, 3), as `view.view_u8` makes it of its `view_px`; output `enhanced` (1, H, W, 3). All are uint8
        if `int8`, else float32 in 0..1. Else: input `photo`, already toned, to `residual` (1, H, W, 3) float32, nominal
        range -1..1.

    Raises:
        ValueError: a side of `size` is not a positive multiple of 8.
        WeightsError: int8 was asked for and the weights were never calibrated.
    """
    graph.check(weights, int8, size)
    record = Record(weights, int8)
    ops, arithmetic = TfliteOperators(record), Arithmetic.of(weights, int8)
    at, file = PHOTO if int8 else None, ops.file
    photo = file.input("photo", (1, *(size or NOMINAL_SIDES), 3), at, any_size=size is None)
    if not whole:
        residual = graph.residual(ops, arithmetic, photo)
        file.rename(residual, "residual")
        return file.packed([photo], residual, _metadata(record))
    inputs, thumbnail = [photo], None
    if weights.config.tone is not None:
        side = weights.config.tone.view_px
        thumbnail = file.input("thumbnail", (1, side, side, 3), at, any_size=False)
        inputs.append(thumbnail)
    enhanced = graph.enhanced(ops, weights, arithmetic, photo, thumbnail)
    if int8:
        enhanced = file.operator("QUANTIZE", enhanced, shape=enhanced.shape, at=PHOTO, kind=np.uint8)
    file.rename(enhanced, "enhanced")
    return file.packed(inputs, enhanced, _metadata(record))


def _metadata(record: Record) -> dict[str, bytes]:
    """What the file needs to be imported again, once the graph is complete: the tensors that it lacks."""
    return {HEADER: json.dumps(record.header()).encode(), TENSORS: record.tensors()}
