"""Weights as a TFLite (LiteRT) model, in float or with the very integers of the int8 engines; written tensor by tensor.

The counterpart of `qatie_cli.exchange.onnx` for phones. Tensors are NHWC and hold one photo. Integers are int8, so zero
points are those of the weights file less 128; scales are its own, nothing is calibrated again. What the int8 engines
compute in float (the norms' statistics, the tail, the tone stage) is float here, too. The schema is that which
`ai-edge-litert` brings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor

from qatie_cli.exchange import requirements
from qatie_cli.exchange.folding import centred, is_folded
from qatie_cli.exchange.record import HEADER, TENSORS, Record
from qatie_cli.model import tone
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.network import LEAKY_SLOPE, Fuse, Gate, Network, Refine, fold_upsample
from qatie_cli.model.quantization.integers import IntegerConv, integer_convs
from qatie_cli.model.quantization.scheme import PHOTO, Activation, activation_at
from qatie_cli.model.tone import THUMBNAIL_PX, ToneStage

IDENTIFIER = b"TFL3"
LEVELS = 256
# The photo's sides that a file of any size names; whoever runs it sets others first.
NOMINAL_SIDES = (256, 256)
_ALIGNMENT = 16  # bytes, of constants in the file, as the schema asks
_SHIFT = 128  # from our zero points (0..255) to those of int8
_INT32 = np.iinfo(np.int32)
_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
}
# Versions of the operators as written here, where it is not 1: runtimes refuse what they are too old for.
_VERSIONS = {
    "ADD": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEQUANTIZE": 2,
    "DEPTH_TO_SPACE": 1,
    "FULLY_CONNECTED": 5,
    "MAX_POOL_2D": 2,
    "MUL": 2,
    "PAD": 2,
    "QUANTIZE": 2,
    "SPLIT": 2,
    "SUB": 2,
    "TANH": 2,
}
_SAME, _VALID = schema.Padding.SAME, schema.Padding.VALID
_RELU = schema.ActivationFunctionType.RELU


def build(weights: Weights, *, int8: bool, size: tuple[int, int] | None = None) -> bytes:
    """Write `weights` as a TFLite model, from photo to enhanced photo.

    Args:
        weights: calibrated ones if `int8`.
        int8: the network in 8-bit integers; else everything is float32.
        size: height and width of the photo, multiples of 8. None leaves them to whoever runs the model, who resizes the
            input `photo` before allocating tensors: to multiples of 8, too, or the run fails.

    Returns:
        The file's content. Inputs `photo` (1, H, W, 3) and, where the weights have a tone stage, `thumbnail`
        (1, 64, 64, 3), as `tone.thumbnail` makes it; output `enhanced` (1, H, W, 3). All are uint8 if `int8`, else
        float32 in 0..1.

    Raises:
        ValueError: a side of `size` is not a positive multiple of 8.
        WeightsError: int8 was asked for and the weights were never calibrated.
    """
    requirements.check(weights, int8, size)
    model = weights.build()
    graph = _Graph(Record(weights, int8))
    photo = graph.picture("photo", size, int8)
    inputs, toned = [photo], None
    if model.tone is not None:
        thumbnail = graph.picture("thumbnail", (THUMBNAIL_PX, THUMBNAIL_PX), int8)
        inputs.append(thumbnail)
        decided = _decided(graph, model.tone, graph.real(thumbnail) if int8 else thumbnail)
        toned = _looked_up(graph, photo, *decided) if int8 else _interpolated(graph, photo, *decided)
    base = graph.clamped(toned or (graph.real(photo) if int8 else photo))
    if int8:
        arithmetic = _Integers(graph, integer_convs(model.network), weights.activations)
        seen = base
    else:
        arithmetic = _Floats(graph, model.network)
        # What the network sees is 8 bit; the integers round it so themselves.
        levels = graph.constant(255.0)
        seen = graph.like(base, "MUL", graph.like(base, "ROUND", graph.like(base, "MUL", base, levels)), 1 / 255)
    residual = _tail(graph, model.network, arithmetic.real(_Blocks(graph, arithmetic).features(model.network, seen)))
    enhanced = graph.clamped(graph.like(base, "ADD", base, residual))
    if int8:
        enhanced = graph.add("QUANTIZE", enhanced, shape=enhanced.shape, at=PHOTO, kind=np.uint8)
    graph.rename(enhanced, "enhanced")
    return graph.packed(inputs, enhanced)


# --- tensors and operators ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the graph, with its nominal shape; `at` tells how its integers are meant."""

    index: int
    shape: tuple[int, ...]
    at: Activation | None = None


