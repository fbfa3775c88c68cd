"""The network and the tone stage as graphs, written once for all formats.

Each function follows one of `qatie_cli.model` and names it. The formats' backends write the operators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal

import numpy as np

from qatie_cli.errors import WeightsError
from qatie_cli.graphs.kernels import Arithmetic, Kernel
from qatie_cli.graphs.operators import Deviation, Mean, MeanDifference, Operators, T
from qatie_cli.model import config, tone_map
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import LARGEST_GAIN_EV, NORM_EPS, SIZE_MULTIPLE, THUMBNAIL_PX, ToneConfig
from qatie_cli.model.folding import fold_tail
from qatie_cli.model.tone_map import HOLD, KEPT, OFFSET, SLOPE
from qatie_cli.photo.colour import LUMA

LEVELS = 256


def check(weights: Weights, int8: bool, size: tuple[int, int] | None) -> None:
    """Raise unless `size` (height, width; None for any) and the weights allow an export.

    Raises:
        ValueError: a side of `size` is not a positive multiple of 8.
        WeightsError: int8 was asked for and the weights were never calibrated.
    """
    if size is not None and any(side < 1 or side % SIZE_MULTIPLE for side in size):
        raise ValueError(f"height and width must be positive multiples of {SIZE_MULTIPLE}, not {size}")
    if int8 and weights.activations is None:
        raise WeightsError("These weights carry no int8 ranges.", "Export them as float, or finish their training.")


def enhanced(ops: Operators[T], weights: Weights, arithmetic: Arithmetic, photo: T, view: T | None) -> T:
    """From photo to enhanced photo in 0..1, as `enhance.pixels` does it; `view` where there is a tone stage."""
    decision = None
    if weights.config.tone is None:
        base = ops.clamp(ops.real(photo))
    else:
        assert view is not None
        stage = Stage.of(weights)
        decision = decided(ops, stage, ops.real(view))
        base = toned(ops, stage, decision, photo)
    # What the network sees is 8 bit; the integers round it so themselves.
    seen = base if arithmetic.int8 else ops.round_to_8_bit(base)
    result = ops.clamp(ops.add(base, residual(ops, arithmetic, seen)))
    return result if decision is None or decision.fine is None else contrasted(ops, result, decision.fine)


# --- the network --------------------------------------------------------------------------------------------------


def residual(ops: Operators[T], arithmetic: Arithmetic, photo: T) -> T:
    """`Network.forward`: the residual of a toned photo, nominal range -1..1."""
    residual = arithmetic.config.residual
    if not residual:
        photo = ops.store(photo, arithmetic.at("photo"))
    features = Blocks(ops, arithmetic).features(photo)
    output = ops.conv_shuffle(ops.real(features), *fold_tail(arithmetic.state))
    return output if residual else ops.sub(output, ops.real(photo))


@dataclass(frozen=True)
class Blocks(Generic[T]):
    """`Network.features`, block by block.

    What only moves values is stored once more at the point of what it moves: that changes no value, and lets a runtime
    move bytes.
    """

    ops: Operators[T]
    arithmetic: Arithmetic

    def features(self, photo: T) -> T:
        """`Network.features`: a toned photo to the features that the tail reads."""
        x, pair1 = self.gate("down1", self.ops.store(photo, self.arithmetic.at("photo")))
        encoded1 = self._refine("refine1", x)
        x, pair2 = self.gate("down2", encoded1)
        encoded2 = self._refine("refine2", x)
        x = self._refine("bottleneck", self.halved(encoded2))
        x = self._refine("decode2", self._fuse("fuse2", x, encoded2, pair2))
        return self._refine("decode1", self._fuse("fuse1", x, encoded1, pair1))

    def halved(self, encoded: T) -> T:
        """The deepest encoder features at half their size, as the bottleneck takes them."""
        return self.ops.max_pool(encoded, self.arithmetic.at("refine2.out"))

    def _conv(self, name: str, x: T, point: str) -> T:
        return self.ops.conv(x, self.arithmetic.kernel(name), self.arithmetic.at(point))

    def gate(self, name: str, x: T) -> tuple[T, T]:
        """`network.Gate`: the product, and the pair."""
        ops, at = self.ops, self.arithmetic.at
        pair = self._conv(f"{name}.pair", x, f"{name}.pre")
        pair = ops.tanh(pair, at(f"{name}.tanh"))
        channels = len(self.arithmetic.state[f"network.{name}.pair.bias"]) // 2
        a, b = ops.halves(pair, channels, at(f"{name}.tanh"))
        return ops.mul(a, b, at(f"{name}.product")), pair

    def _refine(self, name: str, x: T) -> T:
        if name in self.arithmetic.config.plain:
            return self.plain(name, x)
        ops, at = self.ops, self.arithmetic.at
        local = ops.real(self.local(name, x))
        keys = f"network.{name}.norm.weight", f"network.{name}.norm.bias"
        gain, offset = (ops.parameter(key, self.arithmetic.state[key]) for key in keys)
        normed = ops.store(ops.instance_norm(local, gain, offset, NORM_EPS), at(f"{name}.norm"))
        normed = ops.leaky(normed, at(f"{name}.y"))
        return self.refined(name, ops.concat([normed, self.side(name, x)], at(f"{name}.y")))

    def plain(self, name: str, x: T) -> T:
        """`network.Plain`."""
        return self.ops.leaky(self.local(name, x), self.arithmetic.at(f"{name}.out"))

    def local(self, name: str, x: T) -> T:
        """The branch of a refinement block that goes on to its norm."""
        return self._conv(f"{name}.local", x, f"{name}.local")

    def side(self, name: str, x: T) -> T:
        """Its other branch."""
        return self._conv(f"{name}.side", x, f"{name}.y")

    def refined(self, name: str, y: T) -> T:
        """The rest of a refinement block, from both branches, concatenated."""
        ops, at = self.ops, self.arithmetic.at
        out = y
        for part in ("inner", "outer"):
            out = self._conv(f"{name}.{part}", out, f"{name}.{part}")
            out = ops.leaky(out, at(f"{name}.{part}_leaky"))
        shortcut = self._conv(f"{name}.shortcut", y, f"{name}.shortcut")
        return ops.add(out, shortcut, at(f"{name}.out"))

    def _fuse(self, name: str, deep: T, encoded: T, pair: T) -> T:
        ops, at = self.ops, self.arithmetic.at
        phases = self.phases(name, deep)
        up = ops.phases_to_space(phases, at(f"{name}.up"))
        # All three parts have the scale of the gates, so that joining them costs no resolution.
        joined = ops.concat([up, ops.store(encoded, at(f"{name}.encoded")), pair], at(f"{name}.encoded"))
        return self.reduced(name, joined)

    def phases(self, name: str, deep: T) -> T:
        """The upsampled features of a `network.Fuse` in their four phases."""
        return self._conv(f"{name}.up", deep, f"{name}.up")

    def reduced(self, name: str, joined: T) -> T:
        """Its last convolution."""
        return self._conv(f"{name}.reduce", joined, f"{name}.reduced")


# --- the tone stage: what it does to a photo ----------------------------------------------------------------------


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


def toned(ops: Operators[T], stage: Stage, decision: Decided[T], photo: T) -> T:
    """`tone_apply.apply` of what the stage decides: a photo in 0..1."""
    apply = applied_to_levels if ops.holds_levels(photo) else applied
    base = ops.clamp(apply(ops, photo, decision.curves, decision.matrix, stage.config.knots))
    if decision.gains is None:
        return base
    held = None if decision.fine is None else [enlarged(ops, decision.fine, plane, base) for plane in (HOLD, KEPT)]
    return gained(ops, base, _sliced(ops, stage, decision.gains, base, held))


def contrasted(ops: Operators[T], photo: T, fine: T) -> T:
    """`tone_apply.with_local_contrast` of an enhanced photo in 0..1."""
    luma = ops.weighted_plane(photo, LUMA)
    slope, offset = (enlarged(ops, fine, plane, photo) for plane in (SLOPE, OFFSET))
    change = ops.add(ops.mul(slope, luma), offset)
    change = ops.div(change, ops.add(ops.mul(ops.abs(change), 1 / config.MOST_CONTRAST), 1.0))
    change = ops.mul(change, ops.at_most(ops.mul(ops.sub(1.0, luma), 1 / (1 - config.NEARLY_WHITE)), 1.0))
    return ops.clamp(ops.add(photo, ops.as_channel(change)))


def enlarged(ops: Operators[T], x: T, channel: int, photo: T) -> T:
    """`tone_apply.enlarged`: a channel of `Decided.fine` at the size of a whole photo, a plane."""
    side = config.FINE_VIEW_PX
    down, across = (_hats(ops, photo, axis, side) for axis in ("height", "width"))
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


def _sliced(ops: Operators[T], stage: Stage, gains: T, photo: T, held: Sequence[T] | None = None) -> T:
    """The gain of each pixel of a toned photo, a plane: `tone_apply.apply_grid`; `held` are planes, too.

    The grid is enlarged layer by layer, so that a runtime holds one layer at the photo's size and not all of them.
    """
    cells, depth = stage.config.grid, stage.config.depth
    down, across = (_hats(ops, photo, side, cells) for side in ("height", "width"))
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
    log_gain = ops.add(log_gain, term)
    if held is not None:
        share, kept = held
        log_gain = ops.sub(log_gain, ops.mul(share, ops.relu(ops.sub(log_gain, ops.mul(kept, math.log(2))))))
    return ops.exp(log_gain)


def _hats(ops: Operators[T], photo: T, side: Literal["height", "width"], cells: int) -> T:
    """`tone_apply._hats` of a whole photo: (pixels, cells)."""
    position = ops.sub(ops.mul(ops.places(photo, side), float(cells)), 0.5)
    position = ops.at_most(ops.relu(position), cells - 1.0)
    apart = ops.abs(ops.sub(position, ops.constant(np.arange(cells, dtype=np.float32)[None])))
    return ops.relu(ops.sub(1.0, apart))


# --- the tone stage: how it decides -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decided(Generic[T]):
    """The decision for one photo: curves (3, knots), a matrix (3, 3) and, where the stage has a grid, its `gains`.

    These are a picture of the grid's size with a channel for each layer along the guide, in shares of LARGEST_GAIN_EV.
    `fine` is a picture of four channels, those of `tone_map.ToneMap.fine`, if the stage has that.
    """

    curves: T
    matrix: T
    gains: T | None = None
    fine: T | None = None


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
    return _refined(ops, stage, decision, whole, seen, trust) if stage.config.fine else decision


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


def _refined(ops: Operators[T], stage: Stage, decision: Decided[T], view: T, seen: _Seen[T], trust: T) -> Decided[T]:
    """`ToneStage._refined`."""
    sizes = stage.config
    gains = decision.gains
    assert gains is not None
    if sizes.darkening < 1:
        share = _darkening_share(ops, stage, decision, seen)
        (straight,) = ops.use(ops.declare(np.linspace(0, 1, sizes.knots, dtype=np.float32), axis="knots"))
        curves = ops.add(ops.mul(ops.sub(decision.curves, straight), share), straight)
        identity = ops.constant(np.eye(3, dtype=np.float32))
        matrix = ops.add(ops.mul(ops.sub(decision.matrix, identity), share), identity)
        gains = ops.mul(gains, share)
        decision = Decided(curves, matrix, gains)
    base = ops.clamp(applied(ops, view, decision.curves, decision.matrix, sizes.knots))
    seen_by, small = (ops.average_pool(x, config.FINE_VIEW_PX // config.LOCAL_VIEW_PX) for x in (view, base))
    lit = gained(ops, small, _sliced(ops, stage, gains, small))
    hold, gain = _held(ops, seen_by, small, lit)
    down, across = (_hats(ops, base, side, config.LOCAL_VIEW_PX) for side in ("height", "width"))
    held = [ops.products(ops.products(down, ops.stacked(x)), across) for x in (ops.mul(hold, stage.config.hold), gain)]
    base = gained(ops, base, _sliced(ops, stage, gains, base, held))
    lines = (ops.mul(ops.mul(x, sizes.clarity), trust) for x in _contrast_lines(ops, base))
    fine = ops.concat([*(ops.as_channel(x) for x in held), *lines])
    return Decided(decision.curves, decision.matrix, gains, fine)


def _darkening_share(ops: Operators[T], stage: Stage, decision: Decided[T], seen: _Seen[T]) -> T:
    """`tone_fine.darkening_share`, (1, 1)."""
    after = ops.clamp(applied(ops, seen.thumbnail, decision.curves, decision.matrix, stage.config.knots))
    assert decision.gains is not None
    after = gained(ops, after, _sliced(ops, stage, decision.gains, after))
    fall = ops.mean_row(ops.sub(seen.luma, ops.weighted_channels(after, LUMA)))
    clipped = ops.mean_row(_ramp(ops, ops.channel_max(seen.thumbnail), *config.CLIPPED))
    falling = ops.clamp(ops.div(fall, config.DARKENED))
    dark = ops.columns(_ranked(ops, seen.luma, 1, config.DARK_AND_BRIGHT), 0, 1)
    doubt = ops.mul(falling, ops.sub(1.0, _ramp(ops, clipped, *config.CLIPPED_SHARE)))
    doubt = ops.mul(doubt, ops.sub(1.0, _ramp(ops, dark, *config.VEILED)))
    return ops.sub(1.0, ops.mul(doubt, 1 - stage.config.darkening))


def _held(ops: Operators[T], photo: T, toned: T, brightened: T) -> tuple[T, T]:
    """`tone_fine.held`."""
    luma = ops.weighted_channels(toned, LUMA)
    slope, offset = _base_lines(ops, luma, config.HOLD_PX)
    smooth = ops.add(ops.mul(slope, luma), offset)
    texture = ops.box_mean(ops.abs(ops.sub(luma, smooth)), 2 * config.HOLD_PX)
    texture = ops.div(texture, ops.add(smooth, 0.03))
    dark = _ramp(ops, smooth, *config.SHADOW)
    shadows = ops.mul(ops.sub(1.0, _ramp(ops, texture, 0.025, 0.085)), dark)
    share = ops.div(ops.mean_row(shadows), ops.at_least(ops.mean_row(dark), 0.01))
    shadows = ops.mul(shadows, _ramp(ops, share, *config.SMOOTH_SHARE))
    rise = ops.mean_row(ops.weighted_channels(ops.sub(brightened, photo), LUMA))
    shadows = ops.mul(shadows, _ramp(ops, rise, *config.UNDEREXPOSED))
    bright = ops.mul(_skin(ops, toned, config.PALE_SKIN), _ramp(ops, luma, *config.BRIGHT_SKIN))
    bright = ops.box_mean(bright, config.FACE_PX)
    # The gain that undoes what the curves do.
    before, after = ops.channel_max(photo), ops.channel_max(toned)
    room = ops.mul(ops.at_least(after, 0.02), ops.at_least(ops.sub(1.0, before), 0.02))
    low, high = config.GAIN_BACK
    u = _ramp(ops, ops.div(ops.sub(before, after), room), low, high)
    u = ops.add(ops.mul(u, high - low), low)
    gain = ops.div(ops.mul(u, 2 / math.log(2)), ops.add(u, 2.0))
    return ops.add(bright, ops.relu(ops.sub(shadows, bright))), gain


def _contrast_lines(ops: Operators[T], base: T) -> tuple[T, T]:
    """`tone_fine.contrast_lines` at a clarity of 1: slope and offset."""
    luma = ops.weighted_channels(base, LUMA)
    slope, offset = _base_lines(ops, luma, config.BASE_PX)
    smooth = ops.add(ops.mul(slope, luma), offset)
    detail = ops.sub(luma, smooth)
    power = ops.box_mean(ops.mul(detail, detail), 2 * config.BASE_PX)
    share = ops.div(power, ops.add(power, config.FAINT**2))
    share = ops.div(ops.mul(share, config.BUSY**2), ops.add(power, config.BUSY**2))
    share = ops.mul(share, _ramp(ops, smooth, *config.LIT))
    skin = ops.box_mean(_skin(ops, base, config.SKIN), 2 * config.BASE_PX)
    share = ops.mul(share, ops.sub(1.0, ops.mul(skin, config.SKIN_CLARITY)))
    return ops.mul(share, ops.sub(1.0, slope)), ops.mul(ops.mul(share, offset), -1.0)


def _base_lines(ops: Operators[T], luma: T, radius: int) -> tuple[T, T]:
    """`windows.base_lines`."""
    slope, offset = _guided_lines(ops, luma, radius)
    again, further = _guided_lines(ops, ops.add(ops.mul(slope, luma), offset), radius)
    return ops.mul(again, slope), ops.add(ops.mul(again, offset), further)


def _guided_lines(ops: Operators[T], luma: T, radius: int) -> tuple[T, T]:
    mean = ops.box_mean(luma, radius)
    variance = ops.relu(ops.sub(ops.box_mean(ops.mul(luma, luma), radius), ops.mul(mean, mean)))
    slope = ops.div(variance, ops.add(variance, config.BASE_EPSILON))
    return ops.box_mean(slope, radius), ops.box_mean(ops.sub(mean, ops.mul(slope, mean)), radius)


def _skin(ops: Operators[T], x: T, saturations: tuple[float, float, float, float]) -> T:
    """`tone_fine.skin`."""
    largest = ops.channel_max(x)
    saturation = ops.div(ops.sub(largest, ops.channel_min(x)), ops.at_least(largest, 0.02))
    apart = ops.at_least(ops.weighted_channels(x, (1, 0, -1)), 0.02)
    warmth = ops.div(ops.weighted_channels(x, (0, 1, -1)), apart)
    likely = ops.mul(_within(ops, warmth, config.WARMTH), _within(ops, saturation, saturations))
    return ops.mul(likely, _ramp(ops, largest, 0.2, 0.35))


def _within(ops: Operators[T], x: T, limits: tuple[float, float, float, float]) -> T:
    first, second, third, fourth = limits
    return ops.mul(_ramp(ops, x, first, second), _ramp(ops, x, fourth, third))


def _ramp(ops: Operators[T], x: T, nothing: float, all_of_it: float) -> T:
    """`tone_fine.ramp`."""
    return ops.clamp(ops.div(ops.sub(x, nothing), all_of_it - nothing))


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
