"""Means over windows, and what is built of them: base layers, and where shadows are smooth. Photos are (N, C, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qatie_cli.model.config import BASE_EPSILON


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Means over windows of 2 * `radius` + 1 pixels; at the edges over the pixels that there are.

    Running sums: `avg_pool2d` took three to six times as long.
    """
    for axis in (2, 3):
        pixels = torch.arange(x.shape[axis], device=x.device)
        first, end = (pixels - radius).clamp(min=0), (pixels + radius + 1).clamp(max=x.shape[axis])
        before = (0, 0, 1, 0) if axis == 2 else (1, 0)
        sums = F.pad(x.cumsum(axis), before)
        count = (end - first).view((-1, 1) if axis == 2 else (-1,))
        x = (sums.index_select(axis, end) - sums.index_select(axis, first)) / count
    return x


def base_layer(y: Tensor, radius: int) -> Tensor:
    """Luma (N, 1, H, W) without texture, edges kept: the guided filter of `y` by itself (He et al. 2010), twice."""
    slope, offset = base_lines(y, radius)
    return slope * y + offset


def base_lines(y: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """The lines by which `base_layer` depends on luma around every pixel: slope and offset (N, 1, H, W).

    They may be enlarged and applied to a larger version of the same picture (He and Sun 2015, "Fast Guided Filter").
    """
    first = _lines(y, radius)
    second = _lines(first[0] * y + first[1], radius)
    return second[0] * first[0], second[0] * first[1] + second[1]


def _lines(y: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    mean = box_mean(y, radius)
    variance = (box_mean(y * y, radius) - mean * mean).clamp(min=0)
    slope = variance / (variance + BASE_EPSILON)
    return box_mean(slope, radius), box_mean(mean - slope * mean, radius)


def smooth_shadows(y: Tensor, base: Tensor, radius: int) -> Tensor:
    """Where luma `y` (N, 1, H, W) is dark and without texture around its base layer, 0..1: night skies, silhouettes."""
    texture = box_mean((y - base).abs(), 2 * radius) / (base + 0.03)
    return (1 - ((texture - 0.025) / 0.06).clamp(0, 1)) * ((0.3 - base) / 0.1).clamp(0, 1)
