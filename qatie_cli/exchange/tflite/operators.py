"""The operators of exported graphs in TFLite. Tensors are NHWC; curves are (3, values).

Integers are int8, so zero points are those of the weights file less 128. What the int8 engines compute in float (the
norms' statistics, the network's tail, the tone stage) is float here, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qatie_cli.exchange.record import Record
from qatie_cli.exchange.tflite.writing import Tensor, Writer
from qatie_cli.graphs.kernels import Kernel
from qatie_cli.graphs.operators import Declared, Deviation, Mean, MeanDifference, Moment
from qatie_cli.model.config import LEAKY_SLOPE, THUMBNAIL_PX
from qatie_cli.model.quantization.scheme import Activation

_SAME, _VALID = schema.Padding.SAME, schema.Padding.VALID


@dataclass(frozen=True)
class TfliteOperators:
    """Writes operators in the order of the calls, and the constants that they read."""

    record: Record
    file: Writer = field(default_factory=Writer)

    # --- constants and storage

    def constant(self, values: np.ndarray) -> Tensor:
        return self.file.constant(values)

    def number(self, value: float) -> Tensor:
        return self.constant(np.array(value, np.float32))

    def _integers(self, values: Sequence[int]) -> Tensor:
        return self.constant(np.array(values, np.int32))

    def parameter(self, key: str, values: np.ndarray) -> Tensor:
        if key:
            self.record.hold(key)
        return self.file.constant(_nhwc(values), key)

    def declare(self, *values: np.ndarray, axis: Literal["knots", "bins"]) -> Declared[Tensor]:
        return Declared(tuple(v.reshape(1, -1) if axis == "knots" else v.reshape(1, 1, -1) for v in values))

    def use(self, declared: Declared[Tensor]) -> tuple[Tensor, ...]:
        return tuple(self.constant(v) for v in declared.values)

    def store(self, x: Tensor, at: Activation | None) -> Tensor:
        return x if at is None else self.file.operator("QUANTIZE", x, shape=x.shape, at=at)

    def real(self, x: Tensor) -> Tensor:
        return x if x.at is None else self.file.operator("DEQUANTIZE", x, shape=x.shape)

    def holds_levels(self, x: Tensor) -> bool:
        return x.at is not None

    # --- element by element

    def _broadcast(self, name: str, *inputs: Tensor | float, at: Activation | None = None) -> Tensor:
        """An operator whose output has the shape that its inputs' broadcast to; numbers become constants."""
        tensors = [self.number(i) if isinstance(i, float) else i for i in inputs]
        shape = np.broadcast_shapes(*(t.shape for t in tensors))
        return self.file.operator(name, *tensors, shape=shape, at=at)

    def add(self, a: Tensor | float, b: Tensor | float, at: Activation | None = None) -> Tensor:
        return self._broadcast("ADD", a, b, at=at)

    def sub(self, a: Tensor | float, b: Tensor | float) -> Tensor:
        return self._broadcast("SUB", a, b)

    def mul(self, a: Tensor | float, b: Tensor | float, at: Activation | None = None) -> Tensor:
        return self._broadcast("MUL", a, b, at=at)

    def div(self, a: Tensor | float, b: Tensor | float) -> Tensor:
        return self.mul(a, 1 / b) if isinstance(b, float) else self._broadcast("DIV", a, b)

    def abs(self, x: Tensor) -> Tensor:
        return self._broadcast("ABS", x)

    def floor(self, x: Tensor) -> Tensor:
        return self._broadcast("FLOOR", x)

    def sqrt(self, x: Tensor) -> Tensor:
        return self._broadcast("SQRT", x)

    def exp(self, x: Tensor) -> Tensor:
        return self._broadcast("EXP", x)

    def relu(self, x: Tensor) -> Tensor:
        return self._broadcast("RELU", x)

    def softplus(self, x: Tensor) -> Tensor:
        small = self._broadcast("EXP", self._broadcast("NEG", self.abs(x)))
        return self.add(self.relu(x), self._broadcast("LOG", self.add(small, 1.0)))

    def tanh(self, x: Tensor, at: Activation | None = None) -> Tensor:
        return self._broadcast("TANH", x, at=at)

    def leaky(self, x: Tensor, at: Activation | None = None) -> Tensor:
        """In float: XNNPACK's int8 one multiplies by factors of 8 bit.

        On phone photos that cost 1.6 to 2.4 dB of agreement with our integers, and saved no time (480x640, x86).
        """
        return self.store(self.file.operator("LEAKY_RELU", self.real(x), shape=x.shape, alpha=LEAKY_SLOPE), at)

    def clamp(self, x: Tensor) -> Tensor:
        return self.at_most(self.relu(x), 1.0)

    def at_least(self, x: Tensor, low: float) -> Tensor:
        return self._broadcast("MAXIMUM", x, low)

    def at_most(self, x: Tensor, high: float) -> Tensor:
        return self._broadcast("MINIMUM", x, high)

    def round_to_8_bit(self, x: Tensor) -> Tensor:
        levels = self.number(255.0)
        return self.div(self._broadcast("ROUND", self.mul(x, levels)), 255.0)

    def to_index(self, x: Tensor) -> Tensor:
        return self.file.operator("CAST", x, shape=x.shape, kind=np.int32)

    # --- pictures

    def conv(self, x: Tensor, kernel: Kernel, at: Activation | None = None) -> Tensor:
        if kernel.scales is None:
            weight = self.parameter(kernel.weight_key, kernel.weight)
            bias = self.parameter(kernel.bias_key, kernel.bias)
        else:
            assert x.at is not None
            if kernel.weight_key:
                self.record.hold(kernel.weight_key)
            integers, scales = kernel.integer_bias(x.at.scale)
            weight = self.file.constant(_nhwc(kernel.weight), kernel.weight_key, kernel.scales)
            bias = self.file.constant(integers, scales=scales)
        return self._conv(x, weight, bias, kernel.stride, kernel.padding, at)

    def _conv(
        self, x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, padding: int = 0, at: Activation | None = None
    ) -> Tensor:
        """A convolution; `weight` has the layout (out, h, w, in)."""
        if stride > 1 and padding:
            # "Same" padding of an even side would add all of it at the end.
            margins = self.constant(np.array([[0, 0], [padding, 0], [padding, 0], [0, 0]], np.int32))
            shape = (1, x.shape[1] + padding, x.shape[2] + padding, x.shape[3])
            x = self.file.operator("PAD", x, margins, shape=shape, at=x.at)
        return self.file.operator(
            "CONV_2D",
            *(x, weight, bias),
            shape=(1, x.shape[1] // stride, x.shape[2] // stride, weight.shape[0]),
            at=at,
            padding=_VALID if stride > 1 else _SAME,
            strideW=stride,
            strideH=stride,
            dilationWFactor=1,
            dilationHFactor=1,
        )

    def conv_shuffle(self, x: Tensor, weight: np.ndarray, bias: np.ndarray) -> Tensor:
        # From the order of `pixel_shuffle` to that of DEPTH_TO_SPACE, whose slow index is the phase.
        weight, bias = (v.reshape(3, 4, *v.shape[1:]).swapaxes(0, 1).reshape(v.shape) for v in (weight, bias))
        return self.phases_to_space(self._conv(x, self.constant(_nhwc(weight)), self.constant(_nhwc(bias))))

    def phases_to_space(self, x: Tensor, at: Activation | None = None) -> Tensor:
        _, height, width, channels = x.shape
        shape = (1, 2 * height, 2 * width, channels // 4)
        return self.file.operator("DEPTH_TO_SPACE", x, shape=shape, at=at, blockSize=2)

    def max_pool(self, x: Tensor, at: Activation | None = None) -> Tensor:
        return self._pool("MAX_POOL_2D", x, 2, at)

    def average_pool(self, x: Tensor, side: int) -> Tensor:
        return self._pool("AVERAGE_POOL_2D", x, side)

    def box_mean(self, x: Tensor, radius: int) -> Tensor:
        # "Same" padding does not count for the mean.
        side = 2 * radius + 1
        for height, width in ((side, 1), (1, side)):
            x = self._pooled("AVERAGE_POOL_2D", x, x.shape, (height, width), 1, _SAME)
        return x

    def _pool(self, name: str, x: Tensor, side: int, at: Activation | None = None) -> Tensor:
        _, height, width, channels = x.shape
        return self._pooled(name, x, (1, height // side, width // side, channels), (side, side), side, _VALID, at)

    def _pooled(
        self,
        name: str,
        x: Tensor,
        shape: Sequence[int],
        window: tuple[int, int],
        stride: int,
        padding: int,
        at: Activation | None = None,
    ) -> Tensor:
        return self.file.operator(
            name,
            x,
            shape=shape,
            at=at,
            padding=padding,
            strideW=stride,
            strideH=stride,
            filterWidth=window[1],
            filterHeight=window[0],
        )

    def halves(self, x: Tensor, channels: int, at: Activation | None = None) -> tuple[Tensor, Tensor]:
        shape, axis = (*x.shape[:3], channels), self.constant(np.array(3, np.int32))
        kinds = [np.float32] * 2
        a, b = self.file.operator_of_many("SPLIT", axis, x, shapes=[shape] * 2, at=at, kinds=kinds, numSplits=2)
        return a, b

    def concat(self, parts: Sequence[Tensor], at: Activation | None = None) -> Tensor:
        axis = len(parts[0].shape) - 1
        shape = (*parts[0].shape[:axis], sum(p.shape[axis] for p in parts))
        return self.file.operator("CONCATENATION", *parts, shape=shape, at=at, axis=axis)

    def instance_norm(self, x: Tensor, gain: Tensor, offset: Tensor, epsilon: float) -> Tensor:
        """Decomposed: one factor and one offset for each channel."""
        mean = self._mean_by_rows(x)
        variance = self._mean_by_rows(self._broadcast("SQUARED_DIFFERENCE", x, mean))
        factor = self._broadcast("RSQRT", self.add(variance, float(epsilon)))
        factor = self.mul(factor, gain)
        offset = self.sub(offset, self.mul(mean, factor))
        return self.add(self.mul(x, factor), offset)

    def _mean_by_rows(self, x: Tensor) -> Tensor:
        """Means over the picture, of rows first: one sum of half a million float32 would lose digits."""
        return self._reduce("MEAN", self._reduce("MEAN", x, (2,)), (1,))

    def weighted_channels(self, x: Tensor, weights: Sequence[float]) -> Tensor:
        weight = self.constant(np.array(weights, np.float32).reshape(1, 1, 1, -1))
        return self._conv(x, weight, self.constant(np.zeros(1, np.float32)))

    def channel_max(self, x: Tensor) -> Tensor:
        return self._reduce("REDUCE_MAX", x, (3,))

    def channel_min(self, x: Tensor) -> Tensor:
        return self._reduce("REDUCE_MIN", x, (3,))

    def subsampled(self, x: Tensor, step: int) -> Tensor:
        _, height, width, channels = x.shape
        limits = [0, step // 2, step // 2, 0], x.shape, [1, step, step, 1]
        shape = (1, height // step, width // step, channels)
        return self.file.operator("STRIDED_SLICE", x, *(self._integers(values) for values in limits), shape=shape)

    # --- from pictures to rows

    def _reduce(self, name: str, x: Tensor, axes: Sequence[int], keep: bool = True) -> Tensor:
        shape = [1 if i in axes else side for i, side in enumerate(x.shape) if keep or i not in axes]
        return self.file.operator(name, x, self._integers(axes), shape=shape, keepDims=keep)

    def mean_row(self, x: Tensor) -> Tensor:
        return self._reduce("MEAN", x, (1, 2), keep=False)

    def max_row(self, x: Tensor) -> Tensor:
        return self._reduce("REDUCE_MAX", x, (1, 2), keep=False)

    def moments(self, wanted: Sequence[Moment[Tensor]]) -> list[Tensor]:
        means = {w.picture: self.mean_row(w.picture) for w in wanted if isinstance(w, Mean)}
        differences = {w: self._mean_difference(w, means) for w in wanted if isinstance(w, MeanDifference)}
        rows = []
        for w in wanted:
            if isinstance(w, Deviation):
                rows.append(self._deviation(w.picture, w.factor))
            else:
                rows.append(means[w.picture] if isinstance(w, Mean) else differences[w])
        return rows

    def _mean_difference(self, wanted: MeanDifference[Tensor], means: dict[Tensor, Tensor]) -> Tensor:
        apart = self.sub(self.mean_row(wanted.picture), means[wanted.less])
        chosen = np.eye(3, dtype=np.float32)[list(wanted.channels)] * np.float32(wanted.factor)
        return self.linear(apart, self.constant(chosen))

    def _deviation(self, x: Tensor, factor: float) -> Tensor:
        """`factor` standard deviations (1, 1) of a plane of thumbnail size."""
        apart = self._broadcast("SQUARED_DIFFERENCE", x, self._reduce("MEAN", x, (1, 2)))
        pixels = THUMBNAIL_PX**2
        return self.sqrt(self.mul(self.mean_row(apart), factor**2 * pixels / (pixels - 1)))

    def order_statistics(self, x: Tensor, channels: int, indices: Sequence[int]) -> Tensor:
        pixels = THUMBNAIL_PX**2
        rows = self._reshape(x, [pixels, channels])
        rows = self.file.operator("TRANSPOSE", rows, self._integers([1, 0]), shape=(channels, pixels))
        all_of_them = self.constant(np.array(pixels, np.int32))
        shapes, kinds = [(channels, pixels)] * 2, [np.float32, np.int32]
        ordered, _ = self.file.operator_of_many("TOPK_V2", rows, all_of_them, shapes=shapes, kinds=kinds)
        # The largest come first.
        chosen = self._integers([pixels - 1 - index for index in indices])
        return self.file.operator("GATHER", ordered, chosen, shape=(channels, len(indices)), axis=1)

    def along_bins(self, x: Tensor) -> Tensor:
        return self._reshape(x, [THUMBNAIL_PX**2, 4, 1])

    def mean_of_pixels(self, x: Tensor) -> Tensor:
        return self._reduce("MEAN", x, (0,), keep=False)

    def row_shape(self) -> Declared[Tensor]:
        return Declared(())  # each RESHAPE brings its own

    def to_row(self, x: Tensor, shape: Declared[Tensor]) -> Tensor:
        return self._reshape(x, [1, int(np.prod(x.shape))])

    def _reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return self.file.operator("RESHAPE", x, self._integers(shape), shape=shape, newShape=np.array(shape, np.int32))

    # --- rows and curves

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = (*x.shape[:-1], weight.shape[0])
        return self.file.operator("FULLY_CONNECTED", x, weight, bias, shape=shape, keepNumDims=True)

    def columns(self, x: Tensor, start: int, stop: int | None = None) -> Tensor:
        shape = (x.shape[0], (x.shape[1] if stop is None else stop) - start)
        return self.file.operator("SLICE", x, self._integers([0, start]), self._integers(shape), shape=shape)

    def to_curves(self, x: Tensor, values: int) -> Tensor:
        return self._reshape(x, [3, values])

    def running_sums(self, x: Tensor) -> Tensor:
        return self.linear(x, self.constant(np.tril(np.ones((x.shape[1], x.shape[1]), np.float32))))

    def cumulate(self, start: Tensor, steps: Tensor, divisor: float) -> Tensor:
        count = steps.shape[1]
        sums = np.tril(np.ones((count + 1, count), np.float32), -1) / np.float32(divisor)
        return self.add(self.linear(steps, self.constant(sums)), start)

    def as_channels(self, x: Tensor) -> Tensor:
        return self._reshape(x, [1, 1, 1, x.shape[1]])

    # --- matrices and planes

    def places(self, picture: Tensor, side: Literal["height", "width"]) -> Tensor:
        """Counted along one line of the picture: a size read from it would make all that follows dynamic."""
        axis = {"height": 1, "width": 2}[side]
        pixels = picture.shape[axis]
        limits = (self._integers([value] * 4) for value in (0, 1, 1))
        shape = [pixels if i == axis else 1 for i in range(4)]
        line = self.file.operator("STRIDED_SLICE", picture, *limits, shape=shape, endMask=1 << axis)
        line = self.file.operator("RESHAPE", line, self._integers([-1, 1]), shape=(pixels, 1))
        ones = self.add(self.mul(line, 0.0), 1.0)
        ends = self.file.operator("CUMSUM", ones, self.constant(np.array(0, np.int32)), shape=(pixels, 1))
        return self.div(self.sub(ends, 0.5), self._reduce("REDUCE_MAX", ends, (0,)))

    def stacked(self, x: Tensor) -> Tensor:
        _, rows, columns, channels = x.shape
        shape = (1, channels, columns, rows)
        transposed = self.file.operator("TRANSPOSE", x, self._integers([0, 3, 2, 1]), shape=shape)
        return self._reshape(transposed, [channels * columns, rows])

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        shape = (stop - start, x.shape[1])
        return self.file.operator("SLICE", x, self._integers([start, 0]), self._integers(shape), shape=shape)

    def products(self, a: Tensor, b: Tensor) -> Tensor:
        """By an operator that XNNPACK takes: what it leaves to others runs as soon as it can, and waits in memory."""
        shape = (a.shape[0], b.shape[0])
        return self.file.operator("BATCH_MATMUL", a, b, shape=shape, adjX=False, adjY=True)

    def plane(self, x: Tensor) -> Tensor:
        return self.file.operator("SQUEEZE", x, shape=x.shape[1:3], squeezeDims=np.array([0, 3], np.int32))

    def weighted_plane(self, photo: Tensor, weights: Sequence[float]) -> Tensor:
        return self.plane(self.weighted_channels(photo, weights))

    def as_channel(self, plane: Tensor) -> Tensor:
        for axis in (2, 0):
            shape = (*plane.shape, 1) if axis else (1, *plane.shape)
            plane = self.file.operator("EXPAND_DIMS", plane, self.constant(np.array(axis, np.int32)), shape=shape)
        return plane

    # --- curves and a matrix on pictures

    def mix(self, matrix: Tensor, x: Tensor) -> Tensor:
        if len(x.shape) == 2:
            return self._reshape(self.linear(self._reshape(x, [1, 3]), matrix), [3, 1])
        return self.linear(x, matrix)

    def table(self, curves: Tensor) -> Tensor:
        return self._reshape(curves, [curves.shape[0] * curves.shape[1]])

    def pixels(self, photo: Tensor) -> Tensor:
        return photo

    def as_picture(self, x: Tensor, photo: Tensor) -> Tensor:
        return x

    def look_up(self, table: Tensor, index: Tensor) -> Tensor:
        return self._gather(table, index, 0)

    def look_up_segment(self, table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (self._gather(table, index, shift) for shift in (0, 1))
        return low, self.sub(high, low)

    def _gather(self, table: Tensor, index: Tensor, shift: int) -> Tensor:
        """Entries of a table of red's, green's and blue's values, `shift` places further."""
        starts = self._integers([channel * (table.shape[0] // 3) + shift for channel in range(3)])
        places = self.file.operator("ADD", index, starts, shape=index.shape, kind=np.int32)
        return self.file.operator("GATHER", table, places, shape=index.shape, axis=0)


def _nhwc(values: np.ndarray) -> np.ndarray:
    """Kernels (out, in, h, w) as (out, h, w, in); others as they are."""
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
