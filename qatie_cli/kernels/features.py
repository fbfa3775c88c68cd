"""Kernels of the int8 network's pointwise layers, on features (h, w, channels) uint8.

Each layer is a function of one or two bytes. It comes as a table that PyTorch's own operator has filled, so the bytes
are those of the engine, whatever its rounding; and, where arithmetic gives that very table, as the numbers to compute
it with, which takes half the time (`engines.pointwise` has checked it). Arrays of words are of the widest type that the
channels of all arrays of a kernel are multiples of: copies of a few bytes take several times as long.
"""

from __future__ import annotations

import numpy as np

from qatie_cli.kernels.compiling import kernel

_BLOCK = 1 << 14  # pixels whose squares fit an int32 together
_F = np.float32
_LOWEST, _HIGHEST = _F(0), _F(255)


@kernel
def mapped(x, table, ramp, first, last):
    """Rows first..last through a function of one byte, in place.

    By way of another row: LLVM vectorizes only where input and output cannot overlap.
    """
    made = np.empty(x.shape[1] * x.shape[2], np.uint8)
    for y in range(first, last):
        row = x[y].reshape(-1)
        _map_row(row, table, ramp, made)
        row[:] = made


@kernel
def _map_row(row, table, ramp, out):
    """A flat row through a table of 256, or by the five numbers of a ramp if there are any."""
    if ramp.shape[0] == 0:
        for i in range(row.shape[0]):
            out[i] = table[row[i]]
        return
    zero, scale, slope, to_stored, out_zero = ramp[0], ramp[1], ramp[2], ramp[3], ramp[4]
    for i in range(row.shape[0]):
        value = (_F(row[i]) - zero) * scale
        value = np.rint(max(value, value * slope) * to_stored) + out_zero
        out[i] = np.uint8(np.int32(min(max(value, _LOWEST), _HIGHEST)))


@kernel
def joined(x, tables, beside, first, last, out, margin):
    """Channels of `x` through their own tables of 256, then the words of `beside`, into the words of `out`.

    `out` has `margin` more columns to each side, which stay as they are.
    """
    width, channels = x.shape[1], x.shape[2]
    row = np.empty(width * channels, np.uint8)
    words = row.view(beside.dtype).reshape(width, -1)
    own, others = words.shape[1], beside.shape[2]
    for y in range(first, last):
        for column in range(width):
            source, start = x[y, column], column * channels
            for c in range(channels):
                row[start + c] = tables[c, source[c]]
        for column in range(width):
            target = out[y, column + margin]
            for i in range(own):
                target[i] = words[column, i]
            for i in range(others):
                target[own + i] = beside[y, column, i]


@kernel
def added(x, other, table, ramp, scales, first, last):
    """Sums of `x`, through a ramp, and `other`, into `x`: by a table (256, 256), or by five numbers, if any."""
    for y in range(first, last):
        row, beside = x[y].reshape(-1), other[y].reshape(-1)
        if scales.shape[0] == 0:
            for i in range(row.shape[0]):
                row[i] = table[row[i], beside[i]]
            continue
        zero, scale, slope, to_stored, out_zero = ramp[0], ramp[1], ramp[2], ramp[3], ramp[4]
        own_scale, other_zero, other_scale, to_sum, sum_zero = scales[0], scales[1], scales[2], scales[3], scales[4]
        for i in range(row.shape[0]):
            value = (_F(row[i]) - zero) * scale
            value = np.rint(max(value, value * slope) * to_stored) + out_zero
            value = min(max(value, _LOWEST), _HIGHEST)
            value = (value - out_zero) * own_scale + (_F(beside[i]) - other_zero) * other_scale
            value = np.rint(value * to_sum) + sum_zero
            row[i] = np.uint8(np.int32(min(max(value, _LOWEST), _HIGHEST)))