class _Aligned(schema.BufferT):
    """A constant whose first byte lies at a multiple of 16, which the generated code does not see to."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (the base class's name)
        if self.data is not None:
            builder.Prep(_ALIGNMENT, len(self.data))
        return super().Pack(builder)


@dataclass(frozen=True)
class _Graph:
    """Tensors, constants and operators, the latter in the order in which they run."""

    record: Record
    tensors: list[schema.TensorT] = field(default_factory=list)
    buffers: list[schema.BufferT] = field(default_factory=lambda: [schema.BufferT()])  # the first is empty by rule
    operators: list[schema.OperatorT] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: np.dtype,
        quantization: schema.QuantizationParametersT | None = None,
        data: bytes | None = None,
    ) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name, np.array(shape, np.int32), _TYPES[np.dtype(kind)]
        made.quantization = quantization
        made.buffer = 0 if data is None else self.buffer(data)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def buffer(self, data: bytes) -> int:
        made = _Aligned()
        made.data = np.frombuffer(data, np.uint8)
        self.buffers.append(made)
        return len(self.buffers) - 1

    def picture(self, name: str, sides: tuple[int, int] | None, int8: bool) -> _Tensor:
        """An input of three channels: uint8, or float32 in 0..1."""
        shape = (1, *(sides or NOMINAL_SIDES), 3)
        at = PHOTO if int8 else None
        kind = np.uint8 if int8 else np.float32
        index = self.tensor(name, shape, kind, _per_tensor(PHOTO.scale, PHOTO.zero_point) if int8 else None)
        if sides is None:
            self.tensors[index].shapeSignature = np.array([1, -1, -1, 3], np.int32)
        return _Tensor(index, shape, at)

    def constant(self, values: Tensor | np.ndarray | Sequence[int] | float, name: str = "") -> _Tensor:
        """A constant: of its own type if it is an array, int32 if a sequence, float32 if a number."""
        if isinstance(values, Tensor):
            values = values.detach().numpy()
        elif not isinstance(values, np.ndarray):
            values = np.array(values, np.float32 if isinstance(values, float) else np.int32)
        name = name or f"constant_{len(self.tensors)}"
        index = self.tensor(name, values.shape, values.dtype, None, np.ascontiguousarray(values).tobytes())
        return _Tensor(index, values.shape)

    def held(self, key: str, values: Tensor) -> _Tensor:
        """A constant that is the state's tensor `key`, convolutions' weights in the layout (out, h, w, in)."""
        self.record.hold(key)
        return self.constant(values.permute(0, 2, 3, 1) if values.dim() == 4 else values, key)

    def add(
        self,
        operator: str,
        *inputs: _Tensor | None,
        shape: Sequence[int],
        at: Activation | None = None,
        kind: type = np.float32,
        **options: object,
    ) -> _Tensor:
        """What `operator` makes of `inputs`: float32, or if `at` is given integers of `kind`."""
        return self.add_many(operator, *inputs, shapes=[shape], at=at, kinds=[kind], **options)[0]

    def add_many(
        self,
        operator: str,
        *inputs: _Tensor | None,
        shapes: Sequence[Sequence[int]],
        at: Activation | None = None,
        kinds: Sequence[type],
        **options: object,
    ) -> list[_Tensor]:
        """The same for an operator of several outputs, whose `shapes` and `kinds` are named one by one."""
        outputs = []
        for shape, asked in zip(shapes, kinds, strict=True):
            kind = np.int8 if at is not None and asked is not np.uint8 else asked
            zero_point = 0 if at is None else at.zero_point - (_SHIFT if kind is np.int8 else 0)
            how = None if at is None else _per_tensor(at.scale, zero_point)
            index = self.tensor(f"{operator.lower()}_{len(self.tensors)}", shape, kind, how)
            outputs.append(_Tensor(index, tuple(shape), at))
        made = schema.OperatorT()
        if operator not in self.codes:
            self.codes.append(operator)
        made.opcodeIndex = self.codes.index(operator)
        made.inputs = np.array([-1 if i is None else i.index for i in inputs], np.int32)
        made.outputs = np.array([o.index for o in outputs], np.int32)
        name = _OPTIONS.get(operator)
        if name is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            made.builtinOptions = getattr(schema, f"{name}T")()
            for option, value in options.items():
                setattr(made.builtinOptions, option, value)
        self.operators.append(made)
        return outputs

    def like(self, model: _Tensor, operator: str, *inputs: _Tensor | float, **options: object) -> _Tensor:
        """A float operator whose output has the shape of `model`; numbers become constants."""
        tensors = (self.constant(i) if isinstance(i, float) else i for i in inputs)
        return self.add(operator, *tensors, shape=model.shape, **options)

    def real(self, x: _Tensor) -> _Tensor:
        """Integers as float32."""
        return self.add("DEQUANTIZE", x, shape=x.shape)

    def clamped(self, x: _Tensor) -> _Tensor:
        """Float values, limited to 0..1."""
        return self.like(x, "MINIMUM", self.like(x, "RELU", x), 1.0)

    def reshaped(self, x: _Tensor, shape: Sequence[int]) -> _Tensor:
        return self.add("RESHAPE", x, self.constant(list(shape)), shape=shape, newShape=np.array(shape, np.int32))

    def part(self, x: _Tensor, start: Sequence[int], shape: Sequence[int]) -> _Tensor:
        return self.add("SLICE", x, self.constant(list(start)), self.constant(list(shape)), shape=shape)

    def mean(self, x: _Tensor, axes: Sequence[int], keep: bool = True, operator: str = "MEAN") -> _Tensor:
        shape = [1 if i in axes else side for i, side in enumerate(x.shape)]
        if not keep:
            shape = [side for i, side in enumerate(x.shape) if i not in axes]
        return self.add(operator, x, self.constant(list(axes)), shape=shape, keepDims=keep)

    def conv(
        self, x: _Tensor, weight: _Tensor, bias: _Tensor, stride: int, padding: int, at: Activation | None
    ) -> _Tensor:
        """A convolution; `weight` has the layout (out, h, w, in)."""
        out = weight.shape[0]
        if stride > 1 and padding:
            # "Same" padding of an even side would add all of it at the end.
            margins = self.constant(np.array([[0, 0], [padding, 0], [padding, 0], [0, 0]], np.int32))
            shape = (1, x.shape[1] + padding, x.shape[2] + padding, x.shape[3])
            x = self.add("PAD", x, margins, shape=shape, at=x.at)
        how = {"padding": _VALID if stride > 1 else _SAME, "strideW": stride, "strideH": stride}
        how |= {"dilationWFactor": 1, "dilationHFactor": 1}
        return self.add(
            "CONV_2D", x, weight, bias, shape=(1, x.shape[1] // stride, x.shape[2] // stride, out), at=at, **how
        )

    def leaky(self, x: _Tensor, at: Activation | None = None) -> _Tensor:
        """LeakyReLU, in float: XNNPACK's int8 one multiplies by factors of 8 bit.

        On phone photos that cost 1.6 to 2.4 dB of agreement with our integers, and saved no time (480x640, x86).
        """
        real = x if x.at is None else self.real(x)
        out = self.add("LEAKY_RELU", real, shape=x.shape, alpha=LEAKY_SLOPE)
        return out if at is None else self.add("QUANTIZE", out, shape=x.shape, at=at)

    def linear(self, x: _Tensor, weight: _Tensor, bias: _Tensor | None = None) -> _Tensor:
        """Products with the rows of `weight` (out, in), along the last axis."""
        shape = (*x.shape[:-1], weight.shape[0])
        return self.add("FULLY_CONNECTED", x, weight, bias, shape=shape, keepNumDims=True)

    def rename(self, x: _Tensor, name: str) -> None:
        self.tensors[x.index].name = name

    def packed(self, inputs: list[_Tensor], output: _Tensor) -> bytes:
        """The file."""
        subgraph = schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs = np.array([i.index for i in inputs], np.int32)
        subgraph.outputs = np.array([output.index], np.int32)
        model = schema.ModelT()
        model.version, model.description = 3, "qatie"
        model.subgraphs, model.signatureDefs = [subgraph], [self._signature(inputs, output)]
        model.operatorCodes = [_code(name) for name in self.codes]
        model.metadata = []
        entries = {HEADER: json.dumps(self.record.header()).encode(), TENSORS: self.record.tensors()}
        for name, content in entries.items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, self.buffer(content)
            model.metadata.append(entry)
        model.buffers = self.buffers
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _signature(self, inputs: list[_Tensor], output: _Tensor) -> schema.SignatureDefT:
        made = schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = "serving_default", 0
        made.inputs, made.outputs = ([self._named(x) for x in tensors] for tensors in (inputs, [output]))
        return made

    def _named(self, x: _Tensor) -> schema.TensorMapT:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = self.tensors[x.index].name, x.index
        return made


_OPTIONS = {
    "ADD": "AddOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "SPLIT": "SplitOptions",
    "SUB": "SubOptions",
}


def _code(operator: str) -> schema.OperatorCodeT:
    made = schema.OperatorCodeT()
    made.builtinCode = getattr(schema.BuiltinOperator, operator)
    made.deprecatedBuiltinCode = min(made.builtinCode, 127)  # where runtimes before 2020 look
    made.version = _VERSIONS.get(operator, 1)
    return made


def _per_tensor(scale: float, zero_point: int) -> schema.QuantizationParametersT:
    return _quantized(np.array([scale], np.float32), np.array([zero_point], np.int64))


def _quantized(scales: np.ndarray, zero_points: np.ndarray) -> schema.QuantizationParametersT:
    made = schema.QuantizationParametersT()
    made.scale, made.zeroPoint, made.quantizedDimension = scales, zero_points, 0
    return made


# --- arithmetic: what the network's convolutions and rounding points become ---------------------------------------


class _Arithmetic(Protocol):
    """What differs between float and integers."""

    def at(self, point: str) -> Activation | None:
        """How tensors are stored at the rounding point; None in float."""

    def stored(self, x: _Tensor, point: str) -> _Tensor:
        """`x` as it is stored at the rounding point."""

    def real(self, x: _Tensor) -> _Tensor:
        """`x` as float32."""

    def conv(self, name: str, x: _Tensor, point: str) -> _Tensor:
        """What the convolution `name` makes of `x`, stored as at the point."""


@dataclass(frozen=True)
class _Floats:
    """The counterpart of `engines.floating`."""

    graph: _Graph
    network: Network

    def at(self, point: str) -> None:
        return None

    def stored(self, x: _Tensor, point: str) -> _Tensor:
        return x

    def real(self, x: _Tensor) -> _Tensor:
        return x

    def conv(self, name: str, x: _Tensor, point: str) -> _Tensor:
        layer = self.network.get_submodule(name)
        if is_folded(name):
            weight = self.graph.constant(centred(fold_upsample(layer.weight)).permute(0, 2, 3, 1))
            bias = self.graph.constant(layer.bias.repeat(4))
        else:
            weight = self.graph.held(f"network.{name}.weight", layer.weight)
            bias = self.graph.held(f"network.{name}.bias", layer.bias)
        return self.graph.conv(x, weight, bias, layer.stride[0], layer.padding[0], None)


@dataclass(frozen=True)
class _Integers:
    """The counterpart of `engines.int8`."""

    graph: _Graph
    convs: dict[str, IntegerConv]
    activations: dict[str, Activation]

    def at(self, point: str) -> Activation:
        return activation_at(point, self.activations)

    def stored(self, x: _Tensor, point: str) -> _Tensor:
        return self.graph.add("QUANTIZE", x, shape=x.shape, at=self.at(point))

    def real(self, x: _Tensor) -> _Tensor:
        return self.graph.real(x)

    def conv(self, name: str, x: _Tensor, point: str) -> _Tensor:
        conv, graph = self.convs[name], self.graph
        key = "" if is_folded(name) else f"network.{name}.weight"
        if key:
            graph.record.hold(key)
        values = centred(conv.weight) if is_folded(name) else conv.weight
        scales = conv.scales * x.at.scale
        bias = (conv.bias.double() / scales.double()).round().clamp(_INT32.min, _INT32.max).int()
        weight = self._constant(values.permute(0, 2, 3, 1), conv.scales, key)
        return graph.conv(x, weight, self._constant(bias, scales), conv.stride, conv.padding, self.at(point))

    def _constant(self, values: Tensor, scales: Tensor, name: str = "") -> _Tensor:
        """Constant integers, with a scale for each entry of their first axis."""
        made = self.graph.constant(values, name)
        zeros = np.zeros(len(scales), np.int64)
        self.graph.tensors[made.index].quantization = _quantized(scales.numpy().astype(np.float32), zeros)
        return made


# --- the network --------------------------------------------------------------------------------------------------


def _tail(graph: _Graph, network: Network, features: _Tensor) -> _Tensor:
    """The residual (1, H, W, 3) of features (1, H/2, W/2, c), in float."""
    weight, bias = network.tail()
    # From the order of `pixel_shuffle` to that of DEPTH_TO_SPACE, whose slow index is the phase.
    weight, bias = (t.unflatten(0, (3, 4)).transpose(0, 1).flatten(0, 1) for t in (weight, bias))
    phases = graph.conv(
        features, graph.constant(weight.permute(0, 2, 3, 1)), graph.constant(bias), stride=1, padding=1, at=None
    )
    return _enlarged(graph, phases)


def _enlarged(graph: _Graph, phases: _Tensor) -> _Tensor:
    _, height, width, channels = phases.shape
    shape = (1, 2 * height, 2 * width, channels // 4)
    return graph.add("DEPTH_TO_SPACE", phases, shape=shape, at=phases.at, blockSize=2)


@dataclass(frozen=True)
class _Blocks:
    """`Network.features`, block by block."""

    graph: _Graph
    arithmetic: _Arithmetic

    def features(self, network: Network, photo: _Tensor) -> _Tensor:
        x, pair1 = self._gate(network.down1, self.arithmetic.stored(photo, "photo"))
        encoded1 = self._refine(network.refine1, x)
        x, pair2 = self._gate(network.down2, encoded1)
        encoded2 = self._refine(network.refine2, x)
        x = self._refine(network.bottleneck, self._halved(encoded2))
        x = self._refine(network.decode2, self._fuse(network.fuse2, x, encoded2, pair2))
        return self._refine(network.decode1, self._fuse(network.fuse1, x, encoded1, pair1))

    def _halved(self, x: _Tensor) -> _Tensor:
        _, height, width, channels = x.shape
        window = {"padding": _VALID, "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
        return self.graph.add("MAX_POOL_2D", x, shape=(1, height // 2, width // 2, channels), at=x.at, **window)

    def _gate(self, block: Gate, x: _Tensor) -> tuple[_Tensor, _Tensor]:
        graph, name, at = self.graph, block.name, self.arithmetic.at
        pair = self.arithmetic.conv(f"{name}.pair", x, f"{name}.pre")
        pair = graph.add("TANH", pair, shape=pair.shape, at=at(f"{name}.tanh"))
        half = (*pair.shape[:3], pair.shape[3] // 2)
        axis = graph.constant(np.array(3, np.int32))
        a, b = graph.add_many("SPLIT", axis, pair, shapes=[half] * 2, at=pair.at, kinds=[np.float32] * 2, numSplits=2)
        return graph.add("MUL", a, b, shape=half, at=at(f"{name}.product")), pair

    def _refine(self, block: Refine, x: _Tensor) -> _Tensor:
        graph, name, arithmetic = self.graph, block.name, self.arithmetic
        local = arithmetic.conv(f"{name}.local", x, f"{name}.local")
        normed = arithmetic.stored(self._normed(block, arithmetic.real(local)), f"{name}.norm")
        normed = graph.leaky(normed, arithmetic.at(f"{name}.y"))
        side = arithmetic.conv(f"{name}.side", x, f"{name}.y")
        y = self._joined([normed, side])
        out = y
        for part in ("inner", "outer"):
            out = arithmetic.conv(f"{name}.{part}", out, f"{name}.{part}")
            out = graph.leaky(out, arithmetic.at(f"{name}.{part}_leaky"))
        shortcut = arithmetic.conv(f"{name}.shortcut", y, f"{name}.shortcut")
        return graph.add("ADD", out, shortcut, shape=out.shape, at=arithmetic.at(f"{name}.out"))

    def _normed(self, block: Refine, x: _Tensor) -> _Tensor:
        """Instance norm, decomposed, in float: one factor and one offset for each channel."""
        graph = self.graph
        gain = graph.held(f"network.{block.name}.norm.weight", block.norm.weight)
        offset = graph.held(f"network.{block.name}.norm.bias", block.norm.bias)
        mean = self._mean(x)
        variance = self._mean(graph.like(x, "SQUARED_DIFFERENCE", x, mean))
        factor = graph.like(mean, "RSQRT", graph.like(mean, "ADD", variance, float(block.norm.eps)))
        factor = graph.like(mean, "MUL", factor, gain)
        offset = graph.like(mean, "SUB", offset, graph.like(mean, "MUL", mean, factor))
        return graph.like(x, "ADD", graph.like(x, "MUL", x, factor), offset)

    def _mean(self, x: _Tensor) -> _Tensor:
        """Means over the picture, of rows first: one sum of half a million float32 would lose digits."""
        return self.graph.mean(self.graph.mean(x, (2,)), (1,))

    def _fuse(self, block: Fuse, deep: _Tensor, encoded: _Tensor, pair: _Tensor) -> _Tensor:
        name, arithmetic = block.name, self.arithmetic
        up = _enlarged(self.graph, arithmetic.conv(f"{name}.up", deep, f"{name}.up"))
        # All three parts have the scale of the gates, so that joining them costs no resolution.
        joined = self._joined([up, arithmetic.stored(encoded, f"{name}.encoded"), pair])
        return arithmetic.conv(f"{name}.reduce", joined, f"{name}.reduced")

    def _joined(self, parts: list[_Tensor]) -> _Tensor:
        shape = (*parts[0].shape[:3], sum(p.shape[3] for p in parts))
        return self.graph.add("CONCATENATION", *parts, shape=shape, at=parts[0].at, axis=3)


# --- the tone stage -----------------------------------------------------------------------------------------------


def _looked_up(graph: _Graph, photo: _Tensor, curves: _Tensor, matrix: _Tensor) -> _Tensor:
    """Tone of a photo of 8 bit by a table of its 256 levels, as `tone.ToneMap.table` has it; unclamped."""
    knots = curves.shape[1]
    places = np.linspace(0, 1, knots)
    spread = np.stack([np.interp(np.linspace(0, 1, LEVELS), places, unit) for unit in np.eye(knots)], axis=1)
    table = graph.reshaped(graph.linear(curves, graph.constant(spread.astype(np.float32))), [3 * LEVELS])
    index = graph.add("CAST", photo, shape=photo.shape, kind=np.int32)
    return graph.linear(_taken(graph, table, index, LEVELS), matrix)


def _interpolated(graph: _Graph, photo: _Tensor, curves: _Tensor, matrix: _Tensor) -> _Tensor:
    """`tone.apply_tone` of a photo in 0..1, unclamped."""
    knots = curves.shape[1]
    flat = graph.reshaped(curves, [3 * knots])
    position = graph.like(photo, "MUL", graph.clamped(photo), float(knots - 1))
    left = graph.like(photo, "MINIMUM", graph.like(photo, "FLOOR", position), float(knots - 2))
    index = graph.add("CAST", left, shape=photo.shape, kind=np.int32)
    low, high = (_taken(graph, flat, index, knots, shift) for shift in (0, 1))
    rise = graph.like(photo, "MUL", graph.like(photo, "SUB", high, low), graph.like(photo, "SUB", position, left))
    return graph.linear(graph.like(photo, "ADD", low, rise), matrix)


def _taken(graph: _Graph, table: _Tensor, index: _Tensor, levels: int, shift: int = 0) -> _Tensor:
    """Entries of a table of red's, green's and blue's `levels` values, `shift` places further."""
    starts = graph.constant(np.arange(3, dtype=np.int32) * levels + shift)
    places = graph.add("ADD", index, starts, shape=index.shape, kind=np.int32)
    return graph.add("GATHER", table, places, shape=index.shape, axis=0)


