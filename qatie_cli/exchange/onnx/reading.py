"""Reads qatie's own ONNX exports."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from qatie_cli.errors import WeightsError
from qatie_cli.exchange import exported
from qatie_cli.exchange.exported import Constant
from qatie_cli.exchange.record import HEADER, TENSORS
from qatie_cli.model.checkpoint import Weights


def read(path: Path, content: bytes) -> Weights:
    """The weights that an ONNX model of qatie was exported from.

    Raises:
        WeightsError: it is no ONNX model, not one of qatie's, or damaged.
    """
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise WeightsError(f"{path} is not an ONNX model, or incomplete.", "Copy it again.") from error
    metadata = {p.key: p.value for p in model.metadata_props}
    if HEADER not in metadata or TENSORS not in metadata:
        raise WeightsError(
            f"{path} is an ONNX model that qatie did not export.",
            "Of others, .tflite and .ckpt files of the paper's network can be imported.",
        )
    constants = {c.name: c for c in model.graph.initializer}

    def constant(name: str) -> Constant:
        values = numpy_helper.to_array(constants[name]).copy()
        if values.dtype != np.int8:
            return values, None
        return values, numpy_helper.to_array(constants[f"{name}.scale"]).copy()

    try:
        tensors = base64.b64decode(metadata[TENSORS], validate=True)
    except (binascii.Error, ValueError) as error:
        raise exported.damaged(path) from error
    return exported.weights(path, metadata[HEADER].encode(), tensors, constant)
