"""Weights as ONNX graphs that an engine runs one after another: the network from norm to norm, and the tone stage.

Only the norms need the whole photo, so the network is cut there, and strips of a photo run through each part. What
stands between two parts (a norm with its activation, the interleaving of upsampled phases) moves bytes or looks them
up, which the engine does itself: it is a fifth of the time in a graph. Tensors of the network are (1, h, w, C) uint8,
in the scales of the weights file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from qatie_cli.graphs.graph import Blocks
from qatie_cli.graphs.kernels import Arithmetic, Kernel
from qatie_cli.graphs.onnx import OPSET, OnnxOperators, Value
from qatie_cli.graphs.tone_applying import Stage
from qatie_cli.graphs.tone_deciding import decided
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import LARGEST_GAIN_EV
from qatie_cli.model.folding import fold_tail
from qatie_cli.model.quantization.scheme import TANH, Activation

_SIGMOID = Activation(1 / 256, 0)
_Part = Callable[["_Writer"], dict[str, Value]]


@dataclass(frozen=True)
class _PartOperators(OnnxOperators):
    """Operators that onnxruntime computes on bytes, each by a table."""

    def store(self, x: Value, at: Activation | None) -> Value:
        return x if at is None else self._read(self._quantized(x, at), at)

    def _quantized(self, x: Value, at: Activation) -> Value:
        return self.node("QuantizeLinear", x, *self._scale(at), rank=x.rank)

    def _read(self, integers: Value, at: Activation) -> Value:
        restored = self.node("DequantizeLinear", integers, *self._scale(at), rank=integers.rank)
        return Value(restored.name, integers.rank, at, integers.name)

    def _scale(self, at: Activation) -> tuple[Value, Value]:
        return self.number(at.scale), self.constant(np.array(at.zero_point, np.uint8))

    def tanh(self, x: Value, at: Activation | None = None) -> Value:
        """As 2 sigmoid(2x) - 1: onnxruntime has a sigmoid of bytes; in steps of 1/256 its integers are the tanh's."""
        assert at == TANH
        assert x.at is not None
        doubled = self._read(replace(x, name=x.integers), replace(x.at, scale=2 * x.at.scale))
        return self._read(self._quantized(self.node("Sigmoid", doubled), _SIGMOID), TANH)

    def given(self, name: str, at: Activation) -> Value:
        """An input (1, h, w, C) uint8 as a picture."""
        return self._read(self.node("Transpose", Value(name, 4), perm=[0, 3, 1, 2]), at)

    def taken(self, x: Value, name: str) -> None:
        """A picture as the output `name`, (1, h, w, C) uint8."""
        self.named(self.node("Transpose", replace(x, name=x.integers), perm=[0, 2, 3, 1]), name)


class _Writer:
    """Writes the network's parts."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.arithmetic = Arithmetic.of(weights, int8=True)
        self.ops = _PartOperators()
        self.blocks = Blocks(self.ops, self.arithmetic)

    def given(self, name: str, point: str) -> Value:
        at = self.arithmetic.at(point)
        assert at is not None
        return self.ops.given(name, at)

    def branches(self, block: str, x: Value) -> dict[str, Value]:
        """Of a plain block, which no norm divides, all of it."""
        if block in self.arithmetic.config.plain:
            return {"local": self.blocks.plain(block, x)}
        return {"local": self.blocks.local(block, x), "side": self.blocks.side(block, x)}

    def encode1(self) -> dict[str, Value]:
        x, pair = self.blocks.gate("down1", self.given("photo", "photo"))
        return {"pair": pair} | self.branches("refine1", x)

    def encode2(self) -> dict[str, Value]:
        encoded = self._refined("refine1")
        x, pair = self.blocks.gate("down2", encoded)
        return {"encoded": encoded, "pair": pair} | self.branches("refine2", x)

    def encode3(self) -> dict[str, Value]:
        encoded = self._refined("refine2")
        return {"encoded": encoded} | self.branches("bottleneck", self.blocks.halved(encoded))

    def _refined(self, block: str) -> Value:
        if block in self.arithmetic.config.plain:
            return self.given("y", f"{block}.out")
        return self.blocks.refined(block, self.given("y", f"{block}.y"))

    def phases(self, block: str, fuse: str) -> dict[str, Value]:
        """Of the padded 2x2 convolution, which takes 4/9 of the time of what exports have."""
        conv, at = self.arithmetic.convs[f"{fuse}.up"], self.arithmetic.at(f"{fuse}.up")
        kernel = Kernel(conv.weight, conv.bias, conv.stride, conv.padding, conv.scales)
        return {"phases": self.ops.conv(self._refined(block), kernel, at)}

    def decode(self, fuse: str, block: str) -> dict[str, Value]:
        joined = self.given("joined", f"{fuse}.encoded")
        return self.branches(block, self.blocks.reduced(fuse, joined))

    def residual(self) -> None:
        """Float, (1, h, w, 12): the four phases of the residual's pixels, in `pixel_shuffle` order."""
        weight, bias = fold_tail(self.weights.state)
        phases = self.ops.conv(self.ops.real(self._refined("decode1")), Kernel(weight, bias, 1, 1))
        self.ops.named(self.ops.node("Transpose", phases, perm=[0, 2, 3, 1]), "phases")


