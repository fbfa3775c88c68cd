"""Guided upsampling of a reduced photo's residual, which keeps edges in place.

He and Sun, "Fast Guided Filter" (arXiv 1505.00996): in each small window the residual is modelled as a * photo + b,
fitted at the reduced resolution; a and b are upsampled instead of the residual. Where the network removes noise, a is
near -1, so full-resolution noise is removed as well.
"""

from __future__ import annotations

import numpy as np

from qatie_cli import kernels

RADIUS = 2  # of a window, in pixels of the reduced photo; as in kernels.lines
MIRRORED_PX = 16  # mirrored margin of the reduced photo, a multiple of 8
EPSILON = 1e-5  # added to a channel's variance; about one 8-bit level


class GuidedResidual:
    """Linear models from photo to residual at every pixel of a reduced photo, fitted on demand.

    Args:
        reduced: what the network saw, (h, w, 3) uint8, C-contiguous.
        residual: the network's residual, (h, w, 3) float32.
        factor: side of the square of full-size pixels for each reduced one.
    """

    def __init__(self, reduced: np.ndarray, residual: np.ndarray, factor: int) -> None:
        self.reduced, self.residual, self.factor = reduced, residual, factor

    def rows(self, top: int, photo: np.ndarray) -> np.ndarray:
        """Residual of the full-size rows from `top` on; `photo` are these rows, (h, W, 3) float32 in 0..1."""
        height, width = photo.shape[:2]
        above, down = self.neighbours(top, height, self.reduced.shape[0])
        left, across = self.neighbours(0, width, self.reduced.shape[1])
        lines = self.lines(int(above[0]), int(above[-1]) + 2)
        above -= above[0]
        part = lines[above]
        part += (lines[np.minimum(above + 1, len(lines) - 1)] - part) * down[:, None, None]
        steps = np.diff(part, axis=2, append=part[..., -1:])
        large = part[..., left] + steps[..., left] * across
        slope, offset = large[:, :3].transpose(0, 2, 1), large[:, 3:].transpose(0, 2, 1)
        return offset + slope * photo

    def lines(self, first: int, last: int) -> np.ndarray:
        """Three slopes and three offsets for rows first..last, as far as there are any: (rows, 6, w) float32."""
        height, width = self.reduced.shape[:2]
        last = min(last, height)
        reach = 2 * RADIUS  # of the lines: once to fit them, once to average them
        top, bottom = max(0, first - reach), min(height, last + reach)
        guide, wanted = self.reduced[top:bottom], self.residual[top:bottom]
        if not kernels.usable(0):
            lines = _lines(_planes(guide) / np.float32(255), _planes(wanted))[:, first - top : last - top]
            return np.ascontiguousarray(lines.transpose(1, 0, 2))
        from qatie_cli.kernels.lines import fitted

        out = np.empty((last - first, 6, width), np.float32)
        fitted(guide, np.ascontiguousarray(wanted), top, height, np.float32(EPSILON), first, last, out)
        return out

    def neighbours(self, first: int, pixels: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Of full-size pixels from `first` on along a side: the reduced one before each, and the share of the next."""
        centres = np.arange(first, first + pixels, dtype=np.float64) + 0.5
        position = np.clip(centres / self.factor - 0.5, 0, cells - 1)
        before = position.astype(np.int64)
        return before, (position - before).astype(np.float32)


def _planes(pixels_hwc: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels_hwc.transpose(2, 0, 1), np.float32)


def _lines(guide: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Slopes and offsets (6, h, w) of the lines from `guide` to `wanted`, (3, h, w) each."""
    mean, mean_wanted = _mean(guide), _mean(wanted)
    slope = _mean(guide * wanted) - mean * mean_wanted
    slope /= np.maximum(_mean(guide * guide) - mean * mean, 0) + np.float32(EPSILON)
    offset = mean_wanted - slope * mean
    # Each pixel takes the mean of all windows that hold it.
    return _mean(np.concatenate([slope, offset]))


def _mean(x: np.ndarray) -> np.ndarray:
    """Means of planes (n, h, w) over windows; at the edges over what lies inside."""
    height, width = x.shape[1:]
    padded = np.pad(x, ((0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS)))
    rows = padded[:, :height].copy()
    for shift in range(1, 2 * RADIUS + 1):
        rows += padded[:, shift : shift + height]
    sums = rows[..., :width].copy()
    for shift in range(1, 2 * RADIUS + 1):
        sums += rows[..., shift : shift + width]
    sums /= _inside(height)[:, None]
    sums /= _inside(width)
    return sums


def _inside(length: int) -> np.ndarray:
    """How many positions of each window lie inside, as float32."""
    at = np.arange(length)
    return (np.minimum(at + RADIUS, length - 1) - np.maximum(at - RADIUS, 0) + 1).astype(np.float32)
