"""The tone stage: a small view of the whole photo decides its tone, as a whole and from place to place.

It decides one curve per channel and one colour matrix for the whole photo and, where it is configured so, a coarse grid
of gains over position and luma. It runs in front of the refinement network and always in float: its cost does not
depend on the photo's size, but for applying what is decided (`tone_map`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qatie_cli.model.tone_features import QUANTILES, confidence, quantiles, statistics, texture_confidence
from qatie_cli.model.tone_map import Decision, ToneMap, with_pinned_ends
from qatie_cli.photo import resize

THUMBNAIL_PX = 64  # side of the thumbnail that statistics are taken from
# A stage that decides for the whole photo only sees every fourth pixel of every fourth row of a view of this side, made
# by area averaging: a thumbnail that still has the lamps and the letters which an average would have washed out.
GLOBAL_VIEW_PX = 256
# One that decides from place to place sees all of a view of this side; its statistics, every second pixel.
LOCAL_VIEW_PX = 128
LARGEST_GAIN_EV = 1.5
# Larger photos are first reduced to about this short side, in strips, so that no second whole photo is held.
_OVERVIEW_PX = 1024


@dataclass(frozen=True)
class ToneConfig:
    """Sizes of the tone stage."""

    knots: int = 17  # of each curve, evenly spaced over the sRGB-encoded range 0..1
    channels: int = 16  # of the first convolution; the next ones have 2, 4 and 4 times as many; 0 for none of them
    bins: int = 0  # of the histograms of red, green, blue and luma; 0 for none
    quantiles: bool = False  # of red, green, blue, luma and each pixel's largest and smallest channel
    grid: int = 0  # cells along each side of the photo that gains are decided for: 8, 16 or 32; 0 for none
    depth: int = 8  # cells of the grid along luma

    def __post_init__(self) -> None:
        if self.knots < 2 or self.channels < 0 or self.bins < 0:
            raise ValueError(f"a tone stage needs 2 knots or more and no negative number, not {self}")
        if self.bins == 1 or not (self.channels or self.bins or self.quantiles):
            raise ValueError("a tone stage needs channels, 2 bins or more, or quantiles to see a photo by")
        if self.grid and (self.grid not in (8, 16, 32) or self.depth < 2 or not self.channels or not self.statistics):
            raise ValueError(
                f"a grid has 8, 16 or 32 cells a side, 2 or more along luma, and needs channels and statistics: {self}"
            )

    @property
    def statistics(self) -> int:
        """Number of statistics it sees."""
        return (8 * self.bins + 6 if self.bins else 0) + (6 * len(QUANTILES) if self.quantiles else 0)

    @property
    def view_px(self) -> int:
        """Side of the square view of the photo that the stage is given."""
        return LOCAL_VIEW_PX if self.grid else THUMBNAIL_PX


class ToneStage(nn.Module):
    """View (N, 3, view_px, view_px) in 0..1 to a `Decision`; untrained, it decides to change nothing.

    It sees pooled convolutional features, the photo's statistics (`tone_features`), or both. Statistics cannot identify
    a photo, so a few hundred photos are enough to train on; convolutions overfit to so few.
    """

    def __init__(self, config: ToneConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        widths = [3, c, 2 * c, 4 * c, 4 * c]
        if config.grid:  # halved until a pixel stands for a cell of the grid
            widths = widths[: (LOCAL_VIEW_PX // config.grid).bit_length()]
        pairs = itertools.pairwise(widths) if c else ()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in pairs)
        seen = ((8 * c if config.grid else 2 * widths[-1]) if c else 0) + config.statistics
        width = 4 * (c or 16)
        self.hidden = nn.Linear(seen, width)
        self.second = nn.Linear(width, width) if config.statistics else None
        self.decide = nn.Linear(width, 3 * config.knots + 9)
        nn.init.zeros_(self.decide.weight)
        nn.init.zeros_(self.decide.bias)
        if config.grid:
            self.coarse = nn.ModuleList(nn.Conv2d(i, 4 * c, 3, stride=2, padding=1) for i in (widths[-1], 4 * c))
            self.context = nn.Linear(width, 4 * c)
            self.local = nn.ModuleList(nn.Conv2d(i, 4 * c, 3, padding=1) for i in (widths[-1], 4 * c))
            self.gains = nn.Conv2d(4 * c, config.depth, 1)
            for parameter in self.gains.parameters():
                nn.init.zeros_(parameter)

    @property
    def features(self) -> int:
        """Number of hidden features, to which dropout applies."""
        return self.hidden.out_features

    def forward(self, view: Tensor, kept: Tensor | None = None) -> Decision:
        """Curves are monotone (a start near 0, then non-negative steps from knot to knot), their ends pinned.

        Photos of almost no contrast (a wall, fog, a blank page) are left as they are: see `tone_features.confidence`.
        `kept` (N, features) is a factor of each hidden feature: dropout in training.
        """
        thumbnail = statistics_view(view)
        x = view - 0.5
        for layer in self.convs:
            x = F.leaky_relu(layer(x), 0.2)
        hidden = F.leaky_relu(self.hidden(self._seen(x, thumbnail)), 0.2)
        if kept is not None:
            hidden = hidden * kept
        if self.second is not None:
            hidden = F.leaky_relu(self.second(hidden), 0.2)
        trust = confidence(thumbnail)
        if self.config.grid:
            trust = trust * texture_confidence(view)
        raw = self.decide(hidden) * trust
        curve, matrix = raw[:, : 3 * self.config.knots].unflatten(1, (3, -1)), raw[:, 3 * self.config.knots :]
        start = 0.1 * curve[..., :1]
        # softplus(x + ln(e - 1)) is 1 at x = 0: untrained, every step is that of the identity.
        steps = F.softplus(curve[..., 1:] + 0.541325) / (self.config.knots - 1)
        curves = torch.cat([start, start + steps.cumsum(-1)], dim=-1)
        identity = torch.eye(3, dtype=raw.dtype, device=raw.device)
        matrices = identity + 0.3 * matrix.unflatten(1, (3, 3))
        grids = self._grids(x, hidden) * trust[:, :, None, None] if self.config.grid else None
        return Decision(with_pinned_ends(curves, matrices), matrices, grids)

    def _seen(self, x: Tensor, thumbnail: Tensor) -> Tensor:
        """Input features (N, values) of the decision: of the last convolution's output, and statistics."""
        parts = []
        if self.config.grid:
            for layer in self.coarse:
                x = F.leaky_relu(layer(x), 0.2)
        if self.config.channels:
            parts += [x.mean((2, 3)), x.amax((2, 3))]
        if self.config.bins:
            parts.append(statistics(thumbnail, self.config.bins))
        if self.config.quantiles:
            parts.append(quantiles(thumbnail))
        return torch.cat(parts, dim=1)

    def _grids(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Gains (N, depth, grid, grid) in EV, from features of the cells and what is known of the whole photo."""
        first, second = self.local
        x = F.leaky_relu(first(x) + self.context(hidden)[:, :, None, None], 0.2)
        x = F.leaky_relu(second(x), 0.2)
        return LARGEST_GAIN_EV * torch.tanh(self.gains(x))


def statistics_view(view: Tensor) -> Tensor:
    """The thumbnail (N, 3, 64, 64) that statistics are taken from: every so many pixels of a view."""
    step = view.shape[-1] // THUMBNAIL_PX
    return view[..., step // 2 :: step, step // 2 :: step]


def reduced(pixels_hwc: np.ndarray) -> np.ndarray:
    """A whole photo (H, W, 3), uint8 or uint16, reduced to a short side of about 1024 px where it is larger: uint8."""
    return resize.reduce_by(pixels_hwc, max(1, min(pixels_hwc.shape[:2]) // _OVERVIEW_PX), _high_bytes)


def _high_bytes(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def view(pixels_hwc: np.ndarray, side: int = THUMBNAIL_PX) -> Tensor:
    """The view (1, 3, side, side) in 0..1 that a stage of this `view_px` is given of a photo (H, W, 3), 8 or 16 bit."""
    return torch.from_numpy(view_u8(pixels_hwc, side).astype(np.float32) / 255).permute(2, 0, 1)[None]


def view_u8(pixels_hwc: np.ndarray, side: int = THUMBNAIL_PX) -> np.ndarray:
    """The same as a picture (side, side, 3) uint8."""
    return np.ascontiguousarray(subsampled(resize.to_square(reduced(pixels_hwc), averaged_px(side)), side))


def averaged_px(side: int) -> int:
    """Side of the square that the view of a stage's `view_px` is taken from."""
    return LOCAL_VIEW_PX if side == LOCAL_VIEW_PX else GLOBAL_VIEW_PX


def subsampled(averaged_hwc: np.ndarray, side: int) -> np.ndarray:
    """Of an averaged square (S, S, 3) the pixels (side, side, 3) that make a view: every S / side-th of each row."""
    step = averaged_hwc.shape[0] // side
    return averaged_hwc[step // 2 :: step, step // 2 :: step]


@torch.no_grad()
def decide(stage: ToneStage | None, pixels_hwc: np.ndarray) -> ToneMap | None:
    """The tone map of a whole photo (H, W, 3), uint8 or uint16, or None where the weights have no tone stage."""
    if stage is None:
        return None
    decision = stage(view(pixels_hwc, stage.config.view_px))
    grid = None if decision.grids is None else np.ascontiguousarray(decision.grids[0].permute(1, 2, 0).numpy())
    return ToneMap(decision.curves[0].numpy(), decision.matrices[0].numpy(), grid)
