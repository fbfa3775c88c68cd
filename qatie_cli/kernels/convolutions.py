"""Code of the network's convolutions on bytes, with what follows each of them (`kernels.vectors`).

A function computes rows of one convolution: for a few pixels at a time and 16 or 32 channels of them, sums of products
in registers, over all taps; then it stores them in 8 bits, by way of the activation, the sum or the gate that follows.
So a tensor is written once and read once, and no int32 leaves the processor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    Place,
    Shape,
    Writer,
    number,
)

JOIN = "join"  # name of a function
_TABLE = ir.VectorType(I8, 64)  # a quarter of a table of all bytes


class Number(IntEnum):
    """float32 that a function is given: scales and zero points of tensors, all as float."""

    ZERO = 0  # of what the convolution gives
    SCALE = 1
    SLOPE = 2  # of negative values
    TO_LEAKY = 3  # one divided by its scale
    LEAKY_ZERO = 4
    LEAKY_SCALE = 5
    OTHER_ZERO = 6
    OTHER_SCALE = 7
    TO_SUM = 8  # one divided by its scale
    SUM_ZERO = 9
    GATE_FACTOR = 10  # from products of tanh's steps to those of the product
    GATE_ZERO = 11


class JoinNumber(IntEnum):
    """float32 of `join`."""

    LOWEST = 0  # of the norm's steps, from its zero point
    HIGHEST = 1
    SCALE = 2
    SLOPE = 3
    TO_JOINED = 4
    JOINED_ZERO = 5


def source(shapes: Iterable[Shape]) -> str:
    """A module with a function for each shape, and the one that joins."""
    module = ir.Module("convolutions")
    for shape in shapes:
        _ByteConvolutionWriter(module, shape).write()
    _JoinWriter(module, JOIN).write()
    return str(module)


class _ByteWriter(Writer):
    """Writes a function on bytes, which are float32 between the sums and where they are stored."""

    def __init__(self, module: ir.Module, name: str) -> None:
        super().__init__(module, name)
        self.round = self._operator("llvm.rint.v16f32", FLOATS, [FLOATS])

    def _within(self, value: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
        value = self._larger(value, low)
        return self.build.select(self.build.fcmp_ordered("<", value, high), value, high)

    def _numbers(self, names: type[IntEnum]) -> list[ir.Value]:
        """All numbers of the function, each in all lanes."""
        start = self.given[Argument.NUMBERS]
        return [self._spread(self._load(start, F32, 4 * index), FLOATS) for index in names]

    def _stored(self, value: ir.Value, zero: ir.Value) -> ir.Value:
        """Steps, rounded and counted from the zero point."""
        whole = self.build.fadd(self.build.call(self.round, [value]), zero)
        return self._within(whole, self._constant(0.0), self._constant(255.0))

    def _leaky(self, steps: ir.Value, scale: ir.Value, slope: ir.Value, to: ir.Value, zero: ir.Value) -> ir.Value:
        """LeakyReLU of `steps` of a scale, in those of another."""
        value = self.build.fmul(steps, scale)
        value = self._larger(value, self.build.fmul(value, slope))
        return self._stored(self.build.fmul(value, to), zero)

    def _bytes(self, value: ir.Value) -> ir.Value:
        return self.build.trunc(self.build.fptosi(value, INTS), BYTES)

    def _floats(self, stored: ir.Value) -> ir.Value:
        return self.build.uitofp(stored, FLOATS)


class _ByteConvolutionWriter(ConvolutionWriter, _ByteWriter):
    """Writes the function of one shape; that of the residual reads int16, two of them as a tap."""

    kind = INTS

    def __init__(self, module: ir.Module, shape: Shape) -> None:
        super().__init__(module, shape)
        # Instructions by their names: the types of LLVM's own functions for them have changed between versions.
        product = "vpdpwssd" if shape.after == "residual" else "vpdpbusd"
        self.multiply_add = ir.InlineAsm(ir.FunctionType(INTS, [INTS] * 3), f"{product} $2, $1, $0", "=v,v,v,0")
        self.look_up = ir.InlineAsm(ir.FunctionType(_TABLE, [_TABLE] * 3), "vpermi2b $3, $2, $0", "=v,0,v,v")

    def _finish(self, sums: Sequence[ir.Value], place: Place) -> None:
        build, shape, channels = self.build, self.shape, LANES * self.shape.vectors
        first = build.mul(place.group, number(channels))
        factors = self._columns(self.given[Argument.FACTORS], first, FLOATS)
        if shape.after == "residual":
            bias = self._load(self.given[Argument.TABLE], FLOATS)
            values = [build.fmul(build.sitofp(total, FLOATS), factors[0]) for total in sums]
            self._finish_phases([build.fadd(value, bias) for value in values], place)
        elif shape.after == "gate":
            self._finish_gate(sums, factors, place)
        else:
            distance = build.mul(self.given[Argument.GROUPS], number(channels))
            start = build.add(build.mul(place.pixel, distance), first)
            self._finish_bytes(sums, factors, build.add(place.output, start), build.add(place.other, start), distance)

    def _finish_bytes(
        self,
        sums: Sequence[ir.Value],
        factors: Sequence[ir.Value],
        output: ir.Value,
        other: ir.Value,
        distance: ir.Value,
    ) -> None:
        """Store the sums of all pixels, `distance` bytes from one to the next, by way of what follows."""
        build, shape, n = self.build, self.shape, self._numbers(Number)
        lowest, highest = (build.fsub(self._constant(end), n[Number.ZERO]) for end in (0.0, 255.0))
        for index, total in enumerate(sums):
            p, v = divmod(index, shape.vectors)
            offset = build.add(build.mul(distance, number(p)), number(LANES * v))
            steps = build.call(self.round, [build.fmul(build.sitofp(total, FLOATS), factors[v])])
            steps = self._within(steps, lowest, highest)
            if shape.after == "stored":
                value = build.fadd(steps, n[Number.ZERO])
            else:
                value = self._leaky(steps, n[Number.SCALE], n[Number.SLOPE], n[Number.TO_LEAKY], n[Number.LEAKY_ZERO])
            if shape.after == "sum":
                value = build.fmul(build.fsub(value, n[Number.LEAKY_ZERO]), n[Number.LEAKY_SCALE])
                beside = build.fsub(self._floats(self._load(build.add(other, offset), BYTES)), n[Number.OTHER_ZERO])
                beside = build.fmul(beside, n[Number.OTHER_SCALE])
                value = self._stored(build.fmul(build.fadd(value, beside), n[Number.TO_SUM]), n[Number.SUM_ZERO])
            self._store(self._bytes(value), output, offset)

    def _finish_gate(self, sums: Sequence[ir.Value], factors: Sequence[ir.Value], place: Place) -> None:
        """Store the tanh of both halves, and their products."""
        build, n = self.build, self._numbers(Number)
        half = build.mul(self.given[Argument.GROUPS], number(LANES))
        column, pixels = build.mul(place.group, number(LANES)), build.mul(place.pixel, half)
        output = build.add(build.add(place.output, column), build.mul(pixels, number(2)))
        other = build.add(build.add(place.other, column), pixels)
        lowest, highest = (build.fsub(self._constant(end), n[Number.ZERO]) for end in (0.0, 255.0))
        tables = [self._load(self.given[Argument.TABLE], _TABLE, 64 * part) for part in range(4)]
        middle = self._constant(128.0)
        for p in range(self.shape.pixels):
            centred = []
            for v in range(2):
                total = build.sitofp(sums[2 * p + v], FLOATS)
                steps = self._within(build.call(self.round, [build.fmul(total, factors[v])]), lowest, highest)
                tanh = self._looked_up(self._bytes(build.fadd(steps, n[Number.ZERO])), tables)
                self._store(tanh, output, build.mul(half, number(2 * p + v)))
                centred.append(build.fsub(self._floats(tanh), middle))
            product = build.fmul(build.fmul(*centred), n[Number.GATE_FACTOR])
            product = self._bytes(self._stored(product, n[Number.GATE_ZERO]))
            self._store(product, other, build.mul(half, number(p)))

    def _looked_up(self, index: ir.Value, tables: Sequence[ir.Value]) -> ir.Value:
        """Bytes of a table of 256 that is held in four registers."""
        build = self.build
        lanes = ir.Constant(ir.VectorType(I32, 64), [lane % LANES for lane in range(64)])
        wide = build.shuffle_vector(index, index, lanes)
        low, high = (build.call(self.look_up, [wide, *tables[part : part + 2]]) for part in (0, 2))
        narrow = ir.Constant(INTS, list(range(LANES)))
        low, high = (build.shuffle_vector(values, values, narrow) for values in (low, high))
        upper = build.icmp_signed("<", index, ir.Constant(BYTES, [0] * LANES))
        return build.select(upper, high, low)


class _JoinWriter(_ByteWriter):
    """Writes the function that joins both branches of a block: one by its norm and activation, and the other."""

    def write(self) -> None:
        """The whole function; its `GROUPS` are those of one branch."""
        a, build, n = self.given, self.build, self._numbers(JoinNumber)
        own = build.mul(a[Argument.GROUPS], number(LANES))
        row = self._loop(a[Argument.ROWS])
        input_row, output_row, other_row = self._rows(row.counter)
        group = self._loop(a[Argument.GROUPS])
        channel = build.mul(group.counter, number(LANES))
        factor, offset = (
            self._load(build.add(a[start], build.mul(channel, number(4))), FLOATS)
            for start in (Argument.FACTORS, Argument.BIAS)
        )
        pixel = self._loop(a[Argument.WIDTH])
        place = build.add(build.mul(pixel.counter, own), channel)
        value = build.fmul(self._floats(self._load(build.add(input_row, place), BYTES)), factor)
        value = build.call(self.round, [build.fadd(value, offset)])
        steps = self._within(value, n[JoinNumber.LOWEST], n[JoinNumber.HIGHEST])
        joined = self._leaky(
            steps, n[JoinNumber.SCALE], n[JoinNumber.SLOPE], n[JoinNumber.TO_JOINED], n[JoinNumber.JOINED_ZERO]
        )
        target = build.add(output_row, build.add(build.mul(pixel.counter, build.mul(own, number(2))), channel))
        self._store(self._bytes(joined), target)
        self._store(self._load(build.add(other_row, place), BYTES), target, own)
        for loop in (pixel, group, row):
            loop.end(())
        build.ret_void()
