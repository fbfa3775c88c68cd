"""Code of the network's convolutions on bytes, with what follows each of them, for processors with AVX-512.

A function computes rows of one convolution: for a few pixels at a time and 16 or 32 channels of them, sums of products
in registers, over all taps; then it stores them in 8 bits, by way of the activation, the sum or the gate that follows.
So a tensor is written once and read once, and no int32 leaves the processor.

Features are channels last, and as many bytes as a row of taps reads lie side by side: a tap is four of them. Weights
are in the order in which they are read, (groups, rows of taps, fours of bytes, vectors, 16 channels, 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

from llvmlite import ir

from qatie_cli.kernels.machine_code import CHANNELS

LANES = CHANNELS  # int32 of a register
PIXELS = {1: 16, 2: 12}  # by vectors: as many sums as registers hold, beside weights and a tap
JOIN = "join"  # name of a function
PHASES = 6  # floats of a pixel in one row of the residual: two pixels of three channels

_I8, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_BYTES, _INTS, _FLOATS = (ir.VectorType(kind, LANES) for kind in (_I8, _I32, _F32))
_TABLE = ir.VectorType(_I8, 64)  # a quarter of a table of all bytes
_POINTER = ir.PointerType()

After = Literal["stored", "leaky", "sum", "gate", "residual"]


class Argument(IntEnum):
    """The arguments of a function, int64 one after another: addresses, distances in bytes, and numbers of things."""

    INPUT = 0  # the first tap of the first pixel
    INPUT_ROW = 1  # from one row of taps to the next
    INPUT_STEP = 2  # from one row of pixels to the next
    OUTPUT = 3
    OUTPUT_ROW = 4
    ROWS = 5
    WIDTH = 6  # at least the pixels of `Shape`
    TAP_ROWS = 7
    FOURS = 8  # of bytes in a row of taps
    WEIGHTS = 9
    GROUPS = 10  # of as many vectors as in `Shape`
    BIAS = 11  # int32, of steps of the sums; for the residual float32 of its own values
    FACTORS = 12  # float32 for each channel, from sums of products to steps of the output, or to values
    NUMBERS = 13  # float32 in the order of `Number`
    OTHER = 14  # the second operand of a sum, rows like those of the output; or where a gate's products go
    OTHER_ROW = 15
    TABLE = 16  # of a gate: the tanh of every byte


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


class Shape(NamedTuple):
    """What a function is compiled for.

    Attributes:
        step: bytes from the taps of one pixel to those of the next.
        vectors: of 16 channels, computed at once; those of a gate are one of its first half and one of its second.
        pixels: computed at once.
        after: what follows the convolution; that of `residual` is one of int16, two of them for each tap.
    """

    step: int
    vectors: int
    pixels: int
    after: After

    @property
    def name(self) -> str:
        """Of the function."""
        return f"conv_{self.step}_{self.vectors}_{self.pixels}_{self.after}"


def source(shapes: Iterable[Shape]) -> str:
    """A module with a function for each shape."""
    module = ir.Module("convolutions")
    for shape in shapes:
        _ConvolutionWriter(module, shape).write()
    _JoinWriter(module, JOIN).write()
    return str(module)


@dataclass
class _Loop:
    """A loop that is being written: its counter and its variables."""

    counter: ir.Value
    variables: Sequence[ir.Value]
    end: Callable[[Sequence[ir.Value]], Sequence[ir.Value]]


class _Writer:
    """Writes one function."""

    def __init__(self, module: ir.Module, name: str) -> None:
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_POINTER]), name)
        self.build = ir.IRBuilder(self.function.append_basic_block())
        self.given = [self._argument(index) for index in Argument]
        self.round = self._operator("llvm.rint.v16f32", _FLOATS, [_FLOATS])

    def _operator(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        known = self.function.module.globals.get(name)
        return known or ir.Function(self.function.module, ir.FunctionType(result, arguments), name)

    def _argument(self, index: int) -> ir.Value:
        place = self.build.gep(self.function.args[0], [_number(index)], source_etype=_I64)
        return self.build.load(place, typ=_I64)

    def _loop(self, times: ir.Value, *variables: ir.Value) -> _Loop:
        """Begin a loop that runs at least once; `end` is given the next values of the variables."""
        build, before = self.build, self.build.block
        body = self.function.append_basic_block()
        build.branch(body)
        build.position_at_end(body)
        counter = build.phi(_I64)
        counter.add_incoming(_number(0), before)
        held = []
        for value in variables:
            held.append(build.phi(value.type))
            held[-1].add_incoming(value, before)

        def end(following: Sequence[ir.Value]) -> Sequence[ir.Value]:
            count = build.add(counter, _number(1))
            counter.add_incoming(count, build.block)
            for phi, value in zip(held, following, strict=True):
                phi.add_incoming(value, build.block)
            after = self.function.append_basic_block()
            build.cbranch(build.icmp_unsigned("<", count, times), body, after)
            build.position_at_end(after)
            return following

        return _Loop(counter, held, end)

    def _pointer(self, address: ir.Value) -> ir.Value:
        return self.build.inttoptr(address, _POINTER)

    def _load(self, address: ir.Value, kind: ir.Type, offset: int = 0) -> ir.Value:
        return self.build.load(self._pointer(self.build.add(address, _number(offset))), typ=kind, align=1)

    def _spread(self, value: ir.Value, kind: ir.VectorType) -> ir.Value:
        """One number in all lanes."""
        empty = ir.Constant(kind, ir.Undefined)
        one = self.build.insert_element(empty, value, ir.Constant(_I32, 0))
        return self.build.shuffle_vector(one, empty, ir.Constant(_INTS, [0] * LANES))

    def _larger(self, one: ir.Value, two: ir.Value) -> ir.Value:
        return self.build.select(self.build.fcmp_ordered(">", one, two), one, two)

    def _within(self, value: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
        value = self._larger(value, low)
        return self.build.select(self.build.fcmp_ordered("<", value, high), value, high)

    def _numbers(self, names: type[IntEnum]) -> list[ir.Value]:
        """All numbers of the function, each in all lanes."""
        start = self.given[Argument.NUMBERS]
        return [self._spread(self._load(start, _F32, 4 * index), _FLOATS) for index in names]

    def _constant(self, value: float) -> ir.Value:
        return ir.Constant(_FLOATS, [value] * LANES)

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
        return self.build.trunc(self.build.fptosi(value, _INTS), _BYTES)

    def _floats(self, stored: ir.Value) -> ir.Value:
        return self.build.uitofp(stored, _FLOATS)

    def _store(self, value: ir.Value, *address: ir.Value) -> None:
        place = address[0]
        for part in address[1:]:
            place = self.build.add(place, part)
        self.build.store(value, self._pointer(place), align=1)


class _ConvolutionWriter(_Writer):
    """Writes the function of one shape."""

    def __init__(self, module: ir.Module, shape: Shape) -> None:
        super().__init__(module, shape.name)
        self.shape = shape
        # Instructions by their names: the types of LLVM's own functions for them have changed between versions.
        product = "vpdpwssd" if shape.after == "residual" else "vpdpbusd"
        self.dot = ir.InlineAsm(ir.FunctionType(_INTS, [_INTS] * 3), f"{product} $2, $1, $0", "=v,v,v,0")
        self.look_up = ir.InlineAsm(ir.FunctionType(_TABLE, [_TABLE] * 3), "vpermi2b $3, $2, $0", "=v,0,v,v")

    def write(self) -> None:
        """The whole function: loops over rows, groups of channels and blocks of pixels."""
        a, build, shape = self.given, self.build, self.shape
        channels = LANES * shape.vectors
        group_bytes = build.mul(build.mul(a[Argument.TAP_ROWS], a[Argument.FOURS]), _number(4 * channels))
        pixel_bytes = build.mul(a[Argument.GROUPS], _number(channels))
        last = build.sub(a[Argument.WIDTH], _number(shape.pixels))
        blocks = build.udiv(build.add(a[Argument.WIDTH], _number(shape.pixels - 1)), _number(shape.pixels))
        row = self._loop(a[Argument.ROWS])
        input_row, output_row, other_row = (
            build.add(a[start], build.mul(row.counter, a[step]))
            for start, step in (
                (Argument.INPUT, Argument.INPUT_STEP),
                (Argument.OUTPUT, Argument.OUTPUT_ROW),
                (Argument.OTHER, Argument.OTHER_ROW),
            )
        )
        group = self._loop(a[Argument.GROUPS])
        weights = build.add(a[Argument.WEIGHTS], build.mul(group.counter, group_bytes))
        first = build.mul(group.counter, _number(channels))
        factors = self._columns(a[Argument.FACTORS], first, _FLOATS)
        if shape.after == "residual":
            bias = [ir.Constant(_INTS, [0] * LANES)]
        else:
            bias = self._columns(a[Argument.BIAS], first, _INTS)
        block = self._loop(blocks)
        # The last block overlaps the one before it, and computes some pixels twice.
        pixel = build.mul(block.counter, _number(shape.pixels))
        pixel = build.select(build.icmp_unsigned("<", pixel, last), pixel, last)
        start = build.add(input_row, build.mul(pixel, _number(shape.step)))
        sums = self._sums(weights, start, [bias[v] for _ in range(shape.pixels) for v in range(shape.vectors)])
        if shape.after == "residual":
            self._finish_phases(sums, factors[0], build.add(output_row, build.mul(pixel, _number(4 * PHASES))))
        elif shape.after == "gate":
            self._half = build.mul(a[Argument.GROUPS], _number(LANES))
            column = build.mul(group.counter, _number(LANES))
            output, other = (
                build.add(build.add(start, column), build.mul(pixel, build.mul(self._half, _number(size))))
                for start, size in ((output_row, 2), (other_row, 1))
            )
            self._finish_gate(sums, factors, output, other)
        else:
            place = build.add(build.mul(pixel, pixel_bytes), first)
            self._finish(sums, factors, build.add(output_row, place), build.add(other_row, place), pixel_bytes)
        for loop in (block, group, row):
            loop.end(())
        build.ret_void()

    def _sums(self, weights: ir.Value, start: ir.Value, sums: list[ir.Value]) -> Sequence[ir.Value]:
        """Sums of products of all taps, for each pixel and in it for each vector."""
        a, build, shape = self.given, self.build, self.shape
        stride = _number(4 * LANES * shape.vectors)
        rows = self._loop(a[Argument.TAP_ROWS], weights, start, *sums)
        fours = self._loop(a[Argument.FOURS], *rows.variables)
        place, taps, *held = fours.variables
        columns = [self._load(place, _INTS, 4 * LANES * v) for v in range(shape.vectors)]
        made = []
        for p in range(shape.pixels):
            tap = self._spread(self._load(taps, _I32, p * shape.step), _INTS)
            for v, column in enumerate(columns):
                given = [tap, column, held[p * shape.vectors + v]]
                made.append(build.call(self.dot, given))
        place, _, *made = fours.end([build.add(place, stride), build.add(taps, _number(4)), *made])
        following = build.add(rows.variables[1], a[Argument.INPUT_ROW])
        return rows.end([place, following, *made])[2:]

    def _columns(self, start: ir.Value, first: ir.Value, kind: ir.Type) -> list[ir.Value]:
        """Values of a group's channels."""
        place = self.build.add(start, self.build.mul(first, _number(4)))
        return [self._load(place, kind, 4 * LANES * v) for v in range(self.shape.vectors)]

    def _finish(
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
            offset = build.add(build.mul(distance, _number(p)), _number(LANES * v))
            steps = build.call(self.round, [build.fmul(build.sitofp(total, _FLOATS), factors[v])])
            steps = self._within(steps, lowest, highest)
            if shape.after == "stored":
                value = build.fadd(steps, n[Number.ZERO])
            else:
                value = self._leaky(steps, n[Number.SCALE], n[Number.SLOPE], n[Number.TO_LEAKY], n[Number.LEAKY_ZERO])
            if shape.after == "sum":
                value = build.fmul(build.fsub(value, n[Number.LEAKY_ZERO]), n[Number.LEAKY_SCALE])
                beside = build.fsub(self._floats(self._load(build.add(other, offset), _BYTES)), n[Number.OTHER_ZERO])
                beside = build.fmul(beside, n[Number.OTHER_SCALE])
                value = self._stored(build.fmul(build.fadd(value, beside), n[Number.TO_SUM]), n[Number.SUM_ZERO])
            self._store(self._bytes(value), output, offset)

    def _finish_gate(
        self, sums: Sequence[ir.Value], factors: Sequence[ir.Value], output: ir.Value, other: ir.Value
    ) -> None:
        """Store the tanh of both halves, and their products."""
        build, n, half = self.build, self._numbers(Number), self._half
        lowest, highest = (build.fsub(self._constant(end), n[Number.ZERO]) for end in (0.0, 255.0))
        tables = [self._load(self.given[Argument.TABLE], _TABLE, 64 * part) for part in range(4)]
        middle = self._constant(128.0)
        for p in range(self.shape.pixels):
            centred = []
            for v in range(2):
                total = build.sitofp(sums[2 * p + v], _FLOATS)
                steps = self._within(build.call(self.round, [build.fmul(total, factors[v])]), lowest, highest)
                tanh = self._looked_up(self._bytes(build.fadd(steps, n[Number.ZERO])), tables)
                self._store(tanh, output, build.mul(half, _number(2 * p + v)))
                centred.append(build.fsub(self._floats(tanh), middle))
            product = build.fmul(build.fmul(*centred), n[Number.GATE_FACTOR])
            product = self._bytes(self._stored(product, n[Number.GATE_ZERO]))
            self._store(product, other, build.mul(half, _number(p)))

    def _looked_up(self, index: ir.Value, tables: Sequence[ir.Value]) -> ir.Value:
        """Bytes of a table of 256 that is held in four registers."""
        build = self.build
        lanes = ir.Constant(ir.VectorType(_I32, 64), [lane % LANES for lane in range(64)])
        wide = build.shuffle_vector(index, index, lanes)
        low, high = (build.call(self.look_up, [wide, *tables[part : part + 2]]) for part in (0, 2))
        narrow = ir.Constant(_INTS, list(range(LANES)))
        low, high = (build.shuffle_vector(values, values, narrow) for values in (low, high))
        upper = build.icmp_signed("<", index, ir.Constant(_BYTES, [0] * LANES))
        return build.select(upper, high, low)

    def _finish_phases(self, sums: Sequence[ir.Value], factors: ir.Value, output: ir.Value) -> None:
        """Store six floats of a pixel in one row of the residual, and the next six in the row below."""
        build, bias = self.build, self._load(self.given[Argument.BIAS], _FLOATS)
        empty = ir.Constant(_FLOATS, ir.Undefined)
        for p, total in enumerate(sums):
            value = build.fadd(build.fmul(build.sitofp(total, _FLOATS), factors), bias)
            place = build.add(output, _number(4 * PHASES * p))
            for at, first in ((place, 0), (build.add(place, self.given[Argument.OTHER_ROW]), PHASES)):
                lanes = ir.Constant(ir.VectorType(_I32, PHASES), list(range(first, first + PHASES)))
                self._store(build.shuffle_vector(value, empty, lanes), at)


class _JoinWriter(_Writer):
    """Writes the function that joins both branches of a block: one by its norm and activation, and the other."""

    def write(self) -> None:
        """The whole function; its `GROUPS` are those of one branch."""
        a, build, n = self.given, self.build, self._numbers(JoinNumber)
        own = build.mul(a[Argument.GROUPS], _number(LANES))
        row = self._loop(a[Argument.ROWS])
        input_row, output_row, other_row = (
            build.add(a[start], build.mul(row.counter, a[step]))
            for start, step in (
                (Argument.INPUT, Argument.INPUT_STEP),
                (Argument.OUTPUT, Argument.OUTPUT_ROW),
                (Argument.OTHER, Argument.OTHER_ROW),
            )
        )
        group = self._loop(a[Argument.GROUPS])
        channel = build.mul(group.counter, _number(LANES))
        factor, offset = (
            self._load(build.add(a[start], build.mul(channel, _number(4))), _FLOATS)
            for start in (Argument.FACTORS, Argument.BIAS)
        )
        pixel = self._loop(a[Argument.WIDTH])
        place = build.add(build.mul(pixel.counter, own), channel)
        value = build.fmul(self._floats(self._load(build.add(input_row, place), _BYTES)), factor)
        value = build.call(self.round, [build.fadd(value, offset)])
        steps = self._within(value, n[JoinNumber.LOWEST], n[JoinNumber.HIGHEST])
        joined = self._leaky(
            steps, n[JoinNumber.SCALE], n[JoinNumber.SLOPE], n[JoinNumber.TO_JOINED], n[JoinNumber.JOINED_ZERO]
        )
        target = build.add(output_row, build.add(build.mul(pixel.counter, build.mul(own, _number(2))), channel))
        self._store(self._bytes(joined), target)
        self._store(self._load(build.add(other_row, place), _BYTES), target, own)
        for loop in (pixel, group, row):
            loop.end(())
        build.ret_void()


def _number(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)
