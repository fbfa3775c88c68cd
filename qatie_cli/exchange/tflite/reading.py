"""Reads TFLite files: qatie's own, and the paper's network as its authors publish it, in int8 or in float.

The file is read with the schema that `ai-edge-litert` brings. Convolutions are taken in the order of their operators;
each norm is decomposed there, its gain the constant of a MUL and its offset the constant of an ADD.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor

from qatie_cli.errors import WeightsError
from qatie_cli.exchange.authors import Affine, Layer, UnfitError, in_order
from qatie_cli.model.config import NetworkConfig

IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every TFLite file
_TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}
# Exceptions of reading a damaged file that LiteRT accepted.
UNREADABLE = (struct.error, ValueError, TypeError, IndexError, AttributeError, RuntimeError, OverflowError, MemoryError)
_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


@dataclass(frozen=True)
class Graph:
    """The first subgraph of a TFLite file."""

    model: schema.ModelT

    @property
    def _first(self) -> schema.SubGraphT:
        return self.model.subgraphs[0]

    def operators(self) -> list[tuple[str, list[int], list[int]]]:
        """Name, inputs and outputs (indices of tensors) of each operator, in order."""
        # Codes above 127 are in a separate field; older files have only the old one.
        codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in self.model.operatorCodes]
        return [
            (_OPERATORS.get(codes[o.opcodeIndex], "?"), list(o.inputs), list(o.outputs)) for o in self._first.operators
        ]

    def stored(self, index: int) -> np.ndarray | None:
        """A constant's values as they lie in the file; None for a tensor that is computed."""
        tensor = self._first.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or len(data) == 0 or tensor.type not in _TYPES:
            return None
        shape = [] if tensor.shape is None else tensor.shape
        return np.frombuffer(bytes(data), _TYPES[tensor.type]).reshape(shape)

    def constant(self, index: int) -> Tensor | None:
        """A constant's real values, float32, dequantized where it is stored in integers."""
        stored = self.stored(index)
        if stored is None:
            return None
        how = self._first.tensors[index].quantization
        values = stored.astype(np.float64).reshape(stored.shape)
        if how is not None and how.scale is not None and len(how.scale):
            shape = [1] * stored.ndim
            if len(how.scale) > 1:
                shape[how.quantizedDimension] = -1
            zero_points = np.zeros(len(how.scale)) if how.zeroPoint is None else how.zeroPoint
            values = (values - np.reshape(zero_points, shape)) * np.float64(how.scale).reshape(shape)
        return torch.from_numpy(np.asarray(values, np.float32))

    def constant_in_state(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """A constant of qatie's own export, convolutions (out, in, h, w): values, and the scales (out) of integers."""
        stored = self.stored(index)
        if stored is None:
            raise ValueError(f"{self.name(index)} is not a constant")
        values = np.ascontiguousarray(stored.transpose(0, 3, 1, 2)) if stored.ndim == 4 else stored.copy()
        how = self._first.tensors[index].quantization
        if values.dtype != np.int8:
            return values, None
        return values, np.array(how.scale, np.float32)

    def name(self, index: int) -> str:
        """The name of a tensor; empty if it has none."""
        return (self._first.tensors[index].name or b"").decode(errors="replace")

    def constants(self) -> dict[str, int]:
        """Indices of the constants, by name."""
        return {self.name(i): i for i in range(len(self._first.tensors)) if self.stored(i) is not None}

    def metadata(self, name: str) -> bytes | None:
        """Content of the metadata entry `name`, None where there is none."""
        for entry in self.model.metadata or []:
            if (entry.name or b"").decode(errors="replace") == name:
                data = self.model.buffers[entry.buffer].data
                return None if data is None else bytes(data)
        return None


def read_graph(path: Path, content: bytes) -> Graph:
    """The graph of a TFLite file, after LiteRT itself has accepted it.

    Raises:
        WeightsError: it is no TFLite file, damaged, or newer than the installed LiteRT.
    """
    if content[4:8] != IDENTIFIER:
        raise WeightsError(f"{path} is not a TFLite file.", "Give a .tflite, .ckpt or .onnx file of the network.")
    try:
        Interpreter(model_content=content)
        graph = Graph(schema.ModelT.InitFromPackedBuf(content, 0))
        graph.operators()
    except (ValueError, RuntimeError) as error:
        if re.search("Didn't find op|[Oo]p builtin_code out of range|schema version", str(error)):
            raise WeightsError(
                f"{path} needs a newer LiteRT than the installed one.", "Run: pip install --upgrade ai-edge-litert"
            ) from error
        raise WeightsError(f"{path} is damaged or incomplete: LiteRT refuses it.", "Copy it again.") from error
    except UNREADABLE as error:
        raise damaged(path) from error
    return graph


def damaged(path: Path) -> WeightsError:
    """The error for a file whose tables point nowhere."""
    return WeightsError(f"{path} is damaged or incomplete: its tables cannot be read.", "Copy it again.")


def network(path: Path, graph: Graph) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Configuration and state of our network from the authors' graph.

    Raises:
        WeightsError: it is another network.
    """
    convolutions: list[Layer] = []
    gains: list[Tensor] = []
    offsets: list[Tensor] = []
    try:
        for name, inputs, _ in graph.operators():
            constants = [graph.constant(i) for i in inputs[1:] if i >= 0]
            if name == "CONV_2D":
                convolutions.append(_convolution(constants))
            elif name in ("MUL", "ADD"):
                # A gain or an offset is one-dimensional; the ADD of epsilon has a single value.
                rows = [c for c in (*constants, graph.constant(inputs[0])) if c is not None and c.numel() > 1]
                (gains if name == "MUL" else offsets).extend(row.flatten() for row in rows)
        if len(gains) != len(offsets):
            raise UnfitError(f"it has {len(gains)} gains and {len(offsets)} offsets of norms")
        return in_order(convolutions, [Affine(*pair) for pair in zip(gains, offsets, strict=True)])
    except UnfitError as error:
        raise WeightsError(
            f"{path} is a TFLite file of another network: {error}.", "Only that of arXiv 2604.21743 can be imported."
        ) from error
    except UNREADABLE as error:
        raise damaged(path) from error


def _convolution(constants: list[Tensor | None]) -> Layer:
    weight, bias = constants if len(constants) == 2 else (None, None)
    if weight is None or bias is None:
        raise UnfitError("a convolution has no constant weight and bias")
    if weight.dim() != 4 or bias.shape != weight.shape[:1]:
        raise UnfitError(f"a convolution has a weight of shape {tuple(weight.shape)}")
    return Layer(weight.permute(0, 3, 1, 2), bias)
