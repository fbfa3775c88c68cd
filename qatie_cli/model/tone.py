"""The global tone stage: a small view of the whole photo decides one curve per channel and one colour matrix.

It runs in front of the refinement network and always in float: its cost does not depend on the photo's size, and the
decision is applied to every pixel by table look-up and a 3x3 product.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qatie_cli.photo import resize
from qatie_cli.photo.colour import LUMA

# The whole photo is squeezed to a square of this side by area averaging, and every fourth pixel of every fourth row is
# kept: a thumbnail that still has the lamps and the letters which an average would have washed out.
VIEW_PX = 256
THUMBNAIL_PX = 64
# Ranks of the order statistics, as shares of the pixels: the ends say where black and white lie.
QUANTILES = (0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.997)
BLACK = 0.01  # what black may become: two and a half levels
DARK_AND_BRIGHT = (0.01, 0.99)  # ranks of the lumas that `contrast` compares
# Contrast up to which a photo is left alone, and from which the decision is applied in full.
FLAT, FULL = 0.15, 0.3
# Larger photos are first reduced to about this short side, in strips, so that no second whole photo is held.
_OVERVIEW_PX = 1024


@dataclass(frozen=True)
class ToneConfig:
    """Sizes of the tone stage."""

    knots: int = 17  # of each curve, evenly spaced over the sRGB-encoded range 0..1
    channels: int = 16  # of the first convolution; the next ones have 2, 4 and 4 times as many; 0 for none of them
    bins: int = 0  # of the histograms of red, green, blue and luma; 0 for none
    quantiles: bool = False  # of red, green, blue, luma and each pixel's largest and smallest channel

    def __post_init__(self) -> None:
        if self.knots < 2 or self.channels < 0 or self.bins < 0:
            raise ValueError(f"a tone stage needs 2 knots or more and no negative number, not {self}")
        if self.bins == 1 or not (self.channels or self.bins or self.quantiles):
            raise ValueError("a tone stage needs channels, 2 bins or more, or quantiles to see a photo by")

    @property
    def statistics(self) -> int:
        """Number of statistics it sees."""
        return (8 * self.bins + 6 if self.bins else 0) + (6 * len(QUANTILES) if self.quantiles else 0)


class ToneStage(nn.Module):
    """Thumbnail (N, 3, 64, 64) in 0..1 to curves (N, 3, knots) and matrices (N, 3, 3); starts as the identity.

    It sees pooled convolutional features, the photo's statistics (`statistics`, `quantiles`), or both. Statistics
    cannot identify a photo, so a few hundred photos are enough to train on; convolutions overfit to so few.
    """

    def __init__(self, config: ToneConfig) -> None:
        super().__init__()
        self.config = config
        widths = [3] + [config.channels * k for k in (1, 2, 4, 4)]
        pairs = itertools.pairwise(widths) if config.channels else ()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in pairs)
        seen = (2 * widths[-1] if config.channels else 0) + config.statistics
        width = 4 * (config.channels or 16)
        self.hidden = nn.Linear(seen, width)
        self.second = nn.Linear(width, width) if config.statistics else None
        self.decide = nn.Linear(width, 3 * config.knots + 9)
        nn.init.zeros_(self.decide.weight)
        nn.init.zeros_(self.decide.bias)

    @property
    def features(self) -> int:
        """Number of hidden features, to which dropout applies."""
        return self.hidden.out_features

    def seen(self, thumbnail: Tensor) -> Tensor:
        """Input features (N, values) of the decision."""
        parts = []
        if self.config.channels:
            x = thumbnail - 0.5
            for layer in self.convs:
                x = F.leaky_relu(layer(x), 0.2)
            parts += [x.mean((2, 3)), x.amax((2, 3))]
        if self.config.bins:
            parts.append(statistics(thumbnail, self.config.bins))
        if self.config.quantiles:
            parts.append(quantiles(thumbnail))
        return torch.cat(parts, dim=1)

    def forward(self, thumbnail: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Curves are monotone (a start near 0, then non-negative steps from knot to knot), their ends pinned.

        Photos of almost no contrast (a wall, fog, a blank page) are left as they are: see `confidence`.
        `kept` (N, features) is a factor of each hidden feature: dropout in training.
        """
        x = F.leaky_relu(self.hidden(self.seen(thumbnail)), 0.2)
        if kept is not None:
            x = x * kept
        if self.second is not None:
            x = F.leaky_relu(self.second(x), 0.2)
        raw = self.decide(x) * confidence(thumbnail)
        curve, matrix = raw[:, : 3 * self.config.knots].unflatten(1, (3, -1)), raw[:, 3 * self.config.knots :]
        start = 0.1 * curve[..., :1]
        # softplus(x + ln(e - 1)) is 1 at x = 0: untrained, every step is that of the identity.
        steps = F.softplus(curve[..., 1:] + 0.541325) / (self.config.knots - 1)
        curves = torch.cat([start, start + steps.cumsum(-1)], dim=-1)
        identity = torch.eye(3, dtype=raw.dtype, device=raw.device)
        matrices = identity + 0.3 * matrix.unflatten(1, (3, 3))
        return with_pinned_ends(curves, matrices), matrices