# Of each part of the network: what it is given and what it gives, with the number of channels per width.
_PARTS: dict[str, tuple[_Part, tuple[str, float], dict[str, float]]] = {
    "encode1": (_Writer.encode1, ("photo", 0), {"pair": 2, "local": 1, "side": 1}),
    "encode2": (_Writer.encode2, ("y", 2), {"encoded": 1, "pair": 4, "local": 2, "side": 2}),
    "encode3": (_Writer.encode3, ("y", 4), {"encoded": 2, "local": 2, "side": 2}),
    "phases2": (lambda w: w.phases("bottleneck", "fuse2"), ("y", 4), {"phases": 8}),
    "decode2": (lambda w: w.decode("fuse2", "decode2"), ("joined", 8), {"local": 2, "side": 2}),
    "phases1": (lambda w: w.phases("decode2", "fuse1"), ("y", 4), {"phases": 4}),
    "decode1": (lambda w: w.decode("fuse1", "decode1"), ("joined", 4), {"local": 1, "side": 1}),
}


# The block that a part is given in front of its second convolutions; a plain one has half as many channels there.
_ENTERED = {"encode2": "refine1", "encode3": "refine2", "phases1": "decode2", "residual": "decode1"}


def build(weights: Weights) -> dict[str, bytes]:
    """The graphs of calibrated weights by name: those of `_PARTS`, `residual`, and `tone` where there is a tone stage.

    `tone` takes a `view` (1, 3, side, side) float32 in 0..1, as `view.view_nchw` makes it, and gives `curves`
    (1, 3, knots), `matrix` (1, 3, 3) and, where the stage has them, `grid` (1, depth, rows, columns) in EV and `fine`
    (1, 4, side, side), as `tone_apply.Decision` has it.
    """
    config = weights.config.network
    width = config.width

    def given(name: str, part: str, per_width: float) -> ValueInfoProto:
        return _bytes(name, per_width * width / (2 if _ENTERED.get(part) in config.plain else 1) or 3)

    parts = {}
    for name, (write, entry, taken) in _PARTS.items():
        writer = _Writer(weights)
        made = write(writer)
        for output, value in made.items():
            writer.ops.taken(value, output)
        outputs = [_bytes(n, c * width) for n, c in taken.items() if n in made]
        parts[name] = _written(writer.ops, [given(entry[0], name, entry[1])], outputs)
    writer = _Writer(weights)
    writer.residual()
    phases = helper.make_tensor_value_info("phases", TensorProto.FLOAT, [1, "rows", "columns", 12])
    parts["residual"] = _written(writer.ops, [given("y", "residual", 2)], [phases])
    if weights.config.tone is not None:
        parts["tone"] = _tone(weights)
    return parts


def _bytes(name: str, channels: float) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.UINT8, [1, f"{name} rows", f"{name} columns", int(channels)])


def _tone(weights: Weights) -> bytes:
    ops, stage = OnnxOperators(), Stage.of(weights)
    side = stage.config.view_px
    decision = decided(ops, stage, Value("view", rank=4))
    outputs = {"curves": decision.curves, "matrix": decision.matrix}
    if decision.gains is not None:
        outputs["grid"] = ops.mul(decision.gains, LARGEST_GAIN_EV)
    if decision.fine is not None:
        outputs["fine"] = decision.fine
    for name, value in outputs.items():
        ops.named(ops.node("Identity", value), name)
    view = helper.make_tensor_value_info("view", TensorProto.FLOAT, [1, 3, side, side])
    return _written(ops, [view], [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs])


def _used(nodes: list[NodeProto], outputs: list[ValueInfoProto]) -> list[NodeProto]:
    """The nodes that outputs depend on: onnxruntime runs others, too."""
    wanted = {output.name for output in outputs}
    used = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            used.append(node)
    return used[::-1]


def _written(ops: OnnxOperators, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> bytes:
    opsets = [helper.make_opsetid("", OPSET)]
    made = helper.make_graph(_used(ops.nodes, outputs), "qatie", inputs, outputs, ops.constants)
    model = helper.make_model(made, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    return bytes(model.SerializeToString())
