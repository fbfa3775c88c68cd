"""The int8 engines: the network written out on PyTorch's quantized operators.

This is the only module that touches quantized data types. Nothing quantized is ever stored: the integers are made from
a weights file's float tensors and ranges when the engine is built. Only the tail, from the last features to the
residual, runs in float, so that the residual shows no steps in skies. PyTorch deprecates quantized types;
`torch.ops.onednn.qconv2d_pointwise` computes the same integers from plain bytes as fast (width 16, PyTorch 2.13).
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qatie_cli import kernels
from qatie_cli.engines import pointwise, process
from qatie_cli.engines.floating import feature_rows, tail_rows
from qatie_cli.engines.output import less_photo
from qatie_cli.engines.pointwise import ByteLayer, Product, Sum
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import LEAKY_SLOPE, NORM_EPS
from qatie_cli.model.folding import fold_tail
from qatie_cli.model.moments import Moments, of_whole
from qatie_cli.model.quantization.integers import IntegerConv, integer_convs
from qatie_cli.model.quantization.scheme import Activation, activation_at
from qatie_cli.model.tensors import GATES, refinements

# Measured at the peak of `features`, per pixel of the photo and per unit of width: 1.9 to 2.9 from 12 megapixels on, of
# which 1.75 are kept between the norms and the rest passes through a strip.
BYTES_PER_PIXEL_AND_WIDTH = 3.0
STRIP_VALUES = 1 << 23  # of the largest tensor of a strip
_OPS = torch.ops.quantized


@contextlib.contextmanager
def _deprecation_ignored() -> Iterator[None]:
    """Silence PyTorch's deprecation of quantized types, for which pyproject.toml bounds its version.

    PyTorch warns once per process, at the first such tensor: here rather than while photos are enhanced.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class LastBlock:
    """The last refinement block's branches at half size, `local` not yet normalized, and the photo for `less_photo`."""

    local: Tensor
    side: Tensor
    norm: Norm | None
    photo: np.ndarray | None


@dataclass(frozen=True)
class Norm:
    """One photo's norm of one block: its mean and variance, with the block's gain and offset."""

    mean: Tensor
    variance: Tensor
    gain: Tensor
    offset: Tensor


