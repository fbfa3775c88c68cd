"""Kernels of JPEG's 8 x 8 blocks: shrinking their DCT coefficients, on every of several grids.

The twin in NumPy is `enhance.blocks`. All loops that count run along a row of blocks, so that LLVM vectorizes them.
"""

from __future__ import annotations

import numpy as np

from qatie_cli.kernels.compiling import kernel

_F = np.float32
_SHIFTS = 8  # grids
_COLUMNS = 256  # of a row of blocks at a time, whose arrays fit the fastest cache
_STEP = 3  # columns that a grid lies further to the right than the one a row above it


@kernel
def shrunken(plane, pilot, steps, basis, total, weight):
    """Sums over the grids of shrunken blocks, and of their weights, into `total` and `weight` of the shape of `plane`.

    Without a pilot (0 rows) coefficients below their step become 0; else each is multiplied by the share p^2 / (p^2 +
    step^2), p the pilot's. Blocks weigh the less the more they keep.

    Args:
        plane: (h, w) float32; blocks that do not fit into it are left out.
        steps: (8 columns, 8 rows) float32, that of the mean 0.
        basis: (8 frequencies, 4) float32, the left half of the DCT's matrix.
    """
    height, width = plane.shape
    total[:] = _F(0)
    weight[:] = _F(0)
    columns = min(width // 8 * 8, _COLUMNS)
    taken, turned = np.empty((8, columns), _F), np.empty((8, columns), _F)
    aside, beside = np.empty((8, columns), _F), np.empty((8, columns), _F)
    kept, limits = np.empty(columns, _F), np.empty((8, columns), _F)
    for j in range(8):
        for n in range(columns):
            limits[j, n] = steps[j, n % 8]
    for shift in range(_SHIFTS):
        for top in range(shift, height - 7, 8):
            for left in range(shift * _STEP % 8, width - 7, columns):
                count = min(columns, (width - left) // 8 * 8)
                _load(plane, top, left, count, taken)
                _into_frequencies(taken, turned, aside, basis, count)
                if pilot.shape[0] > 0:
                    _load(pilot, top, left, count, taken)
                    _into_frequencies(taken, beside, aside, basis, count)
                    _by_share(turned, beside, limits, kept, count)
                else:
                    _by_threshold(turned, limits, kept, count)
                _out_of_frequencies(turned, taken, aside, basis, count)
                _weigh(kept, count)
                for i in range(8):
                    row, places = top + i, slice(left, left + count)
                    _add(taken[i], kept, count, total[row, places], weight[row, places])


@kernel
def projected(plane, numbers, steps, basis, reach, out):
    """`plane` with the DCT coefficients of its blocks within `reach` steps of the numbers that the file holds.

    Args:
        plane, numbers, out: (h, w) float32, both multiples of 8; a block's numbers lie as `_into_frequencies` leaves
            them.
        steps: (8 columns, 8 rows) float32.
    """
    height, count = plane.shape
    taken, turned, aside = np.empty((8, count), _F), np.empty((8, count), _F), np.empty((8, count), _F)
    for top in range(0, height, 8):
        _load(plane, top, 0, count, taken)
        _into_frequencies(taken, turned, aside, basis, count)
        for j in range(8):
            for n in range(count):
                step, number = steps[j, n % 8], numbers[top + j, n]
                low, high = (number - reach) * step, (number + reach) * step
                turned[j, n] = min(max(turned[j, n], low), high)
        _out_of_frequencies(turned, taken, aside, basis, count)
        out[top : top + 8] = taken


@kernel
def _load(plane, top, left, count, out):
    for i in range(8):
        row, target = plane[top + i], out[i]
        for n in range(count):
            target[n] = row[left + n]


@kernel
def _by_threshold(x, limits, kept, count):
    """Coefficients below their limit become 0; `kept` counts the others of each column of blocks."""
    for n in range(count):
        kept[n] = _F(0)
    for j in range(8):
        row, limit = x[j], limits[j]
        for n in range(count):
            is_kept = _F(1) if abs(row[n]) >= limit[n] else _F(0)
            row[n] *= is_kept
            kept[n] += is_kept


@kernel
def _by_share(x, pilot, limits, kept, count):
    """Coefficients times their share; `kept` sums its squares."""
    for n in range(count):
        kept[n] = _F(0)
    for j in range(8):
        row, other, limit = x[j], pilot[j], limits[j]
        for n in range(count):
            power = other[n] * other[n] + _F(1e-6)
            share = power / (power + limit[n] * limit[n])
            row[n] *= share
            kept[n] += share * share


@kernel
def _weigh(kept, count):
    """Each block's weight, the reciprocal of what it keeps, in all its columns."""
    for n in range(0, count, 8):
        share = _F(0)
        for k in range(8):
            share += kept[n + k]
        share = _F(1) / share
        for k in range(8):
            kept[n + k] = share


@kernel
def _add(values, share, count, total, weight):
    for n in range(count):
        total[n] += share[n] * values[n]
    for n in range(count):
        weight[n] += share[n]


@kernel
def _into_frequencies(x, out, aside, basis, count):
    """DCT of a row of blocks (8, count); of block n the coefficient (vertical k, horizontal j) lies at [j, 8 n + k].

    `x` is overwritten.
    """
    _transformed(x, aside, out, basis, count)
    _turned(out, x, count)
    _transformed(x, aside, out, basis, count)


@kernel
def _out_of_frequencies(x, out, aside, basis, count):
    """The blocks of coefficients (8, count) into `out`; `x` is overwritten."""
    _restored(x, aside, out, basis, count)
    _turned(out, x, count)
    _restored(x, aside, out, basis, count)


@kernel
def _turned(x, out, count):
    """Each block transposed."""
    for n in range(0, count, 8):
        for i in range(8):
            for j in range(8):
                out[j, n + i] = x[i, n + j]


@kernel
def _transformed(x, aside, out, basis, count):
    """DCT along the first axis: even frequencies of the sums of opposite rows, odd ones of their differences."""
    for i in range(4):
        _sum_and_difference(x[i], x[7 - i], count, aside[i], aside[4 + i])
    for k in range(8):
        start = 4 * (k % 2)
        _mixed(aside[start], aside[start + 1], aside[start + 2], aside[start + 3], basis[k], count, out[k])


@kernel
def _restored(x, aside, out, basis, count):
    """The inverse of `_transformed`."""
    weights = np.empty(4, _F)
    for i in range(4):
        for half in range(2):
            for k in range(4):
                weights[k] = basis[2 * k + half, i]
            _mixed(x[half], x[2 + half], x[4 + half], x[6 + half], weights, count, aside[4 * half + i])
    for i in range(4):
        _sum_and_difference(aside[i], aside[4 + i], count, out[i], out[7 - i])


@kernel
def _sum_and_difference(a, b, count, total, difference):
    for n in range(count):
        total[n] = a[n] + b[n]
    for n in range(count):
        difference[n] = a[n] - b[n]


@kernel
def _mixed(a, b, c, d, weights, count, out):
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    for n in range(count):
        out[n] = ((a[n] * w0 + b[n] * w1) + c[n] * w2) + d[n] * w3
