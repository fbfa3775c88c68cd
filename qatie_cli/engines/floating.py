"""The float engine, on CPU, CUDA or MPS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qatie_cli import kernels
from qatie_cli.engines.output import less_photo
from qatie_cli.kernels.threads import over_rows
from qatie_cli.model import network
from qatie_cli.model.config import LEAKY_SLOPE, NORM_EPS, SIZE_MULTIPLE
from qatie_cli.model.moments import Moments, Sums
from qatie_cli.model.network import Fuse, Network, Plain, Refine

# Measured at the peak of `features`, per pixel of the photo and per unit of width: 6 for large photos, 10 for tiles.
BYTES_PER_PIXEL_AND_WIDTH = 10.0
STRIP_VALUES = 1 << 22  # of the largest tensor of a strip
SMALLEST_STRIP = 32  # rows of the photo
_SLOPE = np.float32(LEAKY_SLOPE)
_GROUP = 1024  # pixels that are summed in single precision
_CHUNK_VALUES = 1 << 19  # summed at a time, to stay in the processor's cache


def feature_rows(height: int, top: int, bottom: int) -> tuple[slice, tuple[int, int]]:
    """Rows of `height` rows of features that residual rows top..bottom (even) read; how many more are zeros."""
    first, last = top // 2 - 1, bottom // 2 + 1
    above, below = max(0, -first), max(0, last - height)
    return slice(first + above, last - below), (above, below)


def tail_rows(features: Tensor, weight: Tensor, bias: Tensor) -> np.ndarray:
    """Output (2 * (h - 2), W, 3) float32 of h rows of float features (1, c, h, W/2), margin rows included."""
    phases = F.conv2d(features, weight, bias, padding=(0, 1))
    return F.pixel_shuffle(phases, 2)[0].permute(1, 2, 0).cpu().numpy()


class Pool:
    """A pool of freed blocks for reuse.

    malloc does not reuse the place of an aligned block for one of the same size; without the pool, 13 megapixels take
    half a GB more.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[Tensor]] = {}

    def kept(self, x: Tensor) -> Tensor:
        """A copy of `x` (1, C, h, W), channels last."""
        free = self._free.get(x.numel())
        flat = free.pop() if free else torch.empty(x.numel(), dtype=x.dtype, device=x.device)
        channels, height, width = x.shape[1:]
        return flat.view(1, height, width, channels).permute(0, 3, 1, 2).copy_(x)

    def take_back(self, block: Tensor) -> None:
        """Return a block made by `kept` that is no longer read."""
        self._free.setdefault(block.numel(), []).append(block.permute(0, 2, 3, 1).reshape(-1))


class Rows:
    """Rows of a tensor (1, C, H, W) in blocks, so that those above can be let go while those below are in use."""

    def __init__(self) -> None:
        self.height = 0
        self.blocks: list[Tensor] = []

    def append(self, block: Tensor) -> None:
        """Add rows at the bottom."""
        self.blocks.append(block)
        self.height += block.shape[2]

    def between(self, first: int, last: int) -> Tensor:
        """Rows first..last; of one block a view."""
        found, top = [], self.height - sum(block.shape[2] for block in self.blocks)
        for block in self.blocks:
            bottom = top + block.shape[2]
            if top < last and first < bottom:
                found.append(block[:, :, max(0, first - top) : last - top])
            top = bottom
        return found[0] if len(found) == 1 else torch.cat(found, 2)

    def let_go(self, before: int) -> list[Tensor]:
        """Remove and return the blocks whose rows all lie before this one."""
        gone = []
        held = sum(block.shape[2] for block in self.blocks)
        while self.blocks and self.height - held + self.blocks[0].shape[2] <= before:
            gone.append(self.blocks.pop(0))
            held -= gone[-1].shape[2]
        return gone


@dataclass(frozen=True)
class Strip:
    """Rows top..bottom of `height`, counted at the coarsest scale of a part of the network."""

    top: int
    bottom: int
    height: int

    def reaching(self, reach: int) -> tuple[int, int]:
        """Its first and last row with `reach` more to each side, where there are any."""
        return max(0, self.top - reach), min(self.height, self.bottom + reach)

    def trimmed(self, x: Tensor, reach: int, to: int, scale: int = 1) -> Tensor:
        """Of rows `x` (1, C, h, w) that reach so far, those that reach as far as `to`; `scale` are `x`'s for one."""
        first, last = self.reaching(to)
        start = self.reaching(reach)[0]
        return x[:, :, (first - start) * scale : (last - start) * scale]


