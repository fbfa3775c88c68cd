"""Weights as an ONNX model, in float or with the very integers of the int8 engines; written node by node.

The integers are written in the QDQ form: operators of the standard between QuantizeLinear and DequantizeLinear, which a
runtime turns into integer arithmetic as far as it can. Scales and zero points are those of the weights file, so nothing
is calibrated again. Tensors are NCHW and hold one photo.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor

from qatie_cli import __version__
from qatie_cli.exchange import requirements
from qatie_cli.exchange.folding import centred, is_folded
from qatie_cli.exchange.record import HEADER, TENSORS, Record
from qatie_cli.model import tone
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.network import LEAKY_SLOPE, Fuse, Gate, Network, Refine, fold_upsample
from qatie_cli.model.quantization.integers import IntegerConv, integer_convs
from qatie_cli.model.quantization.scheme import Activation, activation_at
from qatie_cli.model.tone import THUMBNAIL_PX, ToneStage

OPSET = 17  # nothing here needs a newer one, and runtimes from 2022 on read it
_INT32 = np.iinfo(np.int32)
_TO_THE_END = np.iinfo(np.int64).max  # as the end of a slice


def build(weights: Weights, *, int8: bool, size: tuple[int, int] | None = None, whole: bool = True) -> ModelProto:
    """Write `weights` as an ONNX model.

    Args:
        weights: calibrated ones if `int8`.
        int8: the network in 8-bit integers; else everything is float32. The tone stage is float32 either way.
        size: height and width of the photo, multiples of 8. None leaves them to whoever runs the model: multiples of 8,
            too, or the run fails.
        whole: from photo to enhanced photo; else the refinement network alone.

    Returns:
        A model whose inputs and output are float32. Whole: `photo` (1, 3, H, W) in 0..1 and, where the weights have a
        tone stage, `thumbnail` (1, 3, 64, 64) in 0..1 as `tone.thumbnail` makes it, to `enhanced` (1, 3, H, W) in 0..1.
        Else: `photo` (1, 3, H, W) in 0..1, already toned, to `residual` (1, 3, H, W), nominal range -1..1.

    Raises:
        ValueError: a side of `size` is not a positive multiple of 8.
        WeightsError: int8 was asked for and the weights were never calibrated.
    """
    requirements.check(weights, int8, size)
    model, graph = weights.build(), _Graph(Record(weights, int8))
    arithmetic = _Integers.of(graph, model.network, weights.activations) if int8 else _Floats(graph, model.network)
    sides = ("height", "width") if size is None else size
    inputs = [_picture("photo", sides)]
    if whole:
        if model.tone is not None:
            inputs.append(_picture("thumbnail", (THUMBNAIL_PX, THUMBNAIL_PX)))
        output = _enhanced(graph, model.tone, model.network, arithmetic)
    else:
        output = _residual(graph, model.network, arithmetic, "photo", result="residual")
    return _model(graph, inputs, _picture(output, sides), weights, int8)


def _picture(name: str, sides: tuple[int | str, int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, *sides])


def _model(
    graph: _Graph, inputs: list[ValueInfoProto], output: ValueInfoProto, weights: Weights, int8: bool
) -> ModelProto:
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "qatie", inputs, [output], graph.constants),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),  # the newest would shut out older runtimes for nothing
        producer_name="qatie",
        producer_version=__version__,
    )
    facts = {
        "name": "qatie",
        "version": __version__,
        "config": json.dumps(weights.config.to_table()),
        "arithmetic": "int8" if int8 else "float",
        HEADER: json.dumps(graph.record.header()),
        TENSORS: base64.b64encode(graph.record.tensors()).decode(),  # what is no text cannot stand here
    }
    helper.set_model_props(model, facts)
    return model


# --- nodes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Graph:
    """Nodes in the order in which they run, and the constants that they read; a tensor is known by its name."""

    record: Record
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, result: str = "", unused: int = 0, **attributes: object) -> str:
        """The name of what `operator` makes of `inputs`: `result`, or one that is made up.

        `unused` is how many outputs it has behind that one.
        """
        result = result or f"{operator}_{len(self.nodes)}"
        outputs = [result, *(f"{result}_unused_{index}" for index in range(unused))]
        self.nodes.append(helper.make_node(operator, inputs, outputs, result, **attributes))
        return result

    def constant(self, values: Tensor | np.ndarray | Sequence[int] | float, name: str = "") -> str:
        """The name of a constant: of its own type if it is an array, int64 if a sequence, float32 if a number."""
        if isinstance(values, Tensor):
            values = values.detach().numpy()
        elif not isinstance(values, np.ndarray):
            values = np.array(values, np.float32 if isinstance(values, float) else np.int64)
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return name

    def held(self, key: str, values: Tensor) -> str:
        """The name of a constant that is the state's tensor `key`."""
        self.record.hold(key)
        return self.constant(values, key)

    def conv(self, x: str, weight: str, bias: str, stride: int = 1, padding: int = 0) -> str:
        return self.add("Conv", x, weight, bias, strides=[stride] * 2, pads=[padding] * 4)

    def leaky(self, x: str) -> str:
        return self.add("LeakyRelu", x, alpha=LEAKY_SLOPE)

    def clip(self, x: str, low: float, high: float, result: str = "") -> str:
        return self.add("Clip", x, self.constant(low), self.constant(high), result=result)

    def part(self, x: str, start: int, end: int, *axes: int) -> str:
        """Elements start..end of `x` along each of `axes`; a negative end counts from behind."""
        limits = ([start] * len(axes), [end] * len(axes), axes)
        return self.add("Slice", x, *(self.constant(limit) for limit in limits))


