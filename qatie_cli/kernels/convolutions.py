"""Code generator of int8 convolutions for AVX-512, each fused with the operation that follows it (`kernels.vectors`).

A function accumulates 16 or 32 channels of a few pixels in registers, over all taps, then applies the activation, sum
or gate that follows and stores 8 bits. Each tensor is written once and read once, and int32 sums stay in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from llvmlite import ir

from qatie_cli.kernels.vectors import (
    BYTES,
    F32,
    FLOATS,
    I8,
    I32,
    INTS,
    LANES,
    Argument,
    ConvolutionWriter,
    JoinWriter,
    Shape,
    Writer,
)

_TABLE = ir.VectorType(I8, 64)  # a quarter of a 256-byte table


class Number(IntEnum):
    """float32 arguments of a function: scales and zero points of tensors."""

    ZERO = 0  # of the convolution's output
    SCALE = 1
    SLOPE = 2  # of LeakyReLU
    TO_LEAKY = 3  # reciprocal of its scale
    LEAKY_ZERO = 4
    LEAKY_SCALE = 5
    OTHER_ZERO = 6
    OTHER_SCALE = 7
    TO_SUM = 8  # reciprocal of its scale
    SUM_ZERO = 9
    GATE_FACTOR = 10  # from products of tanh's steps to steps of the output
    GATE_ZERO = 11


class JoinNumber(IntEnum):
    """float32 arguments of the join."""

    LOWEST = 0  # of the norm's steps, relative to its zero point
    HIGHEST = 1
    SCALE = 2
    SLOPE = 3
    TO_JOINED = 4
    JOINED_ZERO = 5


class _ByteWriter(Writer):
    """Generates a function on bytes, which are float32 between the sums and the stores."""

    features = BYTES

    def _within(self, value: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
        value = self._larger(value, low)
        return self.build.select(self.build.fcmp_ordered("<", value, high), value, high)

    def _numbers(self, names: type[IntEnum]) -> list[ir.Value]:
        """All numbers of the function, broadcast to all lanes."""
        start = self.given[Argument.NUMBERS]
        return [self._spread(self._load(start, F32, 4 * index), FLOATS) for index in names]

    def _stored(self, value: ir.Value, zero: ir.Value) -> ir.Value:
        """Steps, rounded, plus the zero point, clamped to a byte."""
        whole = self.build.fadd(self.build.call(self.round, [value]), zero)
        return self._within(whole, self._constant(0.0), self._constant(255.0))

    def _leaky(self, steps: ir.Value, scale: ir.Value, slope: ir.Value, to: ir.Value, zero: ir.Value) -> ir.Value:
        """LeakyReLU of `steps` at one scale, requantized to another."""
        value = self.build.fmul(steps, scale)
        value = self._larger(value, self.build.fmul(value, slope))
        return self._stored(self.build.fmul(value, to), zero)

    def _bytes(self, value: ir.Value) -> ir.Value:
        return self.build.trunc(self.build.fptosi(value, INTS), BYTES)

    def _floats(self, stored: ir.Value) -> ir.Value:
        return self.build.uitofp(stored, FLOATS)


class Convolution(ConvolutionWriter, _ByteWriter):
    """Generates the function of one shape; for the residual a tap is two int16."""

    kind = INTS

    def __init__(self, module: ir.Module, shape: Shape) -> None:
        super().__init__(module, shape)
        # Inline assembly: the signatures of LLVM's intrinsics have changed between versions.
        product = "vpdpwssd" if shape.after == "residual" else "vpdpbusd"
        self.multiply_add = ir.InlineAsm(ir.FunctionType(INTS, [INTS] * 3), f"{product} $2, $1, $0", "=v,v,v,0")
        self.look_up = ir.InlineAsm(ir.FunctionType(_TABLE, [_TABLE] * 3), "vpermi2b $3, $2, $0", "=v,0,v,v")

    def _accumulated(self, tap: ir.Value, weights: ir.Value, total: ir.Value) -> ir.Value:
        return self.build.call(self.multiply_add, [tap, weights, total])

    def _prepare(self, channel: ir.Value) -> None:
        self.factors = self._columns(self.given[Argument.FACTORS], channel, FLOATS)
        if self.shape.after == "residual":
            self.bias = self._load(self.given[Argument.TABLE], FLOATS)
            return
        self.numbers = self._numbers(Number)
        zero = self.numbers[Number.ZERO]
        self.lowest, self.highest = (self.build.fsub(self._constant(end), zero) for end in (0.0, 255.0))

    def _real(self, total: ir.Value) -> ir.Value:
        value = self.build.fmul(self.build.sitofp(total, FLOATS), self.factors[0])
        return self.build.fadd(value, self.bias)

    def _steps(self, total: ir.Value, vector: int) -> ir.Value:
        """Sums requantized to steps of the output, relative to its zero point."""
        value = self.build.fmul(self.build.sitofp(total, FLOATS), self.factors[vector])
        return self._within(self.build.call(self.round, [value]), self.lowest, self.highest)

    def _feature(self, total: ir.Value, vector: int, beside: ir.Value | None) -> ir.Value:
        build, n = self.build, self.numbers
        if self.shape.after == "stored":
            return self._stored_sums(total, vector)
        steps = self._steps(total, vector)
        value = self._leaky(steps, n[Number.SCALE], n[Number.SLOPE], n[Number.TO_LEAKY], n[Number.LEAKY_ZERO])
        if beside is not None:
            value = build.fmul(build.fsub(value, n[Number.LEAKY_ZERO]), n[Number.LEAKY_SCALE])
            second = build.fmul(build.fsub(self._floats(beside), n[Number.OTHER_ZERO]), n[Number.OTHER_SCALE])
            value = self._stored(build.fmul(build.fadd(value, second), n[Number.TO_SUM]), n[Number.SUM_ZERO])
        return self._bytes(value)

    def _tanhs(self, totals: Sequence[ir.Value]) -> list[ir.Value]:
        return self._looked_up([self._stored_sums(total, vector) for vector, total in enumerate(totals)])

    def _stored_sums(self, total: ir.Value, vector: int) -> ir.Value:
        return self._bytes(self.build.fadd(self._steps(total, vector), self.numbers[Number.ZERO]))

    def _product(self, one: ir.Value, two: ir.Value) -> ir.Value:
        build, middle = self.build, self._constant(128.0)
        centred = [build.fsub(self._floats(half), middle) for half in (one, two)]
        product = build.fmul(build.fmul(*centred), self.numbers[Number.GATE_FACTOR])
        return self._bytes(self._stored(product, self.numbers[Number.GATE_ZERO]))

    def _looked_up(self, indices: Sequence[ir.Value]) -> list[ir.Value]:
        """Both vectors of bytes through the table of tanh."""
        table = self.given[Argument.TABLE]
        tables = [self._load(table, _TABLE, 64 * part) for part in range(4)]
        return [self._from_registers(index, tables) for index in indices]

    def _from_registers(self, index: ir.Value, tables: Sequence[ir.Value]) -> ir.Value:
        """Bytes of a table of 256 that four registers hold."""
        build = self.build
        lanes = ir.Constant(ir.VectorType(I32, 64), [lane % LANES for lane in range(64)])
        wide = build.shuffle_vector(index, index, lanes)
        low, high = (build.call(self.look_up, [wide, *tables[part : part + 2]]) for part in (0, 2))
        narrow = ir.Constant(INTS, list(range(LANES)))
        low, high = (build.shuffle_vector(values, values, narrow) for values in (low, high))
        upper = build.icmp_signed("<", index, ir.Constant(BYTES, [0] * LANES))
        return build.select(upper, high, low)


class Join(JoinWriter, _ByteWriter):
    """Generates the function that joins int8 branches."""

    def _entered(self, local: ir.Value, factor: ir.Value, offset: ir.Value) -> ir.Value:
        n = self._numbers(JoinNumber)
        value = self.build.fadd(self.build.fmul(self._floats(local), factor), offset)
        steps = self._within(self.build.call(self.round, [value]), n[JoinNumber.LOWEST], n[JoinNumber.HIGHEST])
        numbers = (JoinNumber.SCALE, JoinNumber.SLOPE, JoinNumber.TO_JOINED, JoinNumber.JOINED_ZERO)
        return self._bytes(self._leaky(steps, *(n[name] for name in numbers)))
