"""One photo in, one enhanced photo out."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from qatie_cli import tone
from qatie_cli.engines import Engine
from qatie_cli.moments import Moments, Tile, of_tiles, tiles
from qatie_cli.network import SIZE_MULTIPLE

STRIP_PIXELS = 1 << 18  # full-size work is done in strips of about this size: they stay in the processor's cache


def enhance(pixels: np.ndarray, engine: Engine, strength: float = 1.0, tile_side: int | None = None) -> np.ndarray:
    """Enhance a photo.

    Args:
        pixels: (H, W, 3) uint8 or uint16, sRGB-encoded, upright; any size.
        strength: 0..1 blends with the photo; at 0 the result equals it.
        tile_side: a multiple of 8, to work in tiles of that side, whose norms share the whole photo's statistics; the
            result is the same within a rounding step, memory is bounded, and it takes about four times as long. None
            works on the whole photo at once.

    Returns:
        (H, W, 3) of the same type: the photo, toned, plus the network's residual (paper, decoder), clamped. A 16-bit
        photo keeps its precision: only what the networks look at is 8 bit.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"a photo is (H, W, 3) uint8 or uint16, not {pixels.shape} {pixels.dtype}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength lies in 0..1, not {strength}")
    if strength == 0:
        return pixels.copy()
    toned = _Toned(pixels, engine)
    height, width = (-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in pixels.shape[:2])
    out = np.empty_like(pixels)
    if tile_side is None:
        whole = Tile((0, height, 0, width), (0, height, 0, width))
        _finish(toned, engine, whole, engine.network.features(toned.network_input(whole)), strength, out)
        return out
    parts = tiles(height, width, tile_side)

    def features(tile: Tile, moments: Moments) -> Tensor:
        return engine.network.features(toned.network_input(tile), moments)

    moments = of_tiles(parts, features)
    for tile in parts:
        _finish(toned, engine, tile, features(tile, moments), strength, out)
    return out


def _finish(toned: _Toned, engine: Engine, tile: Tile, features: Tensor, strength: float, out: np.ndarray) -> None:
    """Turn a tile's features into its core's part of `out`."""
    height, width = out.shape[:2]
    top_level = np.float32(np.iinfo(out.dtype).max)
    left, right = tile.core[2], min(tile.core[3], width)
    columns = slice(left - tile.seen[2], right - tile.seen[2])
    for top, bottom in _strips(tile.core[0], min(tile.core[1], height), right - left):
        # The tail works on even rows; a last odd row has its partner in the padding.
        first, last = top - tile.seen[0], bottom + bottom % 2 - tile.seen[0]
        residual = engine.network.residual(features, first, last)[: bottom - top, columns]
        result = np.clip(toned.rows(top, bottom, left, right) + residual, 0, 1)
        result *= top_level
        if strength < 1:
            source = toned.pixels[top:bottom, left:right]
            result = source + np.float32(strength) * (result - source)
        np.rint(result, out=result)
        out[top:bottom, left:right] = result


class _Toned:
    """A photo seen through its tone map, part by part: never held whole in float."""

    def __init__(self, pixels: np.ndarray, engine: Engine) -> None:
        self.pixels = pixels
        decided = tone.decide(engine.tone, pixels)
        self.levels = int(np.iinfo(pixels.dtype).max) + 1
        self.table = None if decided is None else decided.table(self.levels)

    def rows(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """The part top..bottom, left..right of the photo, (rows, columns, 3) float32 in 0..1."""
        part = self.pixels[top:bottom, left:right]
        if self.table is None:
            return part / np.float32(self.levels - 1)
        return tone.apply_table(part, self.table)

    def network_input(self, tile: Tile) -> np.ndarray:
        """What is seen of a tile, toned, in 8 bit; the photo's right and bottom edges are repeated up to its sides."""
        top, bottom, left, right = tile.seen
        seen = np.empty((bottom - top, right - left, 3), np.uint8)
        height, width = (min(edge, side) for edge, side in zip((bottom, right), self.pixels.shape, strict=False))
        for first, last in _strips(top, height, right - left):
            part = self.rows(first, last, left, width)
            part *= np.float32(255)
            np.rint(part, out=part)
            seen[first - top : last - top, : width - left] = part
        seen[: height - top, width - left :] = seen[: height - top, width - left - 1 : width - left]
        seen[height - top :] = seen[height - top - 1]
        return seen


def _strips(top: int, bottom: int, width: int) -> list[tuple[int, int]]:
    """Top and bottom of strips that cover the rows top..bottom; every strip's top is even if `top` is."""
    rows = max(2, STRIP_PIXELS // width // 2 * 2)
    return [(first, min(first + rows, bottom)) for first in range(top, bottom, rows)]
