"""What the tone stage knows of a photo beside what its convolutions see: histograms, order statistics, contrast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qatie_cli.model.config import (
    DARK_AND_BRIGHT,
    FLAT,
    FULL,
    QUANTILES,
    SMOOTH,
    STRUCTURED,
    TEXTURE_BLOCK,
    TEXTURED,
    rank_indices,
)
from qatie_cli.photo.colour import LUMA


def confidence(thumbnail: Tensor) -> Tensor:
    """Share (N, 1) in 0..1 of the decided change that is applied to thumbnails' photos (N, 3, H, W): 0 for flat ones.

    A wall or fog does not lack contrast; stretched, it shows its noise and its JPEG's banding. Of the degraded photos
    that a stage is trained on, one in a hundred has so little contrast.
    """
    return ((contrast(thumbnail) - FLAT) / (FULL - FLAT)).clamp(0, 1)


def texture_confidence(view: Tensor) -> Tensor:
    """Share (N, 1) in 0..1 of the decided change that is applied to views (N, 3, H, W): 0 for smooth photos.

    A photo that is smooth nearly everywhere (a lamp on a wall, an empty sky over dark land) has no detail to open or to
    show better: what a stage changes there shows as noise, colour blotches and banding.
    """
    y = luma(view)
    mean = F.avg_pool2d(y, TEXTURE_BLOCK)
    deviation = (F.avg_pool2d(y * y, TEXTURE_BLOCK) - mean * mean).clamp(min=0).sqrt()
    # Soft at the threshold, so that no grain of noise tips a block over.
    textured = (deviation / (mean + 0.1) / TEXTURED - 0.5).clamp(0, 1)
    return ((textured.mean((2, 3)) - SMOOTH) / (STRUCTURED - SMOOTH)).clamp(0, 1)


def contrast(thumbnail: Tensor) -> Tensor:
    """(bright - dark) / bright of thumbnails (N, 3, H, W): (N, 1) in 0..1.

    Dark and bright are luma's 1st and 99th percentile, so that specks do not count.
    """
    dark, bright = ranked(luma(thumbnail).flatten(1), DARK_AND_BRIGHT).unbind(1)
    return ((bright - dark) / bright.clamp(min=1 / 255))[:, None]


def statistics(thumbnail: Tensor, bins: int) -> Tensor:
    """Statistics (N, 8 * bins + 6) of thumbnails (N, 3, H, W) in 0..1, wherever in the picture things are.

    Histograms of red, green, blue and luma (a value counts for the two nearest bins, by its distance), as square roots
    of the shares and as running sums; then the mean and the deviation of chroma (largest less smallest channel), the
    means of red and of blue less luma, the mean and the deviation of luma, scaled to like sizes.
    """
    y = luma(thumbnail)
    position = torch.cat([thumbnail, y], dim=1).flatten(2) * (bins - 1)
    left = position.floor().clamp(0, bins - 2)
    index, share = left.long(), position - left
    counts = position.new_zeros(*position.shape[:2], bins)
    counts = counts.scatter_add(2, index, 1 - share).scatter_add(2, index + 1, share) / position.shape[2]
    chroma = (thumbnail.amax(1) - thumbnail.amin(1)).flatten(1)
    apart, y = (thumbnail - y).mean((2, 3)), y.flatten(1)
    moments = [chroma.mean(1), chroma.std(1), 4 * apart[:, 0], 4 * apart[:, 2], y.mean(1), 3 * y.std(1)]
    # Rounding may leave a bin a little below 0.
    return torch.cat(
        [counts.clamp(min=0).sqrt().flatten(1), counts.cumsum(-1).flatten(1), torch.stack(moments, 1)], dim=1
    )


def luma(photo: Tensor) -> Tensor:
    """Luma (N, 1, H, W) of (N, 3, H, W)."""
    return (photo * photo.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def ranked(values: Tensor, ranks: Sequence[float]) -> Tensor:
    """Order statistics (..., ranks) of values (..., pixels)."""
    ordered = values.topk(values.shape[-1], largest=False).values
    return ordered[..., rank_indices(ranks, values.shape[-1])]


def quantiles(thumbnail: Tensor) -> Tensor:
    """`QUANTILES` (N, 66) of thumbnails (N, 3, H, W) in 0..1, scaled to -1..1.

    Those of red, green, blue and luma, then of each pixel's largest and smallest channel. A histogram says little of
    the few pixels at its ends; where these lie tells a photo that lacks white or black from one that does not.
    """
    extremes = thumbnail.amax(1, keepdim=True), thumbnail.amin(1, keepdim=True)
    values = torch.cat([thumbnail, luma(thumbnail), *extremes], dim=1).flatten(2)
    return 2 * ranked(values, QUANTILES).flatten(1) - 1
