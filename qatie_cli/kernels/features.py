"""Kernels of the int8 network's pointwise layers, on features (h, w, channels) uint8.

Each layer is a function of one or two bytes, so it comes as a table that PyTorch's own operator has filled: the bytes
are those of the engine, whatever its rounding. `engines.int8` has the same in these operators.
"""

from __future__ import annotations

import numpy as np

from qatie_cli.kernels.compiling import kernel

_BLOCK = 1 << 14  # pixels whose squares fit an int32 together


@kernel
def mapped(x, table, first, last):
    """Rows first..last through a table of 256, in place."""
    for y in range(first, last):
        row = x[y].reshape(-1)
        for i in range(row.shape[0]):
            row[i] = table[row[i]]


@kernel
def joined(x, tables, other, first, last, out):
    """Channels of `x` through their own tables of 256, then those of `other`, into rows first..last of `out`."""
    channels, others = x.shape[2], other.shape[2]
    for y in range(first, last):
        for column in range(x.shape[1]):
            source, beside, target = x[y, column], other[y, column], out[y, column]
            for c in range(channels):
                target[c] = tables[c, source[c]]
            for c in range(others):
                target[channels + c] = beside[c]


@kernel
def combined(x, other, table, first, last):
    """Pairs of values of `x` and `other` through a table (256, 256), into `x`."""
    for y in range(first, last):
        row, beside = x[y].reshape(-1), other[y].reshape(-1)
        for i in range(row.shape[0]):
            row[i] = table[row[i], beside[i]]


@kernel
def gated(pair, table, product, first, last, out):
    """Both halves of `pair` through a table of 256, in place; `out` are their products by a table (256, 256)."""
    channels = out.shape[2]
    for y in range(first, last):
        for column in range(out.shape[1]):
            both, target = pair[y, column], out[y, column]
            for c in range(channels):
                a, b = table[both[c]], table[both[channels + c]]
                both[c], both[channels + c] = a, b
                target[c] = product[a, b]


@kernel
def fused(phases, encoded, table, pair, first, last, out):
    """Phases (see `network.interleave`) interleaved, `encoded` through a table of 256, `pair`: rows of `out`."""
    deep, skipped, gates = phases.shape[2] // 4, encoded.shape[2], pair.shape[2]
    for y in range(first, last):
        p = y % 2
        for column in range(out.shape[1]):
            q = column % 2
            phase = phases[y // 2 + p, column // 2 + q]
            start = (2 * p + q) * deep
            skip, gate, target = encoded[y, column], pair[y, column], out[y, column]
            for c in range(deep):
                target[c] = phase[start + c]
            for c in range(skipped):
                target[deep + c] = table[skip[c]]
            for c in range(gates):
                target[deep + skipped + c] = gate[c]


@kernel
def sums(x, first, last):
    """Sums and sums of squares of each channel over rows first..last: (2, channels) int64, exact."""
    channels = x.shape[2]
    pixels = x[first:last].reshape(-1, channels)
    totals = np.zeros((2, channels), np.int64)
    for start in range(0, pixels.shape[0], _BLOCK):
        total, squares = np.zeros(channels, np.int32), np.zeros(channels, np.int32)
        for i in range(start, min(start + _BLOCK, pixels.shape[0])):
            for c in range(channels):
                value = np.int32(pixels[i, c])
                total[c] += value
                squares[c] += value * value
        for c in range(channels):
            totals[0, c] += total[c]
            totals[1, c] += squares[c]
    return totals
