"""The network and the tone stage as exported models compute them: written once, for every format.

Each function follows one of `qatie_cli.model` and names it. The formats' backends write the operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from qatie_cli.errors import WeightsError
from qatie_cli.exchange.kernels import Arithmetic, Kernel
from qatie_cli.exchange.operators import Deviation, Mean, MeanDifference, Operators, T
from qatie_cli.model import tone
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.network import SIZE_MULTIPLE, Fuse, Gate, Network, Refine
from qatie_cli.model.tone import THUMBNAIL_PX, ToneStage
from qatie_cli.model.whole import Model
from qatie_cli.photo.colour import LUMA

LEVELS = 256


def check(weights: Weights, int8: bool, size: tuple[int, int] | None) -> None:
    """Raise where `size` (height, width; None for any) or the weights do not allow an export.

    Raises:
        ValueError: a side of `size` is not a positive multiple of 8.
        WeightsError: int8 was asked for and the weights were never calibrated.
    """
    if size is not None and any(side < 1 or side % SIZE_MULTIPLE for side in size):
        raise ValueError(f"height and width must be positive multiples of {SIZE_MULTIPLE}, not {size}")
    if int8 and weights.activations is None:
        raise WeightsError("These weights carry no int8 ranges.", "Export them as float, or finish their training.")


def enhanced(ops: Operators[T], model: Model, arithmetic: Arithmetic, photo: T, thumbnail: T | None) -> T:
    """From photo to enhanced photo in 0..1, as `enhance.pixels` does it; `thumbnail` where there is a tone stage."""
    if model.tone is None:
        toned = ops.real(photo)
    else:
        assert thumbnail is not None
        curves, matrix = decided(ops, model.tone, ops.real(thumbnail))
        apply = applied_to_levels if ops.holds_levels(photo) else applied
        toned = apply(ops, photo, curves, matrix, model.tone.config.knots)
    base = ops.clamp(toned)
    # What the network sees is 8 bit; the integers round it so themselves.
    seen = base if arithmetic.int8 else ops.round_to_8_bit(base)
    return ops.clamp(ops.add(base, residual(ops, model.network, arithmetic, seen)))


# --- the network --------------------------------------------------------------------------------------------------


def residual(ops: Operators[T], network: Network, arithmetic: Arithmetic, photo: T) -> T:
    """`Network.forward`: the residual of a toned photo, nominal range -1..1."""
    features = Blocks(ops, arithmetic).features(network, photo)
    return ops.conv_shuffle(ops.real(features), *network.tail())


@dataclass(frozen=True)
class Blocks(Generic[T]):
    """`Network.features`, block by block.

    What only moves values is stored once more at the point of what it moves: that changes no value, and lets a runtime
    move bytes.
    """

    ops: Operators[T]
    arithmetic: Arithmetic

    def features(self, network: Network, photo: T) -> T:
        x, pair1 = self._gate(network.down1, self.ops.store(photo, self.arithmetic.at("photo")))
        encoded1 = self._refine(network.refine1, x)
        x, pair2 = self._gate(network.down2, encoded1)
        encoded2 = self._refine(network.refine2, x)
        halved = self.ops.max_pool(encoded2, self.arithmetic.at("refine2.out"))
        x = self._refine(network.bottleneck, halved)
        x = self._refine(network.decode2, self._fuse(network.fuse2, x, encoded2, pair2))
        return self._refine(network.decode1, self._fuse(network.fuse1, x, encoded1, pair1))

    def _conv(self, name: str, x: T, point: str) -> T:
        return self.ops.conv(x, self.arithmetic.kernel(name), self.arithmetic.at(point))

    def _gate(self, block: Gate, x: T) -> tuple[T, T]:
        ops, name, at = self.ops, block.name, self.arithmetic.at
        pair = self._conv(f"{name}.pair", x, f"{name}.pre")
        pair = ops.tanh(pair, at(f"{name}.tanh"))
        a, b = ops.halves(pair, block.pair.out_channels // 2, at(f"{name}.tanh"))
        return ops.mul(a, b, at(f"{name}.product")), pair

    def _refine(self, block: Refine, x: T) -> T:
        ops, name, at = self.ops, block.name, self.arithmetic.at
        local = ops.real(self._conv(f"{name}.local", x, f"{name}.local"))
        gain = ops.parameter(f"network.{name}.norm.weight", block.norm.weight)
        offset = ops.parameter(f"network.{name}.norm.bias", block.norm.bias)
        normed = ops.store(ops.instance_norm(local, gain, offset, block.norm.eps), at(f"{name}.norm"))
        normed = ops.leaky(normed, at(f"{name}.y"))
        side = self._conv(f"{name}.side", x, f"{name}.y")
        y = ops.concat([normed, side], at(f"{name}.y"))
        out = y
        for part in ("inner", "outer"):
            out = self._conv(f"{name}.{part}", out, f"{name}.{part}")
            out = ops.leaky(out, at(f"{name}.{part}_leaky"))
        shortcut = self._conv(f"{name}.shortcut", y, f"{name}.shortcut")
        return ops.add(out, shortcut, at(f"{name}.out"))

    def _fuse(self, block: Fuse, deep: T, encoded: T, pair: T) -> T:
        ops, name, at = self.ops, block.name, self.arithmetic.at
        phases = self._conv(f"{name}.up", deep, f"{name}.up")
        up = ops.phases_to_space(phases, at(f"{name}.up"))
        # All three parts have the scale of the gates, so that joining them costs no resolution.
        joined = ops.concat([up, ops.store(encoded, at(f"{name}.encoded")), pair], at(f"{name}.encoded"))
        return self._conv(f"{name}.reduce", joined, f"{name}.reduced")


# --- the tone stage: what it does to a photo ----------------------------------------------------------------------


def applied(ops: Operators[T], photo: T, curves: T, matrix: T, knots: int) -> T:
    """`tone.apply_tone` of a photo in 0..1, unclamped."""
    table = ops.table(curves)
    position = ops.mul(ops.pixels(ops.clamp(photo)), knots - 1.0)
    left = ops.at_most(ops.floor(position), knots - 2.0)
    low, rise = ops.look_up_segment(table, ops.to_index(left))
    curved = ops.add(low, ops.mul(rise, ops.sub(position, left)))
    return ops.as_picture(ops.mix(matrix, curved), photo)


def applied_to_levels(ops: Operators[T], photo: T, curves: T, matrix: T, knots: int) -> T:
    """The same for a photo of 8 bit, by a table of its levels as `tone.ToneMap.table` has it."""
    levels, places = np.linspace(0, 1, LEVELS), np.linspace(0, 1, knots)
    spread = np.stack([np.interp(levels, places, unit) for unit in np.eye(knots)], axis=1)
    table = ops.table(ops.linear(curves, ops.constant(spread.astype(np.float32))))
    return ops.mix(matrix, ops.look_up(table, ops.to_index(photo)))


# --- the tone stage: how it decides -------------------------------------------------------------------------------


def decided(ops: Operators[T], stage: ToneStage, thumbnail: T) -> tuple[T, T]:
    """`ToneStage.forward`: curves (3, knots) and matrix (3, 3) for a float thumbnail."""
    knots = stage.config.knots
    raw = _raw(ops, stage, thumbnail)
    curve = ops.to_curves(ops.columns(raw, 0, 3 * knots), knots)
    start = ops.mul(ops.columns(curve, 0, 1), 0.1)
    steps = ops.softplus(ops.add(ops.columns(curve, 1, knots), 0.541325))
    curves = ops.cumulate(start, steps, knots - 1.0)
    matrix = ops.to_curves(ops.columns(raw, 3 * knots), 3)
    matrix = ops.add(ops.mul(matrix, 0.3), ops.constant(np.eye(3, dtype=np.float32)))
    return _with_pinned_ends(ops, curves, matrix, knots), matrix


def _with_pinned_ends(ops: Operators[T], curves: T, matrix: T, knots: int) -> T:
    """`tone.with_pinned_ends`."""
    weights = ops.declare(*tone.end_weights(knots), axis="knots")
    white, black = (ops.mix(matrix, ops.columns(curves, knot, knot + 1)) for knot in (knots - 1, 0))
    lacking = ops.relu(ops.sub(1.0, white))
    raised = ops.relu(ops.sub(black, tone.BLACK))
    towards_white, towards_black = ops.use(weights)
    whiter = ops.add(curves, ops.mul(lacking, towards_white))
    return ops.sub(whiter, ops.mul(raised, towards_black))


def _raw(ops: Operators[T], stage: ToneStage, thumbnail: T) -> T:
    """The last layer's output (1, 3 * knots + 9), times the confidence."""
    luma = ops.weighted_channels(thumbnail, LUMA)
    parts = _pooled(ops, stage, thumbnail) if stage.config.channels else []
    parts += _statistics(ops, stage.config.bins, thumbnail, luma) if stage.config.bins else []
    parts += [_quantiles(ops, thumbnail, luma)] if stage.config.quantiles else []
    x = ops.leaky(_linear(ops, stage, "hidden", ops.concat(parts)))
    if stage.second is not None:
        x = ops.leaky(_linear(ops, stage, "second", x))
    return ops.mul(_linear(ops, stage, "decide", x), _confidence(ops, luma))


