"""Writes TFLite files, by the schema that `ai-edge-litert` brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qatie_cli.exchange.tflite.reading import IDENTIFIER
from qatie_cli.model.quantization.scheme import Activation

_ALIGNMENT = 16  # bytes, of constants in the file, as the schema asks
_SHIFT = 128  # from our zero points (0..255) to those of int8
_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
}
# Operator versions other than 1; older runtimes refuse them.
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
_OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "CUMSUM": "CumsumOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "EXPAND_DIMS": "ExpandDimsOptions",
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
    "SQUEEZE": "SqueezeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
}
Option = int | float | bool | np.ndarray


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file by its index, with its nominal shape; `at` tells how its integers are meant."""

    index: int
    shape: tuple[int, ...]
    at: Activation | None = None


class _Aligned(schema.BufferT):
    """A constant aligned to 16 bytes, which the generated code does not guarantee."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (the base class's name)
        if self.data is not None:
            builder.Prep(_ALIGNMENT, len(self.data))
        return super().Pack(builder)


@dataclass(frozen=True)
class Writer:
    """Collects tensors, constants and operators, the latter in the order in which they run."""

    tensors: list[schema.TensorT] = field(default_factory=list)
    buffers: list[schema.BufferT] = field(default_factory=lambda: [schema.BufferT()])  # the first is empty by rule
    operators: list[schema.OperatorT] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)

    def input(self, name: str, shape: Sequence[int], at: Activation | None, any_size: bool) -> Tensor:
        """A picture that the model is given: uint8 as `at` tells, or float32 where that is None."""
        kind = np.float32 if at is None else np.uint8
        index = self._tensor(name, shape, kind, None if at is None else _per_tensor(at.scale, at.zero_point))
        if any_size:
            self.tensors[index].shapeSignature = np.array([1, -1, -1, shape[3]], np.int32)
        return Tensor(index, tuple(shape), at)

    def constant(self, values: np.ndarray, name: str = "", scales: np.ndarray | None = None) -> Tensor:
        """A constant of the array's type; integers may have `scales`, one for each entry of their first axis."""
        name = name or f"constant_{len(self.tensors)}"
        how = None if scales is None else _quantized(scales, np.zeros(len(scales), np.int64))
        index = self._tensor(name, values.shape, values.dtype, how, np.ascontiguousarray(values).tobytes())
        return Tensor(index, values.shape)

    def operator(
        self,
        name: str,
        *inputs: Tensor | None,
        shape: Sequence[int],
        at: Activation | None = None,
        kind: type = np.float32,
        **options: Option,
    ) -> Tensor:
        """What an operator makes of `inputs`: float32 or `kind`, or if `at` is given integers: int8, or uint8."""
        return self.operator_of_many(name, *inputs, shapes=[shape], at=at, kinds=[kind], **options)[0]

    def operator_of_many(
        self,
        name: str,
        *inputs: Tensor | None,
        shapes: Sequence[Sequence[int]],
        at: Activation | None = None,
        kinds: Sequence[type],
        **options: Option,
    ) -> list[Tensor]:
        """The same for an operator of several outputs, whose `shapes` and `kinds` are named one by one."""
        outputs = []
        for shape, asked in zip(shapes, kinds, strict=True):
            kind = np.int8 if at is not None and asked is not np.uint8 else asked
            zero_point = 0 if at is None else at.zero_point - (_SHIFT if kind is np.int8 else 0)
            how = None if at is None else _per_tensor(at.scale, zero_point)
            index = self._tensor(f"{name.lower()}_{len(self.tensors)}", shape, kind, how)
            outputs.append(Tensor(index, tuple(shape), at))
        made = schema.OperatorT()
        if name not in self.codes:
            self.codes.append(name)
        made.opcodeIndex = self.codes.index(name)
        made.inputs = np.array([-1 if i is None else i.index for i in inputs], np.int32)
        made.outputs = np.array([o.index for o in outputs], np.int32)
        if kind_of_options := _OPTIONS.get(name):
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind_of_options)
            made.builtinOptions = getattr(schema, f"{kind_of_options}T")()
            for option, value in options.items():
                setattr(made.builtinOptions, option, value)
        self.operators.append(made)
        return outputs

    def rename(self, x: Tensor, name: str) -> None:
        """Give a tensor another name."""
        self.tensors[x.index].name = name

    def packed(self, inputs: Sequence[Tensor], output: Tensor, metadata: Mapping[str, bytes]) -> bytes:
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
        for name, content in metadata.items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, self._buffer(content)
            model.metadata.append(entry)
        model.buffers = self.buffers
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: type | np.dtype,
        quantization: schema.QuantizationParametersT | None,
        data: bytes | None = None,
    ) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name, np.array(shape, np.int32), _TYPES[np.dtype(kind)]
        made.quantization = quantization
        made.buffer = 0 if data is None else self._buffer(data)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def _buffer(self, data: bytes) -> int:
        made = _Aligned()
        made.data = np.frombuffer(data, np.uint8)
        self.buffers.append(made)
        return len(self.buffers) - 1

    def _signature(self, inputs: Sequence[Tensor], output: Tensor) -> schema.SignatureDefT:
        made = schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = "serving_default", 0
        made.inputs, made.outputs = ([self._named(x) for x in tensors] for tensors in (inputs, [output]))
        return made

    def _named(self, x: Tensor) -> schema.TensorMapT:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = self.tensors[x.index].name, x.index
        return made


def _code(operator: str) -> schema.OperatorCodeT:
    made = schema.OperatorCodeT()
    made.builtinCode = getattr(schema.BuiltinOperator, operator)
    made.deprecatedBuiltinCode = min(made.builtinCode, 127)  # for runtimes before 2020
    made.version = _VERSIONS.get(operator, 1)
    return made


def _per_tensor(scale: float, zero_point: int) -> schema.QuantizationParametersT:
    return _quantized(np.array([scale], np.float32), np.array([zero_point], np.int64))


def _quantized(scales: np.ndarray, zero_points: np.ndarray) -> schema.QuantizationParametersT:
    made = schema.QuantizationParametersT()
    made.scale, made.zeroPoint, made.quantizedDimension = scales, zero_points, 0
    return made