# --- arithmetic: what the network's convolutions and rounding points become ---------------------------------------


class _Arithmetic(Protocol):
    """The counterpart of `network.Rounding`."""

    def conv(self, name: str, x: str) -> str:
        """What the convolution `name` makes of `x`."""

    def point(self, name: str, x: str) -> str:
        """`x` as it is stored at the rounding point `name`."""


@dataclass(frozen=True)
class _Floats:
    """The counterpart of `engines.floating`."""

    graph: _Graph
    network: Network

    def conv(self, name: str, x: str) -> str:
        layer = self.network.get_submodule(name)
        if is_folded(name):
            constants = (self.graph.constant(t) for t in (centred(fold_upsample(layer.weight)), layer.bias.repeat(4)))
        else:
            parts = ("weight", layer.weight), ("bias", layer.bias)
            constants = (self.graph.held(f"network.{name}.{part}", values) for part, values in parts)
        return self.graph.conv(x, *constants, layer.stride[0], layer.padding[0])

    def point(self, name: str, x: str) -> str:
        return x


@dataclass(frozen=True)
class _Integers:
    """The counterpart of `engines.int8`; `stored` tells how tensors that have passed a point are stored."""

    graph: _Graph
    convs: dict[str, IntegerConv]
    activations: dict[str, Activation]
    stored: dict[str, Activation] = field(default_factory=dict)

    @staticmethod
    def of(graph: _Graph, network: Network, activations: dict[str, Activation]) -> _Integers:
        return _Integers(graph, integer_convs(network), activations)

    def conv(self, name: str, x: str) -> str:
        conv = self.convs[name]
        if is_folded(name):
            weight = self._restored(centred(conv.weight), conv.scales)
        else:
            key = f"network.{name}.weight"
            self.graph.record.hold(key)
            weight = self._restored(conv.weight, conv.scales, key)
        # Sums of products have the product of both scales; only a bias in these is added in integers.
        scales = conv.scales * self.stored[x].scale
        bias = (conv.bias.double() / scales.double()).round().clamp(_INT32.min, _INT32.max).int()
        return self.graph.conv(x, weight, self._restored(bias, scales), conv.stride, conv.padding)

    def point(self, name: str, x: str) -> str:
        at = activation_at(name, self.activations)
        scale, zero_point = self.graph.constant(at.scale), self.graph.constant(np.array(at.zero_point, np.uint8))
        integers = self.graph.add("QuantizeLinear", x, scale, zero_point)
        restored = self.graph.add("DequantizeLinear", integers, scale, zero_point)
        self.stored[restored] = at
        return restored

    def _restored(self, values: Tensor, scales: Tensor, name: str = "") -> str:
        """Constant integers, with a scale for each entry of their first axis; `name.scale` is their scales' name."""
        zero_points = values.new_zeros(len(scales))
        names = (name, f"{name}.scale" if name else "", "")
        constants = [self.graph.constant(c, n) for c, n in zip((values, scales, zero_points), names, strict=True)]
        return self.graph.add("DequantizeLinear", *constants, axis=0)


# --- the network --------------------------------------------------------------------------------------------------


