"""qatie's own exports, read back: see `qatie_cli.exchange.record` for what they carry."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from qatie_cli.errors import WeightsError
from qatie_cli.exchange.record import HEADER, TENSORS
from qatie_cli.model import checkpoint
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.quantization.scheme import WEIGHT_MAX, WEIGHT_MIN

Constant = tuple[Tensor, Tensor | None]  # values in the state's layout, and the scales (out) of integers


def weights(path: Path, header: bytes, tensors: bytes, constant: Callable[[str], Constant]) -> Weights:
    """The weights that a file was exported from.

    Float exports give them back exactly. Int8 exports give convolutions whose integers and scales are exactly the same;
    their float values are those that the integers stand for.

    Args:
        constant: gives the constant of the graph that is the state's tensor of a name.

    Raises:
        WeightsError: the file is damaged, or written by a newer qatie.
    """
    try:
        told = json.loads(header)
        state = safetensors.torch.load(tensors)
        held = told.pop("held")
        told.pop("arithmetic", None)
        for name in held:
            values, scales = constant(name)
            state[name] = values if scales is None else restored(values, scales)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} is damaged: what qatie left in it cannot be read.", "Export it again.") from error
    return checkpoint.from_header(path, told, state)


def restored(values: Tensor, scales: Tensor) -> Tensor:
    """Float weights (out, in, h, w) whose integers and scales are exactly `values` and `scales` (out).

    Products of both would do but for their last bit, by which a scale derived from them may differ.
    """
    real = values.float() * scales.view(-1, 1, 1, 1)
    for row, scale in enumerate(scales.numpy()):
        most = values[row] == WEIGHT_MAX
        if not bool(most.any()):
            continue
        fits = bool((values[row] == WEIGHT_MIN).any())  # then the scale is exact already and must not grow
        near = np.float32(WEIGHT_MAX) * scale
        while near / np.float32(WEIGHT_MAX) > scale:
            near = np.nextafter(near, np.float32(0))
        while not fits and near / np.float32(WEIGHT_MAX) < scale:
            near = np.nextafter(near, np.float32(np.inf))
        real[row][most] = float(near)
    return real


def from_text(text: str) -> bytes:
    """Bytes that were written as text.

    Raises:
        ValueError: they are none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def from_onnx(path: Path, content: bytes) -> Weights:
    """The weights that an ONNX model of qatie was exported from.

    Raises:
        WeightsError: it is no ONNX model, not one of qatie's, or damaged.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise WeightsError(f"{path} is not an ONNX model, or not whole.", "Copy it again.") from error
    told = {p.key: p.value for p in model.metadata_props}
    if HEADER not in told or TENSORS not in told:
        raise WeightsError(
            f"{path} is an ONNX model that qatie did not export.",
            "Of others, .tflite and .ckpt files of the paper's network can be imported.",
        )
    constants = {c.name: c for c in model.graph.initializer}

    def constant(name: str) -> Constant:
        values = torch.from_numpy(onnx.numpy_helper.to_array(constants[name]).copy())
        if values.dtype != torch.int8:
            return values, None
        return values, torch.from_numpy(onnx.numpy_helper.to_array(constants[f"{name}.scale"]).copy())

    try:
        tensors = from_text(told[TENSORS])
    except ValueError as error:
        raise WeightsError(f"{path} is damaged: what qatie left in it cannot be read.", "Export it again.") from error
    return weights(path, told[HEADER].encode(), tensors, constant)
