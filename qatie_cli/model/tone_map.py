"""What the tone stage decides, and how it changes a photo: curves and a matrix everywhere, gains from place to place.

A fine part says for every pixel of a view how far a brightening is held back, and what local contrast the photo gets.

The gains stand in a bilateral grid (Chen, Paris and Durand 2007) over position and brightness, decided by a network as
in HDRNet (Gharbi et al. 2017). Two pixels of one place and different brightness have gains of their own, so a bright
sky and the dark roof before it change independently, and no halo appears between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qatie_cli.kernels.fine import FADING, RISING, SOFTNESS
from qatie_cli.model.config import Guide
from qatie_cli.photo.colour import LUMA

BLACK = 0.01  # what black may become: two and a half levels


def end_weights(knots: int) -> np.ndarray:
    """Weights (2, knots) by which knots follow their curve's end: to white from 0.7 on, to black below 0.25."""
    position = np.linspace(0, 1, knots)
    return np.stack([np.maximum((position - 0.7) / 0.3, 0) ** 2, np.maximum(1 - 4 * position, 0)]).astype(np.float32)


@dataclass(frozen=True)
class ToneMap:
    """One photo's decision: `curves` (3, knots) over input 0..1, `matrix` (3, 3), `grid` (rows, columns, depth) in EV.

    All are float32; `grid` is None where a stage decides for the whole photo only; `guide` says where a pixel reads it.
    `fine` (rows, 3, columns), where a stage has that, lies evenly over the photo: the share of a brightening that is
    held back, slope and offset of the local contrast by luma.
    """

    curves: np.ndarray
    matrix: np.ndarray
    grid: np.ndarray | None = None
    guide: Guide = "luma"
    fine: np.ndarray | None = None

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


def apply_gains(
    toned_hwc: np.ndarray,
    grid: np.ndarray,
    top: int,
    left: int,
    size: tuple[int, int],
    guide: Guide = "luma",
) -> np.ndarray:
    """`tone_apply.apply_grid` for a part of a photo: rows (h, w, 3) float32 in 0..1, `grid` (rows, columns, depth).

    The part's first pixel stands at row `top` and column `left` of the whole photo, which has `size` (height, width).
    """
    height, width = toned_hwc.shape[:2]
    rows, columns, depth = grid.shape
    y0, fy = cells_of(top, height, size[0], rows)
    x0, fx = cells_of(left, width, size[1], columns)
    lines = grid[y0] + (grid[y0 + 1] - grid[y0]) * fy[:, None, None]
    largest = toned_hwc.max(axis=2)
    place = (_luma(toned_hwc) if guide == "luma" else largest) * np.float32(depth - 1)
    z0 = np.minimum(place.astype(np.int32), depth - 2)
    fz = place - z0.astype(np.float32)
    values, cell = lines.reshape(-1), (np.arange(height)[:, None] * columns + x0) * depth + z0

    def at(further: int) -> np.ndarray:
        low = values.take(cell + further)
        return low + (values.take(cell + further + 1) - low) * fz

    near = at(0)
    gain = exp2(near + (at(depth) - near) * fx)
    return toned_hwc * (gain / (1 + (gain - 1) * largest))[..., None]


def hold_back(before_hwc: np.ndarray, toned_hwc: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`tone_apply.held_back` for rows (h, w, 3) float32 in 0..1 and what they were; the share (h, w)."""
    rise = (_luma(toned_hwc) - _luma(before_hwc)) * RISING
    share = share * np.clip(rise, np.float32(0), np.float32(1))
    return toned_hwc + share[..., None] * (before_hwc - toned_hwc)


def apply_contrast(enhanced_hwc: np.ndarray, slope: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """`tone_apply.with_local_contrast` for rows (h, w, 3) float32 in 0..1; slope and offset (h, w)."""
    y = _luma(enhanced_hwc)
    change = offset + slope * y
    change = change / (np.float32(1) + np.abs(change) * SOFTNESS)
    change = change * np.minimum((np.float32(1) - y) * FADING, np.float32(1))
    return np.clip(enhanced_hwc + change[..., None], 0, 1)


def enlarged(plane: np.ndarray, top: int, left: int, height: int, width: int, size: tuple[int, int]) -> np.ndarray:
    """A plane (rows, columns) that lies evenly over a photo of `size`, at the pixels of one of its parts: (h, w)."""
    y0, fy = cells_of(top, height, size[0], plane.shape[0])
    x0, fx = cells_of(left, width, size[1], plane.shape[1])
    near = plane[:, x0]
    wide = near + (plane[:, x0 + 1] - near) * fx
    return wide[y0] + (wide[y0 + 1] - wide[y0]) * fy[:, None]


def _luma(toned_hwc: np.ndarray) -> np.ndarray:
    """Luma (h, w) of (h, w, 3) float32."""
    red, green, blue = (toned_hwc[..., channel] * np.float32(weight) for channel, weight in enumerate(LUMA))
    return red + green + blue


def exp2(ev: np.ndarray) -> np.ndarray:
    """2^ev for float32 between -2 and 2, to 1e-6 of it; with the same bits everywhere, unlike those of math libraries.

    The fourth power of e^(ev ln 2 / 4), whose series is short.
    """
    t = ev * np.float32(0.25 * np.log(2))
    power = np.float32(1 / 120) + t * np.float32(1 / 720)
    for divisor in (24, 6, 2, 1, 1):
        power = np.float32(1 / divisor) + t * power
    power = power * power
    return power * power


def cells_of(first: int, pixels: int, side: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the pixels from `first` on along a side: the grid's cell before each, and the share of the one behind."""
    centres = np.arange(first, first + pixels, dtype=np.float64) + 0.5
    position = np.clip(centres * (cells / side) - 0.5, 0, cells - 1)
    before = np.minimum(position.astype(np.int64), cells - 2)
    return before, (position - before).astype(np.float32)
