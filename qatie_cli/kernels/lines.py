"""The kernel that fits a guided filter's lines; `enhance.guided` has the same in NumPy."""

from __future__ import annotations

import numpy as np

from qatie_cli.kernels.compiling import kernel

RADIUS = 2  # of a window
_F = np.float32
_ZERO, _WHITE = _F(0), _F(255)
_ROWS = 2 * RADIUS + 1


@kernel
def fitted(reduced, residual, top, height, epsilon, first, last, out):
    """Rows first..last of a photo: slopes and offsets from `reduced` (h, w, 3) uint8 to `residual` float32.

    Both arrays begin at row `top` of the photo, which has `height`; `out` (last - first, 6, w) begins at row `first`.
    Rows of the photo, of the fits and of their means follow each other closely, so that what is between them stays in
    the processor's cache.
    """
    width = reduced.shape[1]
    guide, wanted = np.zeros((_ROWS, 3, width), _F), np.zeros((_ROWS, 3, width), _F)
    fits = np.zeros((_ROWS, 6, width), _F)
    empty = np.zeros((6, width), _F)
    sums = np.zeros((4, width + 2 * RADIUS), _F)
    across = np.empty(width, _F)
    for x in range(width):
        across[x] = _inside(x, width)
    levels = np.arange(256).astype(_F) / _WHITE
    loaded = max(0, first - 2 * RADIUS)
    for y in range(max(0, first - RADIUS), min(height, last + RADIUS)):
        while loaded < min(height, y + RADIUS + 1):
            slot = loaded % _ROWS
            for x in range(width):
                for c in range(3):
                    guide[slot, c, x] = levels[reduced[loaded - top, x, c]]
                    wanted[slot, c, x] = residual[loaded - top, x, c]
            loaded += 1
        _fit_row(guide, wanted, empty, y, height, across, epsilon, sums, fits[y % _ROWS])
        if y - RADIUS >= first:
            _mean_row(fits, empty, y - RADIUS, height, across, sums, out[y - RADIUS - first])
    for y in range(max(first, height - RADIUS), last):
        _mean_row(fits, empty, y, height, across, sums, out[y - first])


@kernel
def _inside(at, length):
    """How many positions of a window around `at` lie inside."""
    return _F(min(at + RADIUS, length - 1) - max(at - RADIUS, 0) + 1)


@kernel
def _row(ring, empty, y, height):
    """Row y of those that `ring` holds; zeros outside."""
    if y < 0 or y >= height:
        return empty
    return ring[y % _ROWS]


@kernel
def _fit_row(guide, wanted, empty, y, height, across, epsilon, sums, out):
    """The lines of the windows around row y, into `out` (6, w)."""
    width = across.shape[0]
    inside = _inside(y, height)
    g0, w0 = _row(guide, empty, y - 2, height), _row(wanted, empty, y - 2, height)
    g1, w1 = _row(guide, empty, y - 1, height), _row(wanted, empty, y - 1, height)
    g2, w2 = _row(guide, empty, y, height), _row(wanted, empty, y, height)
    g3, w3 = _row(guide, empty, y + 1, height), _row(wanted, empty, y + 1, height)
    g4, w4 = _row(guide, empty, y + 2, height), _row(wanted, empty, y + 2, height)
    for c in range(3):
        for x in range(width):
            a0, a1, a2, a3, a4 = g0[c, x], g1[c, x], g2[c, x], g3[c, x], g4[c, x]
            b0, b1, b2, b3, b4 = w0[c, x], w1[c, x], w2[c, x], w3[c, x], w4[c, x]
            sums[0, x + RADIUS] = (((a0 + a1) + a2) + a3) + a4
            sums[1, x + RADIUS] = (((b0 + b1) + b2) + b3) + b4
            sums[2, x + RADIUS] = (((a0 * b0 + a1 * b1) + a2 * b2) + a3 * b3) + a4 * b4
            sums[3, x + RADIUS] = (((a0 * a0 + a1 * a1) + a2 * a2) + a3 * a3) + a4 * a4
        for x in range(width):
            mean = _window(sums[0], x) / inside / across[x]
            mean_wanted = _window(sums[1], x) / inside / across[x]
            product = _window(sums[2], x) / inside / across[x]
            square = _window(sums[3], x) / inside / across[x]
            slope = (product - mean * mean_wanted) / (max(square - mean * mean, _ZERO) + epsilon)
            out[c, x] = slope
            out[c + 3, x] = mean_wanted - slope * mean


@kernel
def _mean_row(fits, empty, y, height, across, sums, out):
    """Means over the windows around row y, into `out` (6, w)."""
    width = across.shape[0]
    inside = _inside(y, height)
    f0, f1, f2 = _row(fits, empty, y - 2, height), _row(fits, empty, y - 1, height), _row(fits, empty, y, height)
    f3, f4 = _row(fits, empty, y + 1, height), _row(fits, empty, y + 2, height)
    for i in range(6):
        for x in range(width):
            sums[0, x + RADIUS] = (((f0[i, x] + f1[i, x]) + f2[i, x]) + f3[i, x]) + f4[i, x]
        for x in range(width):
            out[i, x] = _window(sums[0], x) / inside / across[x]


@kernel
def _window(row, x):
    """The sum of a window of `row`, whose first RADIUS values lie outside."""
    return (((row[x] + row[x + 1]) + row[x + 2]) + row[x + 3]) + row[x + 4]
