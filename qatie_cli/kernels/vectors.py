"""Code generators of convolutions in LLVM's intermediate representation, for AVX-512 and AVX2.

Features are channels-last, so the bytes that a row of taps reads are contiguous; four of them make a tap. Weights are
stored in reading order: (groups, rows of taps, fours of bytes, vectors, 16 channels, 4 bytes). A vector has 16 lanes
everywhere: with AVX2 it takes two registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

from llvmlite import ir

from qatie_cli.kernels.machine_code import CHANNELS, Instructions

LANES = CHANNELS  # 4-byte numbers in a vector
# By vectors: as many sums as fit in registers beside weights and a tap.
PIXELS: dict[Instructions, dict[int, int]] = {"avx512": {1: 16, 2: 12}, "avx2": {1: 5, 2: 2}}
JOIN = "join"  # the name of the function that joins branches
PHASES = 6  # floats per pixel in a row of the residual: two pixels of three channels

I8, I32, I64, F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
BYTES, INTS, FLOATS = (ir.VectorType(kind, LANES) for kind in (I8, I32, F32))
_POINTER = ir.PointerType()

After = Literal["stored", "leaky", "sum", "gate", "residual"]


class Argument(IntEnum):
    """The arguments of a function, an array of int64: addresses, strides in bytes, and counts."""

    INPUT = 0  # the first tap of the first pixel
    INPUT_ROW = 1  # stride of rows of taps
    INPUT_STEP = 2  # stride of rows of pixels
    OUTPUT = 3
    OUTPUT_ROW = 4
    ROWS = 5
    WIDTH = 6  # at least `Shape.pixels`
    TAP_ROWS = 7
    FOURS = 8  # of bytes in a row of taps, or 2 in a pair
    WEIGHTS = 9
    GROUPS = 10  # of `Shape.vectors` vectors
    BIAS = 11  # initial value of the sums, in their type
    FACTORS = 12  # float32 per channel, from sums to steps of the output or to values
    NUMBERS = 13  # float32, scales and zero points of the fused operation
    OTHER = 14  # second operand of a sum, or output for a gate's products
    OTHER_ROW = 15
    TABLE = 16  # gate: tanh of every byte; residual: float32 bias
    TAPS = 17  # int8 with AVX2: where taps lie, in bytes from the first; `TAP_ROWS` pairs of them


class Shape(NamedTuple):
    """What a function is compiled for.

    Attributes:
        step: bytes from the taps of one pixel to those of the next.
        vectors: of 16 channels, computed at once; a gate has one of its first half and one of its second.
        pixels: computed at once.
        after: the fused operation; a `residual` convolves int16, two per tap.
    """

    step: int
    vectors: int
    pixels: int
    after: After

    @property
    def name(self) -> str:
        """The name of the function."""
        return f"conv_{self.step}_{self.vectors}_{self.pixels}_{self.after}"


@dataclass
class Loop:
    """An open loop: its counter and its variables."""

    counter: ir.Value
    variables: Sequence[ir.Value]
    end: Callable[[Sequence[ir.Value]], Sequence[ir.Value]]


class Writer:
    """Generates one function.

    Attributes:
        features: the vector type in which features are stored.
    """

    features: ir.VectorType

    def __init__(self, module: ir.Module, name: str) -> None:
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_POINTER]), name)
        self.build = ir.IRBuilder(self.function.append_basic_block())
        self.given = [self._argument(index) for index in Argument]
        self.round = self._operator("llvm.rint.v16f32", FLOATS, [FLOATS])

    def _operator(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        known = self.function.module.globals.get(name)
        return known or ir.Function(self.function.module, ir.FunctionType(result, arguments), name)

    def _argument(self, index: int) -> ir.Value:
        place = self.build.gep(self.function.args[0], [number(index)], source_etype=I64)
        return self.build.load(place, typ=I64)

    def _loop(self, times: ir.Value, *variables: ir.Value) -> Loop:
        """Open a loop that runs at least once; `end` takes the variables' next values."""
        build, before = self.build, self.build.block
        body = self.function.append_basic_block()
        build.branch(body)
        build.position_at_end(body)
        counter = build.phi(I64)
        counter.add_incoming(number(0), before)
        held = []
        for value in variables:
            held.append(build.phi(value.type))
            held[-1].add_incoming(value, before)

        def end(following: Sequence[ir.Value]) -> Sequence[ir.Value]:
            count = build.add(counter, number(1))
            counter.add_incoming(count, build.block)
            for phi, value in zip(held, following, strict=True):
                phi.add_incoming(value, build.block)
            after = self.function.append_basic_block()
            build.cbranch(build.icmp_unsigned("<", count, times), body, after)
            build.position_at_end(after)
            return following

        return Loop(counter, held, end)

    def _pointer(self, address: ir.Value) -> ir.Value:
        return self.build.inttoptr(address, _POINTER)

    def _load(self, address: ir.Value, kind: ir.Type, offset: int = 0) -> ir.Value:
        return self.build.load(self._pointer(self.build.add(address, number(offset))), typ=kind, align=1)

    def _spread(self, value: ir.Value, kind: ir.VectorType) -> ir.Value:
        """Broadcast a number to all lanes."""
        empty = ir.Constant(kind, ir.Undefined)
        one = self.build.insert_element(empty, value, ir.Constant(I32, 0))
        return self.build.shuffle_vector(one, empty, ir.Constant(INTS, [0] * LANES))

    def _larger(self, one: ir.Value, two: ir.Value) -> ir.Value:
        return self.build.select(self.build.fcmp_ordered(">", one, two), one, two)

    def _constant(self, value: float) -> ir.Value:
        return ir.Constant(FLOATS, [value] * LANES)

    def _rows(self, row: ir.Value) -> list[ir.Value]:
        """Addresses of this row of the input, the output and the other operand."""
        ends = (
            (Argument.INPUT, Argument.INPUT_STEP),
            (Argument.OUTPUT, Argument.OUTPUT_ROW),
            (Argument.OTHER, Argument.OTHER_ROW),
        )
        return [self.build.add(self.given[start], self.build.mul(row, self.given[step])) for start, step in ends]

    def _store(self, value: ir.Value, *address: ir.Value) -> None:
        place = address[0]
        for part in address[1:]:
            place = self.build.add(place, part)
        self.build.store(value, self._pointer(place), align=1)