def _decided(graph: _Graph, stage: ToneStage, thumbnail: _Tensor) -> tuple[_Tensor, _Tensor]:
    """`ToneStage.forward`: curves (3, knots) and matrix (3, 3) for a float thumbnail."""
    knots = stage.config.knots
    raw = _raw(graph, stage, thumbnail)
    curve = graph.reshaped(graph.part(raw, [0, 0], [1, 3 * knots]), [3, knots])
    start = graph.add("MUL", graph.part(curve, [0, 0], [3, 1]), graph.constant(0.1), shape=(3, 1))
    steps = graph.part(curve, [0, 1], [3, knots - 1])
    steps = graph.like(steps, "ADD", steps, 0.541325)
    # Softplus, written so that no exponential can grow without bound.
    small = graph.like(steps, "EXP", graph.like(steps, "NEG", graph.like(steps, "ABS", steps)))
    steps = graph.like(
        steps, "ADD", graph.like(steps, "RELU", steps), graph.like(steps, "LOG", graph.like(steps, "ADD", small, 1.0))
    )
    # Running sums of the steps, beginning with 0 at the first knot.
    sums = np.tril(np.ones((knots, knots - 1), np.float32), -1) / np.float32(knots - 1)
    curves = graph.add("ADD", graph.linear(steps, graph.constant(sums)), start, shape=(3, knots))
    matrix = graph.reshaped(graph.part(raw, [0, 3 * knots], [1, 9]), [3, 3])
    matrix = graph.like(matrix, "ADD", graph.like(matrix, "MUL", matrix, 0.3), graph.constant(np.eye(3, dtype="f4")))
    return _anchored(graph, curves, matrix), matrix