def _residual(graph: _Graph, network: Network, arithmetic: _Arithmetic, photo: str, result: str = "") -> str:
    """The network's residual for a toned photo."""
    features = _Blocks(graph, arithmetic).features(network, photo)
    weight, bias = (graph.constant(values) for values in network.tail())
    return graph.add(
        "DepthToSpace", graph.conv(features, weight, bias, padding=1), blocksize=2, mode="CRD", result=result
    )


@dataclass(frozen=True)
class _Blocks:
    """`Network.features`, block by block.

    What only moves values passes its point once more: that changes none of them, and lets a runtime move bytes.
    """

    graph: _Graph
    arithmetic: _Arithmetic

    def features(self, network: Network, photo: str) -> str:
        x, pair1 = self._gate(network.down1, self.arithmetic.point("photo", photo))
        encoded1 = self._refine(network.refine1, x)
        x, pair2 = self._gate(network.down2, encoded1)
        encoded2 = self._refine(network.refine2, x)
        halved = self.graph.add("MaxPool", encoded2, kernel_shape=[2, 2], strides=[2, 2])
        x = self._refine(network.bottleneck, self.arithmetic.point("refine2.out", halved))
        x = self._refine(network.decode2, self._fuse(network.fuse2, x, encoded2, pair2))
        return self._refine(network.decode1, self._fuse(network.fuse1, x, encoded1, pair1))

    def _gate(self, block: Gate, x: str) -> tuple[str, str]:
        graph, name, point = self.graph, block.name, self.arithmetic.point
        pair = point(f"{name}.pre", self.arithmetic.conv(f"{name}.pair", x))
        pair = point(f"{name}.tanh", graph.add("Tanh", pair))
        half = block.pair.out_channels // 2
        a, b = (point(f"{name}.tanh", graph.part(pair, start, start + half, 1)) for start in (0, half))
        return point(f"{name}.product", graph.add("Mul", a, b)), pair

    def _refine(self, block: Refine, x: str) -> str:
        graph, name, point, conv = self.graph, block.name, self.arithmetic.point, self.arithmetic.conv
        local = point(f"{name}.local", conv(f"{name}.local", x))
        gain = graph.held(f"network.{name}.norm.weight", block.norm.weight)
        offset = graph.held(f"network.{name}.norm.bias", block.norm.bias)
        normed = graph.add("InstanceNormalization", local, gain, offset, epsilon=block.norm.eps)
        normed = point(f"{name}.y", graph.leaky(point(f"{name}.norm", normed)))
        side = point(f"{name}.y", conv(f"{name}.side", x))
        y = point(f"{name}.y", graph.add("Concat", normed, side, axis=1))
        out = y
        for part in ("inner", "outer"):
            out = point(f"{name}.{part}", conv(f"{name}.{part}", out))
            out = point(f"{name}.{part}_leaky", graph.leaky(out))
        shortcut = point(f"{name}.shortcut", conv(f"{name}.shortcut", y))
        return point(f"{name}.out", graph.add("Add", out, shortcut))

    def _fuse(self, block: Fuse, deep: str, encoded: str, pair: str) -> str:
        name, point, conv = block.name, self.arithmetic.point, self.arithmetic.conv
        phases = point(f"{name}.up", conv(f"{name}.up", deep))
        # The phase is the slow index of the channels, which is the mode DCR.
        up = point(f"{name}.up", self.graph.add("DepthToSpace", phases, blocksize=2, mode="DCR"))
        joined = self.graph.add("Concat", up, point(f"{name}.encoded", encoded), pair, axis=1)
        return point(f"{name}.reduced", conv(f"{name}.reduce", point(f"{name}.encoded", joined)))


# --- the tone stage, and all of it --------------------------------------------------------------------------------


def _enhanced(graph: _Graph, stage: ToneStage | None, network: Network, arithmetic: _Arithmetic) -> str:
    """`photo` and `thumbnail` to `enhanced`, as `qatie_cli.enhance.pixels` does it."""
    toned = graph.clip("photo" if stage is None else _toned(graph, stage), 0.0, 1.0)
    seen = toned
    if isinstance(arithmetic, _Floats):  # what the network sees is 8 bit; the integers round it so themselves
        levels = graph.constant(255.0)
        seen = graph.add("Div", graph.add("Round", graph.add("Mul", toned, levels)), levels)
    residual = _residual(graph, network, arithmetic, seen)
    return graph.clip(graph.add("Add", toned, residual), 0.0, 1.0, result="enhanced")


