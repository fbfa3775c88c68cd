"""The operators of graphs in ONNX. Tensors are NCHW; curves are (1, 3, values), as MatMul takes them.

Integers are written in the QDQ form: operators of the standard between QuantizeLinear and DequantizeLinear, which a
runtime turns into integer arithmetic as far as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from qatie_cli.graphs.kernels import Kernel
from qatie_cli.graphs.operators import Declared, Mean, MeanDifference, Moment
from qatie_cli.model.config import LEAKY_SLOPE, THUMBNAIL_PX
from qatie_cli.model.quantization.scheme import Activation

OPSET = 17  # the oldest that suffices; runtimes since 2022 read it
_TO_THE_END = np.iinfo(np.int64).max  # as the end of a slice


@dataclass(frozen=True)
class Value:
    """A tensor of the graph by its name, with its number of axes.

    `at` tells how it was rounded, and `integers` is the name of the tensor that it was read from.
    """

    name: str
    rank: int
    at: Activation | None = None
    integers: str = ""


@dataclass(frozen=True)
class OnnxOperators:
    """Writes nodes in the order of the calls, and the constants that they read."""

    hold: Callable[[str], None] = lambda key: None  # called with every tensor of the weights that the graph holds
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    # --- nodes

    def node(
        self,
        operator: str,
        *inputs: Value | float,
        rank: int | None = None,
        unused: int = 0,
        **attributes: int | float | str | list[int],
    ) -> Value:
        """What `operator` makes of `inputs`; by default it has as many axes as the input with the most.

        `unused` is how many outputs it has behind the first.
        """
        values = [self.number(x) if isinstance(x, float) else x for x in inputs]
        name = f"{operator}_{len(self.nodes)}"
        outputs = [name, *(f"{name}_unused_{index}" for index in range(unused))]
        self.nodes.append(helper.make_node(operator, [v.name for v in values], outputs, name, **attributes))
        return Value(name, max(v.rank for v in values) if rank is None else rank)

    def named(self, x: Value, name: str) -> Value:
        """The last node's output x under a name of its own."""
        self.nodes[-1].name = self.nodes[-1].output[0] = name
        return Value(name, x.rank)

    # --- constants and storage

    def constant(self, values: np.ndarray, name: str = "") -> Value:
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return Value(name, values.ndim)

    def number(self, value: float) -> Value:
        return self.constant(np.array(value, np.float32))

    def _integers(self, *values: int) -> Value:
        return self.constant(np.array(values, np.int64))

    def parameter(self, key: str, values: np.ndarray) -> Value:
        if key:
            self.hold(key)
        return self.constant(values, key)

    def declare(self, *values: np.ndarray, axis: Literal["knots", "bins"]) -> Declared[Value]:
        shaped = values if axis == "knots" else tuple(v.reshape(1, -1, 1) for v in values)
        return Declared(values, tuple(self.constant(v) for v in shaped))

    def use(self, declared: Declared[Value]) -> tuple[Value, ...]:
        return declared.written

    def store(self, x: Value, at: Activation | None) -> Value:
        if at is None:
            return x
        scale, zero_point = self.number(at.scale), self.constant(np.array(at.zero_point, np.uint8))
        integers = self.node("QuantizeLinear", x, scale, zero_point, rank=x.rank)
        restored = self.node("DequantizeLinear", integers, scale, zero_point, rank=x.rank)
        return Value(restored.name, x.rank, at)

    def real(self, x: Value) -> Value:
        return x

    def holds_levels(self, x: Value) -> bool:
        return False

    # --- element by element

    def add(self, a: Value | float, b: Value | float, at: Activation | None = None) -> Value:
        return self.store(self.node("Add", a, b), at)

    def sub(self, a: Value | float, b: Value | float) -> Value:
        return self.node("Sub", a, b)

    def mul(self, a: Value | float, b: Value | float, at: Activation | None = None) -> Value:
        return self.store(self.node("Mul", a, b), at)

    def div(self, a: Value | float, b: Value | float) -> Value:
        return self.node("Div", a, b)

    def abs(self, x: Value) -> Value:
        return self.node("Abs", x)

    def floor(self, x: Value) -> Value:
        return self.node("Floor", x)

    def sqrt(self, x: Value) -> Value:
        return self.node("Sqrt", x)

    def exp(self, x: Value) -> Value:
        return self.node("Exp", x)

    def relu(self, x: Value) -> Value:
        return self.node("Relu", x)

    def softplus(self, x: Value) -> Value:
        return self.node("Softplus", x)

    def tanh(self, x: Value, at: Activation | None = None) -> Value:
        return self.store(self.node("Tanh", x), at)

    def leaky(self, x: Value, at: Activation | None = None) -> Value:
        return self.store(self.node("LeakyRelu", x, alpha=LEAKY_SLOPE), at)

    def _clip(self, x: Value, low: float, high: float) -> Value:
        return self.node("Clip", x, low, high)

    def clamp(self, x: Value) -> Value:
        return self._clip(x, 0.0, 1.0)

    def at_least(self, x: Value, low: float) -> Value:
        return self._clip(x, low, 1.0)

    def at_most(self, x: Value, high: float) -> Value:
        return self._clip(x, 0.0, high)

    def round_to_8_bit(self, x: Value) -> Value:
        levels = self.number(255.0)
        return self.node("Div", self.node("Round", self.node("Mul", x, levels)), levels)

    def to_index(self, x: Value) -> Value:
        return self.node("Cast", x, to=TensorProto.INT32)

    # --- pictures

    def conv(self, x: Value, kernel: Kernel, at: Activation | None = None) -> Value:
        if kernel.scales is None:
            weight = self.parameter(kernel.weight_key, kernel.weight)
            bias = self.parameter(kernel.bias_key, kernel.bias)
        else:
            assert x.at is not None
            if kernel.weight_key:
                self.hold(kernel.weight_key)
            weight = self._dequantized(kernel.weight, kernel.scales, kernel.weight_key)
            bias = self._dequantized(*kernel.integer_bias(x.at.scale))
        return self.store(self._conv(x, weight, bias, kernel.stride, kernel.padding), at)

    def _conv(self, x: Value, weight: Value, bias: Value, stride: int, padding: int) -> Value:
        return self.node("Conv", x, weight, bias, strides=[stride] * 2, pads=[padding] * 4)

    def _dequantized(self, values: np.ndarray, scales: np.ndarray, name: str = "") -> Value:
        """Constant integers, with a scale for each entry of their first axis; `name.scale` is their scales' name."""
        constants = (
            self.constant(values, name),
            self.constant(scales, f"{name}.scale" if name else ""),
            self.constant(np.zeros(len(scales), values.dtype)),
        )
        return self.node("DequantizeLinear", *constants, rank=values.ndim, axis=0)

    def conv_shuffle(self, x: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
        kernel, offset = (self.constant(values) for values in (weight, bias))
        return self.node("DepthToSpace", self._conv(x, kernel, offset, 1, 1), blocksize=2, mode="CRD")

    def phases_to_space(self, x: Value, at: Activation | None = None) -> Value:
        # The phase is the slow index of the channels, which is the mode DCR.
        return self.store(self.node("DepthToSpace", x, blocksize=2, mode="DCR"), at)

    def max_pool(self, x: Value, at: Activation | None = None) -> Value:
        return self.store(self.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), at)

    def average_pool(self, x: Value, side: int) -> Value:
        return self.node("AveragePool", x, kernel_shape=[side] * 2, strides=[side] * 2)

    def box_mean(self, x: Value, radius: int) -> Value:
        side = 2 * radius + 1
        for window, margin in (([side, 1], [radius, 0]), ([1, side], [0, radius])):
            x = self.node("AveragePool", x, kernel_shape=window, strides=[1, 1], pads=margin * 2, count_include_pad=0)
        return x

    def halves(self, x: Value, channels: int, at: Activation | None = None) -> tuple[Value, Value]:
        first = self.store(self._slice(x, 0, channels, 1), at)
        return first, self.store(self._slice(x, channels, 2 * channels, 1), at)

    def concat(self, parts: Sequence[Value], at: Activation | None = None) -> Value:
        return self.store(self.node("Concat", *parts, axis=1), at)

    def instance_norm(self, x: Value, gain: Value, offset: Value, epsilon: float) -> Value:
        return self.node("InstanceNormalization", x, gain, offset, epsilon=epsilon)

    def weighted_channels(self, x: Value, weights: Sequence[float]) -> Value:
        return self.node("Conv", x, self.constant(np.array(weights, np.float32).reshape(1, -1, 1, 1)))

    def channel_max(self, x: Value) -> Value:
        return self.node("ReduceMax", x, axes=[1], keepdims=1)

    def channel_min(self, x: Value) -> Value:
        return self.node("ReduceMin", x, axes=[1], keepdims=1)

    def subsampled(self, x: Value, step: int) -> Value:
        first, last = [step // 2] * 2, [_TO_THE_END] * 2
        limits = (self._integers(*values) for values in (first, last, [2, 3], [step] * 2))
        return self.node("Slice", x, *limits, rank=4)

    # --- from pictures to rows

    def mean_row(self, x: Value) -> Value:
        return self._flat(self._mean(x))

    def max_row(self, x: Value) -> Value:
        return self._flat(self.node("GlobalMaxPool", x))

    def _mean(self, x: Value) -> Value:
        return self.node("GlobalAveragePool", x)

    def _flat(self, x: Value) -> Value:
        return self.node("Flatten", x, rank=2)

    def moments(self, wanted: Sequence[Moment[Value]]) -> list[Value]:
        differences = {w: self._mean(self.sub(w.picture, w.less)) for w in wanted if isinstance(w, MeanDifference)}
        unscaled: list[tuple[Value, float]] = []
        for w in wanted:
            if isinstance(w, MeanDifference):
                means = [self._slice(differences[w], channel, channel + 1, 1) for channel in w.channels]
            else:
                means = [self._mean(w.picture) if isinstance(w, Mean) else self._deviation(w.picture)]
            unscaled += [(x, w.factor) for x in means]
        return [self._flat(self.mul(x, factor)) for x, factor in unscaled]

    def _deviation(self, x: Value) -> Value:
        """Standard deviation (1, 1, 1, 1) of a plane of thumbnail size."""
        apart = self.sub(x, self._mean(x))
        pixels = THUMBNAIL_PX**2
        return self.sqrt(self.mul(self._mean(self.mul(apart, apart)), pixels / (pixels - 1)))

    def order_statistics(self, x: Value, channels: int, indices: Sequence[int]) -> Value:
        pixels = THUMBNAIL_PX**2
        values = self.node("Reshape", x, self._integers(channels, pixels), rank=2)
        ordered = self.node("TopK", values, self._integers(pixels), unused=1, axis=1, largest=0)
        return self.node("Gather", ordered, self._integers(*indices), axis=1)

    def along_bins(self, x: Value) -> Value:
        return self.node("Reshape", x, self._integers(4, 1, -1), rank=3)

    def mean_of_pixels(self, x: Value) -> Value:
        return self.node("ReduceMean", x, rank=2, axes=[2], keepdims=0)

    def row_shape(self) -> Declared[Value]:
        shape = np.array([1, -1], np.int64)
        return Declared((shape,), (self.constant(shape),))

    def to_row(self, x: Value, shape: Declared[Value]) -> Value:
        return self.node("Reshape", x, *shape.written, rank=2)

    # --- rows and curves

    def linear(self, x: Value, weight: Value, bias: Value | None = None) -> Value:
        return self.node("Gemm", x, weight, *([] if bias is None else [bias]), transB=1)

    def _slice(self, x: Value, start: int, stop: int, axis: int) -> Value:
        """Elements start..stop along an axis; a negative stop counts from the end."""
        return self.node("Slice", x, *(self._integers(limit) for limit in (start, stop, axis)), rank=x.rank)

    def columns(self, x: Value, start: int, stop: int | None = None) -> Value:
        return self._slice(x, start, _TO_THE_END if stop is None else stop, x.rank - 1)

    def to_curves(self, x: Value, values: int) -> Value:
        return self.node("Reshape", x, self._integers(1, 3, values), rank=3)

    def running_sums(self, x: Value) -> Value:
        return self.node("CumSum", x, self.constant(np.array(x.rank - 1)))

    def cumulate(self, start: Value, steps: Value, divisor: float) -> Value:
        risen = self.add(start, self.running_sums(self.div(steps, divisor)))
        return self.node("Concat", start, risen, axis=2)

    def as_channels(self, x: Value) -> Value:
        return self.node("Reshape", x, self._integers(1, -1, 1, 1), rank=4)

    # --- matrices and planes

    def places(self, picture: Value, side: Literal["height", "width"]) -> Value:
        axis = {"height": 2, "width": 3}[side]
        pixels = self.node("Squeeze", self.node("Shape", picture, rank=1, start=axis, end=axis + 1), rank=0)
        first, step = (self.constant(np.array(number)) for number in (0, 1))
        numbers = self.node("Cast", self.node("Range", first, pixels, step, rank=1), to=TensorProto.FLOAT)
        shares = self.div(self.add(numbers, 0.5), self.node("Cast", pixels, to=TensorProto.FLOAT))
        return self.node("Reshape", shares, self._integers(-1, 1), rank=2)

    def stacked(self, x: Value) -> Value:
        return self.node("Flatten", self.node("Transpose", x, perm=[0, 1, 3, 2]), rank=2, axis=3)

    def rows(self, x: Value, start: int, stop: int) -> Value:
        return self._slice(x, start, stop, 0)

    def products(self, a: Value, b: Value) -> Value:
        return self.linear(a, b)

    def plane(self, x: Value) -> Value:
        return x

    def weighted_plane(self, photo: Value, weights: Sequence[float]) -> Value:
        """A product of matrices: onnxruntime's convolution fills three channels and one up to 16 each."""
        rows = self.node("Reshape", photo, self._integers(3, -1), rank=2)
        summed = self.mix(self.constant(np.array([weights], np.float32)), rows)
        return self.node("Reshape", summed, self.node("Shape", photo, rank=1, start=2), rank=2)

    def as_channel(self, plane: Value) -> Value:
        return plane if plane.rank == 4 else self.node("Unsqueeze", plane, self._integers(0, 1), rank=4)

    # --- curves and a matrix on pictures

    def mix(self, matrix: Value, x: Value) -> Value:
        return self.node("MatMul", matrix, x)

    def table(self, curves: Value) -> Value:
        return curves

    def pixels(self, photo: Value) -> Value:
        return self.node("Reshape", photo, self._integers(1, 3, -1), rank=3)

    def as_picture(self, x: Value, photo: Value) -> Value:
        return self.node("Reshape", x, self.node("Shape", photo, rank=1), rank=4)

    def look_up(self, table: Value, index: Value) -> Value:
        return self.node("GatherElements", table, index, axis=2)

    def look_up_segment(self, table: Value, index: Value) -> tuple[Value, Value]:
        low = self.look_up(table, index)
        steps = self.sub(self.columns(table, 1), self.columns(table, 0, -1))
        return low, self.look_up(steps, index)
