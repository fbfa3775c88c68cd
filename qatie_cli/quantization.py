"""Quantization of the network: equalize, calibrate, fake-quantize for training, and the integers an engine runs on.

Activations are 8 bit, affine, per tensor; weights 7 bit, symmetric, per output channel. Seven bits because CPUs without
VNNI add pairs of u8 * s8 products in int16: 2 * 255 * 64 = 32,640 fits, 2 * 255 * 128 saturates. Only plain core
operators are used here; the quantized data types stay behind `qatie_cli.engines.int8`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from qatie_cli.network import Fuse, Gate, Network, Refine, fold_upsample

ACTIVATION_MAX = 255
WEIGHT_MIN, WEIGHT_MAX = -64, 63
# Below this a weight's scale would make the int32 bias overflow; such a channel is all but zero.
SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class Activation:
    """How one tensor is stored: real = scale * (stored - zero_point), stored in 0..255."""

    scale: float
    zero_point: int

    @staticmethod
    def covering(low: float, high: float) -> Activation:
        """The finest scale whose 256 levels span low..high and hold 0 exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / ACTIVATION_MAX, SMALLEST_SCALE)
        # Rounded to float32, as the engines and the fake-quantization operators hold it.
        scale = float(np.float32(scale))
        return Activation(scale, int(np.clip(round(-low / scale), 0, ACTIVATION_MAX)))

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value that can be stored."""
        return -self.zero_point * self.scale, (ACTIVATION_MAX - self.zero_point) * self.scale

    def within(self, reach: float) -> Activation:
        """The same for values that matter between -reach and reach only."""
        low, high = self.ends
        return Activation.covering(max(low, -reach), min(high, reach))


PHOTO = Activation(float(np.float32(1 / 255)), 0)  # an 8-bit photo is stored as it is
TANH = Activation(2 / 256, 128)  # what the engines' quantized tanh always returns
TANH_REACH = 3.5  # beyond it every value has the first or the last of TANH's levels: tanh(3.5) * 128 = 127.8


# Values beyond so many times the root mean square are clipped. Highlights drive some points of a trained network to 30
# times theirs; ranges that reach so far leave four levels to everything else. On the float network of qatie-c16
# post-training int8 came to 29.6 dB of float with whole ranges, to 38.0 with 4, 37.6 with 3, 37.0 with 6.
TAIL = 4.0


def is_tanh_scaled(name: str) -> bool:
    """Points whose scale is the tanh's: the gates, and what is concatenated with them."""
    return name.endswith((".tanh", ".up", ".encoded"))


def calibrated_points(network: Network) -> list[str]:
    """The points of a network whose ranges must be known before it runs as int8."""
    points = []
    for name, block in network.named_children():
        if isinstance(block, Gate):
            points += [f"{name}.{p}" for p in ("pre", "product")]
        elif isinstance(block, Refine):
            inside = ("local", "norm", "y", "inner", "inner_leaky", "outer", "outer_leaky", "shortcut", "out")
            points += [f"{name}.{p}" for p in inside]
        elif isinstance(block, Fuse):
            points.append(f"{name}.reduced")
    return points


def missing_points(network: Network, activations: dict[str, Activation]) -> list[str]:
    """Calibrated points of `network` that `activations` says nothing about."""
    return [name for name in calibrated_points(network) if name not in activations]


def activation_at(name: str, activations: dict[str, Activation]) -> Activation:
    """The storage of the point `name`, fixed or calibrated."""
    if name == "photo":
        return PHOTO
    return TANH if is_tanh_scaled(name) else activations[name]


# --- weights ------------------------------------------------------------------------------------------------------


def weight_scales(weight: Tensor) -> Tensor:
    """Scale (out) of each output channel of `weight` (out, in, h, w): the finest that reaches its extremes."""
    flat = weight.detach().flatten(1)
    return torch.maximum(flat.amax(1) / WEIGHT_MAX, flat.amin(1) / WEIGHT_MIN).clamp(min=SMALLEST_SCALE)


