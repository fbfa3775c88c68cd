"""The network's convolutions as compiled functions, with packed constants."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np

from qatie_cli.engines.norms import Norm
from qatie_cli.graphs.kernels import Kernel
from qatie_cli.kernels import avx2_convolutions, convolutions, float_convolutions, machine_code, vectors
from qatie_cli.kernels.convolutions import Number
from qatie_cli.kernels.vectors import LANES, PIXELS, After, Argument, Shape
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import LEAKY_SLOPE
from qatie_cli.model.folding import fold_tail
from qatie_cli.model.quantization.integers import IntegerConv, float_convs, integer_convs
from qatie_cli.model.quantization.scheme import ACTIVATION_MAX, SMALLEST_SCALE, TANH, Activation, activation_at
from qatie_cli.model.tensors import FUSES, GATES

_F = np.float32
_EVERY = np.arange(256)
_AFTER: dict[str, After] = {"inner": "leaky", "outer": "sum", "pair": "gate"}
_WRITERS: dict[machine_code.Instructions, tuple[ModuleType, ...]] = {
    "avx512": (convolutions,),
    "avx2": (convolutions, avx2_convolutions),
}
_MOST_IN_INT16 = 128  # 255 times this fits
_NONE = np.zeros(1, np.uint8)
_INT16_MAX, _INT32_MAX = np.iinfo(np.int16).max, np.iinfo(np.int32).max
# The points that convolutions read: of gates, of blocks' branches, and of upsampled features.
_BEFORE_GATES = {"down1": "photo", "down2": "refine1.out"}
_BEFORE_BLOCKS = {
    "refine1": "down1.product",
    "refine2": "down2.product",
    "bottleneck": "refine2.out",
    "decode2": "fuse2.reduced",
    "decode1": "fuse1.reduced",
}
_BEFORE_FUSES = {"fuse2": "bottleneck.out", "fuse1": "decode2.out"}
_OUTPUTS = {"pair": "pre", "side": "y", "reduce": "reduced"}  # points named differently from their convolution


@dataclass(frozen=True)
class Conv:
    """One convolution, ready to run.

    Attributes:
        functions: by the number of pixels that they compute at once.
        weights, bias, factors, numbers, table: in the layout of `kernels.convolutions`.
        taps: rows of taps, and groups of four bytes in each.
        groups: of channels computed at once.
        channels: of the output.
        pairs: of taps, (pairs, 2 taps, row and byte in it), where functions take them so; `taps` are (pairs, 2) then.
    """

    functions: dict[int, machine_code.Function]
    weights: np.ndarray
    bias: np.ndarray
    factors: np.ndarray
    numbers: np.ndarray
    table: np.ndarray
    taps: tuple[int, int]
    stride: int
    groups: int
    channels: int
    pairs: np.ndarray | None = None

    def __call__(self, x: np.ndarray, out: np.ndarray, other: np.ndarray = _NONE) -> None:
        """Compute `out` (h, w, C); the first tap of its first pixel is the first pixel of `x`.

        Args:
            other: second operand of a sum, (h, w, C), or the output for a gate's products, (h, w, C / 2).
        """
        self._run(x, out, other, out.shape[:2], out.strides[0])

    def of_two(self, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
        """Convolve the concatenation of `x` and `y`, (h, w, C) each; they are its two rows of taps."""
        assert x.strides == y.strides
        self._run(x, out, _NONE, out.shape[:2], out.strides[0], _address(y) - _address(x))

    def phases(self, x: np.ndarray, out: np.ndarray) -> None:
        """Run the tail, into `out` (2 * h, 2 * w, 3) float32."""
        self._run(x, out, out, (out.shape[0] // 2, out.shape[1] // 2), 2 * out.strides[0])

    def _run(
        self,
        x: np.ndarray,
        out: np.ndarray,
        other: np.ndarray,
        size: tuple[int, ...],
        pitch: int,
        taps_apart: int | None = None,
    ) -> None:
        apart = x.strides[0] if taps_apart is None else taps_apart
        where = _NONE if self.pairs is None else self.pairs @ np.array([apart, 1], np.int64)
        pointers = (_address(part) for part in (self.bias, self.factors, self.numbers))
        given = np.array(
            [
                *(_address(x), apart, self.stride * x.strides[0], _address(out), pitch),
                *(*size, *self.taps, _address(self.weights), self.groups, *pointers),
                *(_address(other), other.strides[0], _address(self.table), _address(where)),
            ],
            np.int64,
        )
        self.functions[max(pixels for pixels in self.functions if pixels <= size[1])](_address(given))


@dataclass(frozen=True)
class Join:
    """Concatenates both branches of a block, the local one through its norm and activation."""

    function: machine_code.Function

    def __call__(self, local: np.ndarray, side: np.ndarray, norm: Norm, out: np.ndarray) -> None:
        """Write `out` (h, w, 2 * C)."""
        assert norm.factors is not None and norm.offsets is not None
        given = np.zeros(len(Argument), np.int64)
        given[Argument.INPUT], given[Argument.INPUT_STEP] = _address(local), local.strides[0]
        given[Argument.OTHER], given[Argument.OTHER_ROW] = _address(side), side.strides[0]
        given[Argument.OUTPUT], given[Argument.OUTPUT_ROW] = _address(out), out.strides[0]
        given[Argument.ROWS], given[Argument.WIDTH] = local.shape[:2]
        given[Argument.GROUPS] = local.shape[2] // LANES
        given[Argument.FACTORS], given[Argument.BIAS] = _address(norm.factors), _address(norm.offsets)
        given[Argument.NUMBERS] = _address(norm.numbers)
        self.function(_address(given))


def _address(x: np.ndarray) -> int:
    return int(x.__array_interface__["data"][0])


def integers(weights: Weights) -> tuple[dict[str, Conv], Join]:
    """The int8 convolutions of calibrated weights by name, including the `tail`, and the join of branches."""
    convs = integer_convs(weights.state)
    shapes = {name: _shape(name, conv.weight, conv.stride) for name, conv in convs.items()}
    shapes["tail"] = _shape_of_tail(2 * weights.config.network.width)
    functions, join = _functions(frozenset(shapes.values()), _WRITERS[_instructions()])
    made = dict(_integer(weights, convs, {name: functions[shapes[name]] for name in convs}))
    return made | {"tail": _tail(weights, functions[shapes["tail"]])}, Join(join)


def floats(weights: Weights) -> tuple[dict[str, Conv], Join]:
    """The float32 convolutions of any weights by name, including the `tail`, and the join of branches."""
    constants = {name: (weight, bias, stride) for name, weight, bias, stride in float_convs(weights.state)}
    shapes = {name: _shape(name, weight, stride, size=4) for name, (weight, _, stride) in constants.items()}
    shapes["tail"] = _shape_of_tail(4 * weights.config.network.width)
    weight, bias = map(_in_rows, fold_tail(weights.state))
    constants["tail"] = weight, bias, 1
    functions, join = _functions(frozenset(shapes.values()), (float_convolutions,))
    slope, made = np.array([LEAKY_SLOPE], _F), {}
    for name, (*both, stride) in constants.items():
        weight, bias = map(_halves_in_turn, both) if name.endswith(".pair") else both
        groups, taps, packed = _packed(_as_read(name, weight), shapes[name].vectors, 1)
        given = packed.astype(_F), bias.astype(_F), _NONE, slope, _NONE, taps, stride, groups, len(weight)
        made[name] = Conv(functions[shapes[name]], *given)
    return made, Join(join)


def _integer(
    weights: Weights, convs: dict[str, IntegerConv], functions: dict[str, dict[int, machine_code.Function]]
) -> Iterator[tuple[str, Conv]]:
    def at(point: str) -> Activation:
        assert weights.activations is not None
        return activation_at(point, weights.activations)

    for name, conv in convs.items():
        block, part = name.split(".")
        before, after = at(_input_of(block, part)), at(f"{block}.{_OUTPUTS.get(part, part)}")
        bias, scales = Kernel(conv.weight, conv.bias, scales=conv.scales).integer_bias(before.scale)
        bias = bias - before.zero_point * conv.weight.sum((1, 2, 3), dtype=np.int32)
        constants = [conv.weight, bias, scales / _F(after.scale)]
        numbers, table = np.zeros(len(Number), _F), _NONE
        numbers[Number.ZERO], numbers[Number.SCALE], numbers[Number.SLOPE] = after.zero_point, after.scale, LEAKY_SLOPE
        if part == "pair":
            constants = [_halves_in_turn(values) for values in constants]
            table = _as_looked_up(TANH.stored(np.tanh(after.real(_EVERY))))
            product = at(f"{block}.product")
            numbers[Number.GATE_FACTOR] = _F(TANH.scale) * _F(TANH.scale) * (_F(1) / _F(product.scale))
            numbers[Number.GATE_ZERO] = product.zero_point
        if part in ("inner", "outer"):
            leaky = at(f"{name}_leaky")
            numbers[Number.TO_LEAKY] = _F(1) / _F(leaky.scale)
            numbers[Number.LEAKY_ZERO], numbers[Number.LEAKY_SCALE] = leaky.zero_point, leaky.scale
        if part == "outer":
            other, total = at(f"{block}.shortcut"), at(f"{block}.out")
            numbers[Number.OTHER_ZERO], numbers[Number.OTHER_SCALE] = other.zero_point, other.scale
            numbers[Number.TO_SUM], numbers[Number.SUM_ZERO] = _F(1) / _F(total.scale), total.zero_point
        weight, bias, factors = constants
        groups, taps, packed = _packed(_as_read(name, weight), _vectors(name, weight), 4)
        pairs = None
        if _instructions() == "avx2":
            pairs, packed = _paired(packed)
            taps = pairs.shape[:2]
        given = packed, bias, factors, numbers, table, taps, conv.stride, groups, len(weight), pairs
        yield name, Conv(functions[name], *given)


def _tail(weights: Weights, functions: dict[int, machine_code.Function]) -> Conv:
    """The tail on int16 (bytes minus their zero point), with weights as fine as int32 sums allow.

    Its residual has steps of a thousandth of a level.
    """
    at = activation_at("decode1.out", weights.activations or {})
    weight, bias = (_in_rows(values) for values in fold_tail(weights.state))
    largest = np.abs(weight).max((1, 2, 3)) / _INT16_MAX, np.abs(weight).sum((1, 2, 3)) * ACTIVATION_MAX / _INT32_MAX
    scales = np.maximum(np.maximum(*largest), SMALLEST_SCALE)
    integers = np.trunc(weight / scales[:, None, None, None]).astype(np.int16)
    groups, taps, packed = _packed(integers, 1, 2)
    nothing, unused = np.zeros(LANES, np.int32), np.zeros(len(Number), _F)
    factors = (scales * at.scale).astype(_F)
    return Conv(functions, packed, nothing, factors, unused, bias.astype(_F), taps, 1, groups, 12)


def _in_rows(values: np.ndarray) -> np.ndarray:
    """Reorder three channels of four phases as they lie in rows; the extra lanes are not stored."""
    rows = np.moveaxis(values.reshape(3, 4, *values.shape[1:]), 0, 1).reshape(values.shape)
    return np.pad(rows, ((0, LANES - len(rows)), *((0, 0),) * (rows.ndim - 1)))


def _input_of(block: str, part: str) -> str:
    if block in GATES:
        return _BEFORE_GATES[block]
    if block in FUSES:
        return _BEFORE_FUSES[block] if part == "up" else f"{block}.encoded"
    if part in ("local", "side"):
        return _BEFORE_BLOCKS[block]
    return f"{block}.inner_leaky" if part == "outer" else f"{block}.y"


def _shape(name: str, weight: np.ndarray, stride: int, size: int = 1) -> Shape:
    """The shape that the convolution `name` is compiled for, with values of `size` bytes."""
    at_once = _vectors(name, weight)
    after = _AFTER.get(name.split(".")[1], "stored")
    return Shape(size * stride * _as_read(name, weight).shape[1], at_once, PIXELS[_instructions()][at_once], after)


def _shape_of_tail(step: int) -> Shape:
    return Shape(step, 1, PIXELS[_instructions()][1], "residual")


def _as_read(name: str, weight: np.ndarray) -> np.ndarray:
    """Weights padded to four channels of the photo; those of `Conv.of_two` as two rows."""
    weight = np.pad(weight, ((0, 0), (0, -weight.shape[1] % 4), (0, 0), (0, 0)))
    if name.endswith(".reduce"):
        weight = np.ascontiguousarray(weight.reshape(len(weight), 2, -1, 1).swapaxes(1, 2))
    return weight


def _vectors(name: str, weight: np.ndarray) -> int:
    """Vectors of channels computed at once: of a gate one of each half; with AVX2 one, which takes two registers."""
    if name.endswith(".pair"):
        return 2
    return 1 if len(weight) % (2 * LANES) or _instructions() == "avx2" else 2


@functools.lru_cache(8)
def _functions(
    shapes: frozenset[Shape], writers: tuple[ModuleType, ...]
) -> tuple[dict[Shape, dict[int, machine_code.Function]], machine_code.Function]:
    """For each shape, functions for its number of pixels and for one pixel; and the function that joins branches.

    `writers` are the modules of `kernels` that generate their code; the last one has the classes.
    """
    wanted = sorted({shape._replace(pixels=pixels) for shape in shapes for pixels in (shape.pixels, 1)})
    sources = [Path(made.__file__ or "").read_bytes() for made in (vectors, *writers)]
    key = b"".join(sources) + repr(wanted).encode()
    names = [*(shape.name for shape in wanted), vectors.JOIN]
    code = machine_code.functions(lambda: vectors.source(wanted, writers[-1].Convolution, writers[-1].Join), names, key)
    by_pixels = {
        shape: {pixels: code[shape._replace(pixels=pixels).name] for pixels in (shape.pixels, 1)} for shape in shapes
    }
    return by_pixels, code[vectors.JOIN]


def _instructions() -> machine_code.Instructions:
    return cast(machine_code.Instructions, machine_code.instructions())


def _paired(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of taps, and their weights (groups, pairs, vectors, 2 taps, 16 channels, 4 bytes).

    The products of a pair are added in int16 by twos, of the largest inputs, too: positive weights that meet there sum
    up to 128 at most, and so do negative ones. A tap that finds no partner gets weights of 0.

    Returns:
        (pairs, 2, 2): each tap's row, and its byte there; the paired weights.
    """
    groups, height, fours = packed.shape[:3]
    taps = packed.reshape(groups, height * fours, *packed.shape[3:])
    twos = np.moveaxis(taps, 1, 0).reshape(height * fours, -1, 2).astype(np.int16)
    upper, lower = np.maximum(twos, 0).sum(2), -np.minimum(twos, 0).sum(2)

    def fit(one: int, two: int) -> bool:
        return max((upper[one] + upper[two]).max(), (lower[one] + lower[two]).max()) <= _MOST_IN_INT16

    inner = [(tap, tap + 1) for tap in range(0, len(upper) - 1, 2)]
    pairs = [pair for pair in inner if fit(*pair)]
    left = sorted(set(range(len(upper))) - {tap for pair in pairs for tap in pair})
    while left:
        first = left.pop(0)
        second = next((tap for tap in left if fit(first, tap)), None)
        if second is not None:
            left.remove(second)
        pairs.append((first, len(upper) if second is None else second))
    nothing = np.zeros_like(taps[:, :1])
    weights = np.concatenate([taps, nothing], 1)[:, np.array(pairs)]
    places = [(tap // fours, 4 * (tap % fours)) for tap in range(len(upper))]
    return np.array([*places, (0, 0)], np.int64)[np.array(pairs)], np.ascontiguousarray(np.moveaxis(weights, 2, 3))


def _as_looked_up(table: np.ndarray) -> np.ndarray:
    """A table of 256 bytes as the int8 functions take it: with AVX2 as differences of its rows of 16."""
    if _instructions() == "avx512":
        return table
    rows = table.reshape(2, 8, 16)
    return np.ascontiguousarray(np.concatenate([rows[:, :1], rows[:, 1:] ^ rows[:, :-1]], 1))


def _halves_in_turn(values: np.ndarray) -> np.ndarray:
    """Interleave vectors of the first and the second half of the channels."""
    return np.ascontiguousarray(values.reshape(2, -1, LANES, *values.shape[1:]).swapaxes(0, 1)).reshape(values.shape)


def _packed(weight: np.ndarray, at_once: int, unit: int) -> tuple[int, tuple[int, int], np.ndarray]:
    """Groups, taps, and weights (out, in, h, w) in the layout of `kernels.vectors`; `unit` inputs fill four bytes."""
    outputs, inputs, height, width = weight.shape
    groups, fours = outputs // (LANES * at_once), width * inputs // unit
    ordered = weight.transpose(2, 3, 1, 0).reshape(height, fours, unit, groups, at_once, LANES)
    return groups, (height, fours), np.ascontiguousarray(ordered.transpose(3, 0, 1, 4, 5, 2))