class Place(NamedTuple):
    """Where sums go: rows of the output and the other operand, the first pixel in them, and the group."""

    output: ir.Value
    other: ir.Value
    pixel: ir.Value
    group: ir.Value


class ConvolutionWriter(Writer):
    """Generates the function of one shape; subclasses add the fused operation.

    Attributes:
        kind: the vector type of sums.
    """

    kind: ir.VectorType

    def __init__(self, module: ir.Module, shape: Shape) -> None:
        super().__init__(module, shape.name)
        self.shape = shape

    def write(self) -> None:
        """Generate the whole function: loops over rows, groups of channels and blocks of pixels."""
        a, build, shape = self.given, self.build, self.shape
        channels = LANES * shape.vectors
        group_bytes = build.mul(build.mul(a[Argument.TAP_ROWS], a[Argument.FOURS]), number(4 * channels))
        last = build.sub(a[Argument.WIDTH], number(shape.pixels))
        blocks = build.udiv(build.add(a[Argument.WIDTH], number(shape.pixels - 1)), number(shape.pixels))
        row = self._loop(a[Argument.ROWS])
        input_row, output_row, other_row = self._rows(row.counter)
        group = self._loop(a[Argument.GROUPS])
        weights = build.add(a[Argument.WEIGHTS], build.mul(group.counter, group_bytes))
        first = build.mul(group.counter, number(channels))
        bias = self._columns(a[Argument.BIAS], first, self.kind)
        block = self._loop(blocks)
        # The last block overlaps the one before it, and computes some pixels twice.
        pixel = build.mul(block.counter, number(shape.pixels))
        pixel = build.select(build.icmp_unsigned("<", pixel, last), pixel, last)
        start = build.add(input_row, build.mul(pixel, number(shape.step)))
        sums = self._sums(weights, start, [bias[v] for _ in range(shape.pixels) for v in range(shape.vectors)])
        self._finish(sums, Place(output_row, other_row, pixel, group.counter))
        for loop in (block, group, row):
            loop.end(())
        build.ret_void()

    def _sums(self, weights: ir.Value, start: ir.Value, sums: list[ir.Value]) -> Sequence[ir.Value]:
        """Accumulate all taps, for each pixel and each of its vectors."""
        a, build, shape = self.given, self.build, self.shape
        stride = number(4 * LANES * shape.vectors)
        rows = self._loop(a[Argument.TAP_ROWS], weights, start, *sums)
        fours = self._loop(a[Argument.FOURS], *rows.variables)
        place, taps, *held = fours.variables
        columns = [self._load(place, self.kind, 4 * LANES * v) for v in range(shape.vectors)]
        made = []
        for p in range(shape.pixels):
            tap = self._spread(self._load(taps, self.kind.element, p * shape.step), self.kind)
            for v, column in enumerate(columns):
                made.append(self._accumulated(tap, column, held[p * shape.vectors + v]))
        place, _, *made = fours.end([build.add(place, stride), build.add(taps, number(4)), *made])
        following = build.add(rows.variables[1], a[Argument.INPUT_ROW])
        return rows.end([place, following, *made])[2:]

    def _accumulated(self, tap: ir.Value, weights: ir.Value, total: ir.Value) -> ir.Value:
        """A vector of sums with the products of a tap, which is the same in all lanes, and its weights added."""
        raise NotImplementedError

    def _columns(self, start: ir.Value, first: ir.Value, kind: ir.Type) -> list[ir.Value]:
        """Load values of a group's channels."""
        place = self.build.add(start, self.build.mul(first, number(4)))
        return [self._load(place, kind, 4 * LANES * v) for v in range(self.shape.vectors)]

    def _finish(self, sums: Sequence[ir.Value], place: Place) -> None:
        """Apply the fused operation to the sums of a block of pixels, and store them."""
        build, shape = self.build, self.shape
        self._prepare(build.mul(place.group, number(LANES * shape.vectors)))
        if shape.after == "residual":
            self._finish_phases([self._real(total) for total in sums], place)
            return
        if shape.after == "gate":
            self._finish_gate(sums, place)
            return
        own = number(bytes_of(self.features) * shape.vectors)
        distance = build.mul(self.given[Argument.GROUPS], own)
        start = build.add(build.mul(place.pixel, distance), build.mul(place.group, own))
        output, other = (build.add(row, start) for row in (place.output, place.other))
        for index, total in enumerate(sums):
            p, v = divmod(index, shape.vectors)
            offset = build.add(build.mul(distance, number(p)), number(bytes_of(self.features) * v))
            beside = self._load(build.add(other, offset), self.features) if shape.after == "sum" else None
            self._store(self._feature(total, v, beside), output, offset)

    def _finish_gate(self, sums: Sequence[ir.Value], place: Place) -> None:
        """Store the tanh of both halves, and their products."""
        build, own = self.build, number(bytes_of(self.features))
        half = build.mul(self.given[Argument.GROUPS], own)
        column, pixels = build.mul(place.group, own), build.mul(place.pixel, half)
        output = build.add(build.add(place.output, column), build.mul(pixels, number(2)))
        other = build.add(build.add(place.other, column), pixels)
        for p in range(self.shape.pixels):
            halves = self._tanhs(sums[2 * p : 2 * p + 2])
            for v, value in enumerate(halves):
                self._store(value, output, build.mul(half, number(2 * p + v)))
            self._store(self._product(*halves), other, build.mul(half, number(p)))

    def _prepare(self, channel: ir.Value) -> None:
        """Load what the fused operation needs for a group, from `channel` on."""

    def _real(self, total: ir.Value) -> ir.Value:
        """The residual's sums as float32."""
        raise NotImplementedError

    def _feature(self, total: ir.Value, vector: int, beside: ir.Value | None) -> ir.Value:
        """The stored form of a vector of sums; `beside` is the second operand of a sum."""
        raise NotImplementedError

    def _tanhs(self, totals: Sequence[ir.Value]) -> list[ir.Value]:
        """The stored tanh of the sums of both halves of a gate."""
        raise NotImplementedError

    def _product(self, one: ir.Value, two: ir.Value) -> ir.Value:
        """The stored product of two results of `_tanhs`."""
        raise NotImplementedError

    def _finish_phases(self, values: Sequence[ir.Value], place: Place) -> None:
        """Store six floats of each pixel in a row of the residual, and the other six in the row below."""
        empty, build = ir.Constant(FLOATS, ir.Undefined), self.build
        output = build.add(place.output, build.mul(place.pixel, number(4 * PHASES)))
        for p, value in enumerate(values):
            upper = build.add(output, number(4 * PHASES * p))
            for at, first in ((upper, 0), (build.add(upper, self.given[Argument.OTHER_ROW]), PHASES)):
                lanes = ir.Constant(ir.VectorType(I32, PHASES), list(range(first, first + PHASES)))
                self._store(build.shuffle_vector(value, empty, lanes), at)