def integer_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values (out, in, h, w) in -64..63 and float32 scales (out) of a float weight."""
    scales = weight_scales(weight)
    values = torch.round(weight.detach() / scales.view(-1, 1, 1, 1)).clamp(WEIGHT_MIN, WEIGHT_MAX)
    return values.to(torch.int8), scales


# --- roundings: the network's points as seen by calibration and by training ---------------------------------------


class FakeQuantizer:
    """Rounds as the int8 engines do, in single precision, with straight-through gradients; its ranges never move."""

    def __init__(self, activations: dict[str, Activation]) -> None:
        self.activations = activations

    def weight(self, name: str, weight: Tensor) -> Tensor:
        weight = weight.float()
        scales = weight_scales(weight)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, WEIGHT_MIN, WEIGHT_MAX)

    def activation(self, name: str, x: Tensor) -> Tensor:
        a = activation_at(name, self.activations)
        return torch.fake_quantize_per_tensor_affine(x.float(), a.scale, a.zero_point, 0, ACTIVATION_MAX)


class _Extremes:
    """First calibration pass: the smallest and largest value of each channel at each point, and its power."""

    def __init__(self) -> None:
        self.low: dict[str, Tensor] = {}
        self.high: dict[str, Tensor] = {}
        self._squares: dict[str, list[Tensor]] = {}

    def weight(self, name: str, weight: Tensor) -> Tensor:
        return weight

    def activation(self, name: str, x: Tensor) -> Tensor:
        low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
        if name in self.low:
            low, high = torch.minimum(low, self.low[name]), torch.maximum(high, self.high[name])
        self.low[name], self.high[name] = low, high
        self._squares.setdefault(name, []).append(x.square().mean((0, 2, 3)))
        return x

    def rms(self, name: str) -> Tensor:
        """Root of the mean square of each channel (C)."""
        return torch.stack(self._squares[name]).mean(0).sqrt()

    def magnitude(self, name: str, tail: float | None) -> Tensor:
        """The largest absolute value of each channel (C), at most `tail` times its root mean square; None: whatever."""
        largest = torch.maximum(self.high[name].abs(), self.low[name].abs())
        return largest if tail is None else torch.minimum(largest, tail * self.rms(name))


class _Histograms:
    """Second calibration pass: how often each value occurs at each point."""

    BINS = 2048

    def __init__(self, extremes: _Extremes) -> None:
        self.low = {name: min(float(v.min()), 0.0) for name, v in extremes.low.items()}
        self.high = {name: max(float(v.max()), 1e-6) for name, v in extremes.high.items()}
        self.counts = {name: torch.zeros(self.BINS) for name in self.low}

    def weight(self, name: str, weight: Tensor) -> Tensor:
        return weight

    def activation(self, name: str, x: Tensor) -> Tensor:
        self.counts[name] += torch.histc(x, self.BINS, self.low[name], self.high[name]) / x.numel()
        return x

    def range_of(self, name: str, power: float = 2.0) -> Activation:
        """The range with the least mean of rounding and clipping errors to the power of `power`."""
        low, high, counts = self.low[name], self.high[name], self.counts[name].numpy()
        centres = low + (high - low) * (np.arange(self.BINS) + 0.5) / self.BINS
        kept = np.linspace(1, 0.2, 81)[:, None]
        clipped_below = (counts * np.maximum(kept * low - centres, 0) ** power).sum(1)
        clipped_above = (counts * np.maximum(centres - kept * high, 0) ** power).sum(1)
        step = (kept.T * high - kept * low) / ACTIVATION_MAX  # rows: kept share of low; columns: of high
        error = clipped_below[:, None] + clipped_above[None, :] + counts.sum() * (step / 2) ** power / (power + 1)
        row, column = np.unravel_index(error.argmin(), error.shape)
        return Activation.covering(float(kept[row, 0] * low), float(kept[column, 0] * high))


@torch.no_grad()
def calibrate(
    network: Network, photos: Iterable[Tensor], power: float = 2.0, tail: float | None = TAIL
) -> dict[str, Activation]:
    """Ranges of every point from photos (1, 3, H, W) in 0..1, as the network sees them; sides multiples of 8.

    `photos` is walked twice: once for extremes, once for histograms. Of errors by rounding and clipping the mean is
    least, to the power of `power`: 2 is least squares, higher powers clip rare values less. No range reaches beyond
    `tail` times the root mean square of its point (None: as far as values do), and none in front of a tanh beyond what
    changes that.
    """
    photos = list(photos)
    extremes = _observe(network, photos, _Extremes())
    histograms = _observe(network, photos, _Histograms(extremes))
    ranges = {}
    for name in calibrated_points(network):
        reach = math.inf if tail is None else tail * float(extremes.rms(name).square().mean().sqrt())
        if name.endswith(".pre"):
            reach = min(reach, TANH_REACH)
        ranges[name] = histograms.range_of(name, power).within(reach)
    return ranges


def _observe(network: Network, photos: list[Tensor], observer):
    for photo in photos:
        network.features(photo, observer)
    return observer


# --- equalization -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Channels that may be rescaled without changing the float network.

    `magnitude` (C) is their largest absolute value. `rows` are (tensor, first row): output rows of the convolutions or
    norms that make them; `columns` are (weight, first column): the input columns that consume them. `top` is the
    magnitude that the largest channel shall have afterwards, None to leave it.
    """

    magnitude: Tensor
    rows: list[tuple[Tensor, int]]
    columns: list[tuple[Tensor, int]]
    top: float | None = None


