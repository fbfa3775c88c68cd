"""A photo seen in sRGB through its tone map, region by region: the whole photo is never held in float."""

from __future__ import annotations

import numpy as np

from qatie_cli.engines import Engine
from qatie_cli.enhance import tiling
from qatie_cli.enhance.guided import GuidedResidual
from qatie_cli.enhance.tiling import Region
from qatie_cli.enhance.toned_rows import ToneRows
from qatie_cli.model import view
from qatie_cli.model.config import SIZE_MULTIPLE
from qatie_cli.model.moments import Tile
from qatie_cli.photo.colour import Colours


class TonedPhoto:
    """A photo in sRGB behind its tone stage.

    Args:
        pixels: (H, W, 3) uint8 or uint16, encoded as `colours` says, in sRGB if that is None.
        engine: its tone stage decides the tone map, once, from the whole photo.
    """

    def __init__(self, pixels: np.ndarray, engine: Engine, colours: Colours | None) -> None:
        self.pixels, self.colours = np.ascontiguousarray(pixels), colours
        self.photo_height, self.photo_width = pixels.shape[:2]
        self.height, self.width = (-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in pixels.shape[:2])
        seen = pixels if colours is None else _overview(pixels, colours)
        decided = None if engine.tone is None else engine.tone(seen)
        self._tone = ToneRows.of(decided, int(np.iinfo(pixels.dtype).max) + 1, pixels.shape[:2])

    def rows(self, region: Region) -> np.ndarray:
        """A region inside the photo, toned: (rows, columns, 3) float32 in 0..1."""
        return self._tone.floats(*self._in_srgb(region), region.place)

    def contrasted(self, rows: np.ndarray, region: Region) -> np.ndarray:
        """Enhanced rows of a region in sRGB, (h, w, 3) float32 in 0..1, with the local contrast that is decided."""
        return self._tone.contrasted(rows, region)

    def finish(self, region: Region, residual: np.ndarray, strength: float, out: np.ndarray) -> None:
        """A region toned, plus `residual` (rows, columns, 3) float32, with local contrast, into its place in `out`.

        It is blended with the photo. Only for a photo in sRGB; `out` is shaped and typed as it.
        """
        self._tone.finished(self.pixels, region, residual, strength, out)

    def finish_by(self, guided: GuidedResidual, strength: float, out: np.ndarray) -> None:
        """The whole photo toned, plus the residual that it guides; else as `finish`."""
        self._tone.finished_by(self.pixels, guided, strength, out)

    def _in_srgb(self, region: Region) -> tuple[np.ndarray, Region]:
        """Where the sRGB values of a region are found: in the photo, or converted."""
        if self.colours is None:
            return self.pixels, region
        return self.colours.to_srgb(region.of(self.pixels)), Region(0, region.height, 0, region.width)

    def _pieces(self, region: Region, multiple: int = 1) -> list[tuple[int, int]]:
        """(first, last) of the rows that pass at a time: all, but where colours are converted, which takes memory."""
        if self.colours is None:
            return [(0, region.height)]
        return tiling.strips(0, region.height, region.width, converted=True, multiple=multiple)

    def strips(self, top: int, bottom: int, width: int, at_once: int = 1) -> list[tuple[int, int]]:
        """Strips of a convenient height for `rows`; see `tiling.strips`."""
        return tiling.strips(top, bottom, width, converted=self.colours is not None, at_once=at_once)

    def network_input(self, tile: Tile) -> np.ndarray:
        """What the network sees of a tile, (h, w, 3) uint8: the photo's right and bottom edges fill up its sides."""
        top, bottom, left, right = tile.seen
        seen = np.empty((bottom - top, right - left, 3), np.uint8)
        height, width = min(bottom, self.photo_height), min(right, self.photo_width)
        inside = Region(top, height, left, width)
        for first, last in self._pieces(inside):
            rows = inside.rows(first, last)
            self._tone.rounded(*self._in_srgb(rows), rows.place, seen[first:last])
        seen[: height - top, width - left :] = seen[: height - top, width - left - 1 : width - left]
        seen[height - top :] = seen[height - top - 1]
        return seen

    def reduced(self, factor: int) -> np.ndarray:
        """The whole photo as means of factor x factor pixels: (h, w, 3) uint8, sides multiples of 8.

        The photo's right and bottom edges are repeated as far as that takes.
        """
        height, width = self.photo_height, self.photo_width
        sides = [-(-side // (factor * SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in (height, width)]
        out = np.empty((*sides, 3), np.uint8)
        whole = Region(0, height, 0, width)
        for first, last in self._pieces(whole, factor):
            rows = whole.rows(first, last)
            self._tone.means(*self._in_srgb(rows), rows.place, factor, out[first // factor :])
        covered = -(-height // factor)
        out[covered:] = out[covered - 1]
        return out


def _overview(pixels: np.ndarray, colours: Colours) -> np.ndarray:
    """A photo in another space, in sRGB: small enough to be converted at once, large enough for the tone stage."""
    return colours.to_srgb(view.reduced(pixels))
