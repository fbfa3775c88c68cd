"""Norms and changes of scale of the int8 network as functions of a byte, for engines without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qatie_cli.engines.pointwise import ByteLayer
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import LEAKY_SLOPE, NORM_EPS
from qatie_cli.model.moments import Moments
from qatie_cli.model.quantization.scheme import Activation, activation_at
from qatie_cli.model.tensors import refinements

EVERY = np.arange(256)
_F = np.float32
_NUDGES = (0.0, 1e-6, -1e-6, 1e-5, -1e-5)  # in steps of the norm


@dataclass(frozen=True)
class Norm:
    """The norm of a block for one photo, with its activation.

    `factors` and `offsets` (C) float32 map a byte to steps of the norm; `numbers` (6) are the scales and zero points of
    what follows (`kernels.convolutions.JoinNumber`). `tables` (C, 256) uint8 are the results for every byte of each
    channel; if float32 does not reproduce them, `factors` and `offsets` are None. In float, `tables` is None, and
    `numbers` is the slope of LeakyReLU.
    """

    tables: np.ndarray | None
    factors: np.ndarray | None
    offsets: np.ndarray | None
    numbers: np.ndarray


class Norms:
    """The norms of calibrated weights."""

    def __init__(self, weights: Weights) -> None:
        activations, state = weights.activations, weights.state
        assert activations is not None
        self._plain = weights.config.network.plain
        self._at = lambda name: activation_at(name, activations)
        keys = ("weight", "bias")
        blocks = refinements(weights.config.network)
        self._affine = {n: tuple(state[f"network.{n}.norm.{k}"] for k in keys) for n in blocks}

    def tables(self, name: str, local: np.ndarray, moments: Moments) -> np.ndarray | None:
        """`Norm.tables` of a block whose branch is `local` (h, w, C) uint8; None of a plain block."""
        return None if name in self._plain else self._rounded(name, *self._line(name, local, moments))

    def norm(self, name: str, local: np.ndarray, moments: Moments) -> Norm:
        """The norm of a refinement block."""
        factor, offset = self._line(name, local, moments)
        tables = self._rounded(name, factor, offset)
        stored, normed, y = (self._at(f"{name}.{point}") for point in ("local", "norm", "y"))
        ends = -normed.zero_point, 255 - normed.zero_point
        numbers = np.array([*ends, normed.scale, LEAKY_SLOPE, _F(1) / _F(y.scale), y.zero_point], _F)
        factors = (stored.scale * factor / normed.scale).astype(_F)
        exact = (offset - stored.zero_point * stored.scale * factor) / normed.scale
        offsets, missing = np.zeros(len(factors), _F), np.ones(len(factors), bool)
        for nudge in _NUDGES:
            tried = (exact + nudge).astype(_F)
            right = missing & (_computed(factors, tried, numbers) == tables).all(1)
            offsets[right] = tried[right]
            missing &= ~right
        if missing.any():
            return Norm(tables, None, None, numbers)
        return Norm(tables, factors, offsets, numbers)

    def _line(self, name: str, local: np.ndarray, moments: Moments) -> tuple[np.ndarray, np.ndarray]:
        """Factors and offsets that the norm applies to the values of `local`, (C) float64 each."""
        mean, variance = moments(name, local)  # of the stored integers
        stored = self._at(f"{name}.local")
        gain, offset = self._affine[name]
        factor = gain / np.sqrt(variance * stored.scale**2 + NORM_EPS)
        return factor, offset - (mean - stored.zero_point) * stored.scale * factor

    def _rounded(self, name: str, factor: np.ndarray, offset: np.ndarray) -> np.ndarray:
        stored, normed, y = (self._at(f"{name}.{point}") for point in ("local", "norm", "y"))
        values = stored.real(EVERY) * factor[:, None] + offset[:, None]
        values = normed.real(normed.stored(values))
        return y.stored(np.maximum(values, LEAKY_SLOPE * values))


def float_norm(gain: np.ndarray, offset: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Norm:
    """The norm of a block in float; all are (C)."""
    factor = gain / np.sqrt(variance + NORM_EPS)
    added = offset - mean * factor
    return Norm(None, factor.astype(_F), added.astype(_F), np.array([LEAKY_SLOPE], _F))


def _computed(factors: np.ndarray, offsets: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The tables in float32, with the same operations as `kernels.convolutions`."""
    lowest, highest, scale, slope, to_joined, zero = numbers
    steps = np.clip(np.rint(EVERY.astype(_F) * factors[:, None] + offsets[:, None]), lowest, highest)
    values = steps * scale
    values = np.maximum(values, values * slope) * to_joined
    return np.clip(np.rint(values) + zero, 0, 255).astype(np.uint8)


def rescaling(number: int, activations: dict[str, Activation]) -> ByteLayer:
    """Encoder features for the decoder's fusion `number`, rescaled to be joined with the gates."""
    before = activation_at(f"refine{number}.out", activations)
    after = activation_at(f"fuse{number}.encoded", activations)
    return ByteLayer.ramp_of(after.stored(before.real(EVERY)), before, after)