@kernel
def gated(pair, words, table, product, factors, first, last, out):
    """Both halves of `pair` through a table of 256, in place; `out` are their products.

    `words` are those of `pair`. Products come by a table (256, 256), or by three numbers if there are any.
    """
    width, channels = out.shape[1], out.shape[2]
    left, right = np.empty(width * channels, np.uint8), np.empty(width * channels, np.uint8)
    left_words = left.view(words.dtype).reshape(width, -1)
    right_words = right.view(words.dtype).reshape(width, -1)
    half = left_words.shape[1]
    for y in range(first, last):
        row, target = pair[y].reshape(-1), out[y].reshape(-1)
        for i in range(row.shape[0]):
            row[i] = table[row[i]]
        for column in range(width):
            for i in range(half):
                left_words[column, i] = words[y, column, i]
                right_words[column, i] = words[y, column, half + i]
        if factors.shape[0] == 0:
            for i in range(target.shape[0]):
                target[i] = product[left[i], right[i]]
            continue
        zero, factor, out_zero = factors[0], factors[1], factors[2]
        for i in range(target.shape[0]):
            value = np.rint((_F(left[i]) - zero) * (_F(right[i]) - zero) * factor) + out_zero
            target[i] = np.uint8(np.int32(min(max(value, _LOWEST), _HIGHEST)))


@kernel
def fused(phases, encoded, table, ramp, pair, first, last, out, margin):
    """Phases (see `network.interleave`) interleaved, `encoded` mapped, `pair`: side by side in rows of `out`.

    All are words except `encoded`, whose bytes a function maps, and which has `margin` more pixels on each side.
    """
    width = out.shape[1]
    row = np.empty(width * encoded.shape[2], np.uint8)
    skips = row.view(out.dtype).reshape(width, -1)
    deep, skipped, gates = phases.shape[2] // 4, skips.shape[1], pair.shape[2]
    for y in range(first, last):
        _map_row(encoded[y + margin, margin : margin + width].reshape(-1), table, ramp, row)
        p = y % 2
        for column in range(width):
            q = column % 2
            start = (2 * p + q) * deep
            for i in range(deep):
                out[y, column, i] = phases[y // 2 + p, column // 2 + q, start + i]
            for i in range(skipped):
                out[y, column, deep + i] = skips[column, i]
            for i in range(gates):
                out[y, column, deep + skipped + i] = pair[y, column, i]


@kernel
def widened(photo, out):
    """Pixels (h, w, 3) in four channels, the last one all zero, into `out` (h, w + 2, 4) but for its outer columns."""
    for y in range(photo.shape[0]):
        for column in range(photo.shape[1]):
            for c in range(3):
                out[y, column + 1, c] = photo[y, column, c]
            out[y, column + 1, 3] = 0


@kernel
def halved(x, out):
    """The largest of 2x2 pixels of `x` (2 * h, 2 * w + 2, channels) into `out` (h, w + 2, channels).

    The outer columns of both are not read and stay as they are.
    """
    channels = x.shape[2]
    for y in range(out.shape[0]):
        above, below = x[2 * y], x[2 * y + 1]
        for column in range(1, out.shape[1] - 1):
            target = out[y, column]
            for c in range(channels):
                upper = max(above[2 * column - 1, c], above[2 * column, c])
                lower = max(below[2 * column - 1, c], below[2 * column, c])
                target[c] = max(upper, lower)


@kernel
def centred(x, zero, out):
    """Bytes less their zero point, into `out` int16 of the same shape."""
    source, target = x.reshape(-1), out.reshape(-1)
    for i in range(source.shape[0]):
        target[i] = np.int16(source[i]) - zero


@kernel
def framed(out, first, last, value):
    """Fill the rows before `first` and from `last` on, and the outer columns."""
    width, channels = out.shape[1], out.shape[2]
    for y in range(out.shape[0]):
        if y < first or y >= last:
            out[y] = value
            continue
        for c in range(channels):
            out[y, 0, c] = value
        for c in range(channels):
            out[y, width - 1, c] = value


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
