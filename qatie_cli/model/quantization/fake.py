"""Fake quantization for training, in PyTorch, as `scheme` defines it.

Only plain core operators are used; the quantized data types stay behind `qatie_cli.engines.int8`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qatie_cli.model.quantization.scheme import (
    ACTIVATION_MAX,
    SMALLEST_SCALE,
    WEIGHT_MAX,
    WEIGHT_MIN,
    Activation,
    activation_at,
)


def weight_scales(weight: Tensor) -> Tensor:
    """Scale (out) of each output channel of `weight` (out, in, h, w): as `scheme.integer_weight` has it."""
    flat = weight.detach().flatten(1)
    return torch.maximum(flat.amax(1) / WEIGHT_MAX, flat.amin(1) / WEIGHT_MIN).clamp(min=SMALLEST_SCALE)


class FakeQuantizer:
    """Rounds like the int8 engines, in single precision, with straight-through gradients and fixed ranges."""

    def __init__(self, activations: dict[str, Activation]) -> None:
        self.activations = activations

    def weight(self, name: str, weight: Tensor) -> Tensor:
        weight = weight.float()
        scales = weight_scales(weight)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, WEIGHT_MIN, WEIGHT_MAX)

    def activation(self, name: str, x: Tensor) -> Tensor:
        a = activation_at(name, self.activations)
        return torch.fake_quantize_per_tensor_affine(x.float(), a.scale, a.zero_point, 0, ACTIVATION_MAX)
