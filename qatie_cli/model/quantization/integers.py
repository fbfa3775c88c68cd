"""The integers that an engine runs on: convolutions with rounded weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    convs = {}
    for name, weight, bias, stride in float_convs(state):
        convs[name] = IntegerConv(*integer_weight(weight), bias, stride, _padding(state, name))
    return convs


def float_convs(state: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray, np.ndarray, int]]:
    """The same before they are rounded: name, weight (out, in, h, w) with upsampling folded in, bias, and stride."""
    names = [f"{name}.pair" for name in GATES] + [f"{name}.{part}" for name in REFINEMENTS for part in PARTS]
    names += [f"{name}.{part}" for name in FUSES for part in ("up", "reduce")]
    for name in names:
        if f"network.{name}.weight" not in state:  # of a refinement block in whose place a plain convolution stands
            continue
        weight, bias = state[f"network.{name}.weight"], state[f"network.{name}.bias"]
        if name.endswith(".up"):
            weight, bias = fold_upsample(weight), np.tile(bias, 4)
        yield name, weight, bias, 2 if name.endswith(".pair") else 1


def _padding(state: Mapping[str, np.ndarray], name: str) -> int:
    return int(state[f"network.{name}.weight"].shape[2]) // 2
