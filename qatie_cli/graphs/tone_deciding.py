"""How the tone stage decides, as a graph: `model.tone` and `model.tone_features`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from qatie_cli.graphs.kernels import Kernel
from qatie_cli.graphs.operators import Deviation, Mean, MeanDifference, Operators, T
from qatie_cli.graphs.tone_applying import Decided, Stage
from qatie_cli.graphs.tone_rules import Overview, refined
from qatie_cli.model import config, tone_map
from qatie_cli.model.config import THUMBNAIL_PX
from qatie_cli.photo.colour import LUMA


def decided(ops: Operators[T], stage: Stage, view: T) -> Decided[T]:
    """`ToneStage.forward` for a float view."""
    knots, whole = stage.config.knots, view
    if stage.config.fine:
        view = ops.average_pool(view, config.FINE_VIEW_PX // config.LOCAL_VIEW_PX)
    seen = _seen(ops, stage, view)
    raw = _linear(ops, stage, "decide", seen.hidden)
    trust = _confidence(ops, seen.luma)
    if stage.config.grid:
        trust = ops.mul(trust, _texture_confidence(ops, view))
    raw = ops.mul(raw, trust)
    curve = ops.to_curves(ops.columns(raw, 0, 3 * knots), knots)
    start = ops.mul(ops.columns(curve, 0, 1), 0.1)
    steps = ops.softplus(ops.add(ops.columns(curve, 1, knots), 0.541325))
    curves = ops.cumulate(start, steps, knots - 1.0)
    matrix = ops.to_curves(ops.columns(raw, 3 * knots), 3)
    matrix = ops.add(ops.mul(matrix, 0.3), ops.constant(np.eye(3, dtype=np.float32)))
    gains = _gains(ops, stage, seen, trust) if stage.config.grid else None
    decision = Decided(_with_pinned_ends(ops, curves, matrix, knots), matrix, gains)
    if not stage.config.fine:
        return decision
    dark = ops.columns(_ranked(ops, seen.luma, 1, config.DARK_AND_BRIGHT), 0, 1)
    return refined(ops, stage, decision, whole, Overview(seen.thumbnail, seen.luma, dark), trust)


def _with_pinned_ends(ops: Operators[T], curves: T, matrix: T, knots: int) -> T:
    """`tone_apply.with_pinned_ends`."""
    weights = ops.declare(*tone_map.end_weights(knots), axis="knots")
    white, black = (ops.mix(matrix, ops.columns(curves, knot, knot + 1)) for knot in (knots - 1, 0))
    lacking = ops.relu(ops.sub(1.0, white))
    raised = ops.relu(ops.sub(black, tone_map.BLACK))
    towards_white, towards_black = ops.use(weights)
    whiter = ops.add(curves, ops.mul(lacking, towards_white))
    return ops.sub(whiter, ops.mul(raised, towards_black))


@dataclass(frozen=True)
class _Seen(Generic[T]):
    """What a decision is made from: a thumbnail, its luma, features of the cells, and hidden features of the whole."""

    thumbnail: T
    luma: T
    cells: T
    hidden: T


def _seen(ops: Operators[T], stage: Stage, view: T) -> _Seen[T]:
    sizes = stage.config
    step = (config.LOCAL_VIEW_PX if sizes.grid else THUMBNAIL_PX) // THUMBNAIL_PX
    thumbnail = view if step == 1 else ops.subsampled(view, step)
    luma = ops.weighted_channels(thumbnail, LUMA)
    cells = _convolved(ops, stage, "convs", ops.sub(view, 0.5)) if sizes.channels else view
    pooled = _convolved(ops, stage, "coarse", cells) if sizes.grid else cells
    parts = [ops.mean_row(pooled), ops.max_row(pooled)] if sizes.channels else []
    parts += _statistics(ops, sizes.bins, thumbnail, luma) if sizes.bins else []
    parts += [_quantiles(ops, thumbnail, luma)] if sizes.quantiles else []
    hidden = ops.leaky(_linear(ops, stage, "hidden", ops.concat(parts)))
    if sizes.statistics:
        hidden = ops.leaky(_linear(ops, stage, "second", hidden))
    return _Seen(thumbnail, luma, cells, hidden)


def _gains(ops: Operators[T], stage: Stage, seen: _Seen[T], trust: T) -> T:
    """`ToneStage._grids`, as `Decided.gains`."""
    context = ops.as_channels(_linear(ops, stage, "context", seen.hidden))
    x = ops.leaky(ops.add(_conv(ops, stage, "local.0", seen.cells), context))
    x = ops.leaky(_conv(ops, stage, "local.1", x))
    return ops.mul(ops.tanh(_conv(ops, stage, "gains", x)), trust)


def _convolved(ops: Operators[T], stage: Stage, name: str, x: T) -> T:
    layer = 0
    while f"tone.{name}.{layer}.weight" in stage.state:
        x = ops.leaky(_conv(ops, stage, f"{name}.{layer}", x, stride=2))
        layer += 1
    return x


def _conv(ops: Operators[T], stage: Stage, name: str, x: T, stride: int = 1) -> T:
    return ops.conv(x, Kernel.of(stage.state, f"tone.{name}", stride))


def _linear(ops: Operators[T], stage: Stage, name: str, x: T) -> T:
    keys = f"tone.{name}.weight", f"tone.{name}.bias"
    return ops.linear(x, *(ops.parameter(key, stage.state[key]) for key in keys))


def _confidence(ops: Operators[T], luma: T) -> T:
    """`tone_features.confidence`, (1, 1)."""
    both = _ranked(ops, luma, 1, config.DARK_AND_BRIGHT)
    dark, bright = (ops.columns(both, index, index + 1) for index in (0, 1))
    contrast = ops.div(ops.sub(bright, dark), ops.at_least(bright, 1 / 255))
    return ops.clamp(ops.div(ops.sub(contrast, config.FLAT), config.FULL - config.FLAT))


def _texture_confidence(ops: Operators[T], view: T) -> T:
    """`tone_features.texture_confidence`, (1, 1)."""
    luma = ops.weighted_channels(view, LUMA)
    mean, mean_square = (ops.average_pool(x, config.TEXTURE_BLOCK) for x in (luma, ops.mul(luma, luma)))
    deviation = ops.sqrt(ops.relu(ops.sub(mean_square, ops.mul(mean, mean))))
    relative = ops.div(deviation, ops.add(mean, 0.1))
    textured = ops.mean_row(ops.clamp(ops.sub(ops.div(relative, config.TEXTURED), 0.5)))
    return ops.clamp(ops.div(ops.sub(textured, config.SMOOTH), config.STRUCTURED - config.SMOOTH))


def _statistics(ops: Operators[T], bins: int, thumbnail: T, luma: T) -> list[T]:
    """`tone_features.statistics`, as rows."""
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
    """`tone_features.quantiles`, (1, 66)."""
    seen = ops.concat([thumbnail, luma, ops.channel_max(thumbnail), ops.channel_min(thumbnail)])
    chosen = _ranked(ops, seen, 6, config.QUANTILES)
    row = ops.to_row(chosen, ops.row_shape())
    return ops.sub(ops.mul(row, 2.0), 1.0)


def _ranked(ops: Operators[T], x: T, channels: int, ranks: Sequence[float]) -> T:
    """`tone_features.ranked` of the channels of a thumbnail: (channels, ranks)."""
    return ops.order_statistics(x, channels, config.rank_indices(ranks, THUMBNAIL_PX**2))
