"""One photo in, one enhanced photo out."""

from __future__ import annotations

import numpy as np

from qatie_cli import tone
from qatie_cli.engines import Engine
from qatie_cli.network import SIZE_MULTIPLE

STRIP_PIXELS = 1 << 18  # full-size work is done in strips of about this size: they stay in the processor's cache


def enhance(pixels: np.ndarray, engine: Engine, strength: float = 1.0) -> np.ndarray:
    """Enhance a photo.

    Args:
        pixels: (H, W, 3) uint8 or uint16, sRGB-encoded, upright; any size.
        strength: 0..1 blends with the photo; at 0 the result equals it.

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
    features = engine.network.features(_network_input(toned))
    height, width = pixels.shape[:2]
    out = np.empty_like(pixels)
    top_level = np.float32(np.iinfo(pixels.dtype).max)
    for top, bottom in _strips(height, width):
        # The tail works on even rows; a last odd row has its partner in the padding.
        residual = engine.network.residual(features, top, bottom + bottom % 2)[: bottom - top, :width]
        result = np.clip(toned.rows(top, bottom) + residual, 0, 1)
        result *= top_level
        if strength < 1:
            source = pixels[top:bottom]
            result = source + np.float32(strength) * (result - source)
        np.rint(result, out=result)
        out[top:bottom] = result
    return out


class _Toned:
    """A photo seen through its tone map, row by row: never held whole in float."""

    def __init__(self, pixels: np.ndarray, engine: Engine) -> None:
        self.pixels = pixels
        seen = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
        decided = tone.decide(engine.tone, seen)
        self.levels = int(np.iinfo(pixels.dtype).max) + 1
        self.table = None if decided is None else decided.table(self.levels)

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Rows top..bottom, (rows, W, 3) float32 in 0..1."""
        rows = self.pixels[top:bottom]
        if self.table is None:
            return rows / np.float32(self.levels - 1)
        return tone.apply_table(rows, self.table)


def _network_input(toned: _Toned) -> np.ndarray:
    """The toned photo in 8 bit, its right and bottom edges repeated up to multiples of 8."""
    height, width = toned.pixels.shape[:2]
    padded_height, padded_width = (-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in (height, width))
    seen = np.empty((padded_height, padded_width, 3), np.uint8)
    for top, bottom in _strips(height, width):
        rows = toned.rows(top, bottom)
        rows *= np.float32(255)
        np.rint(rows, out=rows)
        seen[top:bottom, :width] = rows
    seen[:height, width:] = seen[:height, width - 1 : width]
    seen[height:] = seen[height - 1 : height]
    return seen


def _strips(height: int, width: int) -> list[tuple[int, int]]:
    """Top and bottom of strips that cover `height` rows; every top is even."""
    rows = max(2, STRIP_PIXELS // width // 2 * 2)
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]
