"""Code generator of int8 convolutions for AVX2 (`kernels.convolutions`).

Products of two bytes are added in int16 there, where weights of 7 bits fit (`model.quantization.scheme`).
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from qatie_cli.kernels import convolutions
from qatie_cli.kernels.convolutions import Join
from qatie_cli.kernels.vectors import BYTES, I8, I32, I64, INTS, LANES, Argument, Shape, number

__all__ = ["Convolution", "Join"]

# Registers: of sums, of sums of two products, and of bytes, which are four for each sum or two vectors of results.
_HALF, _SHORTS, _BOTH = (
    ir.VectorType(I32, LANES // 2),
    ir.VectorType(ir.IntType(16), LANES),
    ir.VectorType(I8, 2 * LANES),
)
_ROW = 16  # entries of a table that one instruction looks up


class Convolution(convolutions.Convolution):
    """Generates the function of one shape."""

    def __init__(self, module: ir.Module, shape: Shape) -> None:
        super().__init__(module, shape)
        self.bytes_product = self._operator("llvm.x86.avx2.pmadd.ub.sw", _SHORTS, [_BOTH] * 2)
        self.shorts_product = self._operator("llvm.x86.avx2.pmadd.wd", _HALF, [_SHORTS] * 2)
        self.shuffle = self._operator("llvm.x86.avx2.pshuf.b", _BOTH, [_BOTH] * 2)
        self.less = self._operator("llvm.ssub.sat.v32i8", _BOTH, [_BOTH] * 2)

    def _sums(self, weights: ir.Value, start: ir.Value, sums: list[ir.Value]) -> Sequence[ir.Value]:
        """As with AVX-512, but two taps of bytes at a time, wherever they lie: `TAPS` lists them."""
        if self.shape.after == "residual":
            return super()._sums(weights, start, sums)
        a, build, shape = self.given, self.build, self.shape
        loop = self._loop(a[Argument.TAP_ROWS], weights, a[Argument.TAPS], *sums)
        place, listed, *held = loop.variables
        taps = [build.add(start, self._load(listed, I64, 8 * tap)) for tap in range(2)]
        columns = [
            [self._load(place, INTS, 4 * LANES * (2 * v + tap)) for tap in range(2)] for v in range(shape.vectors)
        ]
        made = []
        for p in range(shape.pixels):
            pixel = [self._spread(self._load(tap, I32, p * shape.step), INTS) for tap in taps]
            for v, both in enumerate(columns):
                made.append(self._with_both(pixel, both, held[p * shape.vectors + v]))
        following = build.add(place, number(8 * LANES * shape.vectors)), build.add(listed, number(16))
        return loop.end([*following, *made])[2:]

    def _with_both(self, taps: Sequence[ir.Value], weights: Sequence[ir.Value], total: ir.Value) -> ir.Value:
        """A vector of sums with the products of two taps added; these fit int16 together (`engines.compiled_convs`)."""
        build, halves = self.build, []
        for half in range(2):
            shorts = []
            for tap, values in zip(taps, weights, strict=True):
                both = (build.bitcast(self._half(whole, half), _BOTH) for whole in (tap, values))
                shorts.append(build.call(self.bytes_product, both))
            products = build.call(self.shorts_product, [build.add(*shorts), ir.Constant(_SHORTS, [1] * LANES)])
            halves.append(build.add(self._half(total, half), products))
        return self._joined(halves)

    def _accumulated(self, tap: ir.Value, weights: ir.Value, total: ir.Value) -> ir.Value:
        build, halves = self.build, []
        for half in range(2):
            shorts = [build.bitcast(self._half(whole, half), _SHORTS) for whole in (tap, weights)]
            halves.append(build.add(self._half(total, half), build.call(self.shorts_product, shorts)))
        return self._joined(halves)

    def _half(self, whole: ir.Value, half: int) -> ir.Value:
        lanes = ir.Constant(_HALF, list(range(8 * half, 8 * half + 8)))
        return self.build.shuffle_vector(whole, whole, lanes)

    def _joined(self, halves: Sequence[ir.Value]) -> ir.Value:
        return self.build.shuffle_vector(*halves, ir.Constant(INTS, list(range(LANES))))

    def _looked_up(self, indices: Sequence[ir.Value]) -> list[ir.Value]:
        """By rows of 16, each stored as its difference (exclusive or) from the row before in its half of the table.

        A shuffle gives 0 for negative indices, so the sum over all rows up to an index's own is its entry.
        """
        build, table = self.build, self.given[Argument.TABLE]
        every = ir.Constant(ir.VectorType(I32, 2 * LANES), list(range(2 * LANES)))
        twice = ir.Constant(ir.VectorType(I32, 2 * LANES), list(range(LANES)) * 2)
        below = build.shuffle_vector(*indices, every)
        above = build.xor(below, ir.Constant(_BOTH, [-128] * (2 * LANES)))
        found: ir.Value = ir.Constant(_BOTH, [0] * (2 * LANES))
        for row in range(8):
            for half, index in enumerate((below, above)):
                entries = self._load(table, BYTES, _ROW * (8 * half + row))
                entries = build.shuffle_vector(entries, entries, twice)
                inside = build.call(self.less, [index, ir.Constant(_BOTH, [_ROW * row] * (2 * LANES))])
                found = build.xor(found, build.call(self.shuffle, [entries, inside]))
        lanes = (ir.Constant(INTS, list(range(LANES * v, LANES * v + LANES))) for v in range(2))
        return [build.shuffle_vector(found, found, part) for part in lanes]