class JoinWriter(Writer):
    """Generates the function that concatenates a block's branches, the local one through its norm and activation."""

    def write(self) -> None:
        """Generate the whole function; `GROUPS` counts those of one branch."""
        a, build, lanes = self.given, self.build, number(bytes_of(self.features))
        own = build.mul(a[Argument.GROUPS], lanes)
        row = self._loop(a[Argument.ROWS])
        input_row, output_row, other_row = self._rows(row.counter)
        group = self._loop(a[Argument.GROUPS])
        parameter = build.mul(group.counter, number(bytes_of(FLOATS)))
        factor, offset = (
            self._load(build.add(a[start], parameter), FLOATS) for start in (Argument.FACTORS, Argument.BIAS)
        )
        channel = build.mul(group.counter, lanes)
        pixel = self._loop(a[Argument.WIDTH])
        place = build.add(build.mul(pixel.counter, own), channel)
        value = self._entered(self._load(build.add(input_row, place), self.features), factor, offset)
        target = build.add(output_row, build.add(build.mul(pixel.counter, build.mul(own, number(2))), channel))
        self._store(value, target)
        self._store(self._load(build.add(other_row, place), self.features), target, own)
        for loop in (pixel, group, row):
            loop.end(())
        build.ret_void()

    def _entered(self, local: ir.Value, factor: ir.Value, offset: ir.Value) -> ir.Value:
        """The stored form of the local branch."""
        raise NotImplementedError


def source(shapes: Iterable[Shape], convolution: type[ConvolutionWriter], join: type[JoinWriter]) -> str:
    """A module with a function for each shape, and the one that joins branches."""
    module = ir.Module(convolution.__name__)
    for shape in shapes:
        convolution(module, shape).write()
    join(module, JOIN).write()
    return str(module)


def bytes_of(kind: ir.VectorType) -> int:
    """Bytes of a vector."""
    return LANES if kind is BYTES else 4 * LANES


def number(value: int) -> ir.Constant:
    """A constant of 64 bits."""
    return ir.Constant(I64, value)