def confidence(thumbnail: Tensor) -> Tensor:
    """Share (N, 1) in 0..1 of the decided change that is applied to thumbnails' photos (N, 3, H, W): 0 for flat ones.

    A wall or fog does not lack contrast; stretched, it shows its noise and its JPEG's banding. Of the degraded photos
    that a stage is trained on, one in a hundred has so little contrast.
    """
    return ((contrast(thumbnail) - FLAT) / (FULL - FLAT)).clamp(0, 1)


def contrast(thumbnail: Tensor) -> Tensor:
    """(bright - dark) / bright of thumbnails (N, 3, H, W): (N, 1) in 0..1.

    Dark and bright are luma's 1st and 99th percentile, so that specks do not count.
    """
    dark, bright = _ranked(_luma(thumbnail).flatten(1), DARK_AND_BRIGHT).unbind(1)
    return ((bright - dark) / bright.clamp(min=1 / 255))[:, None]


def with_pinned_ends(curves: Tensor, matrices: Tensor) -> Tensor:
    """Curves (N, 3, knots) that keep white white and black black after the matrices (N, 3, 3).

    Clipped highlights cannot be recovered: darkened they turn paper gray, and lifted shadows look like a veil. What the
    ends lack is added with `end_weights`. First order only: what a matrix carries to other channels is ignored.
    """
    towards_white, towards_black = curves.new_tensor(end_weights(curves.shape[-1]))
    white, black = (torch.bmm(matrices, curves[..., end]) for end in (slice(-1, None), slice(0, 1)))
    return curves + towards_white * (1 - white).clamp(min=0) - towards_black * (black - BLACK).clamp(min=0)


def end_weights(knots: int) -> np.ndarray:
    """Weights (2, knots) by which knots follow their curve's end: to white from 0.7 on, to black below 0.25."""
    position = np.linspace(0, 1, knots)
    return np.stack([np.maximum((position - 0.7) / 0.3, 0) ** 2, np.maximum(1 - 4 * position, 0)]).astype(np.float32)


def statistics(thumbnail: Tensor, bins: int) -> Tensor:
    """Statistics (N, 8 * bins + 6) of thumbnails (N, 3, H, W) in 0..1, wherever in the picture things are.

    Histograms of red, green, blue and luma (a value counts for the two nearest bins, by its distance), as square roots
    of the shares and as running sums; then the mean and the deviation of chroma (largest less smallest channel), the
    means of red and of blue less luma, the mean and the deviation of luma, scaled to like sizes.
    """
    luma = _luma(thumbnail)
    position = torch.cat([thumbnail, luma], dim=1).flatten(2) * (bins - 1)
    left = position.floor().clamp(0, bins - 2)
    index, share = left.long(), position - left
    counts = position.new_zeros(*position.shape[:2], bins)
    counts = counts.scatter_add(2, index, 1 - share).scatter_add(2, index + 1, share) / position.shape[2]
    chroma = (thumbnail.amax(1) - thumbnail.amin(1)).flatten(1)
    apart, luma = (thumbnail - luma).mean((2, 3)), luma.flatten(1)
    moments = [chroma.mean(1), chroma.std(1), 4 * apart[:, 0], 4 * apart[:, 2], luma.mean(1), 3 * luma.std(1)]
    # Rounding may leave a bin a little below 0.
    return torch.cat(
        [counts.clamp(min=0).sqrt().flatten(1), counts.cumsum(-1).flatten(1), torch.stack(moments, 1)], dim=1
    )


