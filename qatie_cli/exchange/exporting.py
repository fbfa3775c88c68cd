"""Weights as models of other runtimes: ONNX, TFLite (LiteRT), ExecuTorch."""

from __future__ import annotations

from qatie_cli.errors import UsageError
from qatie_cli.model.checkpoint import Weights

FORMATS = ("onnx", "tflite", "executorch")


def build(weights: Weights, kind: str, *, int8: bool, size: tuple[int, int] | None) -> bytes:
    """The file of `weights` in one of FORMATS; `size` is height and width, None for any.

    Raises:
        WeightsError: int8 was asked for and the weights were never calibrated.
        UsageError: the format does not go with the size.
    """
    if kind == "onnx":
        from qatie_cli.exchange import onnx

        return onnx.build(weights, int8=int8, size=size).SerializeToString()
    if kind == "tflite":
        from qatie_cli.exchange import tflite

        return tflite.build(weights, int8=int8, size=size)
    if size is None:
        raise UsageError("An ExecuTorch program has one size.", "Name it: --size 1080x1920.")
    from qatie_cli.exchange import executorch

    return executorch.build(weights, int8=int8, size=size)
