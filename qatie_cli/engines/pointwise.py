"""Pointwise layers on stored integers, (h, w, channels) uint8: compiled, on several threads.

A layer is a table that PyTorch's operator has filled. Where plain arithmetic in float32 gives that very table, it is
computed instead, in half the time. The functions are only for where `kernels.usable`: they import numba.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qatie_cli.kernels.threads import over_rows
from qatie_cli.model.quantization.scheme import ACTIVATION_MAX, Activation

_NONE = np.empty(0, np.float32)
_F = np.float32


@dataclass(frozen=True)
class ByteLayer:
    """A function of one byte: its table (256), and the numbers of a ramp that gives the same, or none."""

    table: np.ndarray
    ramp: np.ndarray

    @staticmethod
    def of(table: np.ndarray) -> ByteLayer:
        """Whatever the table says."""
        return ByteLayer(table, _NONE)

    @staticmethod
    def ramp_of(table: np.ndarray, before: Activation, after: Activation, slope: float = 1.0) -> ByteLayer:
        """A change of scale, with negative values times `slope`."""
        ramp = np.array([before.zero_point, before.scale, slope, _F(1) / _F(after.scale), after.zero_point], _F)
        return ByteLayer(table, ramp if np.array_equal(_ramped(np.arange(256), ramp), table) else _NONE)


@dataclass(frozen=True)
class Sum:
    """A byte through a ramp, plus another: its table (256, 256), and the numbers to compute it with, or none."""

    table: np.ndarray
    ramp: np.ndarray
    scales: np.ndarray

    @staticmethod
    def of(table: np.ndarray, own: ByteLayer, after_ramp: Activation, other: Activation, out: Activation) -> Sum:
        """The sum whose first operand passes through `own` to the scale `after_ramp`."""
        scales = np.array([after_ramp.scale, other.zero_point, other.scale, _F(1) / _F(out.scale), out.zero_point], _F)
        first = (own.table.astype(_F) - _F(after_ramp.zero_point)) * scales[0]
        second = (np.arange(256).astype(_F) - scales[1]) * scales[2]
        computed = _stored((first[:, None] + second) * scales[3], scales[4])
        exact = len(own.ramp) > 0 and np.array_equal(computed, table)
        return Sum(table, own.ramp, scales if exact else _NONE)


@dataclass(frozen=True)
class Product:
    """A product of two bytes of one scale: its table (256, 256), and the numbers to compute it with, or none."""

    table: np.ndarray
    factors: np.ndarray

    @staticmethod
    def of(table: np.ndarray, operand: Activation, out: Activation) -> Product:
        """The product of two values stored like `operand`."""
        factor = _F(operand.scale) * _F(operand.scale) * (_F(1) / _F(out.scale))
        factors = np.array([operand.zero_point, factor, out.zero_point], _F)
        value = np.arange(256).astype(_F) - factors[0]
        computed = _stored(value[:, None] * value * factors[1], factors[2])
        return Product(table, factors if np.array_equal(computed, table) else _NONE)


def _ramped(stored: np.ndarray, ramp: np.ndarray) -> np.ndarray:
    value = (stored.astype(_F) - ramp[0]) * ramp[1]
    return _stored(np.maximum(value, value * ramp[2]) * ramp[3], ramp[4])


def _stored(value: np.ndarray, zero_point: np.float32) -> np.ndarray:
    return np.clip(np.rint(value) + zero_point, 0, ACTIVATION_MAX).astype(np.uint8)


def look_up(x: np.ndarray, layer: ByteLayer) -> None:
    """Every value through `layer`, in place."""
    from qatie_cli.kernels import features

    over_rows(x.shape[0], x.size, lambda first, last: features.mapped(x, layer.table, layer.ramp, first, last))


def join(x: np.ndarray, tables: np.ndarray, other: np.ndarray, out: np.ndarray, margin: int = 0) -> None:
    """Each channel of `x` through its table (channels, 256), then the channels of `other`, into `out`.

    `out` has `margin` more columns to each side, which stay as they are.
    """
    from qatie_cli.kernels import features

    unit = _unit(x.shape[2], other.shape[2])
    beside: np.ndarray = other.view(unit)
    words: np.ndarray = out.view(unit)
    over_rows(x.shape[0], out.size, lambda first, last: features.joined(x, tables, beside, first, last, words, margin))


def add(x: np.ndarray, other: np.ndarray, layer: Sum) -> None:
    """`layer` of `x` and `other`, into `x`."""
    from qatie_cli.kernels import features

    given = x, other, layer.table, layer.ramp, layer.scales
    over_rows(x.shape[0], x.size, lambda first, last: features.added(*given, first, last))


def gate(pair: np.ndarray, layer: ByteLayer, product: Product, out: np.ndarray) -> None:
    """Both halves of `pair` through `layer`, in place; `out` are their products."""
    from qatie_cli.kernels import features

    given: tuple[np.ndarray, ...] = pair, pair.view(_unit(out.shape[2])), layer.table, product.table, product.factors
    over_rows(out.shape[0], pair.size, lambda first, last: features.gated(*given, first, last, out))


def fuse(
    phases: np.ndarray, encoded: np.ndarray, layer: ByteLayer, pair: np.ndarray, out: np.ndarray, margin: int = 0
) -> None:
    """Phases interleaved, `encoded` through `layer` but for its `margin` at each side, and `pair`, all into `out`."""
    from qatie_cli.kernels import features

    unit = _unit(phases.shape[2] // 4, encoded.shape[2], pair.shape[2])
    given: tuple[np.ndarray, ...] = phases.view(unit), encoded, layer.table, layer.ramp, pair.view(unit)
    words: np.ndarray = out.view(unit)
    over_rows(out.shape[0], out.size, lambda first, last: features.fused(*given, first, last, words, margin))


def _unit(*channels: int) -> type:
    """The type of words that as many channels are copied in."""
    return np.uint64 if all(number % 8 == 0 for number in channels) else np.uint8