def _anchored(graph: _Graph, curves: _Tensor, matrix: _Tensor) -> _Tensor:
    """`tone.anchored`."""
    knots = curves.shape[1]

    def mixed(place: int) -> _Tensor:
        """A knot of all channels behind the matrix, (3, 1)."""
        values = graph.reshaped(graph.part(curves, [0, place], [3, 1]), [1, 3])
        return graph.reshaped(graph.linear(values, matrix), [3, 1])

    white, black = mixed(knots - 1), mixed(0)
    lacking = graph.like(white, "RELU", graph.like(white, "SUB", 1.0, white))
    raised = graph.like(black, "RELU", graph.like(black, "SUB", black, tone.BLACK))
    towards_white, towards_black = (graph.constant(anchor[None]) for anchor in tone.anchors(knots))
    whiter = graph.like(curves, "ADD", curves, graph.like(curves, "MUL", lacking, towards_white))
    return graph.like(curves, "SUB", whiter, graph.like(curves, "MUL", raised, towards_black))


def _raw(graph: _Graph, stage: ToneStage, thumbnail: _Tensor) -> _Tensor:
    """What is carried out of the decision as the last layer gives it, (1, 3 * knots + 9)."""
    luma = _luma(graph, thumbnail)
    parts = _pooled(graph, stage, thumbnail) if stage.config.channels else []
    parts += _statistics(graph, stage.config.bins, thumbnail, luma) if stage.config.bins else []
    parts += [_quantiles(graph, thumbnail, luma)] if stage.config.quantiles else []
    x = graph.add("CONCATENATION", *parts, shape=(1, sum(p.shape[1] for p in parts)), axis=1)
    for name in ("hidden", "second"):
        if getattr(stage, name) is not None:
            x = graph.leaky(_linear(graph, stage, name, x))
    decided = _linear(graph, stage, "decide", x)
    return graph.like(decided, "MUL", decided, _carried_out(graph, luma))


