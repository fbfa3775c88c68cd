"""Kernels of the tone stage: rows of a photo through tone tables and the grid of gains, into whatever is asked for.

`enhance.toned_rows` has the same in NumPy. Arguments that all kernels share:

    source: (H, W, 3) uint8 or uint16; the rows to tone start at row `top` and column `left` of it.
    table: (3 inputs, levels, 3 outputs) float32, what each level of each channel adds to the output.
    grid: (rows, columns, depth) float32, gains in EV; rows of 0 for none.
    by_luma: whether pixels read the grid by their luma, else by their largest channel.
    coarse: where pixels lie among the grid's cells, as `Cells` of `enhance.toned_rows`: (above, down, starts, cells,
        across). Of each row the cell above and the share of the one below; columns starts[i] to starts[i + 1] lie
        between cells[i] and cells[i] + 1; of each column the share of the right one.
    fine: (rows, 3, columns) float32, as `tone_map.ToneMap.fine`; rows of 0 for none.
    finer: where pixels lie among those, as `coarse`.
"""

from __future__ import annotations

import numpy as np

from qatie_cli.kernels.compiling import kernel
from qatie_cli.kernels.fine import FADING, HOLD, RISING, SLOPE, SOFTNESS
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
def _widened(fine, finer, first, last):
    """Slope and offset of `fine`, as wide as the photo (2, rows, W), and of `fine` the first of these rows.

    They are those between which the photo's rows first..last lie, some dozen between two: so each is spread along the
    row once and not a dozen times.
    """
    above, _, starts, cells, across = finer
    if fine.shape[0] == 0 or first >= last:
        return np.empty((0, 0, 0), _F), 0
    top = above[first]
    out = np.empty((2, above[last - 1] + 2 - top, across.shape[0]), _F)
    for plane in range(2):
        for row in range(out.shape[1]):
            line, wide = fine[top + row, SLOPE + plane], out[plane, row]
            for i in range(cells.shape[0]):
                near = line[cells[i]]
                step = line[cells[i] + 1] - near
                for x in range(starts[i], starts[i + 1]):
                    wide[x] = near + step * across[x]
    return out, top


@kernel
def _spread(wide, plane, finer, y, out):
    """Row `y` of one of the planes that `_widened` made, at the pixels: into `out` (W)."""
    rows, top = wide
    row, down = finer[0][y] - top, finer[1][y]
    upper, lower = rows[plane, row], rows[plane, row + 1]
    for x in range(out.shape[0]):
        out[x] = upper[x] + (lower[x] - upper[x]) * down


@kernel
def _toned(source, table, grid, by_luma, coarse, fine, finer, y, planes, scratch):
    """One row (W, 3) of the photo, the `y`-th of its part, toned, into `planes` (3, W); `scratch` is (2, W)."""
    width = source.shape[0]
    for x in range(width):
        r, g, b = source[x, 0], source[x, 1], source[x, 2]
        for c in range(3):
            value = (table[0, r, c] + table[1, g, c]) + table[2, b, c]
            planes[c, x] = min(max(value, ZERO), ONE)
    if grid.shape[0] == 0:
        return
    above, down, starts, cells, across = coarse
    line = np.empty(grid.shape[1:], _F)
    _cells_of_row(grid, above[y], down[y], line)
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
    if fine.shape[0] > 0:
        _held_back(source, fine, finer, y, ONE / _F(table.shape[1] - 1), planes)


@kernel
def _held_back(source, fine, finer, y, level, planes):
    """A toned row (3, W), held back where it became brighter than `source` (W, 3), whose levels are `level` apart."""
    above, downs, starts, cells, across = finer
    upper, lower, down = fine[above[y], HOLD], fine[above[y] + 1, HOLD], downs[y]
    red, green, blue = planes[0], planes[1], planes[2]
    for i in range(cells.shape[0]):
        left, right = upper[cells[i]], upper[cells[i] + 1]
        left_below, right_below = lower[cells[i]], lower[cells[i] + 1]
        if max(left, right, left_below, right_below) == ZERO:
            continue
        for x in range(starts[i], starts[i + 1]):
            share = left + (right - left) * across[x]
            share = share + ((left_below + (right_below - left_below) * across[x]) - share) * down
            r, g, b = _F(source[x, 0]) * level, _F(source[x, 1]) * level, _F(source[x, 2]) * level
            rise = ((red[x] * RED + green[x] * GREEN) + blue[x] * BLUE) - ((r * RED + g * GREEN) + b * BLUE)
            share = share * min(max(rise * RISING, ZERO), ONE)
            red[x] += share * (r - red[x])
            green[x] += share * (g - green[x])
            blue[x] += share * (b - blue[x])