GATE = 1.0  # the gates' largest magnitude


@dataclass(frozen=True)
class Joined:
    """Equalization of what is concatenated with the gates: its `balance`, and its `top`, above 1 to clip outliers."""

    balance: float
    top: float


@torch.no_grad()
def equalize(
    network: Network,
    photos: Iterable[Tensor],
    balance: float = 0.5,
    joined: Joined | None = None,
    both_signs: bool = False,
    tail: float | None = TAIL,
) -> None:
    """Rescale channels in place so that one scale per tensor serves them all; the float network stays the same.

    Between two convolutions a channel may be multiplied by a factor that the consumer's weights divide by, since
    LeakyReLU is positively homogeneous and the norm's gain and offset scale its output (Nagel et al., arXiv 1906.04721,
    section 4.1). With `balance` between 0 and 1 the factor is shared between activation and weight precision (Xiao et
    al., arXiv 2211.10438, equation 4); 1 makes all activations equally large. What is concatenated with the gates is
    brought into their range of -1..1, so that the concatenation keeps their resolution. In front of a norm, which
    undoes any factor, channels are made equally large outright.

    Args:
        joined: how to treat what is concatenated with the gates; None: like all others, and within -1..1.
        both_signs: judge what goes into LeakyReLU by its size before it, too: training keeps the negative part small,
            weights of others may not.
        tail: a channel counts as at most this many times as large as its root mean square; None: as its largest value.
    """
    extremes = _observe(network, list(photos), _Extremes())
    magnitude = {name: extremes.magnitude(name, tail) for name in extremes.low}
    blocks = {b.name: b for b in network.refinements()}
    if both_signs:
        for name in blocks:
            magnitude[f"{name}.inner_leaky"] = torch.maximum(
                magnitude[f"{name}.inner_leaky"], magnitude[f"{name}.inner"]
            )
    for name, block in blocks.items():
        _rescale_before_norm(block, magnitude[f"{name}.local"])
    for group in _groups(network, blocks, magnitude):
        if group.top == GATE and joined is not None:
            _rescale(replace(group, top=joined.top), joined.balance)
        else:
            _rescale(group, balance)


def _rescale_before_norm(block: Refine, magnitude: Tensor) -> None:
    factor = magnitude.max() / magnitude.clamp(min=1e-3 * float(magnitude.max()))
    block.local.weight.mul_(factor.view(-1, 1, 1, 1))
    block.local.bias.mul_(factor)