@dataclass(frozen=True)
class Input:
    """What a part reads: `scale` rows for each of a strip, and `reach` times as many beyond it to each side.

    Rows that no later strip reads are let go, unless `kept`.
    """

    rows: Rows
    scale: int
    reach: int
    kept: bool = False


@dataclass(frozen=True)
class Norm:
    """One photo's norm of one block as a factor and an offset of each channel (1, C, 1, 1)."""

    factor: Tensor
    offset: Tensor


@dataclass(frozen=True)
class LastBlock:
    """The branches of the last refinement block at half size, `local` not yet normalized.

    `photo` (H, W, 3) uint8 is what the network saw; None where its output is the residual.
    """

    local: Rows
    side: Rows
    norm: Norm | None
    photo: np.ndarray | None


class FloatNetwork:
    """The refinement network in float32.

    It runs from norm to norm in strips, as the int8 network does (`engines.int8`), and what a part has read is let go
    while it runs. The gate that follows the photo is computed twice, which takes 2% of the multiplications; its pair
    would be half of what is kept at the peak.
    """

    strips_at_once = 1  # on all threads

    def __init__(self, net: Network, device: str) -> None:
        self.bytes_per_pixel = BYTES_PER_PIXEL_AND_WIDTH * net.config.width + 12
        self._network = net.to(device)
        self._device = device
        self._width = net.config.width
        self._weight, self._bias = (part.detach() for part in self._network.tail())
        self._fused = {block.name: _folded(block) for block in (net.fuse1, net.fuse2)}
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def features(self, photo_u8_hwc: np.ndarray, moments: Moments | None = None) -> LastBlock:
        kernels.usable(photo_u8_hwc.size // 3)  # loads numba where that pays; parts of the photo then find it loaded
        net, rows = self._network, self._strip_rows(*photo_u8_hwc.shape[:2])
        photo, pool = Rows(), Pool()
        photo.append(
            torch.from_numpy(np.require(photo_u8_hwc, requirements="W")).to(self._device).permute(2, 0, 1)[None]
        )

        def encode1(strip: Strip, photo: Tensor) -> tuple[Tensor, ...]:
            x, _ = self._gate(net.down1, _values(photo))
            return self._branches(net.refine1, x)

        local, side = self._in_strips(encode1, rows // 2, pool, Input(photo, 2, 2, kept=True))
        norm = self._norm(net.refine1, local, moments)

        def encode2(strip: Strip, local: Tensor, side: Tensor) -> tuple[Tensor, ...]:
            encoded = self._refined(net.refine1, local, side, norm)
            x, pair = self._gate(net.down2, encoded)
            return encoded, pair, *self._branches(net.refine2, x)

        encoded1, pair2, local, side = self._in_strips(encode2, rows // 4, pool, Input(local, 2, 3), Input(side, 2, 3))
        norm = self._norm(net.refine2, local, moments)

        def encode3(strip: Strip, local: Tensor, side: Tensor) -> tuple[Tensor, ...]:
            encoded = self._refined(net.refine2, local, side, norm)
            return encoded, *self._branches(net.bottleneck, F.max_pool2d(encoded, 2))

        encoded2, local, side = self._in_strips(encode3, rows // 8, pool, Input(local, 2, 2), Input(side, 2, 2))
        norm = self._norm(net.bottleneck, local, moments)

        # Of what is enlarged one row beyond a strip is enough: it takes in half of the next.
        def decode2(strip: Strip, local: Tensor, side: Tensor, encoded: Tensor, pair: Tensor) -> tuple[Tensor, ...]:
            deep = strip.trimmed(self._refined(net.bottleneck, local, side, norm), 3, 1)
            return self._branches(net.decode2, self._fuse("fuse2", deep, encoded, pair))

        given = Input(local, 1, 3), Input(side, 1, 3), Input(encoded2, 2, 1), Input(pair2, 2, 1)
        local, side = self._in_strips(decode2, rows // 8, pool, *given)
        norm = self._norm(net.decode2, local, moments)

        def decode1(strip: Strip, local: Tensor, side: Tensor, photo: Tensor, encoded: Tensor) -> tuple[Tensor, ...]:
            _, pair = self._gate(net.down1, _values(photo))
            deep = strip.trimmed(self._refined(net.decode2, local, side, norm), 3, 1)
            return self._branches(net.decode1, self._fuse("fuse1", deep, encoded, strip.trimmed(pair, 2, 1, 2)))

        given = Input(local, 1, 3), Input(side, 1, 3), Input(photo, 4, 2, kept=True), Input(encoded1, 2, 1)
        local, side = self._in_strips(decode1, rows // 4, pool, *given)
        kept = None if net.config.residual else photo_u8_hwc
        return LastBlock(local, side, self._norm(net.decode1, local, moments), kept)

    @torch.inference_mode()
    def residual(self, features: LastBlock, top: int, bottom: int) -> np.ndarray:
        height = features.local.height
        read, margin = feature_rows(height, top, bottom)
        reach = 2  # rows, of the block's two convolutions
        first, last = max(0, read.start - reach), min(height, read.stop + reach)
        local, side = (rows.between(first, last) for rows in (features.local, features.side))
        block = self._refined(self._network.decode1, local, side, features.norm)
        rows = F.pad(block[:, :, read.start - first : read.stop - first], (0, 0, *margin))
        return less_photo(tail_rows(rows, self._weight, self._bias), features.photo, top, bottom)

    def _strip_rows(self, height: int, width: int) -> int:
        """Rows of the photo that pass at a time, the same in every part: freed blocks then fit those that follow."""
        if self._device != "cpu":
            return height
        largest = width * self._width // 2  # values for each row of the photo
        return max(SMALLEST_STRIP, STRIP_VALUES // largest // SIZE_MULTIPLE * SIZE_MULTIPLE)

    def _gate(self, gate: network.Gate, x: Tensor) -> tuple[Tensor, Tensor]:
        pair = gate.pair(x).tanh_()
        if self._compiled():
            from qatie_cli.kernels import floats

            product, out = _empty(pair, pair.shape[1] // 2), _hwc(pair)
            over_rows(out.shape[0], out.size, lambda first, last: floats.gated(out, first, last, _hwc(product)))
            return product, pair
        a, b = pair.chunk(2, dim=1)
        return a * b, pair

    def _branches(self, block: Refine | Plain, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two branches of a block: `local` up to its norm, and `side`; a plain block, and no channels beside it."""
        if isinstance(block, Plain):
            out = F.leaky_relu_(block.local(x), LEAKY_SLOPE)
            return out, out[:, :0]
        return block.local(x), block.side(x)

    def _norm(self, block: Refine | Plain, local: Rows, moments: Moments | None) -> Norm | None:
        if isinstance(block, Plain):
            return None
        found: tuple[Any, Any]
        if moments is not None:
            found = moments(block.name, local.between(0, local.height)[0].permute(1, 2, 0), _sums)
        elif self._device == "cpu":
            sums = [_sums(part[0].permute(1, 2, 0)) for part in local.blocks]
            found = sum(sums[1:], sums[0]).mean_variance()
        else:  # there it is one block, and where it is on MPS there are no 64 bits
            found = torch.var_mean(local.blocks[0][0], (1, 2), correction=0)[::-1]
        read = (torch.as_tensor(v).detach().cpu().double() for v in (*found, *block.norm.parameters()))
        mean, variance, weight, bias = read
        factor = weight / (variance + NORM_EPS).sqrt()
        values = factor, bias - mean * factor
        return Norm(*(value.float().view(1, -1, 1, 1).to(self._device) for value in values))

    def _refined(self, block: Refine | Plain, local: Tensor, side: Tensor, norm: Norm | None) -> Tensor:
        """The rest of a block."""
        if isinstance(block, Plain):
            return local
        assert norm is not None
        y = self._joined(local, norm, side)
        out = F.leaky_relu_(block.inner(y), LEAKY_SLOPE)
        return self._closed(block.outer(out), block.shortcut(y))

    def _joined(self, local: Tensor, norm: Norm, side: Tensor) -> Tensor:
        """`local` through its norm and activation, and the channels of `side`."""
        if not self._compiled():
            normed = (local * norm.factor).add_(norm.offset)
            return torch.cat([F.leaky_relu_(normed, LEAKY_SLOPE), side], dim=1)
        from qatie_cli.kernels import floats

        y = _empty(local, local.shape[1] + side.shape[1])
        row = (np.tile(values.flatten().numpy(), local.shape[3]) for values in (norm.factor, norm.offset))
        given = _hwc(local), *row, _SLOPE, _hwc(side)
        over_rows(y.shape[2], y.numel(), lambda first, last: floats.joined(*given, first, last, _hwc(y)))
        return y

    def _closed(self, out: Tensor, shortcut: Tensor) -> Tensor:
        """The last activation of a block and its sum with the shortcut, into `out`."""
        if not self._compiled():
            return F.leaky_relu_(out, LEAKY_SLOPE).add_(shortcut)
        from qatie_cli.kernels import floats

        x, other = _hwc(out), _hwc(shortcut)
        over_rows(x.shape[0], x.size, lambda first, last: floats.closed(x, _SLOPE, other, first, last))
        return out

    def _compiled(self) -> bool:
        return self._device == "cpu" and kernels.usable(0)

    def _fuse(self, name: str, deep: Tensor, encoded: Tensor, pair: Tensor) -> Tensor:
        """`network.Fuse`; what is upsampled meets the others after the last convolution, of which it has its own."""
        fused = self._fused[name]
        phases = F.conv2d(deep, fused.up, fused.up_bias, padding=1)
        one, two = F.conv2d(encoded, fused.encoded, fused.bias), F.conv2d(pair, fused.pair)
        if self._compiled():
            from qatie_cli.kernels import floats

            given = _hwc(phases), _hwc(one), _hwc(two)
            over_rows(one.shape[2], one.numel(), lambda first, last: floats.interleaved(*given, first, last))
            return one
        out = one.add_(two)
        channels, height, width = out.shape[1], deep.shape[2], deep.shape[3]
        for index in range(4):
            p, q = divmod(index, 2)
            part = phases[:, index * channels : (index + 1) * channels, p : p + height, q : q + width]
            out[:, :, p::2, q::2] += part
        return out

    def _in_strips(self, part: Callable[..., tuple[Tensor, ...]], rows: int, pool: Pool, *inputs: Input) -> list[Rows]:
        """Run a part of the network in strips of so many rows, counted at the coarsest scale of inputs and outputs.

        Args:
            pool: what outputs are kept in, and what inputs are given back to as far as no later strip reads them.
            part: from a strip and the rows of every input to rows of every output, as many beyond the strip as of the
                last input.
        """
        height = inputs[0].rows.height // inputs[0].scale
        whole: list[Rows] = []
        for top in range(0, height, rows):
            strip = Strip(top, min(height, top + rows), height)
            seen = (x.rows.between(*(end * x.scale for end in strip.reaching(x.reach))) for x in inputs)
            outputs = part(strip, *seen)
            whole = whole or [Rows() for _ in outputs]
            first, last = strip.reaching(inputs[-1].reach)
            for made, x in zip(whole, outputs, strict=True):
                core = strip.trimmed(x, inputs[-1].reach, 0, x.shape[2] // (last - first))
                made.append(pool.kept(core))
            for given in inputs:
                if not given.kept:
                    read = strip.bottom - (given.reach if strip.bottom < height else 0)
                    for block in given.rows.let_go(read * given.scale):
                        pool.take_back(block)
        return whole


def _sums(x: Tensor) -> Sums:
    """Sums over the pixels of x (h, w, C) float32: of groups in single precision, and of these in double."""
    channels = x.shape[2]
    pixels = x.reshape(-1, channels)
    whole = len(pixels) // _GROUP * _GROUP
    groups = list(pixels[:whole].view(-1, _GROUP, channels).split(max(1, _CHUNK_VALUES // (_GROUP * channels))))
    if whole < len(pixels):
        groups.append(pixels[None, whole:])
    total, squares = torch.zeros(2, channels, dtype=torch.float64)
    for chunk in groups:
        total += chunk.sum(1).cpu().double().sum(0)
        squares += chunk.square().sum(1).cpu().double().sum(0)
    return Sums(len(pixels), total.numpy(), squares.numpy())


def _values(photo_u8: Tensor) -> Tensor:
    return photo_u8.float().div_(255)


def _hwc(x: Tensor) -> np.ndarray:
    """A channels-last tensor (1, C, H, W) as an array (H, W, C); a view, but of what lies otherwise in memory."""
    return np.ascontiguousarray(x[0].permute(1, 2, 0).numpy())


def _empty(x: Tensor, channels: int) -> Tensor:
    """An uninitialized channels-last tensor, else like `x` (1, C, H, W)."""
    return torch.empty((1, channels, *x.shape[2:]), memory_format=torch.channels_last)


@dataclass(frozen=True)
class _Folded:
    """A `network.Fuse` whose last convolution, of 1x1, is split: `up` has its part folded in, in the four phases."""

    up: Tensor
    up_bias: Tensor
    encoded: Tensor
    pair: Tensor
    bias: Tensor


@torch.no_grad()
def _folded(block: Fuse) -> _Folded:
    channels = block.up.weight.shape[0]
    own, encoded, pair = block.reduce.weight.split([channels, channels, 2 * channels], dim=1)
    weight = torch.einsum("oc,ciyx->oiyx", own[:, :, 0, 0], block.up.weight)
    bias = own[:, :, 0, 0] @ network.bias_of(block.up)
    parts = network.fold_upsample(weight), encoded, pair
    up, encoded, pair = (part.contiguous(memory_format=torch.channels_last) for part in parts)
    return _Folded(up, bias.repeat(4), encoded, pair, network.bias_of(block.reduce).detach())