@kernel
def _contrasted(fine, finer, wide, y, planes, scratch):
    """One enhanced row (3, W) in 0..1 with its local contrast; `scratch` is (2, W)."""
    if fine.shape[0] == 0:
        return
    slopes, offsets = scratch[0], scratch[1]
    _spread(wide, 0, finer, y, slopes)
    _spread(wide, 1, finer, y, offsets)
    red, green, blue = planes[0], planes[1], planes[2]
    for x in range(red.shape[0]):
        luma = (red[x] * RED + green[x] * GREEN) + blue[x] * BLUE
        change = offsets[x] + slopes[x] * luma
        change = change / (ONE + abs(change) * SOFTNESS)
        change = change * min((ONE - luma) * FADING, ONE)
        red[x] = min(max(red[x] + change, ZERO), ONE)
        green[x] = min(max(green[x] + change, ZERO), ONE)
        blue[x] = min(max(blue[x] + change, ZERO), ONE)


@kernel
def to_float(source, top, left, table, grid, by_luma, coarse, fine, finer, first, last, out):
    """Rows first..last of `out` (h, w, 3) float32 in 0..1."""
    width = out.shape[1]
    planes, scratch = np.empty((3, width), _F), np.empty((2, width), _F)
    for y in range(first, last):
        row = source[top + y, left : left + width]
        _toned(row, table, grid, by_luma, coarse, fine, finer, y, planes, scratch)
        for x in range(width):
            for c in range(3):
                out[y, x, c] = planes[c, x]


@kernel
def to_bytes(source, top, left, table, grid, by_luma, coarse, fine, finer, first, last, out):
    """Rows first..last of `out` (h, w, 3) uint8, rounded."""
    width = coarse[4].shape[0]
    planes, scratch = np.empty((3, width), _F), np.empty((2, width), _F)
    for y in range(first, last):
        row = source[top + y, left : left + width]
        _toned(row, table, grid, by_luma, coarse, fine, finer, y, planes, scratch)
        for x in range(width):
            for c in range(3):
                out[y, x, c] = np.uint8(np.rint(planes[c, x] * WHITE))


@kernel
def to_means(source, top, left, table, grid, by_luma, coarse, fine, finer, first, last, factor, out):
    """Means of factor x factor toned pixels, edges repeated: rows first..last of `out` (h / factor, ..., 3) uint8."""
    height, width = coarse[0].shape[0], coarse[4].shape[0]
    planes, scratch = np.empty((3, width), _F), np.empty((2, width), _F)
    sums = np.empty((3, out.shape[1]), _F)
    inside = width // factor
    number = _F(factor * factor)
    for target in range(first, last):
        sums[:] = ZERO
        for y in range(target * factor, (target + 1) * factor):
            if y < height:
                row = source[top + y, left : left + width]
                _toned(row, table, grid, by_luma, coarse, fine, finer, y, planes, scratch)
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
    coarse,
    fine,
    finer,
    strength,
    white,
    residual,
    first,
    last,
    out,
):
    """Toned rows plus `residual` (h, w, 3) float32, blended with the photo, into their place in `out`, shaped as it."""
    width = coarse[4].shape[0]
    planes, scratch = np.empty((3, width), _F), np.empty((2, width), _F)
    wide = _widened(fine, finer, first, last)
    for y in range(first, last):
        before = source[top + y, left : left + width]
        _toned(before, table, grid, by_luma, coarse, fine, finer, y, planes, scratch)
        for x in range(width):
            for c in range(3):
                planes[c, x] = min(max(planes[c, x] + residual[y, x, c], ZERO), ONE)
        _contrasted(fine, finer, wide, y, planes, scratch)
        _blended(planes, before, strength, white, out[top + y, left : left + width])


@kernel
def _blended(planes, before, strength, white, after):
    """Values in 0..1, in levels up to `white`, blended with what they were and rounded."""
    for x in range(after.shape[0]):
        for c in range(3):
            value = planes[c, x] * white
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
    coarse,
    fine,
    finer,
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
    width = coarse[4].shape[0]
    planes, scratch = np.empty((3, width), _F), np.empty((2, width), _F)
    wide = _widened(fine, finer, first, last)
    columns = lines.shape[2]
    values, steps = np.empty((6, columns), _F), np.zeros((6, columns), _F)
    index = line_left.astype(np.uint32)
    for y in range(first, last):
        before = source[top + y, left : left + width]
        _toned(before, table, grid, by_luma, coarse, fine, finer, y, planes, scratch)
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
                plane[x] = min(max(plane[x] + (offset + slope * plane[x]), ZERO), ONE)
        _contrasted(fine, finer, wide, y, planes, scratch)
        _blended(planes, before, strength, white, out[top + y, left : left + width])
