"""What a tone stage decides by rules, as a graph: `model.tone_fine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from qatie_cli.graphs.operators import Operators, T
from qatie_cli.graphs.tone_applying import Decided, Stage, applied, gained, hats, held_back, sliced
from qatie_cli.model import config
from qatie_cli.photo.colour import LUMA


@dataclass(frozen=True)
class Overview(Generic[T]):
    """A thumbnail, its luma, and the luma that 1% of it lie below, (1, 1)."""

    thumbnail: T
    luma: T
    dark: T


def refined(
    ops: Operators[T], stage: Stage, decision: Decided[T], view: T, overview: Overview[T], trust: T
) -> Decided[T]:
    """`ToneStage._refined`."""
    sizes = stage.config
    meant = _meant_to_be_bright(ops, overview)
    if sizes.darkening < 1:
        doubt = ops.mul(_darkened(ops, stage, decision, overview), meant)
        decision = _share_of(ops, decision, ops.sub(1.0, ops.mul(doubt, 1 - sizes.darkening)), sizes)
    decision = _with_highlights_held(ops, decision, sizes, meant)
    gains = decision.gains
    assert gains is not None
    base = ops.clamp(applied(ops, view, decision.curves, decision.matrix, sizes.knots))
    seen_by, small = (ops.average_pool(x, config.FINE_VIEW_PX // config.LOCAL_VIEW_PX) for x in (view, base))
    lit = gained(ops, small, sliced(ops, stage, gains, small))
    hold = ops.mul(_held(ops, seen_by, small, lit), sizes.hold)
    down, across = (hats(ops, base, side, config.LOCAL_VIEW_PX) for side in ("height", "width"))
    hold = ops.products(ops.products(down, ops.stacked(hold)), across)
    base = held_back(ops, view, gained(ops, base, sliced(ops, stage, gains, base)), hold)
    lines = (ops.mul(ops.mul(x, sizes.clarity), trust) for x in _contrast_lines(ops, base))
    fine = ops.concat([ops.as_channel(hold), *lines])
    return Decided(decision.curves, decision.matrix, gains, fine)


def _darkened(ops: Operators[T], stage: Stage, decision: Decided[T], overview: Overview[T]) -> T:
    """`tone_fine.darkened`, (1, 1)."""
    after = ops.clamp(applied(ops, overview.thumbnail, decision.curves, decision.matrix, stage.config.knots))
    assert decision.gains is not None
    after = gained(ops, after, sliced(ops, stage, decision.gains, after))
    fall = ops.mean_row(ops.sub(overview.luma, ops.weighted_channels(after, LUMA)))
    return ops.clamp(ops.div(fall, config.DARKENED))


def _meant_to_be_bright(ops: Operators[T], overview: Overview[T]) -> T:
    """`tone_fine.meant_to_be_bright`, (1, 1)."""
    clipped = ops.mean_row(_ramp(ops, ops.channel_max(overview.thumbnail), *config.CLIPPED))
    exposed = ops.sub(1.0, _ramp(ops, clipped, *config.CLIPPED_SHARE))
    return ops.mul(exposed, ops.sub(1.0, _ramp(ops, overview.dark, *config.VEILED)))


def _share_of(ops: Operators[T], decision: Decided[T], share: T, sizes: config.ToneConfig) -> Decided[T]:
    """`tone._share_of`."""
    (straight,) = ops.use(ops.declare(np.linspace(0, 1, sizes.knots, dtype=np.float32), axis="knots"))
    curves = ops.add(ops.mul(ops.sub(decision.curves, straight), share), straight)
    identity = ops.constant(np.eye(3, dtype=np.float32))
    matrix = ops.add(ops.mul(ops.sub(decision.matrix, identity), share), identity)
    assert decision.gains is not None
    return Decided(curves, matrix, ops.mul(decision.gains, share))


def _with_highlights_held(ops: Operators[T], decision: Decided[T], sizes: config.ToneConfig, meant: T) -> Decided[T]:
    """`tone._with_highlights_held`."""
    places, layers = (np.linspace(0, 1, steps, dtype=np.float32) for steps in (sizes.knots, sizes.depth))
    low, high = config.HIGHLIGHT
    share = sizes.hold * config.HIGHLIGHT_SHARE / (high - low)
    at_places, at_layers = (share * (x - low).clip(0, high - low) for x in (places, layers))
    declared = ops.declare(places, at_places, axis="knots")
    gray = ops.mul(decision.curves, ops.mix(decision.matrix, ops.constant(np.ones((3, 1), np.float32))))
    straight, held = ops.use(declared)
    change = ops.sub(gray, straight)
    brighter, darker = (ops.at_most(ops.relu(x), config.MOST_HELD) for x in (change, ops.mul(change, -1.0)))
    curves = ops.sub(decision.curves, ops.mul(ops.sub(brighter, ops.mul(darker, meant)), held))
    gains = decision.gains
    assert gains is not None
    brighter, darker = ops.relu(gains), ops.relu(ops.mul(gains, -1.0))
    held = ops.as_channels(ops.constant(at_layers[None]))
    gains = ops.sub(gains, ops.mul(ops.sub(brighter, ops.mul(darker, meant)), held))
    return Decided(curves, decision.matrix, gains)


def _held(ops: Operators[T], photo: T, toned: T, brightened: T) -> T:
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
    lit = _ramp(ops, ops.weighted_channels(photo, LUMA), *config.BRIGHT_SKIN)
    bright = ops.box_mean(ops.mul(_skin(ops, photo, config.PALE_SKIN), lit), config.FACE_PX)
    return ops.add(bright, ops.relu(ops.sub(shadows, bright)))


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
    skin = ops.mul(_skin(ops, base, config.SKIN), config.SKIN_CLARITY)
    gray = ops.mul(_ramp(ops, _saturation(ops, base), *config.GRAY), config.GRAY_CLARITY)
    rough = ops.add(skin, ops.relu(ops.sub(gray, skin)))
    share = ops.mul(share, ops.sub(1.0, ops.box_mean(rough, 2 * config.BASE_PX)))
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
    apart = ops.at_least(ops.weighted_channels(x, (1, 0, -1)), 0.02)
    warmth = ops.div(ops.weighted_channels(x, (0, 1, -1)), apart)
    likely = ops.mul(_within(ops, warmth, config.WARMTH), _within(ops, _saturation(ops, x), saturations))
    return ops.mul(likely, _ramp(ops, ops.channel_max(x), 0.2, 0.35))


def _saturation(ops: Operators[T], x: T) -> T:
    largest = ops.channel_max(x)
    return ops.div(ops.sub(largest, ops.channel_min(x)), ops.at_least(largest, 0.02))


def _within(ops: Operators[T], x: T, limits: tuple[float, float, float, float]) -> T:
    first, second, third, fourth = limits
    return ops.mul(_ramp(ops, x, first, second), _ramp(ops, x, fourth, third))


def _ramp(ops: Operators[T], x: T, nothing: float, all_of_it: float) -> T:
    """`tone_fine.ramp`."""
    return ops.clamp(ops.div(ops.sub(x, nothing), all_of_it - nothing))
