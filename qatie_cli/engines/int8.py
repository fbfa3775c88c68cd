"""The int8 engines: the network written out on PyTorch's quantized operators.

This is the only module that touches quantized data types. Nothing quantized is ever stored: the integers are made from
a weights file's float tensors and ranges when the engine is built. What runs in float is visible here: the tail, which
turns the last features into the residual, so that the residual has no steps that could show in a sky.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qatie_cli import network
from qatie_cli.engines.floating import feature_rows, tail_rows
from qatie_cli.moments import Moments, of_whole
from qatie_cli.network import LEAKY_SLOPE, NORM_EPS
from qatie_cli.quantization import Activation, IntegerConv, activation_at, integer_convs

# Measured at the peak of `features`, per pixel of the photo and per unit of width: 2.8 to 3.4, for qnnpack 12.7.
BYTES_PER_PIXEL_AND_WIDTH = {"fbgemm": 3.6, "onednn": 3.6, "x86": 3.6, "qnnpack": 13.5}
_OPS = torch.ops.quantized
_SELECTION = threading.RLock()


@contextlib.contextmanager
def selected(engine: str) -> Iterator[None]:
    """Make `engine` PyTorch's quantized engine inside the block; it is a setting of the whole process."""
    with _SELECTION:
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = engine
        try:
            yield
        finally:
            torch.backends.quantized.engine = before


class Int8Network:
    """The refinement network in integers on one of PyTorch's quantized engines."""

    def __init__(self, net: network.Network, activations: dict[str, Activation], engine: str) -> None:
        self._engine = engine
        self.bytes_per_pixel = BYTES_PER_PIXEL_AND_WIDTH[engine] * net.config.width + 3
        self._at = lambda name: activation_at(name, activations)
        with selected(engine), torch.inference_mode(), warnings.catch_warnings():
            # PyTorch announces the end of its quantized types; pyproject.toml bounds the version for that reason.
            warnings.simplefilter("ignore")
            self._convs = {name: _pack(conv) for name, conv in integer_convs(net).items()}
        self._norms = {
            name: (block.norm.weight.contiguous(), block.norm.bias.contiguous())
            for name, block in net.named_children()
            if isinstance(block, network.Refine)
        }
        self._weight, self._bias = net.tail()

    @torch.inference_mode()
    def features(self, photo_u8_hwc: np.ndarray, moments: Moments = of_whole) -> Tensor:
        with selected(self._engine), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._features(photo_u8_hwc, moments)

    @torch.inference_mode()
    def residual(self, features: Tensor, top: int, bottom: int) -> np.ndarray:
        rows, margin = feature_rows(features, top, bottom)
        part = F.pad(features[:, :, rows].dequantize(), (0, 0, *margin))
        return tail_rows(part, self._weight, self._bias)

    def _features(self, photo_u8_hwc: np.ndarray, moments: Moments) -> Tensor:
        stored = torch.from_numpy(photo_u8_hwc)[None].permute(0, 3, 1, 2)
        photo = self._at("photo")
        x = torch._make_per_tensor_quantized_tensor(stored, photo.scale, photo.zero_point)
        x, pair1 = self._gate("down1", x)
        encoded1 = self._refine("refine1", x, moments)
        x, pair2 = self._gate("down2", encoded1)
        encoded2 = self._refine("refine2", x, moments)
        x = self._refine("bottleneck", torch.max_pool2d(encoded2, 2), moments)
        x = self._fuse("fuse2", x, encoded2, pair2)
        del encoded2, pair2
        x = self._fuse("fuse1", self._refine("decode2", x, moments), encoded1, pair1)
        del encoded1, pair1
        return self._refine("decode1", x, moments)

    def _conv(self, name: str, x: Tensor, point: str) -> Tensor:
        a = self._at(point)
        return _OPS.conv2d(x, self._convs[name], a.scale, a.zero_point)

    def _gate(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        pair = torch.tanh(self._conv(f"{name}.pair", x, f"{name}.pre"))
        a, b = pair.chunk(2, dim=1)
        product = self._at(f"{name}.product")
        return _OPS.mul(a, b, product.scale, product.zero_point), pair

    def _refine(self, name: str, x: Tensor, moments: Moments) -> Tensor:
        y_at, out_at = (self._at(f"{name}.{p}") for p in ("y", "out"))
        normed = self._normalize(name, self._conv(f"{name}.local", x, f"{name}.local"), moments)
        y = _OPS.cat(
            [self._leaky(normed, f"{name}.y"), self._conv(f"{name}.side", x, f"{name}.y")],
            1,
            y_at.scale,
            y_at.zero_point,
        )
        del x, normed
        out = self._leaky(self._conv(f"{name}.inner", y, f"{name}.inner"), f"{name}.inner_leaky")
        out = self._leaky(self._conv(f"{name}.outer", out, f"{name}.outer"), f"{name}.outer_leaky")
        return _OPS.add(out, self._conv(f"{name}.shortcut", y, f"{name}.shortcut"), out_at.scale, out_at.zero_point)

    def _normalize(self, name: str, x: Tensor, moments: Moments) -> Tensor:
        """Instance norm as a batch norm of one photo, with the moments of the stored integers.

        It takes half the time of `quantized::instance_norm`, which has no vectorized sums, and tiles can share moments.
        """
        mean, variance = moments(name, x.int_repr())
        mean, variance = (mean - x.q_zero_point()) * x.q_scale(), variance * x.q_scale() ** 2
        gain, offset = self._norms[name]
        at = self._at(f"{name}.norm")
        return _OPS.batch_norm2d(x, gain, offset, mean.float(), variance.float(), NORM_EPS, at.scale, at.zero_point)

    def _fuse(self, name: str, deep: Tensor, encoded: Tensor, pair: Tensor) -> Tensor:
        up = _interleave(self._conv(f"{name}.up", deep, f"{name}.up"))
        at = self._at(f"{name}.up")
        return self._conv(
            f"{name}.reduce", _OPS.cat([up, encoded, pair], 1, at.scale, at.zero_point), f"{name}.reduced"
        )

    def _leaky(self, x: Tensor, point: str) -> Tensor:
        a = self._at(point)
        return _OPS.leaky_relu(x, LEAKY_SLOPE, False, a.scale, a.zero_point)


def _pack(conv: IntegerConv):
    """The engine's own form of a convolution."""
    zeros = torch.zeros(len(conv.scales), dtype=torch.long)
    weight = torch._make_per_channel_quantized_tensor(conv.weight, conv.scales.double(), zeros, 0)
    stride, padding = [conv.stride] * 2, [conv.padding] * 2
    return _OPS.conv2d_prepack(weight, conv.bias, stride, padding, [1, 1], 1)


def _interleave(phases: Tensor) -> Tensor:
    """`network.interleave` for a quantized tensor: moves bytes, computes nothing."""
    stored = phases.int_repr()
    n, channels, height, width = stored.shape
    channels, height, width = channels // 4, height - 1, width - 1
    out = torch.empty((n, channels, 2 * height, 2 * width), dtype=torch.uint8, memory_format=torch.channels_last)
    for index in range(4):
        p, q = divmod(index, 2)
        block = stored[:, index * channels : (index + 1) * channels, p : p + height, q : q + width]
        out[:, :, p::2, q::2] = block
    return torch._make_per_tensor_quantized_tensor(out, phases.q_scale(), phases.q_zero_point())
