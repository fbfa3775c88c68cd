"""The integers that an engine runs on: convolutions with rounded weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qatie_cli.model.folding import fold_upsample
from qatie_cli.model.quantization.scheme import integer_weight
from qatie_cli.model.tensors import FUSES, GATES, REFINEMENTS

PARTS = ("local", "side", "inner", "outer", "shortcut")  # of a refinement block


@dataclass(frozen=True)
class IntegerConv:
    """One convolution in integers: int8 `weight` (out, in, h, w) in -64..63, `scales` (out), float `bias` (out)."""

    weight: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    stride: int
    padding: int


def integer_convs(state: Mapping[str, np.ndarray]) -> dict[str, IntegerConv]:
    """Every convolution that runs in integers, by the name of its rounding point; `state` is a weights file's."""
    names = [f"{name}.pair" for name in GATES] + [f"{name}.{part}" for name in REFINEMENTS for part in PARTS]
    names += [f"{name}.{part}" for name in FUSES for part in ("up", "reduce")]
    convs = {}
    for name in names:
        weight, bias = state[f"network.{name}.weight"], state[f"network.{name}.bias"]
        padding = weight.shape[2] // 2
        if name.endswith(".up"):
            weight, bias = fold_upsample(weight), np.tile(bias, 4)
        convs[name] = IntegerConv(*integer_weight(weight), bias, 2 if name.endswith(".pair") else 1, padding)
    return convs
