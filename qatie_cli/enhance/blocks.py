"""JPEG's 8 x 8 blocks: their DCT, and shrinking its coefficients on shifted grids.

Compiled where that is worth it (`kernels.blocks`), in NumPy elsewhere, with the same bits: each sum has one order.
"""

from __future__ import annotations

import numpy as np

from qatie_cli import kernels

SIDE = 8
_F = np.float32
_SHIFTS, _STEP = 8, 3  # grids, and how many columns each lies further to the right, as in `kernels.blocks`
_MARGIN = ((8, 16), (8, 16))  # so that all grids cover a plane
_NO_PILOT = np.empty((0, 0), _F)


def _basis() -> np.ndarray:
    """(8 frequencies, 4): the left half of the orthonormal DCT-II; the right one differs in the sign of odd ones."""
    k, i = np.arange(8)[:, None], np.arange(4)[None]
    values = np.sqrt(np.where(k == 0, 1 / 8, 2 / 8)) * np.cos((2 * i + 1) * k * np.pi / 16)
    return values.astype(_F)


_BASIS = _basis()


def into_frequencies(plane: np.ndarray) -> np.ndarray:
    """DCT of all blocks of a plane (h, w), multiples of 8, float32.

    Returns:
        (h, w): of block n in a row of blocks the coefficient (vertical k, horizontal j) lies at [j, 8 * n + k].
    """
    rows = plane.reshape(-1, SIDE, plane.shape[1])
    return _transformed(_turned(_transformed(rows))).reshape(plane.shape)


def out_of_frequencies(coefficients: np.ndarray) -> np.ndarray:
    """The inverse of `into_frequencies`."""
    rows = coefficients.reshape(-1, SIDE, coefficients.shape[1])
    return _restored(_turned(_restored(rows))).reshape(coefficients.shape)


def shrunken(plane: np.ndarray, steps: np.ndarray, pilot: np.ndarray | None = None) -> np.ndarray:
    """Mean over shifted grids of blocks whose DCT coefficients are shrunken (Nosratinia 2001; Foi et al. 2007, 5).

    Args:
        plane: (h, w) float32.
        steps: (8, 8) float32 by vertical and horizontal frequency: without a pilot, smaller coefficients become 0.
        pilot: a first estimate of the same plane. With it, a coefficient is multiplied by p^2 / (p^2 + step^2), where p
            is the pilot's.
    """
    given = np.pad(plane, _MARGIN, "symmetric")
    beside = _NO_PILOT if pilot is None else np.pad(pilot, _MARGIN, "symmetric")
    limits = np.array(steps.T, _F, order="C")
    limits[0, 0] = 0
    total, weight = np.empty_like(given), np.empty_like(given)
    if kernels.usable(plane.size):
        from qatie_cli.kernels import blocks

        blocks.shrunken(given, beside, limits, _BASIS, total, weight)
    else:
        _shrink(given, beside, limits, total, weight)
    inside = slice(8, 8 + plane.shape[0]), slice(8, 8 + plane.shape[1])
    return total[inside] / weight[inside]


def projected(plane: np.ndarray, numbers: np.ndarray, steps: np.ndarray, reach: float) -> np.ndarray:
    """A plane whose DCT coefficients lie within `reach` steps of `numbers` times their steps.

    Args:
        plane: (h, w) float32, multiples of 8.
        numbers: (h, w) float32, ordered as those of `into_frequencies`.
        steps: (8, 8) float32 by vertical and horizontal frequency.
    """
    limits = np.ascontiguousarray(steps.T, _F)
    if kernels.usable(plane.size):
        from qatie_cli.kernels import blocks

        out = np.empty_like(plane)
        blocks.projected(np.ascontiguousarray(plane), numbers, limits, _BASIS, _F(reach), out)
        return out
    every = np.tile(limits, (plane.shape[0] // SIDE, plane.shape[1] // SIDE))
    low, high = (numbers - _F(reach)) * every, (numbers + _F(reach)) * every
    return out_of_frequencies(np.minimum(np.maximum(into_frequencies(plane), low), high))


def _shrink(plane: np.ndarray, pilot: np.ndarray, limits: np.ndarray, total: np.ndarray, weight: np.ndarray) -> None:
    """As `kernels.blocks.shrunken`."""
    height, width = plane.shape
    total[:] = weight[:] = 0
    for shift in range(_SHIFTS):
        left = shift * _STEP % SIDE
        count, bottom = (width - left) // SIDE * SIDE, shift + (height - shift) // SIDE * SIDE
        part = slice(shift, bottom), slice(left, left + count)
        shape = (-1, SIDE, count)
        found = into_frequencies(np.ascontiguousarray(plane[part])).reshape(shape)
        limit = np.tile(limits, count // SIDE)
        if pilot.size:
            power = into_frequencies(np.ascontiguousarray(pilot[part])).reshape(shape) ** 2 + _F(1e-6)
            share = power / (power + limit * limit)
        else:
            share = (np.abs(found) >= limit).astype(_F)
        squares = share * share
        kept = squares[:, 0]
        for j in range(1, SIDE):
            kept = kept + squares[:, j]
        by_block = kept.reshape(len(kept), -1, SIDE)
        sums = by_block[..., 0]
        for k in range(1, SIDE):
            sums = sums + by_block[..., k]
        weights = np.repeat(_F(1) / sums, SIDE, axis=1)[:, None]
        blocks = out_of_frequencies((found * share).reshape(-1, count)).reshape(shape)
        total[part] += (weights * blocks).reshape(-1, count)
        weight[part] += np.broadcast_to(weights, blocks.shape).reshape(-1, count)


def _turned(rows: np.ndarray) -> np.ndarray:
    """Each block of (n, 8, w) transposed."""
    return rows.reshape(len(rows), SIDE, -1, SIDE).transpose(0, 3, 2, 1).reshape(rows.shape)


def _transformed(x: np.ndarray) -> np.ndarray:
    """DCT along axis 1 of (n, 8, w)."""
    out = np.empty_like(x)
    opposite = x[:, :3:-1]
    halves = x[:, :4] + opposite, x[:, :4] - opposite
    for k in range(SIDE):
        out[:, k] = _mixed(halves[k % 2], _BASIS[k])
    return out


def _restored(x: np.ndarray) -> np.ndarray:
    """The inverse of `_transformed`."""
    out = np.empty_like(x)
    for i in range(4):
        even, odd = (_mixed(x[:, half::2], _BASIS[half::2, i]) for half in range(2))
        out[:, i], out[:, 7 - i] = even + odd, even - odd
    return out


def _mixed(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return ((x[:, 0] * weights[0] + x[:, 1] * weights[1]) + x[:, 2] * weights[2]) + x[:, 3] * weights[3]
