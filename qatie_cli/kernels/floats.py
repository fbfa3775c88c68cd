"""Kernels of the float network's pointwise layers, on features (h, w, channels) float32.

`engines.floating` has the same in PyTorch.
"""

from __future__ import annotations

import numpy as np

from qatie_cli.kernels.compiling import kernel


@kernel
def joined(x, factor, offset, slope, beside, first, last, out):
    """Rows first..last of `x` times `factor` plus `offset`, leaky, then the channels of `beside`, into `out`.

    `factor` and `offset` are those of a row, (w * channels).
    """
    width, own, others = x.shape[1], x.shape[2], beside.shape[2]
    row = np.empty(width * own, np.float32)
    values = row.reshape(width, own)
    for y in range(first, last):
        source = x[y].reshape(-1)
        for i in range(row.shape[0]):
            value = source[i] * factor[i] + offset[i]
            row[i] = max(value, value * slope)
        for column in range(width):
            for c in range(own):
                out[y, column, c] = values[column, c]
            for c in range(others):
                out[y, column, own + c] = beside[y, column, c]


@kernel
def closed(x, slope, other, first, last):
    """Rows first..last of `x`, leaky, plus `other`, into `x`."""
    for y in range(first, last):
        row, beside = x[y].reshape(-1), other[y].reshape(-1)
        for i in range(row.shape[0]):
            value = row[i]
            row[i] = max(value, value * slope) + beside[i]


@kernel
def interleaved(phases, one, two, first, last):
    """Rows first..last of `one`: itself plus `two`, plus phases (see `network.interleave`) interleaved."""
    width, channels = one.shape[1], one.shape[2]
    for y in range(first, last):
        p = y % 2
        for column in range(width):
            q = column % 2
            start = (2 * p + q) * channels
            source = phases[y // 2 + p, column // 2 + q]
            target, other = one[y, column], two[y, column]
            for c in range(channels):
                target[c] = (target[c] + other[c]) + source[start + c]


@kernel
def gated(pair, first, last, out):
    """Rows first..last of `out` (h, w, channels): products of the two halves of `pair`."""
    channels = out.shape[2]
    for y in range(first, last):
        for column in range(out.shape[1]):
            for c in range(channels):
                out[y, column, c] = pair[y, column, c] * pair[y, column, channels + c]


@kernel
def widened(photo, out):
    """A photo (h, w, 3) uint8 in 0..1 and four channels, the last all zero, into `out` (h, w + 2, 4) without its edges.

    The outer columns stay as they are.
    """
    for y in range(photo.shape[0]):
        for column in range(photo.shape[1]):
            for c in range(3):
                out[y, column + 1, c] = np.float32(photo[y, column, c]) / np.float32(255)
            out[y, column + 1, 3] = 0


@kernel
def gathered(phases, encoded, out):
    """Phases (see `network.interleave`) interleaved, and `encoded` (h + 2, w + 2, channels) unframed, to `out`."""
    deep, skipped = phases.shape[2] // 4, encoded.shape[2]
    for y in range(out.shape[0]):
        p = y % 2
        for column in range(out.shape[1]):
            q = column % 2
            start = (2 * p + q) * deep
            source, beside = phases[y // 2 + p, column // 2 + q], encoded[y + 1, column + 1]
            target = out[y, column]
            for i in range(deep):
                target[i] = source[start + i]
            for i in range(skipped):
                target[deep + i] = beside[i]


@kernel
def row_sums(x, first, last, out):
    """Sums and sums of squares of each channel of rows first..last, into `out` (h, 2, channels) float64."""
    channels = x.shape[2]
    for y in range(first, last):
        out[y] = 0
        for column in range(x.shape[1]):
            for c in range(channels):
                value = np.float64(x[y, column, c])
                out[y, 0, c] += value
                out[y, 1, c] += value * value
