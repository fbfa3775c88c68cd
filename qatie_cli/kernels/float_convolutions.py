"""Code generator of float32 convolutions, each fused with the operation that follows it (`kernels.vectors`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llvmlite import ir

from qatie_cli.kernels.vectors import F32, FLOATS, INTS, LANES, Argument, ConvolutionWriter, JoinWriter, Writer

_SATURATED = 10.0  # tanh is 1 from here on
# ln 2 in two parts, the first with few enough bits for exact multiples; and the Taylor series of exp.
_LN2 = 0.693359375, -2.12194440e-4
_TERMS = [1 / math.factorial(power) for power in range(8)]


class _FloatWriter(Writer):
    """Generates a function on floats; its only number is the slope of LeakyReLU."""

    features = FLOATS

    def __init__(self, module: ir.Module, name: str) -> None:
        super().__init__(module, name)
        self.fused = self._operator("llvm.fma.v16f32", FLOATS, [FLOATS] * 3)
        self.slope = self._spread(self._load(self.given[Argument.NUMBERS], F32), FLOATS)

    def _leaky(self, value: ir.Value) -> ir.Value:
        return self._larger(value, self.build.fmul(value, self.slope))


class Convolution(ConvolutionWriter, _FloatWriter):
    """Generates the function of one shape."""

    kind = FLOATS

    def _accumulated(self, tap: ir.Value, weights: ir.Value, total: ir.Value) -> ir.Value:
        return self.build.call(self.fused, [tap, weights, total])

    def _real(self, total: ir.Value) -> ir.Value:
        return total

    def _feature(self, total: ir.Value, vector: int, beside: ir.Value | None) -> ir.Value:
        value = total if self.shape.after == "stored" else self._leaky(total)
        return value if beside is None else self.build.fadd(value, beside)

    def _tanhs(self, totals: Sequence[ir.Value]) -> list[ir.Value]:
        return [self._tanh(total) for total in totals]

    def _tanh(self, total: ir.Value) -> ir.Value:
        # 1 - 2 / (1 + exp(2 x)), within 2e-7
        build = self.build
        most = self._constant(_SATURATED)
        value = self._larger(total, self._constant(-_SATURATED))
        value = build.select(build.fcmp_ordered("<", value, most), value, most)
        twice = build.fadd(value, value)
        power = build.call(self.round, [build.fmul(twice, self._constant(1 / math.log(2)))])
        rest = twice
        for part in _LN2:
            rest = build.call(self.fused, [power, self._constant(-part), rest])
        exponential = self._constant(_TERMS[-1])
        for term in reversed(_TERMS[:-1]):
            exponential = build.call(self.fused, [exponential, rest, self._constant(term)])
        bits = build.add(build.fptosi(power, INTS), ir.Constant(INTS, [127] * LANES))
        scale = build.bitcast(build.shl(bits, ir.Constant(INTS, [23] * LANES)), FLOATS)
        divisor = build.fadd(build.fmul(exponential, scale), self._constant(1.0))
        return build.fsub(self._constant(1.0), build.fdiv(self._constant(2.0), divisor))

    def _product(self, one: ir.Value, two: ir.Value) -> ir.Value:
        return self.build.fmul(one, two)


class Join(JoinWriter, _FloatWriter):
    """Generates the function that joins float branches."""

    def _entered(self, local: ir.Value, factor: ir.Value, offset: ir.Value) -> ir.Value:
        return self._leaky(self.build.fadd(self.build.fmul(local, factor), offset))
