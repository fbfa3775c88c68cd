"""The int8 scheme: how activations and weights are stored, and the rounding that training simulates.

Activations are 8 bit, affine, per tensor; weights 7 bit, symmetric, per output channel. Seven bits because CPUs without
VNNI add pairs of u8 * s8 products in int16: 2 * 255 * 64 = 32,640 fits, 2 * 255 * 128 saturates. Only plain core
operators are used here; the quantized data types stay behind `qatie_cli.engines.int8`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qatie_cli.model.network import Fuse, Gate, Network, Plain, Refine

ACTIVATION_MAX = 255
WEIGHT_MIN, WEIGHT_MAX = -64, 63
# Below this a weight's scale would make the int32 bias overflow; such a channel is all but zero.
SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class Activation:
    """How one tensor is stored: real = scale * (stored - zero_point), stored in 0..255."""

    scale: float
    zero_point: int

    @staticmethod
    def covering(low: float, high: float) -> Activation:
        """The finest scale whose 256 levels span low..high and hold 0 exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / ACTIVATION_MAX, SMALLEST_SCALE)
        # Rounded to float32, as the engines and the fake-quantization operators hold it.
        scale = float(np.float32(scale))
        return Activation(scale, int(np.clip(round(-low / scale), 0, ACTIVATION_MAX)))

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value that can be stored."""
        return -self.zero_point * self.scale, (ACTIVATION_MAX - self.zero_point) * self.scale

    def within(self, reach: float) -> Activation:
        """The same for values that matter between -reach and reach only."""
        low, high = self.ends
        return Activation.covering(max(low, -reach), min(high, reach))


PHOTO = Activation(float(np.float32(1 / 255)), 0)  # an 8-bit photo is stored as it is
TANH = Activation(2 / 256, 128)  # what the engines' quantized tanh always returns
TANH_REACH = 3.5  # beyond it every value has the first or the last of TANH's levels: tanh(3.5) * 128 = 127.8


def is_tanh_scaled(name: str) -> bool:
    """Points whose scale is the tanh's: the gates, and what is concatenated with them."""
    return name.endswith((".tanh", ".up", ".encoded"))


def calibrated_points(network: Network) -> list[str]:
    """The points of a network whose ranges must be known before it runs as int8."""
    points = []
    for name, block in network.named_children():
        if isinstance(block, Gate):
            points += [f"{name}.{p}" for p in ("pre", "product")]
        elif isinstance(block, Refine):
            inside = ("local", "norm", "y", "inner", "inner_leaky", "outer", "outer_leaky", "shortcut", "out")
            points += [f"{name}.{p}" for p in inside]
        elif isinstance(block, Plain):
            points += [f"{name}.{p}" for p in ("local", "out")]
        elif isinstance(block, Fuse):
            points.append(f"{name}.reduced")
    return points


def missing_points(network: Network, activations: dict[str, Activation]) -> list[str]:
    """Calibrated points of `network` that `activations` says nothing about."""
    return [name for name in calibrated_points(network) if name not in activations]


def activation_at(name: str, activations: dict[str, Activation]) -> Activation:
    """The storage of the point `name`, fixed or calibrated."""
    if name == "photo":
        return PHOTO
    return TANH if is_tanh_scaled(name) else activations[name]


# --- weights ------------------------------------------------------------------------------------------------------


def weight_scales(weight: Tensor) -> Tensor:
    """Scale (out) of each output channel of `weight` (out, in, h, w): the finest that reaches its extremes."""
    flat = weight.detach().flatten(1)
    return torch.maximum(flat.amax(1) / WEIGHT_MAX, flat.amin(1) / WEIGHT_MIN).clamp(min=SMALLEST_SCALE)


def integer_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values (out, in, h, w) in -64..63 and float32 scales (out) of a float weight."""
    scales = weight_scales(weight)
    values = torch.round(weight.detach() / scales.view(-1, 1, 1, 1)).clamp(WEIGHT_MIN, WEIGHT_MAX)
    return values.to(torch.int8), scales


# --- roundings: the network's points as seen by calibration and by training ---------------------------------------


class FakeQuantizer:
    """Rounds as the int8 engines do, in single precision, with straight-through gradients; its ranges never move."""

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