class Int8Network:
    """The refinement network in integers on one of PyTorch's quantized engines.

    Only the norms need the whole photo. So the network runs in six parts, from norm to norm, and each part in strips:
    intermediate tensors then stay in the processor's cache and their memory is reused by the next strip. Only a block's
    two branches up to its norm and the decoder's skip connections are kept for the whole photo. A strip is computed
    with as many rows beyond it as its convolutions reach, so the result is bit by bit that of the whole photo. At 12
    megapixels and width 16 this takes 1.05 s instead of the 1.6 s of whole tensors, which are mostly page faults.
    """

    strips_at_once = 1  # on all threads

    def __init__(self, weights: Weights, engine: str) -> None:
        activations, state = weights.activations, weights.state
        assert activations is not None
        self._engine = engine
        config = weights.config.network
        self._width, self._residual, self._plain = config.width, config.residual, config.plain
        self.bytes_per_pixel = BYTES_PER_PIXEL_AND_WIDTH * self._width + 3
        self._at = lambda name: activation_at(name, activations)
        blocks = refinements(config)
        with process.quantized_engine(engine), torch.inference_mode(), _deprecation_ignored():
            self._convs = {name: _pack(conv) for name, conv in integer_convs(state).items()}
            self._layers = self._pointwise_layers()
            self._inner_leaky = {name: self._leaky_of(f"{name}.inner") for name in blocks}
            self._sums = {name: self._sum_of(name) for name in blocks}
            self._products = {name: self._product_of(name) for name in GATES}
            self._pair_tables = {name: _of_pairs(self._layers[name].table) for name in self._layers}
        affine = {n: (state[f"network.{n}.norm.weight"], state[f"network.{n}.norm.bias"]) for n in blocks}
        self._norms = {n: tuple(torch.from_numpy(values) for values in both) for n, both in affine.items()}
        self._weight, self._bias = (torch.from_numpy(values) for values in fold_tail(state))

    def _layer(self, made: Tensor, before: str, after: str, slope: float = 1.0) -> ByteLayer:
        return ByteLayer.ramp_of(_table(made), self._at(before), self._at(after), slope)

    def _pointwise_layers(self) -> dict[str, ByteLayer]:
        """The tanh of the gates, and the change of scale of what the encoder leaves for the decoder."""
        layers = {name: ByteLayer.of(_table(torch.tanh(self._every(f"{name}.pre")))) for name in GATES}
        for name, block in (("fuse1", "refine1"), ("fuse2", "refine2")):
            at = self._at(f"{name}.encoded")
            rescaled = _OPS.cat([self._every(f"{block}.out")], 1, at.scale, at.zero_point)
            layers[name] = self._layer(rescaled, f"{block}.out", f"{name}.encoded")
        return layers

    def _leaky_of(self, name: str) -> ByteLayer:
        made = self._leaky(self._every(name), f"{name}_leaky")
        return self._layer(made, name, f"{name}_leaky", LEAKY_SLOPE)

    def _sum_of(self, block: str) -> Sum:
        """What closes a block: its last activation and the sum with the shortcut."""
        outer = self._leaky(self._every(f"{block}.outer"), f"{block}.outer_leaky")
        out = self._at(f"{block}.out")
        table = _table(_OPS.add(*_every_pair(outer, self._every(f"{block}.shortcut")), out.scale, out.zero_point))
        ends = (self._at(f"{block}.{end}") for end in ("outer_leaky", "shortcut", "out"))
        return Sum.of(table, self._leaky_of(f"{block}.outer"), *ends)

    def _product_of(self, gate: str) -> Product:
        out, tanh = self._at(f"{gate}.product"), self._every(f"{gate}.tanh")
        table = _table(_OPS.mul(*_every_pair(tanh, tanh), out.scale, out.zero_point))
        return Product.of(table, self._at(f"{gate}.tanh"), out)

    def _every(self, point: str) -> Tensor:
        return _every_byte(self._at(point))

    @torch.inference_mode()
    def features(self, photo_u8_hwc: np.ndarray, moments: Moments = of_whole) -> LastBlock:
        kernels.usable(photo_u8_hwc.size // 3)  # loads numba where that pays; parts of the photo then find it loaded
        with process.quantized_engine(self._engine):
            return self._features(photo_u8_hwc, moments)

    @torch.inference_mode()
    def residual(self, features: LastBlock, top: int, bottom: int) -> np.ndarray:
        read, margin = feature_rows(features.local.shape[2], top, bottom)
        reach = 2  # rows, of the block's two convolutions
        seen = slice(max(0, read.start - reach), min(features.local.shape[2], read.stop + reach))
        with process.quantized_engine(self._engine):
            block = self._refined("decode1", features.local[:, :, seen], features.side[:, :, seen], features.norm)
            rows = block[:, :, read.start - seen.start : read.stop - seen.start].dequantize()
        output = tail_rows(F.pad(rows, (0, 0, *margin)), self._weight, self._bias)
        return less_photo(output, features.photo, top, bottom)

    def _features(self, photo_u8_hwc: np.ndarray, moments: Moments) -> LastBlock:
        # PyTorch warns of arrays that cannot be written to, such as np.asarray of a Pillow image: they are copied.
        stored = torch.from_numpy(np.require(photo_u8_hwc, requirements="W"))[None].permute(0, 3, 1, 2)
        line = photo_u8_hwc.shape[1] * self._width

        # Rows are counted at the coarsest scale of a part; the reach is that of its convolutions in both directions.
        def encode1(photo: Tensor) -> tuple[Tensor, ...]:
            x, pair = self._gate("down1", self._photo(photo))
            return pair, *self._branches("refine1", x)

        pair1, local, side = _in_strips(encode1, [stored], [2], reach=2, widest=line)
        norm = self._norm("refine1", local, moments)

        def encode2(local: Tensor, side: Tensor) -> tuple[Tensor, ...]:
            encoded = self._refined("refine1", local, side, norm)
            x, pair = self._gate("down2", encoded)
            return encoded, pair, *self._branches("refine2", x)

        encoded1, pair2, local, side = _in_strips(encode2, [local, side], [2, 2], reach=3, widest=2 * line)
        norm = self._norm("refine2", local, moments)

        def encode3(local: Tensor, side: Tensor) -> tuple[Tensor, ...]:
            encoded = self._refined("refine2", local, side, norm)
            return encoded, *self._branches("bottleneck", torch.max_pool2d(encoded, 2))

        encoded2, local, side = _in_strips(encode3, [local, side], [2, 2], reach=2, widest=2 * line)
        norm = self._norm("bottleneck", local, moments)

        def decode(block: str, fuse: str, after: str) -> Callable[..., tuple[Tensor, ...]]:
            def part(local: Tensor, side: Tensor, encoded: Tensor, pair: Tensor) -> tuple[Tensor, ...]:
                deep = self._refined(block, local, side, norm)
                return self._branches(after, self._fuse(fuse, deep, encoded, pair))

            return part

        part = decode("bottleneck", "fuse2", "decode2")
        local, side = _in_strips(part, [local, side, encoded2, pair2], [1, 1, 2, 2], reach=4, widest=4 * line)
        del encoded2, pair2
        norm = self._norm("decode2", local, moments)
        part = decode("decode2", "fuse1", "decode1")
        local, side = _in_strips(part, [local, side, encoded1, pair1], [1, 1, 2, 2], reach=4, widest=4 * line)
        kept = None if self._residual else photo_u8_hwc
        return LastBlock(local, side, self._norm("decode1", local, moments), kept)

    def _photo(self, stored: Tensor) -> Tensor:
        at = self._at("photo")
        return torch._make_per_tensor_quantized_tensor(stored, at.scale, at.zero_point)

    def _conv(self, name: str, x: Tensor, point: str) -> Tensor:
        a = self._at(point)
        return _OPS.conv2d(x, self._convs[name], a.scale, a.zero_point)

    def _gate(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        product = self._at(f"{name}.product")
        pair = self._conv(f"{name}.pair", x, f"{name}.pre")
        if kernels.usable(0):
            out = _empty_at(product, (1, pair.shape[1] // 2, *pair.shape[2:]))
            pointwise.gate(_hwc(pair), self._layers[name], self._products[name], _hwc(out))
            return out, _read_as(pair, self._at(f"{name}.tanh"))
        pair = _looked_up(pair, self._pair_tables[name], self._at(f"{name}.tanh"))
        # On halves that are strided views the multiplication takes three times as long.
        return _OPS.mul(*_halves(pair), product.scale, product.zero_point), pair

    def _branches(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two branches of a block: `local` up to its norm, and `side`; a plain block, and no channels beside it."""
        if name in self._plain:
            out = self._leaky(self._conv(f"{name}.local", x, f"{name}.local"), f"{name}.out")
            return out, out[:, :0]
        return self._conv(f"{name}.local", x, f"{name}.local"), self._conv(f"{name}.side", x, f"{name}.y")

    def _norm(self, name: str, local: Tensor, moments: Moments) -> Norm | None:
        """The moments of the stored integers, in units of their values."""
        if name in self._plain:
            return None
        mean, variance = (torch.from_numpy(values) for values in moments(name, _hwc(local)))
        mean, variance = (mean - local.q_zero_point()) * local.q_scale(), variance * local.q_scale() ** 2
        return Norm(mean.float(), variance.float(), *self._norms[name])

    def _refined(self, name: str, local: Tensor, side: Tensor, norm: Norm | None) -> Tensor:
        """The rest of a block."""
        if name in self._plain:
            return local
        assert norm is not None
        if not kernels.usable(0):
            y = _joined([self._normed(name, local, norm), side])
            out = self._leaky(self._conv(f"{name}.inner", y, f"{name}.inner"), f"{name}.inner_leaky")
            out = self._leaky(self._conv(f"{name}.outer", out, f"{name}.outer"), f"{name}.outer_leaky")
            at = self._at(f"{name}.out")
            return _OPS.add(out, self._conv(f"{name}.shortcut", y, f"{name}.shortcut"), at.scale, at.zero_point)
        y = _empty_like(side, channels=local.shape[1] + side.shape[1])
        every = self._every(f"{name}.local").expand(1, local.shape[1], 16, 16)
        pointwise.join(_hwc(local), _table(self._normed(name, every, norm)), _hwc(side), _hwc(y))
        out = self._conv(f"{name}.inner", y, f"{name}.inner")
        pointwise.look_up(_hwc(out), self._inner_leaky[name])
        out = self._conv(f"{name}.outer", _read_as(out, self._at(f"{name}.inner_leaky")), f"{name}.outer")
        shortcut = self._conv(f"{name}.shortcut", y, f"{name}.shortcut")
        pointwise.add(_hwc(out), _hwc(shortcut), self._sums[name])
        return _read_as(out, self._at(f"{name}.out"))

    def _normed(self, name: str, local: Tensor, norm: Norm) -> Tensor:
        """A block's norm and its activation: a batch norm of one photo, whose statistics tiles can share.

        That takes half the time of `quantized::instance_norm`, which has no vectorized sums.
        """
        at = self._at(f"{name}.norm")
        normed = _OPS.batch_norm2d(
            local, norm.gain, norm.offset, norm.mean, norm.variance, NORM_EPS, at.scale, at.zero_point
        )
        return self._leaky(normed, f"{name}.y")

    def _fuse(self, name: str, deep: Tensor, encoded: Tensor, pair: Tensor) -> Tensor:
        """`deep` at twice its size, joined with what the encoder left, in the scale of the gates."""
        phases = self._conv(f"{name}.up", deep, f"{name}.up")
        if kernels.usable(0):
            channels = phases.shape[1] // 4 + encoded.shape[1] + pair.shape[1]
            joined = _empty_like(pair, channels=channels)
            pointwise.fuse(_hwc(phases), _hwc(encoded), self._layers[name], _hwc(pair), _hwc(joined))
        else:
            joined = _joined([_looked_up(encoded, self._pair_tables[name], self._at(f"{name}.encoded")), pair], phases)
        return self._conv(f"{name}.reduce", joined, f"{name}.reduced")

    def _leaky(self, x: Tensor, point: str) -> Tensor:
        a = self._at(point)
        return _OPS.leaky_relu(x, LEAKY_SLOPE, False, a.scale, a.zero_point)


def peak_rate(engine: str) -> float:
    """The machine's int8 peak on this engine, in multiply-adds per second.

    The best of many 3x3 convolutions of 64 to 256 channels on tensors that stay in the processor's cache.
    """
    best = 0.0
    with process.quantized_engine(engine), torch.inference_mode(), _deprecation_ignored():
        for channels, side in ((64, 128), (128, 64), (256, 32)):
            weight = np.random.default_rng(0).integers(-64, 63, (channels, channels, 3, 3), np.int8)
            scales, bias = np.full(channels, 0.01, np.float32), np.zeros(channels, np.float32)
            packed = _pack(IntegerConv(weight, scales, bias, 1, 1))
            stored = torch.randint(0, 255, (1, channels, side, side), dtype=torch.uint8)
            x = torch._make_per_tensor_quantized_tensor(stored.contiguous(memory_format=torch.channels_last), 0.01, 128)
            for _ in range(12):
                began = time.perf_counter()
                _OPS.conv2d(x, packed, 0.1, 128)
                best = max(best, 9 * channels**2 * side**2 / (time.perf_counter() - began))
    return best


def _every_byte(at: Activation) -> Tensor:
    """All 256 stored values (1, 1, 16, 16), in order."""
    stored = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    return torch._make_per_tensor_quantized_tensor(stored, at.scale, at.zero_point)


def _every_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors of 256 values with every value of the first beside every one of the second, (1, 1, 256, 256)."""
    first, second = x.int_repr().view(256, 1).expand(256, 256), y.int_repr().view(1, 256).expand(256, 256)

    def as_like(stored: Tensor, like: Tensor) -> Tensor:
        square = stored.contiguous().view(1, 1, 256, 256)
        return torch._make_per_tensor_quantized_tensor(square, like.q_scale(), like.q_zero_point())

    return as_like(first, x), as_like(second, y)


def _table(made: Tensor) -> np.ndarray:
    """The results for every byte (256), for those of each channel (C, 256), or for every pair (256, 256)."""
    return made.int_repr().contiguous().view(-1, 256).squeeze(0).numpy()


def _of_pairs(table: np.ndarray) -> Tensor:
    """A table of single bytes as one of pairs of them: an int16 for each of 65,536 uint16."""
    single = torch.from_numpy(table)
    return torch.stack([single.repeat(256), single.repeat_interleave(256)], dim=1).view(torch.int16).flatten()


def _looked_up(x: Tensor, table: Tensor, at: Activation) -> Tensor:
    """A tensor through a table of byte pairs, in a quarter of the time of `tanh`."""
    out = _empty_at(at, x.shape)
    # Rows are multiples of four pixels wide, so there is an even number of bytes.
    pairs = _stored(x).permute(0, 2, 3, 1).flatten().view(torch.uint16).int()
    target = _stored(out).permute(0, 2, 3, 1).flatten().view(torch.int16)
    torch.index_select(table, 0, pairs, out=target)
    return out


def _in_strips(
    part: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor], scales: list[int], reach: int, widest: int
) -> list[Tensor]:
    """Run a part of the network strip by strip and concatenate its outputs.

    Args:
        part: from rows of every input to rows of every output.
        inputs: whole tensors (1, C, H, W); `scales` are their rows for each row of the coarsest among them and outputs.
        reach: rows (of the coarsest) beyond its own that a strip's outputs depend on.
        widest: values of the part's largest tensor for each of these rows.
    """
    height = inputs[0].shape[2] // scales[0]
    rows = max(2 * reach, STRIP_VALUES // widest)
    whole: list[Tensor] = []
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        first, last = max(0, top - reach), min(height, bottom + reach)
        seen = (x[:, :, first * s : last * s] for x, s in zip(inputs, scales, strict=True))
        outputs = part(*seen)
        if not whole:
            whole = [_empty_like(x, height * (x.shape[2] // (last - first))) for x in outputs]
        for kept, x in zip(whole, outputs, strict=True):
            scale = x.shape[2] // (last - first)
            core = _stored(x)[:, :, (top - first) * scale : (bottom - first) * scale]
            _stored(kept)[:, :, top * scale : bottom * scale] = core
    return whole


# --- tensors as they lie in memory --------------------------------------------------------------------------------


def _stored(x: Tensor) -> Tensor:
    """The integers of a quantized tensor; a view."""
    return torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage(), x.storage_offset(), x.size(), x.stride())


def _hwc(x: Tensor) -> np.ndarray:
    """The integers of a channels-last tensor (1, C, H, W) as an array (H, W, C); a view."""
    return _stored(x)[0].permute(1, 2, 0).numpy()


def _read_as(x: Tensor, at: Activation) -> Tensor:
    """The integers of a quantized tensor in another scale; a view."""
    empty = torch._empty_affine_quantized([0], scale=at.scale, zero_point=at.zero_point, dtype=torch.quint8)
    return empty.set_(x.untyped_storage(), x.storage_offset(), x.size(), x.stride())


def _empty_at(at: Activation, shape: tuple[int, ...]) -> Tensor:
    """An uninitialized channels-last tensor (1, C, H, W)."""
    return torch._empty_affine_quantized(
        shape, scale=at.scale, zero_point=at.zero_point, dtype=torch.quint8, memory_format=torch.channels_last
    )


def _empty_like(x: Tensor, height: int | None = None, channels: int | None = None) -> Tensor:
    """An uninitialized channels-last tensor with the scale of `x` (1, C, H, W)."""
    shape = (1, channels or x.shape[1], height or x.shape[2], x.shape[3])
    return _empty_at(Activation(x.q_scale(), x.q_zero_point()), shape)


def _wide(x: Tensor, channels: int) -> Tensor:
    """A quantized tensor (1, C, H, W) as (H, W, C / n) elements of n bytes, as many as divide `channels`.

    Whole channel groups are then moved at once: copies of single bytes take several times as long.
    """
    kind = next(kind for size, kind in _WIDTHS.items() if channels % size == 0)
    return _stored(x)[0].permute(1, 2, 0).view(kind)


_WIDTHS = {16: torch.complex128, 8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of a tensor's channels, each contiguous."""
    half = x.shape[1] // 2
    parts = _empty_like(x, channels=half), _empty_like(x, channels=half)
    source = _wide(x, half)
    for part, values in zip(parts, source.chunk(2, dim=2), strict=True):
        _wide(part, half).copy_(values)
    return parts


def _joined(parts: list[Tensor], phases: Tensor | None = None) -> Tensor:
    """Tensors of one scale, channel after channel; `phases` (see `network.interleave`) come first, interleaved."""
    groups = [x.shape[1] for x in parts] + ([] if phases is None else [phases.shape[1] // 4])
    unit = math.gcd(*groups)
    out = _empty_like(parts[0], channels=sum(groups))
    target = _wide(out, unit)
    start = 0
    if phases is not None:
        source, height, width = _wide(phases, unit), phases.shape[2] - 1, phases.shape[3] - 1
        size = source.shape[2] // 4
        for index in range(4):
            p, q = divmod(index, 2)
            block = source[p : p + height, q : q + width, index * size : (index + 1) * size]
            target[p::2, q::2, :size] = block
        start = size
    for x in parts:
        source = _wide(x, unit)
        target[:, :, start : start + source.shape[2]] = source
        start += source.shape[2]
    return out


def _pack(conv: IntegerConv) -> torch.ScriptObject:
    """A convolution packed for the selected engine."""
    zeros = torch.zeros(len(conv.scales), dtype=torch.long)
    values, scales = torch.from_numpy(conv.weight), torch.from_numpy(conv.scales).double()
    weight = torch._make_per_channel_quantized_tensor(values, scales, zeros, 0)
    stride, padding = [conv.stride] * 2, [conv.padding] * 2
    return _OPS.conv2d_prepack(weight, torch.from_numpy(conv.bias), stride, padding, [1, 1], 1)
