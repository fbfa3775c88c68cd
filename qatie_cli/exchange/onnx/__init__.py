"""Weights as an ONNX model, in float or with the integers of the int8 engines.

Scales and zero points are those of the weights file, so nothing is calibrated again. Tensors are NCHW and hold one
photo.
"""

from __future__ import annotations

import base64
import json

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from qatie_cli import __version__
from qatie_cli.exchange.record import HEADER, TENSORS, Record
from qatie_cli.graphs import graph
from qatie_cli.graphs.kernels import Arithmetic
from qatie_cli.graphs.onnx import OPSET, OnnxOperators, Value
from qatie_cli.model.checkpoint import Weights


def build(weights: Weights, *, int8: bool, size: tuple[int, int] | None = None, whole: bool = True) -> ModelProto:
    """Write `weights` as an ONNX model.

    Args:
        weights: calibrated ones if `int8`.
        int8: the network in 8-bit integers; else everything is float32. The tone stage is float32 either way.
        size: height and width of the photo, multiples of 8. None leaves them to whoever runs the model: multiples of 8,
            too, or the run fails.
        whole: from photo to enhanced photo; else the refinement network alone.

    Returns:
        A model whose inputs and output are float32. Whole: `photo` (1, 3, H, W) in 0..1 and, where the weights have a
        tone stage, `thumbnail` (1, 3, side, side) in 0..1 as `view.view_nchw` makes it of its `view_px`, to `enhanced`
        (1, 3, H, W) in 0..1. Else: `photo` (1, 3, H, W) in 0..1, already toned, to `residual` (1, 3, H, W), nominal
        range -1..1.

    Raises:
        ValueError: a side of `size` is not a positive multiple of 8.
        WeightsError: int8 was asked for and the weights were never calibrated.
    """
    graph.check(weights, int8, size)
    record = Record(weights, int8)
    ops, arithmetic = OnnxOperators(record.hold), Arithmetic.of(weights, int8)
    photo, thumbnail = Value("photo", rank=4), Value("thumbnail", rank=4)
    if whole:
        result = ops.named(graph.enhanced(ops, weights, arithmetic, photo, thumbnail), "enhanced")
    else:
        result = ops.named(graph.residual(ops, arithmetic, photo), "residual")
    sides = ("height", "width") if size is None else size
    inputs = [_picture(photo, sides)]
    if whole and weights.config.tone is not None:
        inputs.append(_picture(thumbnail, (weights.config.tone.view_px,) * 2))
    written = helper.make_graph(ops.nodes, "qatie", inputs, [_picture(result, sides)], ops.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    file = helper.make_model(
        written,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),  # the newest would exclude older runtimes
        producer_name="qatie",
        producer_version=__version__,
    )
    helper.set_model_props(file, _metadata(record))
    return file


def _picture(value: Value, sides: tuple[int | str, int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [1, 3, *sides])


def _metadata(record: Record) -> dict[str, str]:
    return {
        "name": "qatie",
        "version": __version__,
        "config": json.dumps(record.weights.config.to_table()),
        "arithmetic": "int8" if record.int8 else "float",
        HEADER: json.dumps(record.header()),
        TENSORS: base64.b64encode(record.tensors()).decode(),  # metadata values are text
    }