def _carried_out(graph: _Graph, luma: _Tensor) -> _Tensor:
    """`tone.carried_out`, (1, 1)."""
    both = _ranked(graph, luma, tone.DARK_AND_BRIGHT)
    dark, bright = (graph.part(both, [0, place], [1, 1]) for place in (0, 1))
    contrast = graph.like(dark, "SUB", bright, dark)
    contrast = graph.like(dark, "DIV", contrast, graph.like(bright, "MAXIMUM", bright, 1 / 255))
    above = graph.like(contrast, "MUL", graph.like(contrast, "SUB", contrast, tone.FLAT), 1 / (tone.FULL - tone.FLAT))
    return graph.clamped(above)


def _linear(graph: _Graph, stage: ToneStage, name: str, x: _Tensor) -> _Tensor:
    layer = getattr(stage, name)
    weight, bias = (graph.held(f"tone.{name}.{part}", getattr(layer, part)) for part in ("weight", "bias"))
    return graph.linear(x, weight, bias)


def _pooled(graph: _Graph, stage: ToneStage, thumbnail: _Tensor) -> list[_Tensor]:
    """Means and maxima (1, channels) of the last convolution of the thumbnail."""
    x = graph.like(thumbnail, "SUB", thumbnail, 0.5)
    for index, layer in enumerate(stage.convs):
        weight, bias = (graph.held(f"tone.convs.{index}.{part}", getattr(layer, part)) for part in ("weight", "bias"))
        x = graph.leaky(graph.conv(x, weight, bias, layer.stride[0], layer.padding[0], None))
    return [graph.mean(x, (1, 2), False, operator) for operator in ("MEAN", "REDUCE_MAX")]


