"""Mean and variance of feature channels over a whole photo, even in tiles.

The norms of the network (paper, refinement block) take their statistics from the image they are given. A tile
normalized by its own would change its tone, so tiles share those of the whole photo: each norm's sums are gathered over
all tiles before any tile passes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from qatie_cli import kernels
from qatie_cli.kernels.threads import over_rows

# Full-size pixels that one pixel of the residual depends on, to each side, norms aside. From the photo to the features:
# a stride-2 convolution at S, three 3x3 convolutions at S/2, a stride-2 one, three at S/4, three at S/8, two
# upsampling ones, three more at S/4 and at S/2, and the tail: 71, and 80 in multiples of what three halvings need.
HALO = 80
_ROWS = 64  # summed at a time without numba; they fit the processor's cache


class Moments(Protocol):
    """Where a norm's mean and variance come from."""

    def __call__(self, name: str, x: Any, sums: Callable[[Any], Sums] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and biased variance (C) float64 for the norm of block `name`.

        Args:
            x: what it normalizes, (h, w, C); an array of uint8, or whatever `sums` can sum.
            sums: of x or of a part of it; None is `Sums.of`.
        """


@dataclass(frozen=True)
class Sums:
    """Number of values, their sum and the sum of their squares; the latter two (C) float64."""

    count: int
    total: np.ndarray
    squares: np.ndarray

    @staticmethod
    def of(x: np.ndarray) -> Sums:
        """Sums over the pixels of x (h, w, C) uint8: exact, so that a photo and its tiles have equal moments."""
        values = np.ascontiguousarray(x)
        parts: list[np.ndarray] = []
        if kernels.usable(0):
            from qatie_cli.kernels import features

            def add(first: int, last: int) -> None:
                parts.append(features.sums(values, first, last))

            over_rows(values.shape[0], values.size, add)
        else:
            for first in range(0, values.shape[0], _ROWS):
                rows = values[first : first + _ROWS].reshape(-1, values.shape[2]).astype(np.uint32)
                parts.append(np.stack([rows.sum(0, dtype=np.int64), np.square(rows).sum(0, dtype=np.int64)]))
        total, squares = functools.reduce(np.add, parts).astype(np.float64)
        return Sums(values.shape[0] * values.shape[1], total, squares)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def mean_variance(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and biased variance (C)."""
        mean = self.total / self.count
        return mean, np.maximum(self.squares / self.count - mean * mean, 0)


def of_whole(name: str, x: Any, sums: Callable[[Any], Sums] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The moments of x itself, for a whole photo."""
    return (sums or Sums.of)(x).mean_variance()


@dataclass(frozen=True)
class Tile:
    """A part of a photo, in pixels: `core` is its own, `seen` takes in the halo; (top, bottom, left, right) each."""

    core: tuple[int, int, int, int]
    seen: tuple[int, int, int, int]

    def core_of(self, x: Any) -> Any:
        """The core's part of an array or a tensor (h, w, C) made of what is seen, at whatever scale."""
        scale = (self.seen[1] - self.seen[0]) // x.shape[0]
        top, bottom = ((edge - self.seen[0]) // scale for edge in self.core[:2])
        left, right = ((edge - self.seen[2]) // scale for edge in self.core[2:])
        return x[top:bottom, left:right]


def tiles(height: int, width: int, side: int) -> list[Tile]:
    """Tiles of at most `side` pixels a side, without their halo, that cover a photo; all numbers multiples of 8."""
    return [
        Tile(
            (top, min(top + side, height), left, min(left + side, width)),
            (
                max(0, top - HALO),
                min(top + side + HALO, height),
                max(0, left - HALO),
                min(left + side + HALO, width),
            ),
        )
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


class _NotKnownError(Exception):
    """A tile has come to a norm whose moments are not known yet; `sums` are those of the tile's core."""

    def __init__(self, name: str, sums: Sums) -> None:
        super().__init__(name)
        self.name, self.sums = name, sums


def of_tiles(parts: Sequence[Tile], run: Callable[[Tile, Moments], object]) -> Moments:
    """The moments of the whole photo, gathered tile by tile.

    Norms follow each other, so all tiles are run up to the first, then up to the second, and so on. Nothing is kept
    between these rounds: it costs about two and a half more passes and no memory.

    Args:
        run: computes the features of a tile with the moments it is given.
    """
    known: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def moments(tile: Tile) -> Moments:
        def look_up(name: str, x: Any, sums: Callable[[Any], Sums] | None = None) -> tuple[np.ndarray, np.ndarray]:
            if name not in known:
                raise _NotKnownError(name, (sums or Sums.of)(tile.core_of(x)))
            return known[name]

        return look_up

    while True:
        gathered = None
        for tile in parts:
            try:
                run(tile, moments(tile))
            except _NotKnownError as reached:
                name = reached.name
                gathered = reached.sums if gathered is None else gathered + reached.sums
            else:
                return moments(tile)
        assert gathered is not None, "there is no tile"
        known[name] = gathered.mean_variance()
