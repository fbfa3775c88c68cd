"""What the tone stage does to a photo, as a graph: `model.tone_apply`. What it decides is `graphs.tone_deciding`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal

import numpy as np

from qatie_cli.graphs.kernels import Kernel
from qatie_cli.graphs.operators import Operators, T
from qatie_cli.kernels.fine import BRIGHTENED, HOLD, MOST_CONTRAST, NEARLY_WHITE, OFFSET, SLOPE
from qatie_cli.model import config
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import LARGEST_GAIN_EV, ToneConfig
from qatie_cli.photo.colour import LUMA

LEVELS = 256


@dataclass(frozen=True)
class Stage:
    """The tone stage of a weights file: its sizes, and its tensors among the file's."""

    config: ToneConfig
    state: Mapping[str, np.ndarray]

    @staticmethod
    def of(weights: Weights) -> Stage:
        """That of `weights`, which have one."""
        assert weights.config.tone is not None
        return Stage(weights.config.tone, weights.state)


@dataclass(frozen=True)
class Decided(Generic[T]):
    """The decision for one photo: curves (3, knots), a matrix (3, 3) and, where the stage has a grid, its `gains`.

    These are a picture of the grid's size with a channel for each layer along the guide, in shares of LARGEST_GAIN_EV.
    `fine` is a picture of three channels, those of `tone_map.ToneMap.fine`, if the stage has that.
    """

    curves: T
    matrix: T
    gains: T | None = None
    fine: T | None = None


def toned(ops: Operators[T], stage: Stage, decision: Decided[T], photo: T) -> T:
    """`tone_apply.apply` of what the stage decides: a photo in 0..1."""
    apply = applied_to_levels if ops.holds_levels(photo) else applied
    base = ops.clamp(apply(ops, photo, decision.curves, decision.matrix, stage.config.knots))
    if decision.gains is None:
        return base
    result = gained(ops, base, sliced(ops, stage, decision.gains, base))
    if decision.fine is None:
        return result
    return held_back(ops, ops.real(photo), result, enlarged(ops, decision.fine, HOLD, base))


def held_back(ops: Operators[T], photo: T, toned: T, share: T) -> T:
    """`tone_apply.held_back`, photos in 0..1; the share is a plane."""
    rise = ops.sub(ops.weighted_plane(toned, LUMA), ops.weighted_plane(photo, LUMA))
    share = ops.mul(share, ops.clamp(ops.div(rise, BRIGHTENED)))
    return ops.add(toned, ops.mul(ops.as_channel(share), ops.sub(photo, toned)))


def contrasted(ops: Operators[T], photo: T, fine: T) -> T:
    """`tone_apply.with_local_contrast` of an enhanced photo in 0..1."""
    luma = ops.weighted_plane(photo, LUMA)
    slope, offset = (enlarged(ops, fine, plane, photo) for plane in (SLOPE, OFFSET))
    change = ops.add(ops.mul(slope, luma), offset)
    change = ops.div(change, ops.add(ops.mul(ops.abs(change), 1 / MOST_CONTRAST), 1.0))
    change = ops.mul(change, ops.at_most(ops.mul(ops.sub(1.0, luma), 1 / (1 - NEARLY_WHITE)), 1.0))
    return ops.clamp(ops.add(photo, ops.as_channel(change)))


def enlarged(ops: Operators[T], x: T, channel: int, photo: T) -> T:
    """`tone_apply.enlarged`: a channel of `Decided.fine` at the size of a whole photo, a plane."""
    side = config.FINE_VIEW_PX
    down, across = (hats(ops, photo, axis, side) for axis in ("height", "width"))
    cells = ops.rows(ops.stacked(x), channel * side, (channel + 1) * side)
    return ops.products(ops.products(down, cells), across)


