"""The global tone stage: a thumbnail of the whole photo decides one curve per channel and one colour matrix.

It runs in front of the refinement network and always in float: its cost does not depend on the photo's size, and the
decision is applied to every pixel by table look-up and a 3x3 product.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

THUMBNAIL_PX = 64  # the whole photo, squeezed to a square of this side by area averaging
# Larger photos are first reduced to about this short side, in strips, so that no second whole photo is held.
_OVERVIEW_PX = 1024
_STRIP_PIXELS = 1 << 20


@dataclass(frozen=True)
class ToneConfig:
    """Sizes of the tone stage."""

    knots: int = 17  # of each curve, evenly spaced over the sRGB-encoded range 0..1
    channels: int = 16  # of the first convolution; the next ones have 2, 4 and 4 times as many

    def __post_init__(self) -> None:
        if self.knots < 2 or self.channels < 1:
            raise ValueError(f"a tone stage needs 2 knots and 1 channel or more, not {self.knots} and {self.channels}")


class ToneStage(nn.Module):
    """Thumbnail (N, 3, 64, 64) in 0..1 to curves (N, 3, knots) and matrices (N, 3, 3); starts as the identity."""

    def __init__(self, config: ToneConfig) -> None:
        super().__init__()
        self.config = config
        widths = [3] + [config.channels * k for k in (1, 2, 4, 4)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in itertools.pairwise(widths))
        self.hidden = nn.Linear(2 * widths[-1], 4 * config.channels)
        self.decide = nn.Linear(4 * config.channels, 3 * config.knots + 9)
        nn.init.zeros_(self.decide.weight)
        nn.init.zeros_(self.decide.bias)

    @property
    def features(self) -> int:
        """Number of pooled features, means and maxima."""
        return self.hidden.in_features

    def forward(self, thumbnail: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Curves are monotone: a start (near 0, may be below) and non-negative steps between the knots.

        `kept` (N, features) is a factor of each pooled feature: the dropout of this stage's training.
        """
        x = thumbnail - 0.5
        for layer in self.convs:
            x = F.leaky_relu(layer(x), 0.2)
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        if kept is not None:
            x = x * kept
        raw = self.decide(F.leaky_relu(self.hidden(x), 0.2))
        curve, matrix = raw[:, : 3 * self.config.knots].unflatten(1, (3, -1)), raw[:, 3 * self.config.knots :]
        start = 0.1 * curve[..., :1]
        # softplus(x + ln(e - 1)) is 1 at x = 0: untrained, every step is that of the identity.
        steps = F.softplus(curve[..., 1:] + 0.541325) / (self.config.knots - 1)
        curves = torch.cat([start, start + steps.cumsum(-1)], dim=-1)
        identity = torch.eye(3, dtype=raw.dtype, device=raw.device)
        return curves, identity + 0.3 * matrix.unflatten(1, (3, 3))


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
    factor = max(1, min(pixels_hwc.shape[:2]) // _OVERVIEW_PX)
    rows = factor * max(1, _STRIP_PIXELS // (factor * pixels_hwc.shape[1]))
    strips = []
    for top in range(0, pixels_hwc.shape[0], rows):
        strip = pixels_hwc[top : top + rows]
        strip = strip if strip.dtype == np.uint8 else (strip >> 8).astype(np.uint8)
        strips.append(np.asarray(Image.fromarray(np.ascontiguousarray(strip)).reduce(factor)))
    return np.concatenate(strips)


def thumbnail(pixels_hwc: np.ndarray) -> Tensor:
    """The tone stage's view (1, 3, 64, 64) in 0..1 of a whole photo (H, W, 3), uint8 or uint16."""
    overview = Image.fromarray(reduced(pixels_hwc))
    small = overview.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1)[None]


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
