"""What a tone stage decides for every pixel of its view, by rules: what stays as bright as it was, local contrast.

Cells are too coarse to tell a face from the wall behind it, or to make texture stand out. Nothing here is learnt, so
that nothing depends on the photos of a training; strengths are those of `ToneConfig`. All pictures are (N, C, S, S).
"""

from __future__ import annotations

import torch
from torch import Tensor

from qatie_cli.model.config import (
    BASE_PX,
    BRIGHT_SKIN,
    BUSY,
    CLIPPED,
    CLIPPED_SHARE,
    DARK_AND_BRIGHT,
    DARKENED,
    FACE_PX,
    FAINT,
    GRAY,
    GRAY_CLARITY,
    HOLD_PX,
    LIT,
    PALE_SKIN,
    SHADOW,
    SKIN,
    SKIN_CLARITY,
    SMOOTH_SHARE,
    UNDEREXPOSED,
    VEILED,
    WARMTH,
)
from qatie_cli.model.tone_features import luma, ranked
from qatie_cli.model.windows import base_layer, base_lines, box_mean, smooth_shadows


def held(photo: Tensor, toned: Tensor, brightened: Tensor) -> Tensor:
    """Where a photo is to stay as bright as it was, 0..1 (N, 1, S, S).

    Smooth shadows and bright skin are: lifted, a table in the dark or a night sky shows its noise, and a face in the
    light loses its colour. Not those of a photo few of whose shadows are smooth, or a night sky would be lifted around
    the branches before it, nor those of one that is made much brighter: it was underexposed.

    Args:
        photo: the view, as `toned`, behind curves and matrix, and `brightened`, with the gains of the grid, too.
    """
    y = luma(toned)
    base = base_layer(y, HOLD_PX)
    shadows, all_over = smooth_shadows(y, base, HOLD_PX), (1, 2, 3)
    smooth, dark = (share.mean(all_over, keepdim=True) for share in (shadows, ramp(base, *SHADOW)))
    shadows = shadows * ramp(smooth / dark.clamp(min=0.01), *SMOOTH_SHARE)
    shadows = shadows * ramp((luma(brightened) - luma(photo)).mean(all_over, keepdim=True), *UNDEREXPOSED)
    bright = skin(photo, PALE_SKIN) * ramp(luma(photo), *BRIGHT_SKIN)
    return torch.maximum(shadows, box_mean(bright, FACE_PX))


def contrast_lines(toned: Tensor, clarity: float) -> Tensor:
    """Local contrast of a toned view as lines of luma: slopes and offsets (N, 2, S, S) of what is added.

    What is added is a share of the difference to the base layer: most where there is structure, little where it is
    as faint as noise or rich in contrast already, in the dark, on skin and on what is gray, which would look rough.
    """
    y = luma(toned)
    slope, offset = base_lines(y, BASE_PX)
    base = slope * y + offset
    detail = y - base
    power = box_mean(detail * detail, 2 * BASE_PX)
    share = power / (power + FAINT**2) * BUSY**2 / (power + BUSY**2)
    rough = torch.maximum(SKIN_CLARITY * skin(toned, SKIN), GRAY_CLARITY * ramp(_saturation(toned), *GRAY))
    share = share * ramp(base, *LIT) * (1 - box_mean(rough, 2 * BASE_PX))
    return clarity * torch.cat([share * (1 - slope), -share * offset], 1)


def skin(photo: Tensor, saturations: tuple[float, float, float, float]) -> Tensor:
    """How much like skin every pixel is, 0..1 (N, 1, S, S): by hue, from red to yellow, and saturation (HSV)."""
    red, green, blue = photo.split(1, dim=1)
    # Hue from red (0) to yellow (1); beyond either, other hues.
    warmth = (green - blue) / (red - blue).clamp(min=0.02)
    likely = _within(warmth, WARMTH) * _within(_saturation(photo), saturations)
    return likely * ramp(photo.amax(1, keepdim=True), 0.2, 0.35)


def _saturation(photo: Tensor) -> Tensor:
    largest = photo.amax(1, keepdim=True)
    return (largest - photo.amin(1, keepdim=True)) / largest.clamp(min=0.02)


def _within(x: Tensor, limits: tuple[float, float, float, float]) -> Tensor:
    """1 between the second and the third limit, 0 outside the first and the fourth."""
    first, second, third, fourth = limits
    return ramp(x, first, second) * ramp(x, fourth, third)


def ramp(x: Tensor, nothing: float, all_of_it: float) -> Tensor:
    """0 at `nothing`, 1 at `all_of_it`, linear between."""
    return ((x - nothing) / (all_of_it - nothing)).clamp(0, 1)


def darkened(thumbnail: Tensor, toned: Tensor) -> Tensor:
    """How much a photo was darkened as a whole, 0..1 (N, 1, 1)."""
    return ((luma(thumbnail) - luma(toned)).mean((2, 3)) / DARKENED).clamp(0, 1)[:, :, None]


def meant_to_be_bright(thumbnail: Tensor) -> Tensor:
    """How far a photo that is bright may be taken to be meant so, 0..1 (N, 1, 1).

    Overexposed photos have clipped highlights, and those with haze or flare have no black.
    """
    clipped = (thumbnail.amax(1, keepdim=True) - CLIPPED[0]).div(CLIPPED[1] - CLIPPED[0]).clamp(0, 1).mean((2, 3))
    veiled = ramp(ranked(luma(thumbnail).flatten(1), DARK_AND_BRIGHT[:1]), *VEILED)
    return ((1 - ramp(clipped, *CLIPPED_SHARE)) * (1 - veiled))[:, :, None]
