"""Code of the network's convolutions on float32, with what follows each of them (`kernels.vectors`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from llvmlite import ir

from qatie_cli.kernels.vectors import (
    F32,
    FLOATS,
    INTS,
    LANES,
    Argument,
    ConvolutionWriter,
    Place,
    Shape,
    Writer,
    number,
)

JOIN = "join"  # name of a function
_BYTES_OF_LANES = 4 * LANES
_SATURATED = 10.0  # tanh is 1 from here on
# ln 2 in two parts, the first of so few bits that its multiples are exact; and how exp(x) begins around 0.
_LN2 = 0.693359375, -2.12194440e-4
_TERMS = [1 / math.factorial(power) for power in range(8)]


def source(shapes: Iterable[Shape]) -> str:
    """A module with a function for each shape, and the one that joins."""
    module = ir.Module("float_convolutions")
    for shape in shapes:
        _FloatConvolutionWriter(module, shape).write()
    _FloatJoinWriter(module, JOIN).write()
    return str(module)


class _FloatWriter(Writer):
    """Writes a function on floats; its only number is the slope of negative values."""

    def __init__(self, module: ir.Module, name: str) -> None:
        super().__init__(module, name)
        self.fused = self._operator("llvm.fma.v16f32", FLOATS, [FLOATS] * 3)
        self.round = self._operator("llvm.rint.v16f32", FLOATS, [FLOATS])
        self.slope = self._spread(self._load(self.given[Argument.NUMBERS], F32), FLOATS)

    def _leaky(self, value: ir.Value) -> ir.Value:
        return self._larger(value, self.build.fmul(value, self.slope))

    def _tanh(self, value: ir.Value) -> ir.Value:
        """1 - 2 / (1 + exp(2 x)), within 2e-7."""
        build = self.build
        most = self._constant(_SATURATED)
        value = self._larger(value, self._constant(-_SATURATED))
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


class _FloatConvolutionWriter(ConvolutionWriter, _FloatWriter):
    """Writes the function of one shape."""

    kind = FLOATS

    def __init__(self, module: ir.Module, shape: Shape) -> None:
        super().__init__(module, shape)
        self.multiply_add = self.fused

    def _finish(self, sums: Sequence[ir.Value], place: Place) -> None:
        build, shape = self.build, self.shape
        if shape.after == "residual":
            self._finish_phases(sums, place)
            return
        if shape.after == "gate":
            self._finish_gate(sums, place)
            return
        own = number(_BYTES_OF_LANES * shape.vectors)
        distance = build.mul(self.given[Argument.GROUPS], own)
        start = build.add(build.mul(place.pixel, distance), build.mul(place.group, own))
        output, other = (build.add(row, start) for row in (place.output, place.other))
        for index, total in enumerate(sums):
            p, v = divmod(index, shape.vectors)
            offset = build.add(build.mul(distance, number(p)), number(_BYTES_OF_LANES * v))
            value = total if shape.after == "stored" else self._leaky(total)
            if shape.after == "sum":
                value = build.fadd(value, self._load(build.add(other, offset), FLOATS))
            self._store(value, output, offset)

    def _finish_gate(self, sums: Sequence[ir.Value], place: Place) -> None:
        """Store the tanh of both halves, and their products."""
        build = self.build
        half = build.mul(self.given[Argument.GROUPS], number(_BYTES_OF_LANES))
        column, pixels = build.mul(place.group, number(_BYTES_OF_LANES)), build.mul(place.pixel, half)
        output = build.add(build.add(place.output, column), build.mul(pixels, number(2)))
        other = build.add(build.add(place.other, column), pixels)
        for p in range(self.shape.pixels):
            halves = [self._tanh(sums[2 * p + v]) for v in range(2)]
            for v, value in enumerate(halves):
                self._store(value, output, build.mul(half, number(2 * p + v)))
            self._store(build.fmul(*halves), other, build.mul(half, number(p)))


class _FloatJoinWriter(_FloatWriter):
    """Writes the function that joins both branches of a block: one by its norm and activation, and the other."""

    def write(self) -> None:
        """The whole function; its `GROUPS` are those of one branch."""
        a, build = self.given, self.build
        own = build.mul(a[Argument.GROUPS], number(_BYTES_OF_LANES))
        row = self._loop(a[Argument.ROWS])
        input_row, output_row, other_row = self._rows(row.counter)
        group = self._loop(a[Argument.GROUPS])
        channel = build.mul(group.counter, number(_BYTES_OF_LANES))
        factor, offset = (
            self._load(build.add(a[start], channel), FLOATS) for start in (Argument.FACTORS, Argument.BIAS)
        )
        pixel = self._loop(a[Argument.WIDTH])
        place = build.add(build.mul(pixel.counter, own), channel)
        value = build.fadd(build.fmul(self._load(build.add(input_row, place), FLOATS), factor), offset)
        target = build.add(output_row, build.add(build.mul(pixel.counter, build.mul(own, number(2))), channel))
        self._store(self._leaky(value), target)
        self._store(self._load(build.add(other_row, place), FLOATS), target, own)
        for loop in (pixel, group, row):
            loop.end(())
        build.ret_void()
