"""The rendering of good photos that the tone stage learns: closer to memory than to a sensor's record.

Shadows with detail are lifted, highlights held, local contrast and pale colours slightly raised, black and white points
set. Rendering depends on the photo alone. Photos are (N, 3, H, W), sRGB-encoded, 0..1; distances are shares of the
photo's long side, so the size of the view does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qatie_cli.model.tone_apply import with_gain
from qatie_cli.model.tone_features import luma
from qatie_cli.model.windows import base_layer, box_mean, smooth_shadows

_BASE_RADIUS = 0.03  # of the guided filter, as a share of the long side
_BLACK_RANK, _WHITE_RANK = 0.003, 0.997


@dataclass(frozen=True)
class RenderingConfig:
    """The strength of each part of the rendering; a `strength` of 0 leaves photos as they are."""

    strength: float = 0.75  # share of the rendering that a target takes
    shadows: float = 1.2  # gain - 1 next to black, falling to nothing at a base luma of 0.5
    highlights: float = 0.1  # 1 - gain at white, from a base luma of 0.75 on
    clarity: float = 0.35  # by which detail stands out from the base layer in the mid-tones
    contrast: float = 0.12  # of an S-curve through the photo's mean
    vibrance: float = 0.2  # more chroma for pale colours, none up to 0.03 and from 0.35 on; half for skin
    hold: float = 0.0  # how strongly bright skin and saturated colours are kept from getting brighter, 0..1
    vivid: float = 0.0  # how strongly what is vivid in the input is kept from becoming more saturated, 0..1
    black: float = 0.04  # the highest luma that may become black
    deep: float = 0.07  # the same again after lifting shadows, which lifts black
    white: float = 0.9  # the lowest luma that may become white
    smooth_shadows: float = 1.0  # how far shadows without texture (a night sky, a silhouette) are left dark, 0..1
    dark_from: float = 0.16  # mean luma up to which a photo is meant to be dark and left unchanged
    dark_to: float = 0.32  # mean luma from which it is rendered in full

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in (self.strength, self.smooth_shadows, self.hold, self.vivid)):
            raise ValueError("the rendering's strength, smooth_shadows, hold and vivid must lie in 0..1")
        if not 0 <= self.dark_from < self.dark_to <= 1 or not 0 <= self.black < self.white <= 1:
            raise ValueError("the rendering's dark_from and black must lie below its dark_to and white, all in 0..1")


def render(photo: Tensor, config: RenderingConfig) -> Tensor:
    """The photos with `strength` of their rendering, less where a photo is meant to be dark."""
    mean = luma(photo).mean((1, 2, 3), keepdim=True)
    share = ((mean - config.dark_from) / (config.dark_to - config.dark_from)).clamp(0, 1)
    return photo + config.strength * share * (_rendered(photo, config) - photo)


def _rendered(photo: Tensor, config: RenderingConfig) -> Tensor:
    radius = base_radius(photo)
    x = _stretched(photo, config)
    y = luma(x)
    base = base_layer(y, radius)
    # Nearly black areas have nothing to lift.
    depth = ((0.5 - base) / 0.5).clamp(0, 1) ** 1.2 * (base / 0.06).clamp(0, 1) ** 0.7
    depth = depth * (1 - config.smooth_shadows * smooth_shadows(y, base, radius))
    gain = (1 + config.shadows * depth) * (1 - config.highlights * ((base - 0.75) / 0.25).clamp(0, 1))
    clearer = y + config.clarity * (y - base) * 4 * base * (1 - base)
    gain = gain * (clearer / y.clamp(min=0.02)).clamp(0.7, 1.4)
    rendered = _with_contrast(with_gain(x, gain), config.contrast)
    rendered = with_bright_colours_of(photo, rendered, config.hold)
    return _vibrant(_deepened(rendered, config.deep), config.vibrance)


def with_smooth_shadows_of(photo: Tensor, brighter: Tensor) -> Tensor:
    """`brighter` (N, 3, H, W), except in the smooth shadows of `photo`, where lifting shows only noise."""
    y, radius = luma(photo), base_radius(photo)
    return photo + (brighter - photo) * (1 - smooth_shadows(y, base_layer(y, radius), radius))


def with_bright_colours_of(photo: Tensor, brighter: Tensor, hold: float) -> Tensor:
    """`brighter` (N, 3, H, W), nearer to `photo` by `hold` (0..1) where that has bright skin or a bright vivid colour.

    Brighter skin is paler, too. What is darker than in `photo` stays.
    """
    if not hold:
        return brighter
    share = hold * _bright_colour(photo, base_radius(photo)) * (luma(brighter) > luma(photo)).to(photo)
    return torch.lerp(brighter, photo, share).clamp(0, 1)  # rounding leaves the range, and noise has no root there


def with_vivid_colours_of(photo: Tensor, other: Tensor, share: float) -> Tensor:
    """`other` (N, 3, H, W), where `photo` is vivid at most as saturated (HSV) as it, by `share` in 0..1.

    Undoing haze and setting black raise saturation everywhere: what was vivid before glares.
    """
    if not share:
        return other
    largest, before, after = other.amax(1, keepdim=True), _saturation(photo), _saturation(other)
    excess = (after - before).clamp(min=0) / after.clamp(min=1e-3)
    visible = ((photo.amax(1, keepdim=True) - 0.1) / 0.15).clamp(0, 1)  # in the dark, noise is as saturated
    vivid = ((before - 0.4) / 0.25).clamp(0, 1) * visible
    return largest - (largest - other) * (1 - share * vivid * excess)


def _saturation(photo: Tensor) -> Tensor:
    """HSV saturation (N, 1, H, W) in 0..1."""
    largest, smallest = photo.amax(1, keepdim=True), photo.amin(1, keepdim=True)
    return (largest - smallest) / largest.clamp(min=0.02)


def base_radius(photo: Tensor) -> int:
    """Radius in pixels of the base layer of photos (N, C, H, W)."""
    return max(1, round(_BASE_RADIUS * max(photo.shape[-2:])))


def _bright_colour(photo: Tensor, radius: int) -> Tensor:
    """Where skin or a saturated colour is already bright (N, 1, H, W), 0..1: brighter, it looks blown out or garish."""
    red, green, blue = photo.split(1, dim=1)
    largest, smallest = photo.amax(1, keepdim=True), photo.amin(1, keepdim=True)
    chroma, saturation = largest - smallest, _saturation(photo)
    warmth = (green - blue) / (red - blue).clamp(min=0.02)  # hue from red (0) to yellow (1)
    skin = (
        (red > green) & (green > blue) & (warmth > 0.15) & (warmth < 0.75) & (saturation > 0.15) & (saturation < 0.65)
    )
    bright_skin = skin.to(photo) * ((luma(photo) - 0.4) / 0.2).clamp(0, 1)
    vivid = ((chroma - 0.35) / 0.25).clamp(0, 1) * ((largest - 0.5) / 0.2).clamp(0, 1)
    return box_mean(torch.maximum(bright_skin, vivid), max(1, radius // 3))


def _stretched(photo: Tensor, config: RenderingConfig) -> Tensor:
    """Black and white set: luma's 0.3% and 99.7% ranks become 0 and 1, within the config's limits."""
    ordered = luma(photo).flatten(1).sort(dim=1).values
    low, high = (ordered[:, int(rank * ordered.shape[1])] for rank in (_BLACK_RANK, _WHITE_RANK))
    low, high = low.clamp(max=config.black).view(-1, 1, 1, 1), high.clamp(min=config.white).view(-1, 1, 1, 1)
    return ((photo - low) / (high - low)).clamp(0, 1)


def _with_contrast(x: Tensor, contrast: float) -> Tensor:
    """An S-curve, as a gain; its pivot is the mean of the largest channel, 0.4 at most: faces before a window."""
    largest = x.amax(1, keepdim=True)
    pivot = largest.mean((1, 2, 3), keepdim=True).clamp(max=0.4)
    return with_gain(x, torch.exp(2 * contrast * (largest - pivot)))


def _deepened(x: Tensor, most: float) -> Tensor:
    """Black set once more: luma's 1% rank comes to 0.01 where it is not far above; the mean stays."""
    ordered = luma(x).flatten(1).sort(dim=1).values
    low = (ordered[:, int(0.01 * ordered.shape[1])] - 0.01).clamp(0, most).view(-1, 1, 1, 1)
    deep = ((x - low) / (1 - low)).clamp(1e-6, 1)
    return with_mean(deep, luma(x).mean((1, 2, 3), keepdim=True))


def with_mean(photo: Tensor, mean: Tensor) -> Tensor:
    """Photos with their mean luma at `mean` (N, 1, 1, 1), by a power curve; values from 1e-6 on."""
    wanted, power = mean.clamp(0.001, 0.999), torch.ones_like(mean)
    for _ in range(2):  # the mean of powers is not the power of the mean; two iterations are close enough
        reached = luma(photo**power).mean((1, 2, 3), keepdim=True).clamp(0.001, 0.999)
        power = power * torch.log(wanted) / torch.log(reached)
    return photo**power


def _vibrant(x: Tensor, vibrance: float) -> Tensor:
    """More chroma for pale colours, but not for grays (a cast) or in the dark (noise)."""
    y = luma(x)
    chroma = x.amax(1, keepdim=True) - x.amin(1, keepdim=True)
    red, green, blue = x.split(1, dim=1)
    skin = 0.5 * ((red > green) & (green > blue)).to(x)
    pale = (1 - chroma / 0.35).clamp(0, 1) * ((chroma - 0.03) / 0.09).clamp(0, 1)
    return (y + (x - y) * (1 + vibrance * pale * (y / 0.2).clamp(0, 1) * (1 - skin))).clamp(0, 1)