def _groups(network: Network, blocks: dict[str, Refine], magnitude: dict[str, Tensor]) -> Iterator[_Group]:
    c = network.config.width
    for name, b in blocks.items():
        half = b.local.out_channels
        y = magnitude[f"{name}.y"]
        consumers = [b.inner.weight, b.shortcut.weight]
        norm_rows = [(b.norm.weight, 0), (b.norm.bias, 0)]
        yield _Group(y[:half], norm_rows, [(w, 0) for w in consumers], top=float(y.max()))
        yield _Group(y[half:], _rows(b.side), [(w, half) for w in consumers], top=float(y.max()))
        yield _Group(magnitude[f"{name}.inner_leaky"], _rows(b.inner), [(b.outer.weight, 0)])
    consumers_of = {
        "refine1": [(network.down2.pair.weight, 0), (network.fuse1.reduce.weight, c)],
        "refine2": [
            (network.bottleneck.local.weight, 0),
            (network.bottleneck.side.weight, 0),
            (network.fuse2.reduce.weight, 2 * c),
        ],
        "bottleneck": [(network.fuse2.up.weight, 0)],
        "decode2": [(network.fuse1.up.weight, 0)],
        "decode1": [(network.up.weight, 0)],
    }
    for name, columns in consumers_of.items():
        b = blocks[name]
        top = GATE if name in ("refine1", "refine2") else None
        yield _Group(magnitude[f"{name}.out"], _rows(b.outer) + _rows(b.shortcut), columns, top)
    for fuse, after in ((network.fuse2, network.decode2), (network.fuse1, network.decode1)):
        up = magnitude[f"{fuse.name}.up"]
        yield _Group(up, _rows(fuse.up), [(fuse.reduce.weight, 0)], top=GATE)
        reduced = magnitude[f"{fuse.name}.reduced"]
        yield _Group(reduced, _rows(fuse.reduce), [(after.local.weight, 0), (after.side.weight, 0)])


def _rows(layer: nn.Conv2d) -> list[tuple[Tensor, int]]:
    return [(layer.weight, 0), (layer.bias, 0)]


def _rescale(group: _Group, balance: float) -> None:
    channels = len(group.magnitude)
    largest = float(group.magnitude.max())
    magnitude = group.magnitude.clamp(min=1e-4 * largest)
    used = [w[:, start : start + channels].abs().amax((0, 2, 3)) for w, start in group.columns]
    weight = torch.stack(used).amax(0)
    weight = weight.clamp(min=1e-4 * float(weight.max()))
    factor = weight ** (1 - balance) / magnitude**balance
    factor = factor * ((group.top or largest) / float((factor * magnitude).max()))
    for tensor, start in group.rows:
        rows = tensor[start : start + channels]
        rows.mul_(factor.view(-1, *[1] * (tensor.dim() - 1)))
    for weight, start in group.columns:
        weight[:, start : start + channels].div_(factor.view(1, -1, 1, 1))


# --- the integer network ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IntegerConv:
    """One convolution in integers: int8 `weight` (out, in, h, w) in -64..63, `scales` (out), float `bias` (out)."""

    weight: Tensor
    scales: Tensor
    bias: Tensor
    stride: int
    padding: int


def integer_convs(network: Network) -> dict[str, IntegerConv]:
    """Every convolution that runs in integers, by the name of its rounding point."""
    convs = {}
    for name, block in network.named_children():
        for part, layer in block.named_children():
            if not isinstance(layer, nn.Conv2d):
                continue
            weight, bias, padding = layer.weight, layer.bias, layer.padding[0]
            if isinstance(block, Fuse) and part == "up":
                weight, bias = fold_upsample(weight), bias.repeat(4)
            values, scales = integer_weight(weight)
            convs[f"{name}.{part}"] = IntegerConv(values, scales, bias.detach(), layer.stride[0], padding)
    return convs
