"""A photo seen in sRGB through its tone map, region by region: the whole photo is never held in float."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from qatie_cli.engines import Engine
from qatie_cli.enhance import tiling
from qatie_cli.model import tone
from qatie_cli.model.moments import Tile
from qatie_cli.model.network import SIZE_MULTIPLE
from qatie_cli.photo.colour import Colours


@dataclass(frozen=True)
class Region:
    """A rectangle of a photo in pixels; bottom and right are exclusive."""

    top: int
    bottom: int
    left: int
    right: int


class TonedPhoto:
    """A photo in sRGB behind its tone stage.

    Args:
        pixels: (H, W, 3) uint8 or uint16, encoded as `colours` says, in sRGB if that is None.
        engine: its tone stage decides the tone map, once, from the whole photo.
    """

    def __init__(self, pixels: np.ndarray, engine: Engine, colours: Colours | None) -> None:
        self.pixels, self.colours = pixels, colours
        self.photo_height, self.photo_width = pixels.shape[:2]
        self.height, self.width = (-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in pixels.shape[:2])
        self._white = int(np.iinfo(pixels.dtype).max)
        decided = tone.decide(engine.tone, pixels if colours is None else _overview(pixels, colours))
        self._table = None if decided is None else decided.table(self._white + 1)

    def rows(self, region: Region) -> np.ndarray:
        """A region inside the photo, toned: (rows, columns, 3) float32 in 0..1."""
        part = self.pixels[region.top : region.bottom, region.left : region.right]
        if self.colours is not None:
            part = self.colours.to_srgb(part)
        return self._toned(part, region)

    def _toned(self, part: np.ndarray, region: Region) -> np.ndarray:
        """`part` (rows, columns, 3), the sRGB values at `region` of a photo of photo_height x photo_width, toned.

        Every toned value comes from here, so a stage that depends on the place in the photo belongs here.
        """
        del region  # the global tone map is the same everywhere
        if self._table is None:
            return part / np.float32(self._white)
        return tone.apply_table(part, self._table)

    def strips(self, top: int, bottom: int, width: int) -> list[tuple[int, int]]:
        """Strips of a convenient height for `rows`; see `tiling.strips`."""
        return tiling.strips(top, bottom, width, converted=self.colours is not None)

    def network_input(self, tile: Tile) -> np.ndarray:
        """What the network sees of a tile, (h, w, 3) uint8: the photo's right and bottom edges fill up its sides."""
        top, bottom, left, right = tile.seen
        seen = np.empty((bottom - top, right - left, 3), np.uint8)
        height, width = min(bottom, self.photo_height), min(right, self.photo_width)
        for first, last in self.strips(top, height, right - left):
            part = self.rows(Region(first, last, left, width))
            part *= np.float32(255)
            np.rint(part, out=part)
            seen[first - top : last - top, : width - left] = part
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
        rows = factor * max(1, tiling.STRIP_PIXELS // width // factor)
        for top in range(0, height, rows):
            part = self.rows(Region(top, min(top + rows, height), 0, width))
            margin = [(0, -part.shape[0] % factor), (0, factor * sides[1] - width), (0, 0)]
            part = np.pad(part, margin, mode="edge")
            means = torch.from_numpy(part).permute(2, 0, 1)[None]
            means = F.avg_pool2d(means, factor)[0].permute(1, 2, 0).mul_(255).round_()
            first = top // factor
            out[first : first + means.shape[0]] = means.numpy()
        covered = -(-height // factor)
        out[covered:] = out[covered - 1]
        return out


def _overview(pixels: np.ndarray, colours: Colours) -> np.ndarray:
    """A photo in another space, in sRGB: small enough to be converted at once, large enough for the tone stage."""
    return colours.to_srgb(tone.reduced(pixels))
