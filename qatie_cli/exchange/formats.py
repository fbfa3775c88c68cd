"""The formats that weights are exported to."""

from __future__ import annotations

from dataclasses import dataclass

from qatie_cli.errors import UsageError
from qatie_cli.model.checkpoint import Weights


@dataclass(frozen=True)
class Format:
    """A format by its `name`, the `runtime` it is for, and the `extra` that brings the `modules` it needs."""

    name: str
    runtime: str
    extra: str
    modules: tuple[str, ...]


FORMATS = {
    f.name: f
    for f in (
        Format("onnx", "ONNX Runtime", "export", ("onnx", "onnxruntime")),
        Format("tflite", "LiteRT", "export", ("ai_edge_litert", "flatbuffers")),
        Format("executorch", "ExecuTorch", "executorch", ("executorch",)),
    )
}


def build(weights: Weights, kind: str, *, int8: bool, size: tuple[int, int] | None) -> bytes:
    """The file of `weights` in the format `kind`, one of FORMATS; `size` is height and width, None for any.

    Raises:
        WeightsError: int8 was asked for and the weights were never calibrated.
        UsageError: the format does not support the size, or int8.
    """
    if kind == "onnx":
        from qatie_cli.exchange import onnx

        return onnx.build(weights, int8=int8, size=size).SerializeToString()
    if kind == "tflite":
        from qatie_cli.exchange import tflite

        return tflite.build(weights, int8=int8, size=size)
    if size is None:
        raise UsageError("ExecuTorch programs have a fixed size.", "Give it with --size 1080x1920.")
    from qatie_cli.exchange import executorch

    return executorch.build(weights, int8=int8, size=size)
