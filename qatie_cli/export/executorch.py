"""Weights as an ExecuTorch program, in float or with the integers of the int8 engines, for the XNNPACK back end.

The network is traced as it is written. Its rounding points become the pairs of quantize and dequantize that XNNPACK
turns into integer arithmetic, with the scales of the weights file; what XNNPACK does not take runs in float on
ExecuTorch's portable kernels. Tensors are NCHW and hold one photo.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qatie_cli.checkpoint import Weights
from qatie_cli.errors import WeightsError
from qatie_cli.model import Model
from qatie_cli.network import SIZE_MULTIPLE, fold_upsample
from qatie_cli.quantization import WEIGHT_MAX, WEIGHT_MIN, Activation, activation_at, integer_convs
from qatie_cli.tone import THUMBNAIL_PX

_SHIFT = 128  # from our zero points (0..255) to those of int8
_LOW, _HIGH = -128, 127


def build(weights: Weights, *, int8: bool, size: tuple[int, int]) -> bytes:
    """Write `weights` as an ExecuTorch program for photos of one size.

    Args:
        weights: calibrated ones if `int8`.
        int8: the network in 8-bit integers; else everything is float32. The tone stage is float32 either way.
        size: height and width of the photo, multiples of 8.

    Returns:
        The file's content. Its method `forward` takes `photo` (1, 3, H, W) in 0..1 and, where the weights have a tone
        stage, the thumbnail (1, 3, 64, 64) in 0..1 as `tone.thumbnail` makes it, and gives the enhanced photo (1, 3, H,
        W) in 0..1, all float32.

    Raises:
        ValueError: a side of `size` is not a positive multiple of 8.
        WeightsError: int8 was asked for and the weights were never calibrated.
    """
    if any(side < 1 or side % SIZE_MULTIPLE for side in size):
        raise ValueError(f"height and width must be positive multiples of {SIZE_MULTIPLE}, not {size}")
    if int8 and weights.activations is None:
        raise WeightsError("These weights carry no int8 ranges.", "Export them as float, or finish their training.")
    with _without_remarks():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        model = weights.build()
        program = _Program(model, weights.activations if int8 else None).eval()
        pictures = [torch.zeros(1, 3, *size)]
        if model.tone is not None:
            pictures.append(torch.zeros(1, 3, THUMBNAIL_PX, THUMBNAIL_PX))
        with torch.no_grad():
            traced = torch.export.export(program, tuple(pictures))
        return to_edge_transform_and_lower(traced, partitioner=[XnnpackPartitioner()]).to_executorch().buffer


class _Program(nn.Module):
    """From photo to enhanced photo, with every weight ready for use."""

    def __init__(self, model: Model, activations: dict[str, Activation] | None) -> None:
        super().__init__()
        self.model = model
        self.rounding = _Floats(model) if activations is None else _Integers(model, activations)
        weight, bias = model.network.tail()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, photo: Tensor, thumbnail: Tensor | None = None) -> Tensor:
        base = self.model.toned(photo, thumbnail)
        # What the network sees is 8 bit; the integers round it so themselves.
        seen = torch.round(base * 255) / 255 if isinstance(self.rounding, _Floats) else base
        features = self.model.network.features(seen, self.rounding)
        residual = F.pixel_shuffle(F.conv2d(features, self.weight, self.bias, padding=1), 2)
        return (base + residual).clamp(0, 1)


class _Floats(nn.Module):
    """A `network.Rounding` that rounds nothing, but has upsampling folded into its convolutions beforehand."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        for fuse in (model.network.fuse1, model.network.fuse2):
            self.register_buffer(f"{fuse.name}_up", fold_upsample(fuse.up.weight))

    def weight(self, name: str, weight: Tensor) -> Tensor:
        return getattr(self, name.replace(".", "_")) if name.endswith(".up") else weight

    def activation(self, name: str, x: Tensor) -> Tensor:
        return x


class _Integers(nn.Module):
    """A `network.Rounding` that says how XNNPACK shall store weights and activations."""

    def __init__(self, model: Model, activations: dict[str, Activation]) -> None:
        super().__init__()
        self._activations = activations
        for name, conv in integer_convs(model.network).items():
            key = name.replace(".", "_")
            self.register_buffer(key, conv.weight)
            self.register_buffer(f"{key}_scale", conv.scales)
            self.register_buffer(f"{key}_zero", torch.zeros(len(conv.scales), dtype=torch.int64))

    def weight(self, name: str, weight: Tensor) -> Tensor:
        values, scales, zeros = (getattr(self, name.replace(".", "_") + end) for end in ("", "_scale", "_zero"))
        return torch.ops.quantized_decomposed.dequantize_per_channel(
            values, scales, zeros, 0, WEIGHT_MIN, WEIGHT_MAX, torch.int8
        )

    def activation(self, name: str, x: Tensor) -> Tensor:
        at = activation_at(name, self._activations)
        how = (at.scale, at.zero_point - _SHIFT, _LOW, _HIGH, torch.int8)
        stored = torch.ops.quantized_decomposed.quantize_per_tensor(x, *how)
        return torch.ops.quantized_decomposed.dequantize_per_tensor(stored, *how)


@contextlib.contextmanager
def _without_remarks():
    """Keep what the packages say while they work from those who only want a file."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
