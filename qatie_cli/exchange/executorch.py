"""Weights as an ExecuTorch program in float, for the XNNPACK back end.

The network is traced as written; operators that XNNPACK does not support run on ExecuTorch's portable kernels. Tensors
are NCHW and hold one photo. Int8 is refused: XNNPACK's pass that orders channels fails on quantize/dequantize pairs
with given scales (KeyError 'val' in executorch 1.5.1).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qatie_cli import installation
from qatie_cli.errors import UsageError
from qatie_cli.graphs import graph
from qatie_cli.model import tone_apply
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.network import fold_upsample
from qatie_cli.model.tone_apply import Decision
from qatie_cli.model.whole import Model


def build(weights: Weights, *, int8: bool, size: tuple[int, int]) -> bytes:
    """Write `weights` as an ExecuTorch program for photos of one size.

    Args:
        int8: not possible yet.
        size: height and width of the photo, multiples of 8.

    Returns:
        The file's content. Its method `forward` takes `photo` (1, 3, H, W) in 0..1 and, where the weights have a tone
        stage, the thumbnail (1, 3, side, side) in 0..1 as `tone.view` makes it of its `view_px`, and gives the enhanced
        photo (1, 3, H, W) in 0..1, all float32.

    Raises:
        ValueError: a side of `size` is not a positive multiple of 8.
        UsageError: int8 was requested, or the installed executorch does not match PyTorch.
    """
    graph.check(weights, False, size)
    if int8:
        raise UsageError(
            "ExecuTorch gets float only: its XNNPACK back end fails on int8 with given scales (executorch 1.5.1).",
            "Leave out --int8, or export for LiteRT: -f tflite --int8.",
        )
    with _silenced():
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
        except (ImportError, OSError, AttributeError) as error:  # each release goes with one of PyTorch
            raise UsageError(
                f"The installed executorch does not work with PyTorch {torch.__version__}: {error}.",
                f"Install the release that goes with it: {installation.extra('executorch')} --upgrade",
            ) from error

        model = weights.build()
        program = _Program(model).eval()
        pictures = [torch.zeros(1, 3, *size)]
        if model.tone is not None:
            side = model.tone.config.view_px
            pictures.append(torch.zeros(1, 3, side, side))
        with torch.no_grad():
            traced = torch.export.export(program, tuple(pictures))
        return to_edge_transform_and_lower(traced, partitioner=[XnnpackPartitioner()]).to_executorch().buffer


class _Program(nn.Module):
    """From photo to enhanced photo, with all weights folded beforehand."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.rounding = _Folded(model)
        weight, bias = model.network.tail()
        self.weight, self.bias = nn.Buffer(weight), nn.Buffer(bias)

    def forward(self, photo: Tensor, thumbnail: Tensor | None = None) -> Tensor:
        decision = None if self.model.tone is None or thumbnail is None else self.model.tone(thumbnail)
        base = photo.clamp(0, 1) if decision is None else _toned(photo, decision)
        seen = torch.round(base * 255) / 255  # the network sees 8 bits
        features = self.model.network.features(seen, self.rounding)
        output = F.pixel_shuffle(F.conv2d(features, self.weight, self.bias, padding=1), 2)
        residual = output if self.model.network.config.residual else output - seen
        enhanced = (base + residual).clamp(0, 1)
        return enhanced if decision is None else tone_apply.with_local_contrast(enhanced, decision)


def _toned(photo: Tensor, decision: Decision) -> Tensor:
    """`tone_apply.apply`, one layer of the grid at a time: at full size all layers take 32 bytes per pixel."""
    toned = tone_apply.apply_global(photo, decision.curves, decision.matrices).clamp(0, 1)
    if decision.grids is None:
        return toned
    depth = decision.grids.shape[1]
    place = tone_apply.guide_of(toned, decision.guide) * (depth - 1)
    ev = torch.zeros_like(place)
    for layer in range(depth):
        spread = tone_apply.enlarged(decision.grids[:, layer : layer + 1], toned.shape[-2:])
        ev = ev + spread * (1 - (place - layer).abs()).clamp(min=0)
    toned = tone_apply.with_gain(toned, torch.exp(ev * math.log(2)))  # ExecuTorch has no exp2
    if decision.fine is None:
        return toned
    return tone_apply.held_back(photo, toned, tone_apply.enlarged(decision.fine[:, :1], toned.shape[-2:]))


class _Folded(nn.Module):
    """A `network.Rounding` without rounding, with upsampling folded into its convolutions in advance."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        for fuse in (model.network.fuse1, model.network.fuse2):
            self.register_buffer(f"{fuse.name}_up", fold_upsample(fuse.up.weight))

    def weight(self, name: str, weight: Tensor) -> Tensor:
        return getattr(self, name.replace(".", "_")) if name.endswith(".up") else weight

    def activation(self, name: str, x: Tensor) -> Tensor:
        return x


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Hide the packages' logs, warnings and prints."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
