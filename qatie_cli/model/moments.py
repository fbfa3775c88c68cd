"""Mean and variance of feature channels, over a whole photo even when it is worked on in tiles.

The norms of the network (paper, refinement block) take their statistics from the image they are given. A tile
normalized by its own would change its tone, so tiles share those of the whole photo: each norm's sums are gathered over
all tiles before any tile passes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from qatie_cli import kernels
from qatie_cli.kernels.threads import over_rows

# Full-size pixels that one pixel of the residual depends on, to each side, norms aside. From the photo to the features:
# a stride-2 convolution at S, three 3x3 convolutions at S/2, a stride-2 one, three at S/4, three at S/8, two
# upsampling ones, three more at S/4 and at S/2, and the tail: 71, and 80 in multiples of what three halvings need.
HALO = 80
_EXACT_GROUP = 1024  # pixels
_CHUNK_VALUES = 1 << 19  # summed at a time: they stay in the processor's cache


class Moments(Protocol):
    """Where a norm's mean and variance come from."""

    def __call__(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (C) float64 for the norm of block `name`, which normalizes x (1, C, h, w)."""


@dataclass(frozen=True)
class Sums:
    """Number of values, their sum and the sum of their squares; the latter two (C) float64."""

    count: int
    total: Tensor
    squares: Tensor

    @staticmethod
    def of(x: Tensor) -> Sums:
        """Sums over the pixels of x (1, C, h, w), float or uint8; fastest where channels lie side by side in memory.

        Those of uint8 are exact, so that a photo and its tiles have the very same moments: squares of values between
        -128 and 127 fit float32's 24 bits in groups of 1024.
        """
        if x.dtype == torch.uint8 and kernels.usable(0):
            return _exact_sums(x)
        channels = x.shape[1]
        pixels = x[0].permute(1, 2, 0).reshape(-1, channels)
        middle = 128.0 if x.dtype == torch.uint8 else 0.0
        whole = len(pixels) // _EXACT_GROUP * _EXACT_GROUP
        groups = list(
            pixels[:whole].view(-1, _EXACT_GROUP, channels).split(max(1, _CHUNK_VALUES // (_EXACT_GROUP * channels)))
        )
        if whole < len(pixels):
            groups.append(pixels[None, whole:])
        total, squares = torch.zeros(2, channels, dtype=torch.float64)
        for chunk in groups:
            values = chunk.float() - middle
            total += values.sum(1).double().sum(0)
            squares += values.square().sum(1).double().sum(0)
        count = len(pixels)
        return Sums(count, total + middle * count, squares + 2 * middle * total + middle**2 * count)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def mean_variance(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (C)."""
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean * mean).clamp_(min=0)


def _exact_sums(x: Tensor) -> Sums:
    """`Sums.of` uint8, in integers."""
    from qatie_cli.kernels import features

    values = np.ascontiguousarray(x[0].permute(1, 2, 0).numpy())
    parts: list[np.ndarray] = []
    over_rows(values.shape[0], values.size, lambda first, last: parts.append(features.sums(values, first, last)))
    total, squares = torch.from_numpy(sum(parts)).double()
    return Sums(values.shape[0] * values.shape[1], total, squares)


def of_whole(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The moments of what is given: right where that is the whole photo."""
    return Sums.of(x).mean_variance()


@dataclass(frozen=True)
class Tile:
    """A part of a photo, in pixels: `core` is its own, `seen` takes in the halo; (top, bottom, left, right) each."""

    core: tuple[int, int, int, int]
    seen: tuple[int, int, int, int]

    def core_of(self, x: Tensor) -> Tensor:
        """The core's part of a tensor (1, C, h, w) made of what is seen, at whatever scale."""
        scale = (self.seen[1] - self.seen[0]) // x.shape[2]
        top, bottom = ((edge - self.seen[0]) // scale for edge in self.core[:2])
        left, right = ((edge - self.seen[2]) // scale for edge in self.core[2:])
        return x[:, :, top:bottom, left:right]


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
    known: dict[str, tuple[Tensor, Tensor]] = {}

    def moments(tile: Tile) -> Moments:
        def look_up(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
            if name not in known:
                raise _NotKnownError(name, Sums.of(tile.core_of(x)))
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
        known[name] = gathered.mean_variance()