def _toned(graph: _Graph, stage: ToneStage) -> str:
    """`tone.apply_tone` of what the stage decides, unclamped."""
    curves, matrix = _decided(graph, stage)
    last = stage.config.knots - 1
    pixels = graph.add("Reshape", graph.clip("photo", 0.0, 1.0), graph.constant([1, 3, -1]))
    position = graph.add("Mul", pixels, graph.constant(float(last)))
    left = graph.clip(graph.add("Floor", position), 0.0, last - 1.0)
    index = graph.add("Cast", left, to=TensorProto.INT32)
    low = graph.add("GatherElements", curves, index, axis=2)
    steps = graph.add("Sub", graph.part(curves, 1, _TO_THE_END, 2), graph.part(curves, 0, -1, 2))
    rise = graph.add("Mul", graph.add("GatherElements", steps, index, axis=2), graph.add("Sub", position, left))
    mixed = graph.add("MatMul", matrix, graph.add("Add", low, rise))
    return graph.add("Reshape", mixed, graph.add("Shape", "photo"))


def _decided(graph: _Graph, stage: ToneStage) -> tuple[str, str]:
    """`ToneStage.forward`: curves (1, 3, knots) and matrix (1, 3, 3) for `thumbnail`."""
    knots = stage.config.knots
    raw = _raw(graph, stage)
    curve = graph.add("Reshape", graph.part(raw, 0, 3 * knots, 1), graph.constant([1, 3, knots]))
    start = graph.add("Mul", graph.part(curve, 0, 1, 2), graph.constant(0.1))
    steps = graph.add("Add", graph.part(curve, 1, knots, 2), graph.constant(0.541325))
    steps = graph.add("Div", graph.add("Softplus", steps), graph.constant(knots - 1.0))
    risen = graph.add("CumSum", steps, graph.constant(np.array(2)))
    curves = graph.add("Concat", start, graph.add("Add", start, risen), axis=2)
    matrix = graph.add("Reshape", graph.part(raw, 3 * knots, _TO_THE_END, 1), graph.constant([1, 3, 3]))
    matrix = graph.add("Mul", matrix, graph.constant(0.3))
    matrix = graph.add("Add", matrix, graph.constant(np.eye(3, dtype=np.float32)))
    return _anchored(graph, curves, matrix, knots), matrix


def _anchored(graph: _Graph, curves: str, matrix: str, knots: int) -> str:
    """`tone.anchored`."""
    towards_white, towards_black = (graph.constant(anchor) for anchor in tone.anchors(knots))
    white, black = (graph.add("MatMul", matrix, graph.part(curves, place, place + 1, 2)) for place in (knots - 1, 0))
    lacking = graph.add("Relu", graph.add("Sub", graph.constant(1.0), white))
    raised = graph.add("Relu", graph.add("Sub", black, graph.constant(tone.BLACK)))
    whiter = graph.add("Add", curves, graph.add("Mul", lacking, towards_white))
    return graph.add("Sub", whiter, graph.add("Mul", raised, towards_black))


def _raw(graph: _Graph, stage: ToneStage) -> str:
    """What is carried out of the decision as the last layer gives it, (1, 3 * knots + 9)."""
    luma = _luma(graph)
    parts = _pooled(graph, stage) if stage.config.channels else []
    parts += _statistics(graph, stage.config.bins, luma) if stage.config.bins else []
    parts += [_quantiles(graph, luma)] if stage.config.quantiles else []
    x = graph.add("Concat", *parts, axis=1)
    for name in ("hidden", "second"):
        if getattr(stage, name) is not None:
            x = graph.leaky(_linear(graph, stage, name, x))
    return graph.add("Mul", _linear(graph, stage, "decide", x), _carried_out(graph, luma))


def _carried_out(graph: _Graph, luma: str) -> str:
    """`tone.carried_out`, (1, 1)."""
    both = _ranked(graph, luma, 1, tone.DARK_AND_BRIGHT)
    dark, bright = graph.part(both, 0, 1, 1), graph.part(both, 1, 2, 1)
    contrast = graph.add("Div", graph.add("Sub", bright, dark), graph.clip(bright, 1 / 255, 1.0))
    above = graph.add("Sub", contrast, graph.constant(tone.FLAT))
    return graph.clip(graph.add("Div", above, graph.constant(tone.FULL - tone.FLAT)), 0.0, 1.0)