def applied(ops: Operators[T], photo: T, curves: T, matrix: T, knots: int) -> T:
    """`tone_apply.apply_global` of a photo in 0..1, unclamped."""
    table = ops.table(curves)
    position = ops.mul(ops.pixels(ops.clamp(photo)), knots - 1.0)
    left = ops.at_most(ops.floor(position), knots - 2.0)
    low, rise = ops.look_up_segment(table, ops.to_index(left))
    curved = ops.add(low, ops.mul(rise, ops.sub(position, left)))
    return ops.as_picture(ops.mix(matrix, curved), photo)


def applied_to_levels(ops: Operators[T], photo: T, curves: T, matrix: T, knots: int) -> T:
    """The same for a photo of 8 bit, by a table of its levels as `tone_map.ToneMap.table` has it."""
    levels, places = np.linspace(0, 1, LEVELS), np.linspace(0, 1, knots)
    spread = np.stack([np.interp(levels, places, unit) for unit in np.eye(knots)], axis=1)
    table = ops.table(ops.linear(curves, ops.constant(spread.astype(np.float32))))
    return ops.mix(matrix, ops.look_up(table, ops.to_index(photo)))


def gained(ops: Operators[T], photo: T, gain: T) -> T:
    """`tone_apply.with_gain`, the gain as a plane."""
    largest = ops.plane(ops.channel_max(photo))
    divisor = ops.add(ops.mul(ops.sub(gain, 1.0), largest), 1.0)
    return ops.mul(photo, ops.as_channel(ops.div(gain, divisor)))


def _ramps(ops: Operators[T], stage: Stage, gains: T) -> T:
    """`Decided.gains` as log-gains of base e: those of the first layer, then how far each is above the one before.

    A pixel's log-gain is the first plus the share of each rise that lies below the pixel's guide, which takes fewer
    operators than weights of layers.
    """
    depth = stage.config.depth
    rises = (np.eye(depth) - np.eye(depth, k=-1)) * (LARGEST_GAIN_EV * math.log(2))
    return ops.conv(gains, Kernel(rises[:, :, None, None].astype(np.float32), np.zeros(depth, np.float32)))


def sliced(ops: Operators[T], stage: Stage, gains: T, photo: T) -> T:
    """The gain of each pixel of a toned photo, a plane: `tone_apply.apply_grid`.

    The grid is enlarged layer by layer, so that a runtime holds one layer at the photo's size and not all of them.
    """
    cells, depth = stage.config.grid, stage.config.depth
    down, across = (hats(ops, photo, side, cells) for side in ("height", "width"))
    stacked = ops.stacked(_ramps(ops, stage, gains))
    if stage.config.guide == "luma":
        place = ops.weighted_plane(photo, [(depth - 1) * weight for weight in LUMA])
    else:
        place = ops.mul(ops.plane(ops.channel_max(photo)), depth - 1.0)

    def enlarged(layer: int) -> T:
        return ops.products(ops.products(down, ops.rows(stacked, layer * cells, (layer + 1) * cells)), across)

    def risen(layer: int) -> T:
        return ops.mul(enlarged(layer), ops.clamp(ops.sub(place, layer - 1.0)))

    # Each term is written before the sum in front of it: onnxruntime begins with what was written last, and otherwise
    # holds all terms before it adds any.
    log_gain, term = enlarged(0), risen(1)
    for layer in range(2, depth):
        following = risen(layer)
        log_gain, term = ops.add(log_gain, term), following
    return ops.exp(ops.add(log_gain, term))


def hats(ops: Operators[T], photo: T, side: Literal["height", "width"], cells: int) -> T:
    """`tone_apply._hats` of a whole photo: (pixels, cells)."""
    position = ops.sub(ops.mul(ops.places(photo, side), float(cells)), 0.5)
    position = ops.at_most(ops.relu(position), cells - 1.0)
    apart = ops.abs(ops.sub(position, ops.constant(np.arange(cells, dtype=np.float32)[None])))
    return ops.relu(ops.sub(1.0, apart))
