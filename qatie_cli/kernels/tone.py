"""Kernels of the tone stage: rows of a photo through tone tables and the grid of gains, into whatever is asked for.

`enhance.toned_rows` has the same in NumPy. Arguments that all kernels share:

    source: (H, W, 3) uint8 or uint16; the rows to tone start at row `top` and column `left` of it.
    table: (3 inputs, levels, 3 outputs) float32, what each level of each channel adds to the output.
    grid: (rows, columns, depth) float32, gains in EV; rows of 0 for none.
    by_luma: whether pixels read the grid by their luma, else by their largest channel.
    above, down: of each row the grid's cell above and the share of the one below.
    starts, cells, across: columns starts[i] to starts[i + 1] lie between the grid's cells[i] and cells[i] + 1; of each
        column the share of the right one.
"""

from __future__ import annotations

import numpy as np

from qatie_cli.kernels.compiling import kernel
from qatie_cli.photo.colour import LUMA

_F = np.float32
ZERO, ONE = _F(0), _F(1)
RED, GREEN, BLUE = (_F(weight) for weight in LUMA)
EV_TO_EXPONENT = _F(0.25 * np.log(2))  # 2^ev is the fourth power of e^(ev * this)
HALF, THIRD, FOURTH, FIFTH, SIXTH = _F(1 / 2), _F(1 / 6), _F(1 / 24), _F(1 / 120), _F(1 / 720)
WHITE = _F(255)


@kernel
def _cells_of_row(grid, above, down, line):
    """The grid at one row: (columns, depth) into `line`."""
    for column in range(line.shape[0]):
        for z in range(line.shape[1]):
            low = grid[above, column, z]
            line[column, z] = low + (grid[above + 1, column, z] - low) * down


@kernel
def _toned(source, table, line, by_luma, starts, cells, across, planes, scratch):
    """One row (W, 3) of the photo, toned, into `planes` (3, W); `scratch` is (2, W)."""
    width = source.shape[0]
    for x in range(width):
        r, g, b = source[x, 0], source[x, 1], source[x, 2]
        for c in range(3):
            value = (table[0, r, c] + table[1, g, c]) + table[2, b, c]
            planes[c, x] = min(max(value, ZERO), ONE)
    if line.shape[0] == 0:
        return
    red, green, blue = planes[0], planes[1], planes[2]
    places, evs = scratch[0], scratch[1]
    layers, last = _F(line.shape[1] - 1), np.uint32(line.shape[1] - 2)
    for x in range(width):
        place = (red[x] * RED + green[x] * GREEN) + blue[x] * BLUE if by_luma else max(red[x], green[x], blue[x])
        places[x] = place * layers
    for i in range(cells.shape[0]):
        near, far = line[cells[i]], line[cells[i] + 1]
        for x in range(starts[i], starts[i + 1]):
            place = places[x]
            z = min(np.uint32(np.int32(place)), last)  # unsigned: numba would look for negative indices
            between = place - _F(z)
            left, right = near[z], far[z]
            left = left + (near[z + np.uint32(1)] - left) * between
            right = right + (far[z + np.uint32(1)] - right) * between
            evs[x] = left + (right - left) * across[x]
    for x in range(width):
        t = evs[x] * EV_TO_EXPONENT
        power = ONE + t * (ONE + t * (HALF + t * (THIRD + t * (FOURTH + t * (FIFTH + t * SIXTH)))))
        power = power * power
        gain = power * power
        largest = max(red[x], green[x], blue[x])
        factor = gain / (ONE + (gain - ONE) * largest)
        red[x] *= factor
        green[x] *= factor
        blue[x] *= factor


@kernel
def to_float(source, top, left, table, grid, by_luma, above, down, starts, cells, across, first, last, out):
    """Rows first..last of `out` (h, w, 3) float32 in 0..1."""
    width = out.shape[1]
    planes, scratch = np.empty((3, width), _F), np.empty((2, width), _F)
    line = np.empty(grid.shape[1:], _F)
    for y in range(first, last):
        _cells_of_row(grid, above[y], down[y], line)
        _toned(source[top + y, left : left + width], table, line, by_luma, starts, cells, across, planes, scratch)
        for x in range(width):
            for c in range(3):
                out[y, x, c] = planes[c, x]


@kernel
def to_bytes(source, top, left, table, grid, by_luma, above, down, starts, cells, across, first, last, out):
    """Rows first..last of `out` (h, w, 3) uint8, rounded."""
    width = across.shape[0]
    planes, scratch = np.empty((3, width), _F), np.empty((2, width), _F)
    line = np.empty(grid.shape[1:], _F)
    for y in range(first, last):
        _cells_of_row(grid, above[y], down[y], line)
        _toned(source[top + y, left : left + width], table, line, by_luma, starts, cells, across, planes, scratch)
        for x in range(width):
            for c in range(3):
                out[y, x, c] = np.uint8(np.rint(planes[c, x] * WHITE))


