"""The int8 scheme: how activations and weights are stored. `fake` is the rounding that training simulates.

Activations are 8 bit, affine, per tensor; weights 7 bit, symmetric, per output channel. Seven bits because CPUs without
VNNI add pairs of u8 * s8 products in int16: 2 * 255 * 64 = 32,640 fits, 2 * 255 * 128 saturates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qatie_cli.model.tensors import FUSES, GATES, REFINEMENTS

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

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Real values as they are stored, uint8."""
        return np.clip(np.rint(values / self.scale) + self.zero_point, 0, ACTIVATION_MAX).astype(np.uint8)

    def real(self, stored: np.ndarray) -> np.ndarray:
        """The values that stored ones stand for, float64."""
        return (stored.astype(np.float64) - self.zero_point) * self.scale

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


def calibrated_points() -> list[str]:
    """The points of the network whose ranges must be known before it runs as int8."""
    inside = ("local", "norm", "y", "inner", "inner_leaky", "outer", "outer_leaky", "shortcut", "out")
    points = [f"{name}.{point}" for name in GATES for point in ("pre", "product")]
    points += [f"{name}.{point}" for name in REFINEMENTS for point in inside]
    return points + [f"{name}.reduced" for name in FUSES]


def missing_points(activations: dict[str, Activation]) -> list[str]:
    """Calibrated points that `activations` says nothing about."""
    return [name for name in calibrated_points() if name not in activations]


def activation_at(name: str, activations: dict[str, Activation]) -> Activation:
    """The storage of the point `name`, fixed or calibrated."""
    if name == "photo":
        return PHOTO
    return TANH if is_tanh_scaled(name) else activations[name]


# --- weights ------------------------------------------------------------------------------------------------------


def integer_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 values (out, in, h, w) in -64..63 and float32 scales (out) of a float weight.

    A channel's scale is the finest that reaches its extremes.
    """
    flat = weight.reshape(len(weight), -1)
    scales = np.maximum(flat.max(1) / np.float32(WEIGHT_MAX), flat.min(1) / np.float32(WEIGHT_MIN))
    scales = np.maximum(scales, np.float32(SMALLEST_SCALE))
    values = np.clip(np.rint(weight / scales.reshape(-1, 1, 1, 1)), WEIGHT_MIN, WEIGHT_MAX)
    return values.astype(np.int8), scales