def _statistics(graph: _Graph, bins: int, thumbnail: _Tensor, luma: _Tensor) -> list[_Tensor]:
    """`tone.statistics` of the thumbnail, in parts (1, values)."""
    both = graph.add("CONCATENATION", thumbnail, luma, shape=(1, THUMBNAIL_PX, THUMBNAIL_PX, 4), axis=3)
    values = graph.reshaped(both, [THUMBNAIL_PX**2, 4, 1])
    position = graph.like(values, "MUL", values, float(bins - 1))
    places = graph.constant(np.arange(bins, dtype=np.float32).reshape(1, 1, bins))
    # A bin's share of a value falls from 1 at its own place to 0 at the next ones.
    apart = graph.add("SUB", position, places, shape=(THUMBNAIL_PX**2, 4, bins))
    shares = graph.like(apart, "RELU", graph.like(apart, "SUB", graph.constant(1.0), graph.like(apart, "ABS", apart)))
    counts = graph.mean(shares, (0,), keep=False)
    sums = graph.linear(counts, graph.constant(np.tril(np.ones((bins, bins), np.float32))))
    chroma = graph.like(luma, "SUB", *_extremes(graph, thumbnail))
    mean_chroma, mean_luma = (graph.mean(x, (1, 2), keep=False) for x in (chroma, luma))
    tints = graph.add("SUB", graph.mean(thumbnail, (1, 2), keep=False), mean_luma, shape=(1, 3))
    tints = graph.linear(tints, graph.constant(np.array([[4, 0, 0], [0, 0, 4]], np.float32)))
    moments = [
        mean_chroma, _deviation(graph, chroma, 1.0), tints, mean_luma, _deviation(graph, luma, 3.0)
    ]  # fmt: skip
    return [graph.reshaped(x, [1, 4 * bins]) for x in (graph.like(counts, "SQRT", counts), sums)] + moments