def _linear(ops: Operators[T], stage: ToneStage, name: str, x: T) -> T:
    layer = stage.get_submodule(name)
    return ops.linear(x, *(ops.parameter(f"tone.{name}.{part}", getattr(layer, part)) for part in ("weight", "bias")))


def _confidence(ops: Operators[T], luma: T) -> T:
    """`tone.confidence`, (1, 1)."""
    both = _ranked(ops, luma, 1, tone.DARK_AND_BRIGHT)
    dark, bright = (ops.columns(both, index, index + 1) for index in (0, 1))
    contrast = ops.div(ops.sub(bright, dark), ops.at_least(bright, 1 / 255))
    return ops.clamp(ops.div(ops.sub(contrast, tone.FLAT), tone.FULL - tone.FLAT))


def _pooled(ops: Operators[T], stage: ToneStage, thumbnail: T) -> list[T]:
    """Means and maxima of the last convolution's channels, two rows."""
    x = ops.sub(thumbnail, 0.5)
    for index in range(len(stage.convs)):
        x = ops.leaky(ops.conv(x, Kernel.of(stage, f"convs.{index}", prefix="tone.")))
    return [ops.mean_row(x), ops.max_row(x)]


def _statistics(ops: Operators[T], bins: int, thumbnail: T, luma: T) -> list[T]:
    """`tone.statistics`, as rows."""
    values = ops.along_bins(ops.concat([thumbnail, luma]))
    places = ops.declare(np.arange(bins, dtype=np.float32), axis="bins")
    position = ops.mul(values, bins - 1.0)
    apart = ops.sub(position, *ops.use(places))
    one = ops.number(1.0)
    # A bin's share of a value falls from 1 at its own place to 0 at the next ones.
    counts = ops.mean_of_pixels(ops.relu(ops.sub(one, ops.abs(apart))))
    sums = ops.running_sums(counts)
    row = ops.row_shape()
    chroma = ops.sub(ops.channel_max(thumbnail), ops.channel_min(thumbnail))
    tints = MeanDifference(thumbnail, luma, channels=(0, 2), factor=4.0)
    moments = ops.moments([Mean(chroma), Deviation(chroma), tints, Mean(luma), Deviation(luma, 3.0)])
    roots = ops.sqrt(counts)
    return [ops.to_row(roots, row), ops.to_row(sums, row), *moments]


def _quantiles(ops: Operators[T], thumbnail: T, luma: T) -> T:
    """`tone.quantiles`, (1, 66)."""
    seen = ops.concat([thumbnail, luma, ops.channel_max(thumbnail), ops.channel_min(thumbnail)])
    chosen = _ranked(ops, seen, 6, tone.QUANTILES)
    row = ops.to_row(chosen, ops.row_shape())
    return ops.sub(ops.mul(row, 2.0), 1.0)


def _ranked(ops: Operators[T], x: T, channels: int, ranks: Sequence[float]) -> T:
    """`tone._ranked` of the channels of a thumbnail: (channels, ranks)."""
    return ops.order_statistics(x, channels, tone.rank_indices(ranks, THUMBNAIL_PX**2))