def _pooled(graph: _Graph, stage: ToneStage) -> list[str]:
    """Means and maxima (1, channels) of the last convolution of `thumbnail`."""
    x = graph.add("Sub", "thumbnail", graph.constant(0.5))
    for index, layer in enumerate(stage.convs):
        weight, bias = (graph.held(f"tone.convs.{index}.{part}", getattr(layer, part)) for part in ("weight", "bias"))
        x = graph.leaky(graph.conv(x, weight, bias, layer.stride[0], layer.padding[0]))
    return [graph.add("Flatten", graph.add(f"Global{kind}Pool", x)) for kind in ("Average", "Max")]


def _statistics(graph: _Graph, bins: int, luma: str) -> list[str]:
    """`tone.statistics` of `thumbnail`, in parts (1, values)."""
    values = graph.add("Reshape", graph.add("Concat", "thumbnail", luma, axis=1), graph.constant([4, 1, -1]))
    places = graph.constant(np.arange(bins, dtype=np.float32).reshape(1, bins, 1))
    # A bin's share of a value falls from 1 at its own place to 0 at the next ones.
    distance = graph.add("Abs", graph.add("Sub", graph.add("Mul", values, graph.constant(bins - 1.0)), places))
    shares = graph.add("Relu", graph.add("Sub", graph.constant(1.0), distance))
    counts = graph.add("ReduceMean", shares, axes=[2], keepdims=0)
    sums = graph.add("CumSum", counts, graph.constant(np.array(1)))
    row = graph.constant([1, -1])
    chroma = graph.add("Sub", *_extremes(graph))
    apart = graph.add("GlobalAveragePool", graph.add("Sub", "thumbnail", luma))
    scaled = [
        (graph.add("GlobalAveragePool", chroma), 1.0),
        (_deviation(graph, chroma), 1.0),
        (graph.part(apart, 0, 1, 1), 4.0),
        (graph.part(apart, 2, 3, 1), 4.0),
        (graph.add("GlobalAveragePool", luma), 1.0),
        (_deviation(graph, luma), 3.0),
    ]
    moments = [graph.add("Flatten", graph.add("Mul", x, graph.constant(factor))) for x, factor in scaled]
    return [graph.add("Reshape", x, row) for x in (graph.add("Sqrt", counts), sums)] + moments


def _quantiles(graph: _Graph, luma: str) -> str:
    """`tone.quantiles` of `thumbnail`, (1, 66)."""
    channels = graph.add("Concat", "thumbnail", luma, *_extremes(graph), axis=1)
    chosen = _ranked(graph, channels, 6, tone.QUANTILES)
    row = graph.add("Reshape", chosen, graph.constant([1, -1]))
    return graph.add("Sub", graph.add("Mul", row, graph.constant(2.0)), graph.constant(1.0))


def _ranked(graph: _Graph, planes: str, count: int, ranks: Sequence[float]) -> str:
    """The values (count, ranks) of these ranks in as many planes of thumbnail size."""
    pixels = THUMBNAIL_PX**2
    values = graph.add("Reshape", planes, graph.constant([count, pixels]))
    ordered = graph.add("TopK", values, graph.constant([pixels]), unused=1, axis=1, largest=0)
    return graph.add("Gather", ordered, graph.constant(tone.places(ranks, pixels)), axis=1)


def _luma(graph: _Graph) -> str:
    """Luma (1, 1, 64, 64) of `thumbnail`."""
    return graph.add("Conv", "thumbnail", graph.constant(np.array(tone.LUMA, np.float32).reshape(1, 3, 1, 1)))


def _extremes(graph: _Graph) -> list[str]:
    """The largest and the smallest channel (1, 1, 64, 64) of each pixel of `thumbnail`."""
    return [graph.add(f"Reduce{kind}", "thumbnail", axes=[1], keepdims=1) for kind in ("Max", "Min")]


def _deviation(graph: _Graph, plane: str) -> str:
    """Standard deviation (1, 1, 1, 1) of a plane of thumbnail size, by one less than the number of its pixels."""
    apart = graph.add("Sub", plane, graph.add("GlobalAveragePool", plane))
    pixels = THUMBNAIL_PX**2
    variance = graph.add("GlobalAveragePool", graph.add("Mul", apart, apart))
    return graph.add("Sqrt", graph.add("Mul", variance, graph.constant(pixels / (pixels - 1))))


def _linear(graph: _Graph, stage: ToneStage, name: str, x: str) -> str:
    layer = getattr(stage, name)
    weight, bias = (graph.held(f"tone.{name}.{part}", getattr(layer, part)) for part in ("weight", "bias"))
    return graph.add("Gemm", x, weight, bias, transB=1)