@kernel
def to_means(source, top, left, table, grid, by_luma, above, down, starts, cells, across, first, last, factor, out):
    """Means of factor x factor toned pixels, edges repeated: rows first..last of `out` (h / factor, ..., 3) uint8."""
    height, width = above.shape[0], across.shape[0]
    planes, scratch = np.empty((3, width), _F), np.empty((2, width), _F)
    line = np.empty(grid.shape[1:], _F)
    sums = np.empty((3, out.shape[1]), _F)
    inside = width // factor
    number = _F(factor * factor)
    for target in range(first, last):
        sums[:] = ZERO
        for y in range(target * factor, (target + 1) * factor):
            if y < height:
                _cells_of_row(grid, above[y], down[y], line)
                row = source[top + y, left : left + width]
                _toned(row, table, line, by_luma, starts, cells, across, planes, scratch)
            for c in range(3):
                plane, total = planes[c], sums[c]
                for x in range(inside):
                    for dx in range(factor):
                        total[x] += plane[x * factor + dx]
                for x in range(inside, total.shape[0]):
                    for dx in range(factor):
                        total[x] += plane[min(x * factor + dx, width - 1)]
        for x in range(out.shape[1]):
            for c in range(3):
                out[target, x, c] = np.uint8(np.rint(sums[c, x] / number * WHITE))


@kernel
def to_result(
    source,
    top,
    left,
    table,
    grid,
    by_luma,
    above,
    down,
    starts,
    cells,
    across,
    strength,
    white,
    residual,
    first,
    last,
    out,
):
    """Toned rows plus `residual` (h, w, 3) float32, blended with the photo, into their place in `out`, shaped as it."""
    width = across.shape[0]
    planes, scratch = np.empty((3, width), _F), np.empty((2, width), _F)
    line = np.empty(grid.shape[1:], _F)
    for y in range(first, last):
        _cells_of_row(grid, above[y], down[y], line)
        before = source[top + y, left : left + width]
        _toned(before, table, line, by_luma, starts, cells, across, planes, scratch)
        for x in range(width):
            for c in range(3):
                planes[c, x] = min(max(planes[c, x] + residual[y, x, c], ZERO), ONE) * white
        _blended(planes, before, strength, out[top + y, left : left + width])


@kernel
def _blended(planes, before, strength, after):
    """Values in levels, blended with what they were and rounded."""
    for x in range(after.shape[0]):
        for c in range(3):
            value = planes[c, x]
            if strength < ONE:
                value = _F(before[x, c]) + strength * (value - _F(before[x, c]))
            after[x, c] = np.rint(value)


@kernel
def to_guided_result(
    source,
    top,
    left,
    table,
    grid,
    by_luma,
    above,
    down,
    starts,
    cells,
    across,
    strength,
    white,
    lines,
    lines_top,
    line_above,
    line_down,
    line_left,
    line_across,
    first,
    last,
    out,
):
    """The same with the residual slope * photo + offset; `lines` (h, 6, w) are a reduced photo's from `lines_top` on.

    Of each row and column they lie at `line_above`, `line_left` and the one after, in the shares of `line_down` and
    `line_across`.
    """
    width = across.shape[0]
    planes, scratch = np.empty((3, width), _F), np.empty((2, width), _F)
    line = np.empty(grid.shape[1:], _F)
    columns = lines.shape[2]
    values, steps = np.empty((6, columns), _F), np.zeros((6, columns), _F)
    index = line_left.astype(np.uint32)
    for y in range(first, last):
        _cells_of_row(grid, above[y], down[y], line)
        before = source[top + y, left : left + width]
        _toned(before, table, line, by_luma, starts, cells, across, planes, scratch)
        at_line = line_above[y] - lines_top
        upper, lower = lines[at_line], lines[min(at_line + 1, lines.shape[0] - 1)]
        share = line_down[y]
        for i in range(6):
            for x in range(columns):
                values[i, x] = upper[i, x] + (lower[i, x] - upper[i, x]) * share
            for x in range(columns - 1):
                steps[i, x] = values[i, x + 1] - values[i, x]
        for c in range(3):
            plane = planes[c]
            slopes, slope_steps, offsets, offset_steps = values[c], steps[c], values[c + 3], steps[c + 3]
            for x in range(width):
                at, share_x = index[x], line_across[x]
                slope = slopes[at] + slope_steps[at] * share_x
                offset = offsets[at] + offset_steps[at] * share_x
                plane[x] = min(max(plane[x] + (offset + slope * plane[x]), ZERO), ONE) * white
        _blended(planes, before, strength, out[top + y, left : left + width])