def _luma(photo: Tensor) -> Tensor:
    """Luma (N, 1, H, W) of (N, 3, H, W)."""
    return (photo * photo.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def rank_indices(ranks: Sequence[float], pixels: int) -> list[int]:
    """Indices of these ranks (shares of the pixels) among sorted values, smallest first."""
    return [math.ceil(share * pixels) - 1 for share in ranks]


def _ranked(values: Tensor, ranks: Sequence[float]) -> Tensor:
    """Order statistics (..., ranks) of values (..., pixels)."""
    ordered = values.topk(values.shape[-1], largest=False).values
    return ordered[..., rank_indices(ranks, values.shape[-1])]


def quantiles(thumbnail: Tensor) -> Tensor:
    """`QUANTILES` (N, 66) of thumbnails (N, 3, H, W) in 0..1, scaled to -1..1.

    Those of red, green, blue and luma, then of each pixel's largest and smallest channel. A histogram says little of
    the few pixels at its ends; where these lie tells a photo that lacks white or black from one that does not.
    """
    luma = _luma(thumbnail)
    extremes = thumbnail.amax(1, keepdim=True), thumbnail.amin(1, keepdim=True)
    values = torch.cat([thumbnail, luma, *extremes], dim=1).flatten(2)
    return 2 * _ranked(values, QUANTILES).flatten(1) - 1


def apply_tone(photo: Tensor, curves: Tensor, matrices: Tensor) -> Tensor:
    """Differentiable tone: photo (N, 3, H, W) in 0..1 by curves (N, 3, knots) and matrices (N, 3, 3), unclamped."""
    n, _, height, width = photo.shape
    position = photo.clamp(0, 1).flatten(2) * (curves.shape[-1] - 1)
    left = position.floor().clamp(max=curves.shape[-1] - 2)
    index = left.long()
    low, high = curves.gather(2, index), curves.gather(2, index + 1)
    curved = low + (high - low) * (position - left)
    return torch.bmm(matrices, curved).view(n, 3, height, width)


def reduced(pixels_hwc: np.ndarray) -> np.ndarray:
    """A whole photo (H, W, 3), uint8 or uint16, reduced to a short side of about 1024 px where it is larger: uint8."""
    return resize.reduce_by(pixels_hwc, max(1, min(pixels_hwc.shape[:2]) // _OVERVIEW_PX), _high_bytes)


def _high_bytes(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def thumbnail(pixels_hwc: np.ndarray) -> Tensor:
    """The tone stage's view (1, 3, 64, 64) in 0..1 of a whole photo (H, W, 3), uint8 or uint16."""
    return torch.from_numpy(thumbnail_u8(pixels_hwc).astype(np.float32) / 255).permute(2, 0, 1)[None]


def thumbnail_u8(pixels_hwc: np.ndarray) -> np.ndarray:
    """The same as a picture (64, 64, 3) uint8."""
    return np.ascontiguousarray(points(resize.to_square(reduced(pixels_hwc), VIEW_PX)))


def points(view_hwc: np.ndarray) -> np.ndarray:
    """The pixels (64, 64, 3) of a view (256, 256, 3) of the whole photo that make its thumbnail."""
    step = VIEW_PX // THUMBNAIL_PX
    return view_hwc[step // 2 :: step, step // 2 :: step]


@dataclass(frozen=True)
class ToneMap:
    """One photo's decision: `curves` (3, knots) over input 0..1 and `matrix` (3, 3), both float32."""

    curves: np.ndarray
    matrix: np.ndarray

    def table(self, levels: int) -> np.ndarray:
        """What each input level of each channel adds to the output: (3 inputs, levels, 3 outputs) float32.

        `levels` is 256 for 8 bit and 65,536 for 16 bit. The matrix is folded into the curves' values.
        """
        inputs = np.linspace(0, 1, levels)
        knots = np.linspace(0, 1, self.curves.shape[1])
        curved = np.stack([np.interp(inputs, knots, curve) for curve in self.curves])
        return (curved[:, :, None] * self.matrix.T[:, None, :]).astype(np.float32)


def apply_table(rows_hwc: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Rows (h, W, 3) of uint8 or uint16, toned: float32, clamped to 0..1; `table` is that of `ToneMap.table`.

    Three look-ups and two sums a pixel took a twentieth of the time of three curves and a matrix product.
    """
    toned = np.take(table[0], rows_hwc[..., 0], axis=0)
    for channel in (1, 2):
        toned += np.take(table[channel], rows_hwc[..., channel], axis=0)
    return np.clip(toned, 0, 1, out=toned)


@torch.no_grad()
def decide(stage: ToneStage | None, pixels_hwc: np.ndarray) -> ToneMap | None:
    """The tone map of a whole photo (H, W, 3), uint8 or uint16, or None where the weights have no tone stage."""
    if stage is None:
        return None
    curves, matrices = stage(thumbnail(pixels_hwc))
    return ToneMap(curves[0].numpy(), matrices[0].numpy())
