"""Weights from qatie's own exports, by their record (`qatie_cli.exchange.record`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from qatie_cli import parsing
from qatie_cli.errors import WeightsError
from qatie_cli.model import checkpoint
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.quantization.scheme import WEIGHT_MAX, WEIGHT_MIN

Constant = tuple[np.ndarray, np.ndarray | None]  # values in the state's layout, and the scales (out) of integers


def weights(path: Path, header: bytes, tensors: bytes, constant: Callable[[str], Constant]) -> Weights:
    """The weights that a file was exported from.

    Exact for float exports. From int8 exports, convolutions have the same integers and scales, and the float values
    that these represent.

    Args:
        constant: the graph's constant by the name of the weights' tensor.

    Raises:
        WeightsError: the file is damaged, or written by a newer qatie.
    """
    try:
        told = parsing.from_json(header)
        state = safetensors.numpy.load(tensors)
        held = told.pop("held")
        told.pop("arithmetic", None)
        for name in held:
            values, scales = constant(name)
            state[name] = values if scales is None else restored(values, scales)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, safetensors.SafetensorError) as error:
        raise damaged(path) from error
    return checkpoint.from_header(path, told, state)


def damaged(path: Path) -> WeightsError:
    """The error for a model whose qatie metadata cannot be read."""
    return WeightsError(f"{path} is damaged: its qatie metadata cannot be read.", "Export it again.")


def restored(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Float weights (out, in, h, w) whose integers and scales are exactly `values` and `scales` (out).

    The plain product, and a scale derived from it, may be off by the last bit.
    """
    real = values.astype(np.float32) * scales.reshape(-1, 1, 1, 1)
    for row, scale in enumerate(scales):
        most = values[row] == WEIGHT_MAX
        if not bool(most.any()):
            continue
        fits = bool((values[row] == WEIGHT_MIN).any())  # then the scale is already exact and must not grow
        near = np.float32(WEIGHT_MAX) * scale
        while near / np.float32(WEIGHT_MAX) > scale:
            near = np.nextafter(near, np.float32(0))
        while not fits and near / np.float32(WEIGHT_MAX) < scale:
            near = np.nextafter(near, np.float32(np.inf))
        real[row][most] = float(near)
    return real