def _quantiles(graph: _Graph, thumbnail: _Tensor, luma: _Tensor) -> _Tensor:
    """`tone.quantiles` of the thumbnail, (1, 66)."""
    seen = (thumbnail, luma, *_extremes(graph, thumbnail))
    channels = graph.add("CONCATENATION", *seen, shape=(1, THUMBNAIL_PX, THUMBNAIL_PX, 6), axis=3)
    chosen = _ranked(graph, channels, tone.QUANTILES)
    row = graph.reshaped(chosen, [1, chosen.shape[0] * chosen.shape[1]])
    return graph.like(row, "SUB", graph.like(row, "MUL", row, 2.0), 1.0)


def _ranked(graph: _Graph, planes: _Tensor, ranks: Sequence[float]) -> _Tensor:
    """The values (planes, ranks) of these ranks in planes of thumbnail size."""
    pixels, count = THUMBNAIL_PX**2, planes.shape[3]
    rows = graph.reshaped(planes, [pixels, count])
    rows = graph.add("TRANSPOSE", rows, graph.constant([1, 0]), shape=(count, pixels))
    all_of_them = graph.constant(np.array(pixels, np.int32))
    # The largest come first.
    kinds = [np.float32, np.int32]
    ordered, _ = graph.add_many("TOPK_V2", rows, all_of_them, shapes=[(count, pixels)] * 2, kinds=kinds)
    chosen = graph.constant([pixels - 1 - place for place in tone.places(ranks, pixels)])
    return graph.add("GATHER", ordered, chosen, shape=(count, len(ranks)), axis=1)


def _luma(graph: _Graph, thumbnail: _Tensor) -> _Tensor:
    """Luma (1, 64, 64, 1) of the thumbnail."""
    weight = graph.constant(np.array(tone.LUMA, np.float32).reshape(1, 1, 1, 3))
    return graph.conv(thumbnail, weight, graph.constant(np.zeros(1, np.float32)), 1, 0, None)


def _extremes(graph: _Graph, thumbnail: _Tensor) -> list[_Tensor]:
    """The largest and the smallest channel (1, 64, 64, 1) of each pixel of the thumbnail."""
    return [graph.mean(thumbnail, (3,), True, f"REDUCE_{kind}") for kind in ("MAX", "MIN")]


def _deviation(graph: _Graph, plane: _Tensor, factor: float) -> _Tensor:
    """`factor` standard deviations (1, 1) of a plane of thumbnail size, by one less than the number of its pixels."""
    apart = graph.like(plane, "SQUARED_DIFFERENCE", plane, graph.mean(plane, (1, 2)))
    variance = graph.mean(apart, (1, 2), keep=False)
    pixels = THUMBNAIL_PX**2
    return graph.like(variance, "SQRT", graph.like(variance, "MUL", variance, factor**2 * pixels / (pixels - 1)))
