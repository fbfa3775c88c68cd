"""The residual of a reduced photo brought to full resolution, guided by the photo: edges stay where they are.

He and Sun, "Fast Guided Filter" (arXiv 1505.00996): in each small window the residual is taken as a line through the
photo's values, a * photo + b, fitted at the reduced resolution; a and b are enlarged instead of the residual. Where the
network took noise away, a is near -1, so the noise that the reduction had averaged away goes, too.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qatie_cli import kernels
from qatie_cli.kernels.threads import over_rows

RADIUS = 2  # of a window, in pixels of the reduced photo; as in kernels.lines
MIRRORED_PX = 16  # by which the reduced photo goes on beyond its edges for the network, a multiple of 8
_STRIP_ROWS = 64
EPSILON = 1e-5  # of a channel's variance: below about a level of 8 bit, the photo says nothing about the residual


class GuidedResidual:
    """Lines from photo to residual, for every pixel of a reduced photo.

    Args:
        reduced: what the network saw, (h, w, 3) uint8.
        residual: what it answered, (h, w, 3) float32.
        factor: side of the square of full-size pixels for each reduced one.
    """

    def __init__(self, reduced: np.ndarray, residual: np.ndarray, factor: int) -> None:
        self.factor = factor
        # (h, 6, w): three slopes, then three offsets
        self.lines = (
            _compiled(reduced, residual) if kernels.usable(reduced.size // 3) else _in_strips(reduced, residual)
        )

    def rows(self, top: int, photo: np.ndarray) -> np.ndarray:
        """Residual of the full-size rows from `top` on; `photo` are these rows, (h, W, 3) float32 in 0..1."""
        height, width = photo.shape[:2]
        above, down = self.neighbours(top, height, self.lines.shape[0])
        left, across = self.neighbours(0, width, self.lines.shape[2])
        part = self.lines[above]
        part += (self.lines[np.minimum(above + 1, self.lines.shape[0] - 1)] - part) * down[:, None, None]
        steps = np.diff(part, axis=2, append=part[..., -1:])
        large = part[..., left] + steps[..., left] * across
        slope, offset = large[:, :3].transpose(0, 2, 1), large[:, 3:].transpose(0, 2, 1)
        return offset + slope * photo

    def neighbours(self, first: int, pixels: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Of full-size pixels from `first` on along a side: the reduced one before each, and the share of the next."""
        centres = np.arange(first, first + pixels, dtype=np.float64) + 0.5
        position = np.clip(centres / self.factor - 0.5, 0, cells - 1)
        before = position.astype(np.int64)
        return before, (position - before).astype(np.float32)


def _compiled(reduced: np.ndarray, residual: np.ndarray) -> np.ndarray:
    from qatie_cli.kernels import lines

    height, width = reduced.shape[:2]
    out = np.empty((height, 6, width), np.float32)
    given = np.ascontiguousarray(reduced), np.ascontiguousarray(residual), np.float32(EPSILON)
    over_rows(height, out.size, lambda first, last: lines.fitted(*given, first, last, out))
    return out


def _in_strips(reduced: np.ndarray, residual: np.ndarray) -> np.ndarray:
    height = reduced.shape[0]
    reach = 2 * RADIUS  # of the lines: once to fit them, once to average them
    strips = []
    for top in range(0, height, _STRIP_ROWS):
        bottom = min(height, top + _STRIP_ROWS)
        seen = slice(max(0, top - reach), min(height, bottom + reach))
        lines = _lines(_planes(reduced[seen]).float().div_(255), _planes(residual[seen]))
        strips.append(lines[:, :, top - seen.start : bottom - seen.start])
    return np.ascontiguousarray(torch.cat(strips, dim=2)[0].permute(1, 0, 2).numpy())


def _planes(pixels_hwc: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels_hwc).permute(2, 0, 1)[None]


def _lines(guide: Tensor, wanted: Tensor) -> Tensor:
    """Slopes and offsets (1, 6, h, w) of the lines from `guide` to `wanted`, (1, 3, h, w) each."""
    mean, mean_wanted = _mean(guide), _mean(wanted)
    slope = _mean(guide * wanted).sub_(mean * mean_wanted)
    slope /= _mean(guide * guide).sub_(mean * mean).clamp_(min=0).add_(EPSILON)
    offset = mean_wanted.sub_(slope * mean)
    # Each pixel takes the mean of all windows that hold it.
    return _mean(torch.cat([slope, offset], dim=1))


def _mean(x: Tensor) -> Tensor:
    """Means over windows; at the edges over what lies inside.

    As sums of shifted strips, which stay in the processor's cache: an eighth of the time of pooling the whole photo.
    """
    height, width = x.shape[2:]
    padded = F.pad(x, (RADIUS, RADIUS, RADIUS, RADIUS))
    rows = padded[:, :, :height].clone()
    for shift in range(1, 2 * RADIUS + 1):
        rows += padded[:, :, shift : shift + height]
    sums = rows[..., :width].clone()
    for shift in range(1, 2 * RADIUS + 1):
        sums += rows[..., shift : shift + width]
    return sums.div_(_inside(height)[:, None]).div_(_inside(width))


def _inside(length: int) -> Tensor:
    """How many positions of each window lie inside."""
    at = torch.arange(length)
    return (at + RADIUS).clamp(max=length - 1) - (at - RADIUS).clamp(min=0) + 1
