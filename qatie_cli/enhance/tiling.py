"""The residual of a photo, computed whole or in tiles that share the whole photo's statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from qatie_cli.engines import Features, ResidualNetwork
from qatie_cli.enhance import memory
from qatie_cli.model.moments import Moments, Tile, of_tiles, tiles

STRIP_PIXELS = 1 << 18  # about what stays in the processor's cache
CONVERTED_STRIP_PIXELS = 1 << 20  # with colour conversion, whose setup takes milliseconds


Place = tuple[int, int]  # row and column


@dataclass(frozen=True)
class Region:
    """A rectangle of a photo in pixels; bottom and right are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def place(self) -> Place:
        """Its first row and column."""
        return self.top, self.left

    @property
    def pixels(self) -> int:
        """Rows times columns."""
        return self.height * self.width

    def rows(self, first: int, last: int) -> Region:
        """Its own rows first..last."""
        return Region(self.top + first, self.top + last, self.left, self.right)

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """This part of `pixels` (H, W, ...); a view."""
        return pixels[self.top : self.bottom, self.left : self.right]


class Seen(Protocol):
    """A photo as the network sees it; height and width are multiples of 8."""

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Columns."""

    def network_input(self, tile: Tile) -> np.ndarray:
        """What the network sees of a tile, halo included: (h, w, 3) uint8, C-contiguous."""


@dataclass(frozen=True)
class SeenPixels:
    """Pixels (h, w, 3) uint8, shown to the network as they are."""

    pixels: np.ndarray

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

    def network_input(self, tile: Tile) -> np.ndarray:
        """The pixels of a tile."""
        top, bottom, left, right = tile.seen
        return np.ascontiguousarray(self.pixels[top:bottom, left:right])


def strips(
    top: int, bottom: int, width: int, converted: bool = False, multiple: int = 2, at_once: int = 1
) -> list[tuple[int, int]]:
    """(top, bottom) of strips that cover the rows top..bottom; all but the last have a multiple of `multiple` rows.

    Each is `at_once` as large as one that stays in the processor's cache.
    """
    pixels = (CONVERTED_STRIP_PIXELS if converted else STRIP_PIXELS) * at_once
    rows = max(1, pixels // width // multiple) * multiple
    return [(first, min(first + rows, bottom)) for first in range(top, bottom, rows)]


def tiled(network: ResidualNetwork[Features], seen: Seen, tile_side: int | None) -> Iterator[tuple[Tile, Features]]:
    """Features of the whole photo at once (`tile_side` is None), or tile by tile."""
    height, width = seen.height, seen.width
    if tile_side is None:
        whole = Tile((0, height, 0, width), (0, height, 0, width))
        yield whole, network.features(seen.network_input(whole))
        return
    parts = tiles(height, width, tile_side)

    def features(tile: Tile, moments: Moments) -> Features:
        memory.give_free_memory_back()  # between tiles malloc kept up to 200 MB
        return network.features(seen.network_input(tile), moments)

    moments = of_tiles(parts, features)
    for tile in parts:
        yield tile, features(tile, moments)


def residual_of(network: ResidualNetwork[Features], pixels: np.ndarray, tile_side: int | None) -> np.ndarray:
    """Residual (h, w, 3) float32 of `pixels` (h, w, 3) uint8, whose sides are multiples of 8."""
    out = np.empty(pixels.shape, np.float32)
    for tile, features in tiled(network, SeenPixels(pixels), tile_side):
        top, bottom, left, right = tile.core
        bottom, right = min(bottom, pixels.shape[0]), min(right, pixels.shape[1])
        columns = slice(left - tile.seen[2], right - tile.seen[2])
        for first, last in strips(top, bottom, right - left, at_once=network.strips_at_once):
            part = network.residual(features, first - tile.seen[0], last - tile.seen[0])
            out[first:last, left:right] = part[:, columns]
    return out
